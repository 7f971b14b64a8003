"""XML of answers, as services really send it. No I/O."""

import re

from lxml import etree

# What stands for bytes that XML cannot carry, once they were replaced.
MARK = "\ufffd"

_FORBIDDEN_BYTES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_REFERENCE = re.compile(rb"&#(x[0-9a-fA-F]+|[0-9]+);")
_ALLOWED_CONTROLS = {0x9, 0xA, 0xD}
_CLOSING_TAG = re.compile(rb"</([A-Za-z]+)>\s*\Z")


class NotXml(ValueError):
    """Cut, empty, or no XML at all."""


def local_name(element: etree._Element) -> str:
    """The tag without its namespace; some services send one, some none."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def fields(element: etree._Element) -> dict[str, str]:
    """The texts of the children by their names; of equal names the last."""
    return {local_name(child): child.text or "" for child in element}


def parse(body: bytes) -> tuple[etree._Element, bool]:
    """The root, and whether bytes had to be replaced by MARK to read it.

    Keys may hold characters that XML 1.0 has no form for; Ceph and moto send them all the same.
    Only a document that ends in a closing tag is repaired: raises NotXml for one that is cut.
    """
    try:
        return _strict(body), False
    except (etree.XMLSyntaxError, ValueError) as error:
        if _CLOSING_TAG.search(body) is None:
            raise NotXml(str(error)) from error
    try:
        return _strict(_repaired(body)), True
    except (etree.XMLSyntaxError, ValueError) as error:
        raise NotXml(str(error)) from error


def _strict(body: bytes) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    root: etree._Element | None = etree.fromstring(body, parser)
    if root is None:  # lxml answers None for some empty documents
        raise ValueError("an empty document")
    return root


def _repaired(body: bytes) -> bytes:
    mark = MARK.encode()
    body = _FORBIDDEN_BYTES.sub(mark, body)
    return _REFERENCE.sub(_allowed_reference, body).decode("utf-8", "replace").encode()


def _allowed_reference(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    number = int(digits[1:], 16) if digits[:1] == b"x" else int(digits)
    surrogate = 0xD800 <= number <= 0xDFFF or number in {0xFFFE, 0xFFFF} or number > 0x10FFFF
    if surrogate or (number < 0x20 and number not in _ALLOWED_CONTROLS):
        return MARK.encode()
    return match[0]
