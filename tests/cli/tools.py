"""The tools without a mount, called as a user calls them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from s3mount.cli.main import main
from tests.mounting import environment
from tests.servers import Bucket


@dataclass(frozen=True)
class Tools:
    """`home` holds the caches."""

    bucket: Bucket
    home: Path

    def run(self, *words: str | Path, answer: str | None = None, status: int = 0) -> Result:
        """The command line in this process; it must end with `status`, and never by surprise."""
        with self._environment():
            result = CliRunner().invoke(main, list(map(str, words)), input=answer)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert "Traceback" not in result.output
        assert result.exit_code == status, result.output
        return result

    def lines(self, *words: str | Path) -> list[str]:
        """What it prints on standard output."""
        return self.run(*words).stdout.splitlines()

    @contextmanager
    def _environment(self) -> Iterator[None]:
        saved = dict(os.environ)
        wanted = environment(self.bucket, self.home)
        try:
            os.environ.clear()
            os.environ.update(wanted)
            yield
        finally:
            os.environ.clear()
            os.environ.update(saved)
