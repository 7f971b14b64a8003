"""How the S3 store is put together."""

from typing import TypeVar

from s3mount.core.config import StoreConfig
from s3mount.store.base import ObjectStore
from s3mount.store.call import Attempts, Budget, Call
from s3mount.store.capabilities import CapabilityProbe
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection
from s3mount.store.headers import RequestHeaders
from s3mount.store.limit import Lanes, threads
from s3mount.store.loop_client import LoopClient
from s3mount.store.multipart import MultipartUploads
from s3mount.store.probing import Prober
from s3mount.store.quick_head import QuickHead
from s3mount.store.quick_put import QuickPuts
from s3mount.store.retry import Retrier
from s3mount.store.s3 import S3Store
from s3mount.store.sender import Sender
from s3mount.store.wire import Wire

T = TypeVar("T")


class _Once:
    """Performs without retries, for probing: a refusal there is the answer."""

    def __init__(self, attempts: Attempts, deadline: float) -> None:
        self._attempts = attempts
        self._deadline = deadline

    async def perform(self, call: Call[T]) -> T:
        return await self._attempts.attempt(call, Budget(self._deadline))


def open_store(config: StoreConfig) -> ObjectStore:
    """The store of a bucket. Sends nothing yet; to be called where trio runs or before it does.

    A request goes: S3Store -> Retrier (attempts, deadline) -> Lanes (a thread of its lane) ->
    Wire (one attempt). A HEAD is tried by QuickHead first; QuickPuts, before Lanes, takes PUTs of
    small bodies.
    """
    counts = Counts()
    connection = Connection(config)
    headers = RequestHeaders(config)
    wire = Wire(config, connection, counts, threads(config))
    lanes = Lanes(config, counts)
    client = LoopClient(config, connection, wire)
    sender = Sender(wire, Retrier(config, QuickPuts(config, wire, lanes, client, counts), counts))
    once = Sender(wire, _Once(lanes, config.request_deadline))
    probe = CapabilityProbe(config, Prober(config.bucket, once, headers).probe)
    uploads = MultipartUploads(sender, probe, headers)
    return S3Store(
        config,
        connection,
        wire,
        QuickHead(config, client, counts),
        sender,
        probe,
        uploads,
        counts,
        lanes,
    )
