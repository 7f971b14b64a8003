"""When the service does not answer, what is known must do (semantics.md: 'network gone')."""

import logging
from collections.abc import Awaitable, Callable

import trio

from s3mount.store.errors import StoreError

log = logging.getLogger(__name__)

# So long a program waits for news of what is known already, if no request at all is answered.
PATIENCE = 2.0
# While nothing is answered: how often somebody waits for news again.
AGAIN = 5.0


class Outage:
    """Watches the namespace's requests; `run_in` is the nursery of its background work."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answered_at = float("-inf")
        self._down_until = float("-inf")
        self.run_in: trio.Nursery | None = None

    def answered(self) -> None:
        """An answer came, of whatever kind."""
        self._answered_at = self._clock()
        self._down_until = float("-inf")

    async def news(self, ask: Callable[[], Awaitable[object]]) -> bool:
        """Asks, and waits for it as long as the service answers anything.

        False: it does not, so what is known must do; the question goes on in the background.
        Other errors than those of an outage are raised.
        """
        now = self._clock()
        if now < self._down_until:
            return False
        if self.run_in is None:
            await ask()
            return True
        question = _Question(ask)
        self.run_in.start_soon(question.put)
        while not question.over.is_set():
            with trio.move_on_after(PATIENCE):
                await question.over.wait()
            if not question.over.is_set() and self._answered_at < now:
                return self._is_down()
            now = self._clock()
        if isinstance(question.error, StoreError) and question.error.transient:
            return self._is_down()
        if question.error is not None:
            raise question.error
        return True

    def _is_down(self) -> bool:
        if self._down_until == float("-inf"):
            log.warning("the service does not answer: showing what is known")
        self._down_until = self._clock() + AGAIN
        return False


class _Question:
    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask
        self.over = trio.Event()
        self.error: Exception | None = None

    async def put(self) -> None:
        try:
            await self._ask()
        except Exception as error:
            self.error = error
        finally:
            self.over.set()
