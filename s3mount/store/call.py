"""What the decorators around the wire (limit.py, retry.py) pass along: one request to be made."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from s3mount.store.request import Answer, Request

T = TypeVar("T")

# Slower than this a transfer counts as stuck: 16 parts at once over a line of 0.5 MB/s.
SLOWEST_RATE = 32 * 1024  # bytes per second


class Lane(StrEnum):
    """Requests of different lanes never wait for one another's threads (ruling 1)."""

    METADATA = "metadata"  # HEAD, LIST
    READ = "read"  # GET
    MUTATION = "mutation"  # small PUT, copy, delete, create, complete, abort
    TRANSFER = "transfer"  # parts, large PUTs


@dataclass(frozen=True, slots=True)
class Quick(Generic[T]):
    """The request itself and what is made of a 2xx answer to it, for a way without threads: both
    are called in the loop."""

    build: Callable[[], Request]
    parse: Callable[[Answer], T]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """`run(deadline)` makes one attempt in a thread; `deadline` is of time.monotonic().

    `mutates`: it may change the bucket and may read a body that its caller owns, so it is not
    abandoned by a cancelled caller. `size` is that of the bodies: they may take longer.
    """

    operation: str
    key: str
    lane: Lane
    run: Callable[[float], T]
    mutates: bool = False
    size: int = 0
    patience: float = 0.0  # seconds that the service itself may need on top
    quick: Quick[T] | None = None


class Budget:
    """The seconds that a call with all its attempts may still take; waiting for a thread is
    free."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def spend(self, seconds: float) -> None:
        self.left -= seconds


class Attempts(Protocol):
    """One attempt of a call."""

    async def attempt(self, call: Call[T], budget: Budget) -> T: ...


class Performer(Protocol):
    """A call with whatever it takes."""

    async def perform(self, call: Call[T]) -> T: ...
