"""The S3 store over a MemoryStore's bucket: all of its code but the socket, and faults at will."""

import http.client
import random
from collections.abc import Callable
from typing import TypeVar

import trio
from botocore.credentials import ReadOnlyCredentials
from urllib3 import HTTPHeaderDict
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from s3mount.core.config import StoreConfig
from s3mount.store import base
from s3mount.store.base import ObjectInfo
from s3mount.store.call import Attempts, Budget, Call
from s3mount.store.capabilities import CapabilityProbe
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection, Endpoint
from s3mount.store.exchange import Exchange
from s3mount.store.headers import RequestHeaders
from s3mount.store.limit import Lanes
from s3mount.store.loop_client import LoopClient
from s3mount.store.memory import MemoryStore
from s3mount.store.multipart import MultipartUploads
from s3mount.store.probing import Prober
from s3mount.store.quick_head import QuickHead
from s3mount.store.request import Answer, Request
from s3mount.store.retry import Retrier
from s3mount.store.s3 import S3Store
from s3mount.store.sender import Sender
from s3mount.store.signing import Signer
from s3mount.store.wire import Wire
from tests.counting_proxy import Drop, Fault, Seen, Silence, operation_of
from tests.servers.dialect import Dialect

T = TypeVar("T")

Weather = Callable[[Seen], Fault | None]


class Rotating(Connection):
    """Credentials whose source always has new ones."""

    def __init__(self, config: StoreConfig) -> None:
        super().__init__(config)
        self.turn = 0

    def credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials(f"KEY{self.turn}", "secret", None)

    def reload_credentials(self, refused: ReadOnlyCredentials | None) -> bool:
        self.turn += 1
        return True


class MemoryExchange(Exchange):
    def __init__(
        self, config: StoreConfig, counts: Counts, dialect: Dialect, weather: Weather
    ) -> None:
        super().__init__(config, counts, 1, lambda: None)
        self.dialect = dialect
        self.weather = weather

    def send(
        self,
        pool: HTTPConnectionPool,
        request: Request,
        target: str,
        headers: dict[str, str],
        deadline: float,
    ) -> Answer:
        asked_at = self.dialect.store.monotonic()
        self._counts.add(request.operation)
        body = self._bytes(request)
        lowered = {name.lower(): value for name, value in headers.items()}
        operation = operation_of(request.method, target, lowered)
        seen = Seen(operation, request.method, target, lowered, len(body))
        fault = self.weather(seen) or Fault()
        try:
            reply = None if fault.before is None else fault.before(seen)
            if reply is None:
                if fault.body is not None:
                    body = fault.body(body)
                reply = self.dialect.answer(request.method, target, lowered, body)
                if fault.after is not None:
                    reply = fault.after(seen, reply)
        except Silence as error:
            raise self._translated(ReadTimeoutError(pool, target, "silence"), request) from error
        except Drop as error:
            raise self._translated(ProtocolError("reset"), request) from error
        if reply.sent is not None:
            cut = ProtocolError("cut", http.client.IncompleteRead(reply.body[: reply.sent]))
            raise self._translated(cut, request)
        answered = HTTPHeaderDict(reply.headers)
        if "content-length" not in answered:
            answered["content-length"] = str(len(reply.body))
        status = int(reply.status.split()[0])
        self._counts.add("BytesOut", len(body))
        self._counts.add("BytesIn", len(reply.body))
        return Answer(status, answered, reply.body, asked_at)

    @staticmethod
    def _bytes(request: Request) -> bytes:
        body = request.body
        if isinstance(body, base.SlicedBody):
            return b"".join(body.slices())
        return bytes(body)


class MemoryWire(Wire):
    def __init__(
        self,
        config: StoreConfig,
        connection: Connection,
        counts: Counts,
        dialect: Dialect,
        weather: Weather,
    ) -> None:
        super().__init__(config, connection, counts, 1)
        self.dialect = dialect
        self._exchange = MemoryExchange(config, counts, dialect, weather)
        endpoint = Endpoint("http", "memory", 80, "/b", "us-east-1")
        self._fixed = endpoint, Signer(endpoint.region), HTTPConnectionPool("memory", 80)

    def _routed(self) -> tuple[Endpoint, Signer, HTTPConnectionPool]:
        return self._fixed

    def close(self) -> None:
        pass


class NoQuickHead(QuickHead):
    """All HEADs go by the wire."""

    async def ask(self, request: Request) -> ObjectInfo | None:
        return None


class _Once:
    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def perform(self, call: Call[T]) -> T:
        return await self._attempts.attempt(call, Budget(60.0))


class Delayed:
    """Attempts that take as long as `pause` says, before and after the service has it."""

    def __init__(self, attempts: Attempts, pause: Callable[[], float]) -> None:
        self._attempts = attempts
        self._pause = pause

    async def attempt(self, call: Call[T], budget: Budget) -> T:
        await trio.sleep(self._pause())
        # A thread that changes the bucket is not abandoned (limit.py), so neither is this.
        with trio.CancelScope() as scope:
            scope.shield = call.mutates
            result = await self._attempts.attempt(call, budget)
            await trio.sleep(self._pause())
        return result


def store_in_memory(
    memory: MemoryStore,
    config: StoreConfig,
    weather: Weather = lambda seen: None,
    pause: Callable[[], float] | None = None,
    chance: Callable[[], float] = random.random,
) -> S3Store:
    """As store/open.py does it, but for the wire. Threads as the caller has patched trio."""
    counts = Counts()
    connection = Rotating(config)
    headers = RequestHeaders(config)
    wire = MemoryWire(config, connection, counts, Dialect(memory), weather)
    lanes = Lanes(config, counts)
    attempts: Attempts = lanes if pause is None else Delayed(lanes, pause)
    sender = Sender(wire, Retrier(config, attempts, counts, chance))
    # The questions are put to the service, not to the weather.
    clear = MemoryWire(config, connection, Counts(), wire.dialect, lambda seen: None)
    prober = Prober(config.bucket, Sender(clear, _Once(attempts)), headers)
    probe = CapabilityProbe(config, prober.probe)
    uploads = MultipartUploads(sender, probe, headers)
    quick = NoQuickHead(config, LoopClient(config, connection, wire), counts)
    return S3Store(config, connection, wire, quick, sender, probe, uploads, counts, lanes)
