"""Names: many, odd, of others."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mounts.programs.job import Job, program, run
from tests.mounts.trees import MIB, data

NOBODY = 65534


@program
def many_entries(job: Job) -> None:
    """10,000 entries"""
    names = [f"entry-{number:05}" for number in range(10_000)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: os.mknod(job.place / name, 0o600), names))
    assert run("find", job.place, "-type", "f", "-perm", "600", "-printf", ".") == "." * 10_000
    (job.place / names[77]).write_text("77")
    with os.scandir(job.place) as found:
        # Removed while it is read: what stays is seen once.
        seen = []
        for number, entry in enumerate(found):
            seen.append(entry.name)
            if number == 5000:
                for name in names[9000:]:
                    (job.place / name).unlink()
    assert len(seen) == len(set(seen))
    assert set(names[:9000]) <= set(seen)
    run("find", job.place, "-name", "entry-0[1-9]*", "-delete")
    run("find", job.place, "-name", "entry-00[1-9]*", "-delete")
    assert sorted(os.listdir(job.place)) == names[:100]
    assert (job.place / names[77]).read_text() == "77"


ODD_NAMES = [
    "with blank",
    " leading and trailing ",
    "100%",
    "a%41b%2Fc",
    "a%zz",
    "plus+plus",
    "new\nline",
    "back\\slash",
    "-rf",
    "--help",
    "quote'quote\"",
    "?query&a=b;c",
    "#hash",
    "a:b@c,d!e$f(g)*",
    "old_$folder$",
    "~",
    ".hidden",
    "...",
    "tab\ttab",
    "carriage\rreturn",
    "ünïcode",
    "u\u0308 decomposed",
    "日本語",
    "🦆",
    "<xml>&amp;",
    "n" * 255,
    "ü" * 127 + "x",
]


@program
def odd_names(job: Job) -> None:
    """unicode and odd names"""
    is_moto = job.mount.bucket.server.name == "moto"
    # moto answers 404 to a path with a newline.
    names = [name for name in ODD_NAMES if not (is_moto and "\n" in name)]
    for number, name in enumerate(names):
        (job.place / name).write_bytes(data(name, 50 + number))
    assert sorted(os.listdir(job.place)) == sorted(names)
    for number, name in enumerate(names):
        assert (job.place / name).read_bytes() == data(name, 50 + number)
    directory = job.place / "a b%20+ü" / "in side"
    directory.mkdir(parents=True)
    for number, name in enumerate(names):
        (job.place / name).rename(directory / name)
        assert (directory / name).read_bytes() == data(name, 50 + number)
    assert os.listdir(job.place) == ["a b%20+ü"]
    for name in names[::3]:
        os.chmod(directory / name, 0o600)
        (directory / name).unlink()
    # A large one: parts, and a copy of it.
    large = directory / "a%41 large"
    large.write_bytes(data("large", 9 * MIB))
    large.rename(directory / "a%zz large")
    job.mount.flush()
    with (directory / "a%zz large").open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(OSError) as raised:
        (job.place / ("n" * 256)).touch()
    assert raised.value.errno == errno.ENAMETOOLONG
    for raw in (b"latin\xe9", b"\xff"):
        with pytest.raises(OSError) as raised:
            os.close(os.open(os.path.join(os.fsencode(job.place), raw), os.O_CREAT | os.O_WRONLY))
        assert raised.value.errno == errno.EILSEQ


@program
def other_user(job: Job) -> None:
    """permissions, as another user"""
    place = job.place
    (place / "secret").write_text("secret")
    (place / "secret").chmod(0o600)
    (place / "public").write_text("public")
    (place / "closed").mkdir(mode=0o700)
    (place / "closed" / "file").write_text("x")
    (place / "open").mkdir()
    os.chmod(place / "open", 0o1777)
    (place / "open" / "of root").write_text("root's")
    (place / "shared").mkdir()
    os.chown(place / "shared", 0, NOBODY)
    os.chmod(place / "shared", 0o2775)
    script = r"""
    refused() { if "$@" 2>/tmp/refused.$$; then echo "allowed: $*"; exit 1; fi
                grep -q -e 'ermission denied' -e 'not permitted' /tmp/refused.$$
                rm /tmp/refused.$$; }
    [ "$(cat public)" = public ]
    refused cat secret
    refused touch new
    refused ls closed
    refused cat closed/file
    refused rm -f "open/of root"
    refused mv "open/of root" open/mine
    refused chmod 777 public
    refused truncate -s 0 public
    echo mine > open/mine
    mkdir open/directory
    echo x > open/directory/file
    chmod 640 open/mine
    refused chown root open/mine
    echo group > shared/file
    test -O open/mine
    """
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    run(*user, "bash", "-euc", script, cwd=place)
    about = (place / "open" / "mine").stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (NOBODY, NOBODY, 0o640)
    assert (place / "open" / "directory").stat().st_uid == NOBODY
    assert (place / "shared" / "file").stat().st_gid == NOBODY
    assert (place / "open" / "mine").read_text() == "mine\n"
