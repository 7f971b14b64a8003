"""Upload plans, carried out on byte strings: the object must be the file."""

from dataclasses import dataclass, field

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from s3mount.core.extents import Extents
from s3mount.core.part_schedule import PartSchedule
from s3mount.writeback.upload_plan import (
    Copy,
    FileState,
    Keep,
    Multipart,
    PlanLimits,
    PublishFirst,
    SinglePut,
    Step,
    plan_upload,
)
from tests.sizes import examples

PART, MINIMUM, MOST_PARTS = 12, 5, 30
MAXIMUM = 400
SCHEDULE = PartSchedule(PART, MOST_PARTS, 1500)


@dataclass
class World:
    """A file with its base, its spool and an unfinished upload, as byte strings."""

    base: bytes
    limits: PlanLimits
    content: bytearray = field(default_factory=bytearray)  # what a program reads
    visible: int = 0
    dirty: Extents = field(default_factory=Extents)
    dropped: Extents = field(default_factory=Extents)
    server: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # number -> start, bytes
    serial: int = 0

    def write(self, start: int, length: int) -> None:
        end = start + length
        self.content.extend(bytes(max(0, end - len(self.content))))
        for offset in range(start, end):
            self.serial = self.serial % 250 + 1
            self.content[offset] = self.serial
        self.dirty.add(start, end)
        self.dropped.remove(start, end)

    def truncate(self, size: int) -> None:
        self.visible = min(self.visible, size)
        self.dirty.truncate(size)
        self.dropped.truncate(size)
        self.content.extend(bytes(max(0, size - len(self.content))))
        del self.content[size:]

    def send_slot(self, slot: int) -> None:
        start, end = SCHEDULE.bounds(slot)
        if self.dirty.covers(start, end):
            self.server[slot + 1] = (start, bytes(self.content[start:end]))

    def drop(self, slot: int) -> None:
        start, end = SCHEDULE.bounds(slot)
        if self.is_valid(slot + 1) and self.dirty.covers(start, end):
            self.dirty.remove(start, end)
            self.dropped.add(start, end)

    def is_valid(self, number: int) -> bool:
        start, data = self.server.get(number, (0, b""))
        return bool(data) and bytes(self.content[start : start + len(data)]) == data

    def state(self) -> FileState:
        return FileState(
            size=len(self.content),
            visible=self.visible,
            dirty=self.dirty,
            dropped=self.dropped,
            on_server={n: (start, start + len(data)) for n, (start, data) in self.server.items()},
            valid=frozenset(number for number in self.server if self.is_valid(number)),
        )

    def spooled(self, start: int, end: int) -> bytes:
        """The body of a Send: spool, base, zeros; dropped bytes are not to be had."""
        body = bytearray()
        for offset in range(start, end):
            assert not self.dropped.overlaps(offset, offset + 1)
            if self.dirty.overlaps(offset, offset + 1):
                body.append(self.content[offset])
            else:
                body.append(self.base[offset] if offset < self.visible else 0)
        return bytes(body)


def _carried_out(world: World, steps: list[Step]) -> bytes:
    """The object that Complete makes of the steps, with all of S3's rules."""
    assert [step.number for step in steps] == sorted({step.number for step in steps})
    assert steps[0].number >= 1
    assert steps[-1].number <= world.limits.max_parts
    position = 0
    parts = []
    for step in steps:
        assert step.start == position < step.end
        position = step.end
        length = step.end - step.start
        assert length <= world.limits.max_part_size
        assert length >= world.limits.min_part_size or step is steps[-1]
        if isinstance(step, Keep):
            start, data = world.server[step.number]
            assert (start, start + len(data)) == (step.start, step.end)
        elif isinstance(step, Copy):
            assert step.end <= len(world.base)
            data = world.base[step.start : step.end]
        else:
            data = world.spooled(step.start, step.end)
        world.server[step.number] = (step.start, data)
        parts.append(data)
    if not world.limits.complete_subset:
        assert set(world.server) == {step.number for step in steps}
    return b"".join(parts)


def _committed(world: World, can_copy: bool) -> bytes:
    """Plans and carries out until the object is there."""
    for _ in range(3):
        plan = plan_upload(world.state(), SCHEDULE, world.limits, can_copy)
        if isinstance(plan, SinglePut):
            event("single put")
            return world.spooled(0, len(world.content))
        if isinstance(plan, Multipart):
            if plan.restart:
                event("restart")
                world.server.clear()
            event("free" if plan.free else "grid")
            return _carried_out(world, list(plan.steps))
        assert isinstance(plan, PublishFirst)
        event("publish first")
        for step in plan.steps:
            # The commit zeroes what was cut off a dropped part and is a hole now.
            end = min(step.end, len(world.content))
            if isinstance(step, Keep) and world.dropped.overlaps(step.start, step.end):
                for start, stop in world.dropped.gaps(step.start, end):
                    world.dirty.add(start, stop)
        published = _carried_out(world, list(plan.steps))
        assert len(published) == plan.size
        world.base = published
        world.visible = min(len(published), len(world.content))
        world.dirty = plan.dirty.copy()
        world.dropped.clear()
        world.server.clear()
    raise AssertionError("no object after three plans")


@st.composite
def limits(draw: st.DrawFn) -> PlanLimits:
    return PlanLimits(
        single_put_limit=draw(st.integers(0, 20)),
        min_part_size=MINIMUM,
        max_part_size=MAXIMUM,
        max_parts=MOST_PARTS,
        copy_part_size=draw(st.sampled_from([12, 40, 100])),
        equal=draw(st.booleans()),
        complete_subset=draw(st.booleans()),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    base = bytes(200 + index % 50 for index in range(draw(st.integers(0, 500))))
    world = World(base, draw(limits()), bytearray(base), len(base))
    changes = st.tuples(
        st.sampled_from(["write", "slot", "slot", "drop", "drop", "dropped slot", "truncate"]),
        st.integers(0, 300),
        st.integers(1, 60),
    )
    for kind, offset, length in draw(st.lists(changes, max_size=14)):
        if kind == "write":
            world.write(offset, length)
        elif kind == "slot":  # a run of whole slots, sent at once
            first = SCHEDULE.slot_of(offset)
            for slot in range(first, first + 1 + length // 20):
                start, end = SCHEDULE.bounds(slot)
                world.write(start, end - start)
                world.send_slot(slot)
        elif kind == "drop":  # what pressure does: everything that may go
            for number in tuple(world.server):
                world.drop(number - 1)
        elif kind == "dropped slot":  # written again, in part or as a whole
            for start, end in list(world.dropped)[:1]:
                world.write(start + offset % (end - start), length)
        else:
            world.truncate(offset)
    return world


@settings(max_examples=examples(500), deadline=None)
@given(worlds(), st.booleans())
def test_the_object_is_the_file_whatever_was_written_sent_dropped_and_cut(
    world: World, can_copy: bool
) -> None:
    expected = bytes(world.content)
    assert _committed(world, can_copy) == expected


@given(worlds())
def test_no_byte_that_is_on_the_server_is_sent_again(world: World) -> None:
    state = world.state()
    plan = plan_upload(state, SCHEDULE, world.limits, True)
    assume(isinstance(plan, Multipart) and not plan.restart and state.on_server)
    assert isinstance(plan, Multipart)
    kept = {step.number for step in plan.steps if isinstance(step, Keep)}
    wanted = {
        number
        for number in state.valid
        if state.on_server[number]
        == (
            SCHEDULE.bounds(number - 1)[0],
            min(SCHEDULE.bounds(number - 1)[1], state.size),
        )
    }
    assert wanted <= kept


BIG = PlanLimits(8, 5, 5000, 10_000, 64)
BIG_SCHEDULE = PartSchedule(8, 10_000, 100_000)


def _plan(size: int, visible: int, *dirty: tuple[int, int]) -> list[Step]:
    plan = plan_upload(
        FileState(size=size, visible=visible, dirty=Extents(dirty)), BIG_SCHEDULE, BIG, True
    )
    assert isinstance(plan, Multipart)
    return list(plan.steps)


def _sent(steps: list[Step]) -> int:
    return sum(step.end - step.start for step in steps if not isinstance(step, Copy))


def test_an_append_sends_only_what_was_appended() -> None:
    assert _sent(_plan(1100, 1000, (1000, 1100))) == 100


def test_a_small_change_in_the_middle_sends_one_smallest_part() -> None:
    assert _sent(_plan(1000, 1000, (500, 501))) == 5


def test_a_truncation_sends_nothing() -> None:
    assert _sent(_plan(333, 333)) == 0


def test_a_header_written_again_sends_one_smallest_part() -> None:
    assert _sent(_plan(1000, 1000, (0, 2))) == 5


def test_changes_close_together_become_one_part() -> None:
    steps = _plan(1000, 1000, (500, 503), (506, 509))
    assert [(s.start, s.end) for s in steps if not isinstance(s, Copy)] == [(500, 509)]


def test_thousands_of_scattered_changes_fit_the_number_of_parts() -> None:
    few = PlanLimits(8, 5, 5000, 50, 64)
    state = FileState(
        size=4000, visible=4000, dirty=Extents((at, at + 1) for at in range(0, 4000, 10))
    )
    plan = plan_upload(state, PartSchedule(8, 50, 100_000), few, True)
    assert isinstance(plan, Multipart)
    assert len(plan.steps) <= 50
    assert plan.steps[-1].end == 4000


def test_a_small_file_is_one_put_and_an_empty_one_too() -> None:
    for size in (0, 1, 8):
        state = FileState(size=size, visible=0, dirty=Extents([(0, size)]))
        assert plan_upload(state, BIG_SCHEDULE, BIG, False) == SinglePut()
