"""A lock of which there are several in every open file."""

import trio


class Lock:
    """Mutual exclusion, first come first served; used by `async with`, not recursively.

    Taking it while it is free is no checkpoint, as it is with trio.Lock: no other task runs in
    between, and closing a small file, which takes five of them, does not go round the loop for
    each. Who waits is handed the lock by whoever has it; if cancelled meanwhile it never had it.
    """

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: trio.lowlevel.ParkingLot | None = None

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        await self._waiting.park()

    async def __aexit__(self, *_: object) -> None:
        if self._waiting:
            self._waiting.unpark()
        else:
            self._held = False
