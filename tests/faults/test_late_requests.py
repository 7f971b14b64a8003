"""Requests that arrive when nobody waits for them any more."""

import trio
from trio.testing import MockClock

from tests.counting_proxy import Fault, Seen, Silence
from tests.faults.conftest import Service
from tests.model.bucket import contents
from tests.model.mounted import Client

ONE, TWO = b"one " * 700, b"two " * 900


def held(service: Service, operation: str, *, late: float) -> None:
    """The first request of `operation` is not answered and carried out `late` seconds after;
    those after it are answered as ever."""
    held: list[Seen] = []
    bodies: list[bytes] = []

    def take_body(body: bytes) -> bytes:
        bodies.append(body)
        raise Silence

    async def arrive() -> None:
        await trio.sleep(late)
        dialect = service.store._wire.dialect  # type: ignore[attr-defined]
        dialect.answer(held[0].method, held[0].target, held[0].headers, bodies[0])

    def rule(seen: Seen) -> Fault | None:
        if seen.operation != operation or held:
            return None
        held.append(seen)
        trio.lowlevel.spawn_system_task(arrive)
        return Fault(body=take_body)

    service.rule = rule


async def test_a_delete_that_was_retried_does_not_hit_the_next_file_of_that_name(
    client: Client, service: Service, autojump_clock: MockClock
) -> None:
    await client.write("f", ONE)
    held(service, "DeleteObject", late=5.0)
    await client.unlink("f")
    await client.fsyncdir()
    assert contents(service.memory) == {}
    await client.write("f", TWO)
    await trio.sleep(60)
    assert contents(service.memory) == {"f": TWO}


async def test_a_put_that_was_retried_does_not_bring_old_content_back(
    client: Client, service: Service, autojump_clock: MockClock
) -> None:
    held(service, "PutObject", late=5.0)
    await client.write("f", ONE)
    assert contents(service.memory) == {"f": ONE}
    await client.write("f", TWO)
    await trio.sleep(60)
    assert contents(service.memory) == {"f": TWO}
    held(service, "PutObject", late=5.0)
    await client.write("g", ONE)
    await client.unlink("g")
    await trio.sleep(60)
    assert contents(service.memory) == {"f": TWO}
