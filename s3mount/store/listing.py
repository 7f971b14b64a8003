"""Listings, DeleteObjects and Complete: XML built and read. No I/O.

Listings are asked for with encoding-type=url, because keys may hold what XML 1.0 cannot. A
service that ignores it may answer such keys raw: those entries are left out and logged.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes
from xml.sax.saxutils import escape

from lxml import etree

from s3mount.store import xml
from s3mount.store.answers import error_for, iso_date, size_of
from s3mount.store.base import (
    DeleteFailure,
    ListedObject,
    ListPage,
    Part,
    Upload,
)
from s3mount.store.errors import CorruptAnswer
from s3mount.store.xml import local_name

log = logging.getLogger(__name__)

_MAX_PART = 10_000  # S3's own bound of part numbers

_OPERATION = "ListObjectsV2"
# What XML 1.0 has no character for, raw or as a reference (CR and LF survive as references).
_UNCARRIABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def xml_can_carry(key: str) -> bool:
    return _UNCARRIABLE.search(key) is None


def parse_list(
    body: bytes, prefix: str, sent_token: str | None, answered_at: float, asked_at: float
) -> ListPage:
    """Raises CorruptAnswer for an answer that is cut, is no listing, repeats its token, or has keys
    that were not asked for: some callers delete what is listed."""
    root, repaired = _root(body, prefix, "ListBucketResult")
    texts = xml.fields(root)
    encoded = texts.get("EncodingType") == "url"
    objects: list[ListedObject] = []
    prefixes: list[str] = []
    for child in root:
        name = local_name(child)
        if name == "Contents":
            listed = _listed(child, encoded, prefix)
            if repaired and xml.MARK in listed.key:
                continue
            if not listed.key.startswith(prefix) or not listed.key:
                raise _corrupt(prefix, f"it lists {listed.key[:200]!r}")
            objects.append(listed)
        elif name == "CommonPrefixes":
            value = _decoded(child.findtext("{*}Prefix") or "", encoded)
            if repaired and xml.MARK in value:
                continue
            if not value.startswith(prefix) or not value.endswith("/"):
                raise _corrupt(prefix, f"it lists {value[:200]!r} as a directory")
            prefixes.append(value)
    token = _next_token(texts, prefix, sent_token)
    return ListPage(objects, prefixes, token, answered_at, asked_at)


def _corrupt(prefix: str, message: str, operation: str = _OPERATION) -> CorruptAnswer:
    return CorruptAnswer(message, operation=operation, key=prefix)


def _root(
    body: bytes, prefix: str, expected: str, operation: str = _OPERATION
) -> tuple[etree._Element, bool]:
    """The root, and whether it holds replaced bytes. Its name must be `expected`, where moto says
    'Response' for 'Result'."""
    try:
        root, repaired = xml.parse(body)
    except xml.NotXml as error:
        raise _corrupt(prefix, f"the listing is cut: {error}", operation) from error
    if local_name(root).replace("Response", "Result") != expected:
        raise _corrupt(prefix, f"a <{local_name(root)}> instead of a listing", operation)
    if repaired:
        log.warning("a listing of %r holds keys that its XML cannot carry: left out", prefix)
    return root, repaired


def _next_token(texts: dict[str, str], prefix: str, sent_token: str | None) -> str | None:
    truncated = texts.get("IsTruncated", "").strip().lower()
    if truncated == "false":
        return None
    if truncated != "true":
        raise _corrupt(prefix, "the listing does not say whether it is complete")
    token = texts.get("NextContinuationToken", "")
    if not token:
        raise _corrupt(prefix, "the listing is truncated and names no next token")
    if token == sent_token:
        raise _corrupt(prefix, "the listing repeats its continuation token")
    return token


def _decoded(text: str, encoded: bool) -> str:
    """Bytes that are not UTF-8 become surrogates (as in os.fsdecode)."""
    if not encoded or ("%" not in text and "+" not in text):
        return text
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")


def _listed(element: etree._Element, encoded: bool, prefix: str) -> ListedObject:
    texts = xml.fields(element)
    try:
        return ListedObject(
            key=_decoded(texts["Key"], encoded),
            size=size_of(texts["Size"]),
            etag=texts.get("ETag", "").strip('"'),
            last_modified=iso_date(texts["LastModified"]),
            storage_class=texts.get("StorageClass") or "STANDARD",
        )
    except (KeyError, ValueError) as error:
        raise _corrupt(prefix, f"an entry without key, size or date: {error!r}") from error


def parse_parts(body: bytes, key: str, sent_marker: int = 0) -> tuple[list[Part], int | None]:
    """A page of ListParts, and the marker of the next one (None: that was the last).

    Raises CorruptAnswer where that would lead to no other page than this one.
    """
    operation = "ListParts"
    root, _ = _root(body, key, "ListPartsResult", operation)
    texts = xml.fields(root)
    try:
        parts = [_part(xml.fields(child)) for child in root if local_name(child) == "Part"]
        if not _truncated(texts) or not parts:
            return parts, None
        marker = int(texts["NextPartNumberMarker"])
    except (KeyError, ValueError) as error:
        raise _corrupt(key, f"no listing of parts: {error!r}", operation) from error
    if not sent_marker < marker <= _MAX_PART:
        message = f"no listing of parts: after part {sent_marker} comes {marker}"
        raise _corrupt(key, message, operation)
    return parts, marker


def _part(texts: dict[str, str]) -> Part:
    number = int(texts["PartNumber"])
    if not 1 <= number <= _MAX_PART:
        raise ValueError(f"a part {number}")
    return Part(
        number,
        texts["ETag"].strip('"'),
        size_of(texts["Size"]),
        texts.get("ChecksumCRC32C") or None,
    )


def parse_uploads(
    body: bytes, prefix: str, sent_markers: tuple[str, str] = ("", "")
) -> tuple[list[Upload], tuple[str, str] | None]:
    """A page of ListMultipartUploads, and the key and upload id that the next one follows.

    Raises CorruptAnswer where these are those of this page (`sent_markers`) again.
    Asked for without encoding-type: Ceph 16 encodes then without saying so, moto does not.
    """
    operation = "ListMultipartUploads"
    root, repaired = _root(body, prefix, "ListMultipartUploadsResult", operation)
    texts = xml.fields(root)
    try:
        uploads = [_upload(child) for child in root if local_name(child) == "Upload"]
        markers = None
        if _truncated(texts) and uploads:
            markers = texts["NextKeyMarker"], texts["NextUploadIdMarker"]
    except (KeyError, ValueError) as error:
        raise _corrupt(prefix, f"no listing of uploads: {error!r}", operation) from error
    if markers == sent_markers:
        raise _corrupt(prefix, f"the listing repeats its markers {markers!r}", operation)
    if repaired:
        uploads = [found for found in uploads if xml.MARK not in found.key]
    # Uploads that were not asked for would be aborted with the others.
    return [found for found in uploads if found.key.startswith(prefix)], markers


def _upload(element: etree._Element) -> Upload:
    texts = xml.fields(element)
    initiator = element.findtext("{*}Initiator/{*}ID") or ""
    return Upload(texts["Key"], texts["UploadId"], iso_date(texts["Initiated"]), initiator)


def _truncated(texts: dict[str, str]) -> bool:
    return texts.get("IsTruncated", "").strip().lower() == "true"


def complete_body(parts: Sequence[Part]) -> bytes:
    """The body of CompleteMultipartUpload."""
    return b"".join(_complete_pieces(parts))


def _complete_pieces(parts: Sequence[Part]) -> Iterator[bytes]:
    yield b'<?xml version="1.0" encoding="UTF-8"?>'
    yield b'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    for part in parts:
        checksum = ""
        if part.checksum is not None:
            checksum = f"<ChecksumCRC32C>{escape(part.checksum)}</ChecksumCRC32C>"
        etag = escape(f'"{part.etag}"', {'"': "&quot;"})
        yield (
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{etag}</ETag>{checksum}</Part>"
        ).encode()
    yield b"</CompleteMultipartUpload>"


def delete_body(keys: Sequence[str]) -> bytes:
    """The body of DeleteObjects for keys that xml_can_carry; only failures are to be answered."""
    return b"".join(_delete_pieces(keys))


def _delete_pieces(keys: Sequence[str]) -> Iterator[bytes]:
    yield b'<?xml version="1.0" encoding="UTF-8"?>'
    yield b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    for key in keys:
        # Raw line ends and tabs would be normalised by the reader.
        text = escape(key, {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})
        yield f"<Object><Key>{text}</Key></Object>".encode()
    yield b"<Quiet>true</Quiet></Delete>"


def parse_delete(body: bytes) -> list[DeleteFailure]:
    """The keys that were not deleted; one that is not there counts as deleted.

    Raises CorruptAnswer if the answer is cut.
    """
    try:
        root, _ = xml.parse(body)
    except xml.NotXml as error:
        raise CorruptAnswer(f"the answer is cut: {error}", operation="DeleteObjects") from error
    if local_name(root) == "Error":  # a 200 with an error inside
        fields = xml.fields(root)
        raise error_for(
            "DeleteObjects", "", None, fields.get("Code", ""), fields.get("Message", ""), ""
        )
    if local_name(root).replace("Response", "Result") != "DeleteResult":
        raise CorruptAnswer(f"a <{local_name(root)}> as the answer", operation="DeleteObjects")
    failures = []
    for child in root:
        if local_name(child) != "Error":
            continue
        fields = xml.fields(child)
        key, code = fields.get("Key", ""), fields.get("Code", "")
        if code not in {"NoSuchKey", "NoSuchVersion"}:
            reason = error_for("DeleteObjects", key, None, code, fields.get("Message", ""), "")
            failures.append(DeleteFailure(key, reason))
    return failures
