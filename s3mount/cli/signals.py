"""SIGTERM as Ctrl-C, for commands that have something to put in order before they end."""

import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from s3mount.cli.exits import INTERRUPTED

T = TypeVar("T")


async def until_signal(work: Callable[[], Awaitable[T]], say: Callable[[str], None]) -> T:
    """`work`, cancelled by SIGINT, SIGTERM or SIGHUP: raises KeyboardInterrupt once it has ended.
    A second signal ends the process at once."""
    interrupted = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                async def listen() -> None:
                    nonlocal interrupted
                    async for _ in signals:
                        if interrupted:
                            os._exit(INTERRUPTED)
                        interrupted = True
                        say("interrupted: what is on its way is finished first; once more: at once")
                        scope.cancel()

                nursery.start_soon(listen)
                result = await work()
            nursery.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt
    return result
