"""GetObjectTagging and PutObjectTagging."""

import base64
import hashlib
from collections.abc import Mapping
from xml.sax.saxutils import escape

from s3mount.store import errors, xml
from s3mount.store.call import Lane
from s3mount.store.headers import RequestHeaders
from s3mount.store.request import Answer, Request
from s3mount.store.sender import Sender
from s3mount.store.xml import local_name

_QUERY = (("tagging", ""),)


class Tagging:
    def __init__(self, sender: Sender, headers: RequestHeaders) -> None:
        self._sender = sender
        self._headers = headers

    async def get(self, key: str) -> Mapping[str, str]:
        request = Request("GetObjectTagging", "GET", key, _QUERY, self._headers.list())
        return await self._sender.read(
            request, lambda answer: _parsed(key, answer), lane=Lane.METADATA
        )

    async def put(self, key: str, tags: Mapping[str, str]) -> None:
        body = _body(tags)
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        headers = self._headers.list()
        headers["content-md5"] = base64.b64encode(digest).decode()
        headers["content-type"] = "application/xml"
        request = Request("PutObjectTagging", "PUT", key, _QUERY, headers, body)
        await self._sender.write(request.operation, key, lambda: request, lambda _: None)


def _parsed(key: str, answer: Answer) -> Mapping[str, str]:
    """Ceph leaves the set out where it is empty."""
    try:
        root, _ = xml.parse(answer.body)
        found = [xml.fields(tag) for tag in root.iter() if local_name(tag) == "Tag"]
        return {tag["Key"]: tag["Value"] for tag in found}
    except (xml.NotXml, KeyError) as error:
        raise errors.CorruptAnswer(
            f"no tags: {error!r}", operation="GetObjectTagging", key=key
        ) from error


def _body(tags: Mapping[str, str]) -> bytes:
    pieces = [
        f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>"
        for name, value in tags.items()
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<TagSet>{''.join(pieces)}</TagSet></Tagging>"
    ).encode()
