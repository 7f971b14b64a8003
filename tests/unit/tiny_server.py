"""Servers of a few lines for the tests of the HTTP clients, and a certificate authority."""

import contextlib
import datetime
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from s3mount.core.config import StoreConfig

OK = (
    b'HTTP/1.1 200 OK\r\nETag: "abc"\r\nLast-Modified: Fri, 20 Nov 2026 11:00:00 GMT\r\n'
    b"Content-Length: 4\r\n\r\n"
)


class TinyServer:
    """Answers every request the same (but for `answers_then`, once given, after the next one);
    `heads` are the requests as they came, `bodies` (if they are read) what came with them."""

    def __init__(
        self,
        answer: bytes = OK + b"data",
        context: ssl.SSLContext | None = None,
        *,
        reads_bodies: bool = False,
    ) -> None:
        self.answer = answer
        self.answers_then: bytes | None = None
        self.hangs_up = False  # after each answer
        self.hung_up = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self._reads_bodies = reads_bodies
        self.connections = 0
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            with client, client.makefile("rb") as file:
                while line := file.readline():
                    head = line
                    while line not in {b"\r\n", b""}:
                        line = file.readline()
                        head += line
                    self.heads.append(head)
                    if self._reads_bodies:
                        found = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
                        self.bodies.append(file.read(int(found[1])) if found else b"")
                    client.sendall(self.answer)
                    if self.answers_then is not None:
                        self.answer, self.answers_then = self.answers_then, None
                    if self.hangs_up:
                        client.shutdown(socket.SHUT_RDWR)
                        self.hung_up += 1
                        return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


async def until(condition: Callable[[], bool]) -> None:
    """For what a server's thread brings about."""
    with trio.fail_after(100):
        while not condition():  # noqa: ASYNC110 - the thread sets no event
            await trio.sleep(0.01)


async def hung_up(server: TinyServer, times: int) -> None:
    """Waits until it has closed so many connections: a client can know it then."""
    await until(lambda: server.hung_up == times)


def config_for(server: TinyServer, scheme: str = "http", **fields: object) -> StoreConfig:
    config = StoreConfig(
        bucket="bucket",
        endpoint_url=f"{scheme}://127.0.0.1:{server.port}",
        access_key="AK",
        secret_key="SK",
        read_timeout=20.0,
    )
    return replace(config, **fields)  # type: ignore[arg-type]


def make_authority(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate authority of our own, and a server context that it vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "s3mount test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle, private = directory / "ca.pem", directory / "key.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle, private)
    return bundle, context
