"""What the answers to GET, PUT, UploadPart and the copies must hold to be believed. No I/O."""

import hashlib
import re
from collections.abc import Sequence

from s3mount.store import base, errors, xml
from s3mount.store.answers import error_for, http_date, object_info, version_id
from s3mount.store.integrity import Digest, Md5Etags, composite_crc32c, is_md5, wrong_checksum
from s3mount.store.request import Answer

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


def range_header(start: int, length: int | None) -> dict[str, str]:
    if length is not None:
        return {"range": f"bytes={start}-{start + length - 1}"}
    return {"range": f"bytes={start}-"} if start else {}


def get_result(key: str, start: int, length: int | None, answer: Answer) -> base.GetResult:
    """Raises CorruptAnswer unless the body is exactly the range asked for."""
    if answer.status != 206:  # the whole object, also where a range was asked for
        info = object_info(key, answer.headers, answer.asked_at, len(answer.body))
        _check_length(key, answer)
        _check_stored_checksum(key, answer)
        if start and start >= info.size:
            raise errors.InvalidRange("", operation="GetObject", key=key, status=200)
        if start or (length is not None and length < info.size):
            end = None if length is None else start + length
            return base.GetResult(info, start, answer.body[start:end])
        return base.GetResult(info, 0, answer.body)
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
    if found is None:
        raise _corrupt("GetObject", key, "206 without a Content-Range")
    first, last, total = (int(group) for group in found.groups())
    expected = total - start if length is None else min(length, total - start)
    if first != start or last - first + 1 != expected or len(answer.body) != expected:
        raise _corrupt("GetObject", key, f"another range than asked for: {found[0]}")
    if expected == total:
        _check_stored_checksum(key, answer)
    return base.GetResult(
        object_info(key, answer.headers, answer.asked_at, total), start, answer.body
    )


class OneVersion:
    """The answers to one GET, retries included, that must be of the version `etag` (None: of any).

    What is wrong with an answer may be damage on its way, or the service's own way: it ignores
    If-Match, its ETags look like MD5s and are none. Asked again it tells: raises CorruptAnswer,
    and takes the same answer for what is stored.
    """

    def __init__(self, etag: str | None) -> None:
        self._etag = etag
        self._other: str | None = None
        self._unmatched: str | None = None

    def checked(self, result: base.GetResult) -> base.GetResult:
        """Raises PreconditionFailed for another version."""
        found = result.info.etag
        if self._etag not in {None, found}:
            text = f"its ETag is {found}, not {self._etag}"
            if found != self._other:
                self._other = found
                raise _corrupt("GetObject", result.info.key, text)
            raise errors.PreconditionFailed(text, operation="GetObject", key=result.info.key)
        self._compare(result)
        return result

    def _compare(self, result: base.GetResult) -> None:
        """The bytes of a whole object with its MD5, if that is one."""
        info = result.info
        encryption = info.headers.get("x-amz-server-side-encryption", "")
        if len(result.data) != info.size or not is_md5(info.etag):
            return
        if encryption not in {"", "AES256"}:
            return
        md5 = hashlib.md5(result.data, usedforsecurity=False).hexdigest()
        if md5 not in {info.etag, self._unmatched}:
            self._unmatched = md5
            raise _corrupt("GetObject", info.key, f"its bytes have MD5 {md5}, not {info.etag}")


def _check_length(key: str, answer: Answer) -> None:
    """wire.py has compared the body with Content-Length; without one nothing tells its end."""
    chunked = answer.headers.get("transfer-encoding", "").lower() == "chunked"
    if not chunked and "content-length" not in answer.headers:
        raise _corrupt("GetObject", key, "no Content-Length")


def _check_stored_checksum(key: str, answer: Answer) -> None:
    """Of a whole object. Parts of one are vouched for by length, ETag and TLS alone."""
    lowered = {name.lower(): value for name, value in answer.headers.items()}
    if wrong := wrong_checksum(lowered, answer.body):
        raise _corrupt("GetObject", key, wrong)


class StoredOtherwise(errors.CorruptAnswer):
    """The service stored other bytes than were sent; `etag` is theirs."""

    etag = ""


def put_result(
    key: str, digest: Digest, etags: Md5Etags, answer: Answer, can: base.Capabilities
) -> base.PutResult:
    """Raises StoredOtherwise where the answer shows that other bytes were stored than were sent."""
    etag = checked_etag("PutObject", key, digest, etags, answer, can)
    return base.PutResult(
        etag, version_id(answer.headers), http_date(answer.headers.get("date", ""))
    )


def etag_of(operation: str, key: str, answer: Answer) -> str:
    etag = answer.headers.get("etag", "").strip('"')
    if not etag:
        raise _corrupt(operation, key, "the answer has no ETag")
    return etag


def checked_etag(
    operation: str,
    key: str,
    digest: Digest,
    etags: Md5Etags,
    answer: Answer,
    can: base.Capabilities,
) -> str:
    etag = etag_of(operation, key, answer)
    encryption = answer.headers.get("x-amz-server-side-encryption", "")
    wrong = etags.check(operation, etag, digest, encryption, can)
    stored = answer.headers.get("x-amz-checksum-crc32c", "")
    if not wrong and digest.crc32c is not None and stored not in {"", digest.crc32c}:
        wrong = f"stored with CRC32C {stored}, sent with {digest.crc32c}"
    if wrong:
        error = StoredOtherwise(wrong, operation=operation, key=key, ambiguous=True)
        error.etag = etag
        raise error
    return etag


def copy_result(operation: str, key: str, answer: Answer) -> base.PutResult:
    """A copy may answer 200 with an error inside, or with nothing at all (rclone)."""
    fields = xml_fields(operation, key, answer.body, {"CopyObjectResult", "CopyPartResult"})
    etag = fields.get("ETag", "").strip('"')
    if not etag:
        raise _corrupt(operation, key, "the copy's answer has no ETag")
    return base.PutResult(
        etag, version_id(answer.headers), http_date(answer.headers.get("date", ""))
    )


def copied_part(key: str, number: int, length: int, answer: Answer) -> base.Part:
    operation = "UploadPartCopy"
    etag = copy_result(operation, key, answer).etag
    fields = xml_fields(operation, key, answer.body, {"CopyPartResult", "CopyObjectResult"})
    return base.Part(number, etag, length, fields.get("ChecksumCRC32C"))


def completed(key: str, parts: Sequence[base.Part], answer: Answer) -> tuple[base.PutResult, bool]:
    """The result, and whether a checksum proves that the object is made of `parts`. The ETag is ''
    where the answer lacks it (Ceph's first answer does). Raises CorruptAnswer where the checksum
    is another one."""
    operation = "CompleteMultipartUpload"
    fields = xml_fields(operation, key, answer.body, {"CompleteMultipartUploadResult"})
    stored = fields.get("ChecksumCRC32C", "")
    expected = composite_crc32c([part.checksum for part in parts])
    comparable = expected is not None and "-" in stored
    if comparable and stored != expected:
        raise _corrupt(operation, key, f"completed with CRC32C {stored}, its parts have {expected}")
    result = base.PutResult(
        fields.get("ETag", "").strip('"'),
        version_id(answer.headers),
        http_date(answer.headers.get("date", "")),
    )
    return result, comparable


def upload_id(key: str, answer: Answer) -> str:
    operation = "CreateMultipartUpload"
    found = xml_fields(operation, key, answer.body, {"InitiateMultipartUploadResult"}).get(
        "UploadId", ""
    )
    if not found:
        raise _corrupt(operation, key, "the answer has no UploadId")
    return found


def xml_fields(operation: str, key: str, body: bytes, roots: set[str]) -> dict[str, str]:
    """The children of the answer's root, which must be one of `roots`; the error inside a 200
    is raised as what it says, ambiguous."""
    try:
        # Blanks keep the connection alive while a long Complete is under way.
        root, _ = xml.parse(body.lstrip())
    except xml.NotXml as error:
        raise _corrupt(operation, key, f"the answer is cut: {error}") from error
    fields = xml.fields(root)
    name = xml.local_name(root)
    if name == "Error":
        inside = error_for(
            operation,
            key,
            500,
            fields.get("Code", ""),
            fields.get("Message", ""),
            fields.get("RequestId", ""),
        )
        inside.ambiguous = True
        raise inside
    if name not in roots:
        raise _corrupt(operation, key, f"a <{name}> as the answer")
    return fields


def _corrupt(operation: str, key: str, message: str) -> errors.CorruptAnswer:
    return errors.CorruptAnswer(message, operation=operation, key=key, ambiguous=True)
