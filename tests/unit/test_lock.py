"""The lock that takes no turn of the loop while it is free."""

import pytest
import trio
import trio.testing

from s3mount.writeback.lock import Lock


async def test_a_free_lock_is_taken_without_a_checkpoint() -> None:
    lock = Lock()
    with trio.testing.assert_no_checkpoints():
        async with lock:
            pass
        async with lock:
            pass


async def test_one_at_a_time_in_the_order_of_arrival() -> None:
    lock, seen, inside = Lock(), [], 0

    async def work(number: int) -> None:
        nonlocal inside
        async with lock:
            inside += 1
            assert inside == 1
            await trio.testing.wait_all_tasks_blocked()
            seen.append(number)
            inside -= 1

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(work, number)
            await trio.testing.wait_all_tasks_blocked()
    assert seen == [0, 1, 2, 3, 4]
    with trio.testing.assert_no_checkpoints():
        async with lock:
            pass


async def test_who_is_cancelled_while_waiting_leaves_it_to_the_next() -> None:
    lock, seen, scope = Lock(), [], trio.CancelScope()

    async def impatient() -> None:
        with scope:
            async with lock:
                seen.append("impatient")

    async def patient() -> None:
        async with lock:
            seen.append("patient")

    async with trio.open_nursery() as nursery, lock:
        nursery.start_soon(impatient)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(patient)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
    assert seen == ["patient"]


async def test_an_error_inside_gives_it_back() -> None:
    lock = Lock()
    with pytest.raises(ValueError, match="inside"):
        async with lock:
            raise ValueError("inside")
    with trio.testing.assert_no_checkpoints():
        async with lock:
            pass
