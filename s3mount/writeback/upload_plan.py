"""How a file's bytes become an object, with the fewest bytes sent. Pure: no I/O.

Terms: *base* is the committed object under the file; `visible` of its leading bytes still show
through wherever nothing newer was written; beyond them holes are zeros. A *slot* is a place in the
PartSchedule's grid, whose part has the number slot + 1. *Dropped* bytes are newer than the base,
but only the unfinished upload has them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from s3mount.core.extents import Extents
from s3mount.core.part_schedule import PartSchedule


@dataclass(frozen=True, slots=True)
class Keep:
    """The part is on the server already (or on its way there)."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Send:
    """Upload bytes [start, end): from the spool, in its gaps from the base, else zeros."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy bytes [start, end) of the base on the server."""

    number: int
    start: int
    end: int


Step = Keep | Send | Copy


@dataclass(frozen=True, slots=True)
class SinglePut:
    """The whole file in one PUT; an unfinished upload is aborted."""


@dataclass(frozen=True, slots=True)
class Multipart:
    """Parts that cover [0, size) in ascending order. `restart`: abort the unfinished upload
    and begin another. `free`: the numbers do not follow the slots."""

    steps: Sequence[Step]
    restart: bool = False
    free: bool = False


@dataclass(frozen=True, slots=True)
class PublishFirst:
    """Dropped bytes are needed that no part can bring as it is: complete the upload with `steps`,
    which cover [0, size); then plan again on top of that object with `dirty` left to send (what
    of it is not in the spool is zeros: it was cut off and is a hole now)."""

    steps: Sequence[Step]
    size: int
    dirty: Extents


Plan = SinglePut | Multipart | PublishFirst


@dataclass(frozen=True, slots=True)
class PlanLimits:
    single_put_limit: int
    min_part_size: int
    max_part_size: int
    max_parts: int
    copy_part_size: int
    equal: bool = False  # the service wants parts of one size, numbered without gaps
    complete_subset: bool = False  # Complete may leave out parts that were uploaded


@dataclass(frozen=True, slots=True)
class FileState:
    """`on_server`: number -> [start, end) of every part that the upload has or may have;
    `valid`: the numbers whose part still equals the file. `free`: see Multipart."""

    size: int
    visible: int
    dirty: Extents
    dropped: Extents = field(default_factory=Extents)
    on_server: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    valid: frozenset[int] = frozenset()
    free: bool = False


def plan_upload(
    state: FileState, schedule: PartSchedule, limits: PlanLimits, can_copy: bool
) -> Plan:
    """The plan for a file of `state.size` bytes (at most schedule.limit, else ValueError)."""
    if state.size > schedule.limit:
        raise ValueError(f"{state.size} bytes exceed the schedule's {schedule.limit}")
    needed = state.dropped.overlaps(0, state.size)
    # A file that fits its first slot would be one part: then one request does for three.
    if not needed and state.size <= max(limits.single_put_limit, schedule.part_size):
        return SinglePut()
    use_copies = can_copy and state.visible > 0
    if state.on_server and not state.free:
        return _plan_grid(state, schedule, limits, use_copies)
    if not use_copies or limits.equal:
        return _plan_grid(replace(state, free=False), schedule, limits, use_copies)
    return _plan_free(state, schedule, limits)


# -- parts on the grid


def _plan_grid(
    state: FileState, schedule: PartSchedule, limits: PlanLimits, use_copies: bool
) -> Plan:
    steps: list[Step] = []
    for slot in schedule.slots(state.size):
        start, end = schedule.bounds(slot)
        end = min(end, state.size)
        number = slot + 1
        if number in state.valid and state.on_server.get(number) == (start, end):
            steps.append(Keep(number, start, end))
        elif state.dropped.overlaps(start, end):
            return _publish_first(state, schedule, limits, use_copies)
        elif use_copies and _copyable(state, limits, start, end):
            steps.append(Copy(number, start, end))
        else:
            steps.append(Send(number, start, end))
    steps = _merge_copies(steps, state, limits)
    if _leaves_out(steps, state, limits):
        if state.dropped.overlaps(0, state.size):
            return _publish_first(state, schedule, limits, use_copies)
        anew = replace(state, on_server={}, valid=frozenset(), free=False)
        plan = plan_upload(anew, schedule, limits, use_copies)
        return replace(plan, restart=True) if isinstance(plan, Multipart) else plan
    return Multipart(steps)


def _copyable(state: FileState, limits: PlanLimits, start: int, end: int) -> bool:
    """Whether the base alone has [start, end) and it may be a part."""
    large_enough = end - start >= limits.min_part_size or end == state.size
    return (
        end <= state.visible
        and large_enough
        and end - start <= limits.max_part_size
        and not state.dirty.overlaps(start, end)
        and not state.dropped.overlaps(start, end)
    )


def _merge_copies(steps: Sequence[Step], state: FileState, limits: PlanLimits) -> list[Step]:
    """Neighbouring copies as one, up to copy_part_size; the numbers between stay unused."""
    if limits.equal:
        return list(steps)
    merged: list[Step] = []
    for step in steps:
        before = merged[-1] if merged else None
        if (
            isinstance(step, Copy)
            and isinstance(before, Copy)
            and step.end - before.start <= min(limits.copy_part_size, limits.max_part_size)
            and (limits.complete_subset or step.number not in state.on_server)
        ):
            merged[-1] = Copy(before.number, before.start, step.end)
        else:
            merged.append(step)
    return merged


def _leaves_out(steps: Iterable[Step], state: FileState, limits: PlanLimits) -> bool:
    """Whether the server has parts that the plan does not name and the service minds."""
    if limits.complete_subset:
        return False
    return not state.on_server.keys() <= {step.number for step in steps}


def _publish_first(
    state: FileState, schedule: PartSchedule, limits: PlanLimits, use_copies: bool
) -> PublishFirst:
    """All the parts that hold dropped bytes as they are, the rest as in any plan."""
    # The old base is gone then: all that still shows of it has to be in.
    top = max(schedule.bounds(schedule.slot_of(state.dropped.end - 1))[1], state.visible)
    if not limits.complete_subset:
        top = max(top, *(end for _, end in state.on_server.values()))
    steps: list[Step] = []
    left = Extents(state.dirty.within(top, max(top, state.size)))
    for slot in schedule.slots(top):
        start, end = schedule.bounds(slot)
        end = min(end, top)
        number = slot + 1
        exact = state.on_server.get(number) == (start, end)
        if exact and (number in state.valid or start >= state.size):
            steps.append(Keep(number, start, end))
        elif state.dropped.overlaps(start, end):
            if not exact:
                raise ValueError(f"the bytes of part {number} are lost")
            steps.append(Keep(number, start, end))
            for a, b in state.dropped.gaps(start, min(end, state.size)):
                left.add(a, b)
        elif use_copies and _copyable(state, limits, start, end):
            steps.append(Copy(number, start, end))
        else:
            steps.append(Send(number, start, end))
    return PublishFirst(_merge_copies(steps, state, limits), top, left)


# -- parts cut freely, for edits


def _plan_free(state: FileState, schedule: PartSchedule, limits: PlanLimits) -> Plan:
    """Copies of what is untouched, sends of the rest; gaps too small for a part are sent along.

    Where that makes too many parts, larger gaps are sent along and larger parts made.
    """
    largest = limits.max_part_size
    smallest_copy = limits.min_part_size
    # A piece cut from a longer run is at least half a step: never below the minimum.
    copy_step = max(limits.copy_part_size, 2 * limits.min_part_size)
    send_step = max(schedule.part_size, 2 * limits.min_part_size)
    while True:
        runs = _runs(state, limits.min_part_size, smallest_copy)
        pieces = [
            (copied, a, b)
            for copied, start, end in runs
            for a, b in _cut(start, end, min(copy_step if copied else send_step, largest))
        ]
        if len(pieces) <= limits.max_parts:
            break
        if copy_step >= largest and send_step >= largest and smallest_copy > state.size:
            raise ValueError(f"{state.size} bytes do not fit {limits.max_parts} parts")
        smallest_copy *= 2
        copy_step *= 2
        send_step *= 2
    steps: list[Step] = []
    for number, (copied, start, end) in enumerate(pieces, 1):
        if number in state.valid and state.on_server.get(number) == (start, end):
            steps.append(Keep(number, start, end))
        else:
            steps.append((Copy if copied else Send)(number, start, end))
    if _leaves_out(steps, state, limits):
        anew = replace(state, on_server={}, valid=frozenset(), free=False)
        plan = plan_upload(anew, schedule, limits, True)
        return replace(plan, restart=True) if isinstance(plan, Multipart) else plan
    return Multipart(steps, free=True)


def _runs(state: FileState, smallest: int, smallest_copy: int) -> list[tuple[bool, int, int]]:
    """(copied, start, end), ascending and alternating, covering [0, size). Every run but the last
    is at least `smallest` long, every copied one but the last at least `smallest_copy`."""
    size = state.size
    sent = Extents(state.dirty.within(0, size))
    sent.add(state.visible, size)
    runs: list[tuple[bool, int, int]] = []
    position = 0
    while position < size:
        ahead = sent.within(position, size)
        first = ahead[0] if ahead else (size, size)
        if position < first[0]:
            end = first[0]
            if end - position >= smallest_copy or end == size:
                runs.append((True, position, end))
            else:
                sent.add(position, end)
                continue
        else:
            end = first[1]
            if end < size and end - position < smallest:
                # A run too short for a part takes what is missing from the bytes behind it.
                sent.add(end, min(position + smallest, size))
                continue
            if end < size and _too_short(sent, end, size, smallest_copy):
                sent.add(*_gap_after(sent, end, size))
                continue
            runs.append((False, position, end))
        position = end
    return runs


def _gap_after(sent: Extents, position: int, size: int) -> tuple[int, int]:
    return sent.gaps(position, size)[0]


def _too_short(sent: Extents, position: int, size: int, smallest_copy: int) -> bool:
    """Whether the untouched gap at `position` is too short to be a copy of its own."""
    start, end = _gap_after(sent, position, size)
    return end - start < smallest_copy and end < size


def _cut(start: int, end: int, step: int) -> list[tuple[int, int]]:
    """Equal pieces of at most `step` bytes."""
    count = -(-(end - start) // step)
    length, longer = divmod(end - start, count)
    pieces = []
    for index in range(count):
        stop = start + length + (index < longer)
        pieces.append((start, stop))
        start = stop
    return pieces
