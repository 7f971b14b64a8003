"""The proxy that cuts connections: who has called by then never reaches the service, however late
the proxy's own threads are. A mount that is dead cannot change the bucket any more."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.counting_proxy import CountingProxy
from tests.mounting import wait_until
from tests.servers import Bucket


class LateProxy(CountingProxy):
    """Its threads do not go on before `go`."""

    def __init__(self, upstream: str, *, accepts_late: bool) -> None:
        super().__init__(upstream)
        self.accepts_late = accepts_late
        self.accepted, self.go, self.served = (threading.Event() for _ in range(3))

    def _accept(self) -> None:
        if self.accepts_late:
            self.go.wait(100)
        super()._accept()

    def _serve(self, client: socket.socket, cuts: int) -> None:
        self.accepted.set()
        self.go.wait(100)
        super()._serve(client, cuts)
        self.served.set()


@pytest.fixture(params=["accepted late", "served late"])
def proxy(moto_bucket: Bucket, request: pytest.FixtureRequest) -> Iterator[LateProxy]:
    late = request.param == "accepted late"
    with LateProxy(moto_bucket.server.url, accepts_late=late) as proxy:
        yield proxy


def test_a_request_that_nobody_has_looked_at_when_all_are_cut_is_lost(
    moto_bucket: Bucket, proxy: LateProxy
) -> None:
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"PUT /{moto_bucket.name}/key HTTP/1.1\r\nHost: {host}\r\n".encode())
        client.sendall(b"Content-Length: 4\r\n\r\nbody")
        if not proxy.accepts_late:
            assert proxy.accepted.wait(100)
        cutting = threading.Thread(target=proxy.cut)
        cutting.start()
        if proxy.accepts_late:
            wait_until(lambda: proxy.down)
            proxy.go.set()
        cutting.join()
        proxy.go.set()
        with contextlib.suppress(ConnectionError):
            assert client.recv(100) == b""
    if not proxy.accepts_late:
        assert proxy.served.wait(100)
    assert moto_bucket.keys() == []
    assert not proxy.down
    assert proxy.counts == {}
