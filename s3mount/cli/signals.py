"""SIGTERM and SIGHUP as Ctrl-C, for commands that put something in order before they end."""

import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import trio

from s3mount.cli.exits import INTERRUPTED

T = TypeVar("T")

# Seconds: what ends sooner need not be explained.
TELL_AFTER = 1.0


async def until_signal(work: Callable[[], Awaitable[T]], say: Callable[[str], None]) -> T:
    """`work`, cancelled by SIGINT, SIGTERM or SIGHUP: raises KeyboardInterrupt once it has ended.
    A second signal ends the process at once.

    Python's own KeyboardInterrupt may come between any two steps, also where an upload is begun
    and nobody knows of it yet; a cancellation comes only where something is waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        return await work()  # signals are the main thread's
    interrupted = False
    with _heeded(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                async def listen() -> None:
                    nonlocal interrupted
                    async for _ in signals:
                        if interrupted:
                            os._exit(INTERRUPTED)
                        interrupted = True
                        scope.cancel()
                        nursery.start_soon(tell)

                async def tell() -> None:
                    await trio.sleep(TELL_AFTER)
                    say("interrupted: what is on its way is finished first; once more: at once")

                nursery.start_soon(listen)
                result = await work()
            nursery.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt
    return result


def _heeded(*numbers: signal.Signals) -> AbstractContextManager[AsyncIterator[int]]:
    """What was ignored when the command began stays so: nohup(1) has SIGHUP ignored."""
    heeded = [one for one in numbers if signal.getsignal(one) is not signal.SIG_IGN]
    return trio.open_signal_receiver(*heeded) if heeded else nullcontext(_nothing())


async def _nothing() -> AsyncIterator[int]:
    await trio.Event().wait()
    yield 0


@contextmanager
def interrupting() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in here, also within until_signal: for what blocks, as a
    question to the user does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
