"""Single questions to a service: wrong values, to see whether it notices.

Each takes a ProbeObject for itself; what does not depend on each other is asked side by side, for
whoever probes waits for a round trip each time.
"""

from collections.abc import Awaitable, Callable

from s3mount.store import base, errors, integrity
from s3mount.store.errors import StoreError
from s3mount.store.parallel import side_by_side
from s3mount.store.probe_object import BODY, ProbeObject

Work = Callable[[], Awaitable[None]]

_WRONG_ETAG = "0" * 32


async def put_if_absent(on: ProbeObject) -> bool:
    """Right where the key is absent, refused where it is there; an object is there afterwards."""
    right = await on.put({"if-none-match": "*"})
    if isinstance(right, StoreError):
        plain = await on.put({})
        if isinstance(plain, StoreError):
            raise plain
        return False
    return _refused(await on.put({"if-none-match": "*"}))


async def put_if_match(on: ProbeObject) -> tuple[bool, bool]:
    """(is it honoured, is the ETag to be quoted)"""
    for quoted in (True, False):
        form = '"{}"' if quoted else "{}"
        wrong = await on.put({"if-match": form.format(_WRONG_ETAG)})
        if not _refused(wrong):
            return False, True
        right = await on.put({"if-match": form.format(on.etag)})
        if not isinstance(right, StoreError):
            return True, quoted
    return False, True


async def checksums(on: ProbeObject) -> tuple[bool, bool, bool]:
    """(a wrong CRC32C is refused and a right one taken, the same of Content-MD5, ETags of large
    bodies are MD5s); on parts of an upload that is left to be aborted."""
    upload_id = await on.create(announce_crc32c=True)
    announced = upload_id is not None
    if upload_id is None:
        upload_id = await on.create(announce_crc32c=False)
    if upload_id is None:
        return False, False, False
    upload = upload_id
    crc, md5 = integrity.crc32c, integrity.md5
    taken: dict[str, bool] = {}

    def sent(name: str, number: int, digest: integrity.Digest) -> Work:
        async def send() -> None:
            taken[name] = not isinstance(await on.part(upload, number, digest), StoreError)

        return send

    large = bytes(base.LARGE_BODY + 1)
    etags: list[str | StoreError] = []

    def sent_large(number: int) -> Work:
        digest = integrity.Digest(crc32c=crc(large) if announced else None)

        async def send() -> None:
            etags.append(await on.part_etag(upload, number, digest, large))

        return send

    await side_by_side(
        sent("wrong crc32c", 1, integrity.Digest(crc32c=crc(b"x"))),
        sent("crc32c", 2, integrity.Digest(crc32c=crc(BODY))),
        sent("wrong md5", 3, integrity.Digest(md5=md5(b"x"))),
        sent("md5", 4, integrity.Digest(md5=md5(BODY))),
        # Twice: an answer damaged on its way is not remembered for ever.
        *(sent_large(5), sent_large(6)),
    )
    checks = [taken[name] and not taken[f"wrong {name}"] for name in ("crc32c", "md5")]
    return checks[0] and announced, checks[1], md5(large) in etags


async def copies(on: ProbeObject) -> tuple[bool, bool]:
    """(both copies heed If-Match of the source, a part copy copies its range)"""
    upload: list[str | None] = []

    async def create() -> None:
        upload.append(await on.create(announce_crc32c=False))

    await side_by_side(on.write, create)
    upload_id = upload[0]
    if upload_id is None:
        return False, False
    found: dict[str, bool] = {}
    first, length = 3, len(BODY) // 2

    async def copy() -> None:
        found["copy"] = _refused(await on.copy(_WRONG_ETAG))

    async def part_copy() -> None:
        part = await on.part_copy(upload_id, 1, first, length)
        found["range"] = await _is_range(on, part, upload_id, BODY[first : first + length])

    async def wrong_part_copy() -> None:
        found["part copy"] = _refused(
            await on.part_copy(upload_id, 2, first, length, source_etag=_WRONG_ETAG)
        )

    await side_by_side(copy, part_copy, wrong_part_copy)
    heeded = found["copy"] and found["part copy"]
    if heeded:
        heeded = not isinstance(await on.copy(on.etag), StoreError)
    return heeded, found["range"]


async def _is_range(
    on: ProbeObject, part: base.Part | StoreError, upload_id: str, expected: bytes
) -> bool:
    """AWS copies no ranges of objects up to 5 MiB, and says so: that is the real thing."""
    if isinstance(part, StoreError):
        return isinstance(part, errors.InvalidRequest) and "byte-range" in str(part)
    if part.etag == integrity.md5(expected):
        return True
    # An ETag that is no MD5 proves nothing: at least the size must be right.
    return (await on.part_sizes(upload_id)).get(part.number) == len(expected)


async def complete_if_match(on: ProbeObject, quoted: bool, crc32c: bool) -> bool:
    """`on` has an object."""
    form = '"{}"' if quoted else "{}"
    upload = await on.upload_of(1, crc32c)
    if upload is None:
        return False
    wrong = await on.complete(*upload, {"if-match": form.format(_WRONG_ETAG)})
    if not _refused(wrong):
        return False
    right = await on.complete(*upload, {"if-match": form.format(on.etag)})
    return not isinstance(right, StoreError)


async def complete_if_absent(on: ProbeObject, crc32c: bool) -> bool:
    """`on` has an object."""
    upload = await on.upload_of(1, crc32c)
    if upload is None:
        return False
    wrong = await on.complete(*upload, {"if-none-match": "*"})
    if not _refused(wrong):
        return False
    await on.delete()
    right = await on.complete(*upload, {"if-none-match": "*"})
    return not isinstance(right, StoreError)


async def complete_subset(on: ProbeObject, crc32c: bool) -> bool:
    upload = await on.upload_of(2, crc32c)
    if upload is None:
        return False
    upload_id, parts = upload
    return not isinstance(await on.complete(upload_id, parts[:1], {}), StoreError)


def _refused(result: base.PutResult | base.Part | StoreError) -> bool:
    """By the condition."""
    return isinstance(result, errors.PreconditionFailed)
