"""Random changes from both sides, answers held back at random: what is known is never wrong.

After everything has been sent and the TTL is over, the namespace must show what a plain reading
of the bucket's keys shows, and at any time what was done here.
"""

import errno
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3mount.core.errors import FilesystemError
from s3mount.core.keys import FOLDER_SUFFIX
from s3mount.namespace import ABSENT, Inode, Namespace, Pin, Version
from tests.sizes import examples
from tests.unit.namespace_fixtures import DIRECTORY, FILE, Bench, entries_of

PATHS = ["a", "a-", "b", "c", "a/a", "a/a-", "a/b", "a/b/c", "b/a"]
KEYS = [*PATHS, "a/", "b/", "b/a/", "c" + FOLDER_SUFFIX, "a/b" + FOLDER_SUFFIX, "a//bad", "b/../x"]

paths = st.sampled_from(PATHS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("foreign put"), st.sampled_from(KEYS), st.integers(0, 3)),
        st.tuples(st.just("foreign delete"), st.sampled_from(KEYS)),
        st.tuples(st.just("create"), paths),
        st.tuples(st.just("mkdir"), paths),
        st.tuples(st.just("unlink"), paths),
        st.tuples(st.just("rename"), paths, paths),
        st.tuples(st.just("list"), st.sampled_from(["", *PATHS])),
        st.tuples(st.just("list behind"), st.sampled_from(["", *PATHS])),
        st.tuples(st.just("lookup"), paths),
        st.tuples(st.just("lookup behind"), paths),
        st.tuples(st.just("hold answers")),
        st.tuples(st.just("let answers go")),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 1.0, 3.0, 10.0])),
        st.tuples(st.just("send")),
    ),
    min_size=15,
    max_size=40,
)
ran: Counter[str] = Counter()


def truth(keys: dict[str, int], path: str = "") -> Iterator[tuple[str, str]]:
    """Every path below with its kind, as on-bucket-format says; by a plain look at the keys."""
    names: dict[str, str] = {}
    for key, size in keys.items():
        name, slash, _ = key.removeprefix(path).partition("/")
        if not key.startswith(path) or name in ("", ".", ".."):
            continue
        if slash:
            names[name] = "directory"
        elif size == 0 and name.endswith(FOLDER_SUFFIX):
            names.setdefault(name.removesuffix(FOLDER_SUFFIX), "directory")
        else:
            names.setdefault(name, f"file {size}")
    for key, size in keys.items():
        name = key.removeprefix(path)
        # A file stands before a legacy marker of its name, a directory before a file.
        is_file = key.startswith(path) and "/" not in name and name in names
        below = any(other.startswith(f"{key}/") for other in keys)
        if is_file and not below and not (size == 0 and name.endswith(FOLDER_SUFFIX)):
            names[name] = f"file {size}"
    for name, kind in sorted(names.items()):
        yield path + name, kind
        if kind == "directory":
            yield from truth(keys, f"{path}{name}/")


async def shown(names: Namespace, inode: Inode, path: str = "") -> list[tuple[str, str]]:
    result = []
    for entry in sorted(await entries_of(names, inode)):
        kind = "directory" if entry.inode.is_directory else f"file {entry.inode.size}"
        result.append((path + entry.name, kind))
        assert await names.lookup(inode, entry.name) is entry.inode
        if entry.inode.is_directory:
            result += await shown(names, entry.inode, f"{path}{entry.name}/")
    return result


class Run:
    """One namespace, the bucket, and what was done here but not sent."""

    def __init__(self, page_size: int, nursery: trio.Nursery) -> None:
        self.bench = Bench(page_size=page_size)
        self.names = self.bench.namespace()
        self.nursery = nursery
        self.unsent: list[tuple[str, Inode, str, list[Pin]]] = []
        self.ours: dict[str, tuple[Inode, str, Inode | None]] = {}
        self.held: trio.Event | None = None
        self.bench.store.after = self.hold

    async def hold(self, operation: str, key: str) -> None:
        if self.held is not None:
            await self.held.wait()

    async def find(self, path: str) -> tuple[Inode, str] | None:
        """The directory and the last name; None: there is no such directory."""
        inode = self.names.root
        *above, name = path.split("/")
        for step in above:
            try:
                inode = await self.names.lookup(inode, step)
            except FilesystemError as error:
                if error.errno != errno.ENOENT:
                    raise
                return None
            if not inode.is_directory:
                return None
        return inode, name

    async def get(self, path: str) -> Inode | None:
        place = await self.find(path)
        if place is None:
            return None
        try:
            return await self.names.lookup(*place)
        except FilesystemError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    async def act(self, kind: str, *arguments: str | int | float) -> None:
        if kind.endswith(" behind"):
            self.nursery.start_soon(getattr(self, kind.removesuffix(" behind")), *arguments)
            await trio.testing.wait_all_tasks_blocked()
            self.check_ours()
            return
        method = getattr(self, kind.replace(" ", "_"))
        if self.held is not None:
            # What is known needs no answer; what is not cannot be done now.
            with trio.move_on_after(0):
                await method(*arguments)
        else:
            await method(*arguments)
        self.check_ours()

    def check_ours(self) -> None:
        """What was done here is as it was left, until others or we change it again."""
        for path, (parent, name, inode) in self.ours.items():
            entries = parent.directory.entries if parent.directory is not None else {}
            if parent.detached:
                continue
            if name in entries.keys() & self.pinned(parent):
                assert entries[name] is inode, path
                continue
            # Keys of others below a file made or removed here come to light as a directory, a
            # file behind a directory removed here comes to light as well.
            objects = self.bench.store.objects
            below = (inode is None or not inode.is_directory) and any(
                key.startswith((f"{path}/", path + FOLDER_SUFFIX)) for key in objects
            )
            below = below or (inode is None and path in objects)
            assert below or entries.get(name) is inode, path

    def pinned(self, parent: Inode) -> set[str]:
        return set() if parent.directory is None else set(parent.directory.pins)

    def touched(self, path: str) -> None:
        """`path` changes: what was remembered of it, above and below it is not ours any more."""
        self.ours = {
            other: state
            for other, state in self.ours.items()
            if not f"{other}/".startswith(f"{path}/") and not f"{path}/".startswith(f"{other}/")
        }

    def remember(self, path: str, place: tuple[Inode, str], inode: Inode | None) -> None:
        self.touched(path)
        self.ours[path] = (*place, inode)

    def let_go(self) -> None:
        if self.held is not None:
            self.held.set()
            self.held = None

    async def let_answers_go(self) -> None:
        self.let_go()
        await trio.testing.wait_all_tasks_blocked()

    async def hold_answers(self) -> None:
        if self.held is None:
            self.held = trio.Event()

    async def wait(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)

    async def foreign_put(self, key: str, size: int) -> None:
        self.touched(key.removesuffix("/").removesuffix(FOLDER_SUFFIX))
        self.bench.put(key, data=b"x" * (0 if key.endswith(("/", "$")) else size))

    async def foreign_delete(self, key: str) -> None:
        self.touched(key.removesuffix("/").removesuffix(FOLDER_SUFFIX))
        self.bench.store.delete_foreign(key)

    async def list(self, path: str) -> None:
        inode = await self.get(path) if path else self.names.root
        if inode is not None and inode.is_directory:
            found = [entry.name for entry in await entries_of(self.names, inode)]
            assert len(found) == len(set(found))

    async def lookup(self, path: str) -> None:
        await self.get(path)

    def note(self, kind: str, inode: Inode, key: str, *places: tuple[Inode, str]) -> None:
        pins = [self.names.pin(*place) for place in places]
        self.unsent.append((kind, inode, key, pins))
        # An answer on its way now was asked for before.
        self.bench.clock.advance(0.001)

    async def create(self, path: str) -> None:
        place = await self.find(path)
        if place is None or await self.get(path) is not None or place[0].detached:
            return
        inode = self.names.add(*place, FILE, directory=False)
        self.note("put", inode, "", place)
        self.remember(path, place, inode)
        assert self.names.peek(*place) is inode

    async def mkdir(self, path: str) -> None:
        place = await self.find(path)
        if place is None or await self.get(path) is not None or place[0].detached:
            return
        inode = self.names.add(*place, DIRECTORY, directory=True)
        self.note("put", inode, "", place)
        self.remember(path, place, inode)
        assert self.names.peek(*place) is inode
        assert self.names.peek(inode, "a") is ABSENT

    async def unlink(self, path: str) -> None:
        inode = await self.get(path)
        if inode is None or inode.parent is None or inode.detached:
            return
        if inode.is_directory and not await self.names.is_empty(inode):
            return
        if inode.detached or inode.parent.detached:
            return
        await self.send()  # the order of the queue is not what is tested here
        if self.names.peek(inode.parent, inode.name) is not inode:
            return
        key = self.names.marker_key(inode) if inode.is_directory else self.names.stored_at(inode)
        place = (inode.parent, inode.name)
        self.names.detach(inode)
        self.note("delete", inode, key, place)
        self.remember(path, place, None)
        assert self.names.peek(*place) is ABSENT

    async def rename(self, old: str, new: str) -> None:
        inode = await self.get(old)
        target = await self.find(new)
        if (
            inode is None
            or target is None
            or inode.parent is None
            or f"{new}/".startswith(f"{old}/")
        ):
            return
        if await self.get(new) is not None or old.startswith(f"{new}/"):
            return
        await self.send()
        if inode.detached or target[0].detached or self.names.peek(*target) is not ABSENT:
            return
        place = (inode.parent, inode.name)
        key = self.names.marker_key(inode) if inode.is_directory else self.names.stored_at(inode)
        if inode.is_directory and not key.endswith("/"):
            return  # the executor's business
        self.names.move(inode, *target)
        self.note("move", inode, key, place, target)
        self.remember(old, place, None)
        self.remember(new, target, inode)
        assert self.names.peek(*target) is inode
        assert self.names.peek(*place) is ABSENT

    async def send(self) -> None:
        for kind, inode, key, pins in self.unsent:
            if kind == "put" and not inode.detached:
                self.put(inode, self.names.key(inode), b"")
            elif kind == "delete":
                self.bench.store.delete_foreign(key)
            elif kind == "move":
                self.send_move(inode, key)
            self.bench.clock.advance(0.001)
            for pin in pins:
                pin.release()
            self.bench.clock.advance(0.001)
        self.unsent.clear()

    def put(self, inode: Inode, key: str, data: bytes) -> None:
        stored = self.bench.store.put_foreign(
            key, data, {"mode": "16877" if key[-1:] == "/" else ""}
        )
        version = Version(stored.etag, len(data), stored.last_modified)
        self.names.committed(inode, version, inode.attributes or FILE, key=key)

    def send_move(self, inode: Inode, source: str) -> None:
        store = self.bench.store
        key = self.names.key(inode)
        is_there = (
            one == source or (inode.is_directory and one.startswith(source))
            for one in store.objects
        )
        if not any(is_there):
            self.touched(key.removesuffix("/"))  # others were faster: nothing is renamed
        if not inode.is_directory:
            if source in store.objects:
                self.put(inode, key, store.objects[source].data)
                store.delete_foreign(source)
            return
        moved = [one for one in store.objects if one.startswith(source)]
        for one in moved:
            store.put_foreign(key + one[len(source) :], store.objects[one].data, {})
        self.names.rehomed(source, key)
        for one in moved:
            store.delete_foreign(one)


@pytest.fixture(scope="module")
def every_kind_of_step_ran_often() -> Iterator[None]:
    """Asked after the test, not by another one: that may run in another process."""
    yield
    assert min(ran.values()) >= 100, dict(ran)
    assert len(ran) == 14


@pytest.mark.usefixtures("every_kind_of_step_ran_often")
@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(todo=steps, page_size=st.sampled_from([1, 2, 3, 1000]))
async def test_the_namespace_shows_the_bucket_and_what_was_done_here(
    todo: list[tuple[str, ...]], page_size: int
) -> None:
    async with trio.open_nursery() as nursery:
        run = Run(page_size, nursery)
        for kind, *arguments in todo:
            ran[kind] += 1
            await run.act(kind, *arguments)
        run.let_go()
        await trio.testing.wait_all_tasks_blocked()
        await run.send()
        run.bench.clock.advance(10)
        keys = {key: len(one.data) for key, one in run.bench.store.objects.items()}
        expected = list(truth(keys))
        fresh = run.bench.namespace()
        assert sorted(await shown(fresh, fresh.root)) == sorted(expected)
        assert sorted(await shown(run.names, run.names.root)) == sorted(expected)
        run.bench.clock.advance(10)
        # The other way to know a name: asking for each, without a listing.
        other = run.bench.namespace()
        for path in PATHS:
            kinds = dict(expected)
            inode: Inode | None = other.root
            for step in path.split("/"):
                try:
                    inode = None if inode is None else await other.lookup(inode, step)
                except FilesystemError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                        raise
                    inode = None
            if inode is None:
                assert path not in kinds
            else:
                found = "directory" if inode.is_directory else f"file {inode.size}"
                assert (path, found) in expected
        nursery.cancel_scope.cancel()
