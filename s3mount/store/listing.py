"""Listings and DeleteObjects: XML built and read. No I/O.

Listings are asked for with encoding-type=url, because keys may hold what XML 1.0 cannot. A
service that ignores it may answer such keys raw: those entries are left out and logged.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes
from xml.sax.saxutils import escape

from lxml import etree

from s3mount.store.answers import error_for, iso_date, local_name, parse_xml
from s3mount.store.base import CorruptAnswer, DeleteFailure, ListedObject, ListPage

log = logging.getLogger(__name__)

_OPERATION = "ListObjectsV2"
# What XML 1.0 has no character for, raw or as a reference (CR and LF survive as references).
_UNCARRIABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_FORBIDDEN_BYTES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_FORBIDDEN_REFERENCE = re.compile(
    rb"&#(?:x0*(?:[0-8bcBCeEfF]|1[0-9a-fA-F])|0*(?:[0-8]|1[124-9]|2\d|3[01]));"
)
_MARK = "\ufffd"


def xml_can_carry(key: str) -> bool:
    return _UNCARRIABLE.search(key) is None


def parse_list(
    body: bytes, prefix: str, sent_token: str | None, answered_at: float, asked_at: float
) -> ListPage:
    """Raises CorruptAnswer for an answer that is cut, is no listing, or repeats its token."""
    root, repaired = _root(body, prefix)
    texts = {local_name(child): child.text or "" for child in root}
    encoded = texts.get("EncodingType") == "url"
    objects: list[ListedObject] = []
    prefixes: list[str] = []
    for child in root:
        name = local_name(child)
        if name == "Contents":
            listed = _listed(child, encoded, prefix)
            if not (repaired and _MARK in listed.key):
                objects.append(listed)
        elif name == "CommonPrefixes":
            value = _decoded(child.findtext("{*}Prefix") or "", encoded)
            if not (repaired and _MARK in value):
                prefixes.append(value)
    if repaired:
        log.warning("the listing of %r holds keys that its XML cannot carry: left out", prefix)
    token = _next_token(texts, prefix, sent_token)
    return ListPage(objects, prefixes, token, answered_at, asked_at)


def _corrupt(prefix: str, message: str) -> CorruptAnswer:
    return CorruptAnswer(message, operation=_OPERATION, key=prefix)


def _root(body: bytes, prefix: str) -> tuple[etree._Element, bool]:
    """The ListBucketResult, and whether bytes had to be replaced to read it."""
    repaired = False
    try:
        root = parse_xml(body)
    except (etree.XMLSyntaxError, ValueError) as error:
        # A complete document may still hold bytes that XML forbids; a cut one is not repaired.
        if not body.rstrip().endswith(b"</ListBucketResult>"):
            raise _corrupt(prefix, f"the listing is cut: {error}") from error
        repaired = True
        try:
            root = parse_xml(_sanitized(body))
        except (etree.XMLSyntaxError, ValueError) as again:
            raise _corrupt(prefix, f"the listing is no XML: {again}") from again
    if local_name(root) != "ListBucketResult":
        raise _corrupt(prefix, f"a <{local_name(root)}> instead of a listing")
    return root, repaired


def _sanitized(body: bytes) -> bytes:
    mark = _MARK.encode()
    body = _FORBIDDEN_REFERENCE.sub(mark, _FORBIDDEN_BYTES.sub(mark, body))
    return body.decode("utf-8", "replace").encode()


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
    texts = {local_name(child): child.text or "" for child in element}
    try:
        return ListedObject(
            key=_decoded(texts["Key"], encoded),
            size=int(texts["Size"]),
            etag=texts.get("ETag", "").strip('"'),
            last_modified=iso_date(texts["LastModified"]),
            storage_class=texts.get("StorageClass") or "STANDARD",
        )
    except (KeyError, ValueError) as error:
        raise _corrupt(prefix, f"an entry without key, size or date: {error!r}") from error


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
        root = parse_xml(body)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise CorruptAnswer(f"the answer is cut: {error}", operation="DeleteObjects") from error
    if local_name(root) == "Error":  # a 200 with an error inside
        fields = {local_name(child): child.text or "" for child in root}
        raise error_for(
            "DeleteObjects", "", None, fields.get("Code", ""), fields.get("Message", ""), ""
        )
    failures = []
    for child in root:
        if local_name(child) != "Error":
            continue
        fields = {local_name(item): item.text or "" for item in child}
        key, code = fields.get("Key", ""), fields.get("Code", "")
        if code not in {"NoSuchKey", "NoSuchVersion"}:
            reason = error_for("DeleteObjects", key, None, code, fields.get("Message", ""), "")
            failures.append(DeleteFailure(key, reason))
    return failures
