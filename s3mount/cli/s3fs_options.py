"""Every option of s3fs(1), up to 1.97: understood, accepted with a warning, or refused.

The README's table is checked against this one by a test.
"""

import base64
import binascii
import mimetypes
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from s3mount.cli import values
from s3mount.cli.settings import Settings
from s3mount.core.errors import ConfigurationError

Apply = Callable[[Settings, str | None], None]

OFF = ("0", "no", "false")
STORAGE_CLASSES = (
    "standard",
    "standard_ia",
    "onezone_ia",
    "reduced_redundancy",
    "intelligent_tiering",
    "glacier",
    "glacier_ir",
    "deep_archive",
)
ACLS = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)
LOG_LEVELS = {
    "silent": "error",
    "crit": "error",
    "critical": "error",
    "err": "error",
    "error": "error",
    "wan": "warning",
    "warn": "warning",
    "warning": "warning",
    "inf": "info",
    "info": "info",
    "information": "info",
    "dbg": "debug",
    "debug": "debug",
}


class Verdict(Enum):
    UNDERSTOOD = "understood"
    ACCEPTED = "accepted with a warning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class S3fsOption:
    """`meaning`: what it does here, the warning, or the reason of the refusal."""

    name: str
    verdict: Verdict
    meaning: str
    apply: Apply | None = None
    nearest: str = ""  # what to use instead of a refused option

    def use(self, settings: Settings, text: str | None) -> None:
        """Raises ConfigurationError for a refused option or a value that is nonsense."""
        if self.verdict is Verdict.REFUSED:
            instead = f"; use {self.nearest} instead" if self.nearest else ""
            raise ConfigurationError(f"-o {self.name} is refused: {self.meaning}{instead}")
        if self.apply is not None:
            try:
                self.apply(settings, text)
            except ConfigurationError as error:
                raise ConfigurationError(f"-o {self.name}: {error}") from None
        if self.verdict is Verdict.ACCEPTED:
            settings.warnings.append(f"-o {self.name}: {self.meaning}")


def put(section: str, field: str, parse: values.Parse) -> Apply:
    """The option's value, parsed, is that setting."""

    def apply(settings: Settings, text: str | None) -> None:
        if text is None:
            raise ConfigurationError("a value is needed")
        settings.set(section, field, parse(text))

    return apply


def switch(section: str, field: str, constant: Any = True) -> Apply:
    """The option alone, or with =1, sets `constant`; with =0 it does nothing."""

    def apply(settings: Settings, text: str | None) -> None:
        if text in OFF:
            return
        if text not in (None, "", "1", "yes", "true"):
            raise ConfigurationError(f"takes no value but 1 or 0, not {text!r}")
        settings.set(section, field, constant)

    return apply


def _acl(text: str) -> str | None:
    # 'private' is what a request without an ACL means, also where buckets refuse ACLs.
    name = values.one_of(*ACLS)(text)
    return None if name == "private" else str(name)


def _storage_class(text: str) -> str | None:
    name = values.one_of(*STORAGE_CLASSES)(text)
    return None if name == "standard" else str(name).upper()


def _use_sse(settings: Settings, text: str | None) -> None:
    kind, _, argument = (text or "1").partition(":")
    if kind == "1":
        settings.set("store", "sse", "AES256")
    elif kind in ("kmsid", "k"):
        key = argument or os.environ.get("AWSSSEKMSID", "")
        if not key:
            raise ConfigurationError("name the key: use_sse=kmsid:ID, or set AWSSSEKMSID")
        settings.set("store", "sse", "aws:kms")
        settings.set("store", "sse_kms_key_id", key)
    elif kind in ("custom", "c"):
        settings.set("front", "sse_custom", True)
        if argument:
            _load_customer_key(settings, argument)
        elif os.environ.get("AWSSSECKEYS"):
            keys = os.environ["AWSSSECKEYS"].split(":")
            settings.set("store", "sse_customer_key", _customer_key(keys[0]))
    elif os.path.isfile(text or ""):
        settings.set("front", "sse_custom", True)
        _load_customer_key(settings, text or "")
    else:
        raise ConfigurationError(f"{text!r} is none of 1, kmsid:ID, custom:FILE")


def _load_customer_key(settings: Settings, text: str | None) -> None:
    path = values.existing_file(text or "")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigurationError(f"{path} is open to others: chmod 600 {path}")
    keys = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    if not keys:
        raise ConfigurationError(f"{path} has no key")
    if len(keys) > 1:
        settings.warnings.append(
            f"{path}: only the first key is used; objects under older keys answer EACCES"
        )
    settings.set("store", "sse_customer_key", _customer_key(keys[0]))


def _customer_key(text: str) -> bytes:
    """32 bytes, as they are or in base64."""
    try:
        raw = text.encode() if len(text) == 32 else base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise ConfigurationError("the key of SSE-C must have 32 bytes, as they are or in base64")
    return raw


def _servicepath(settings: Settings, text: str | None) -> None:
    settings.set("front", "servicepath", (text or "/").strip("/"))


def _dbglevel(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ConfigurationError(f"{text!r} is none of crit, err, warn, info, dbg")
    return LOG_LEVELS[text.lower()]


def _ensure_free_ratio(settings: Settings, text: str | None) -> None:
    ratio = values.whole_number(text or "")
    if ratio > 100:
        raise ConfigurationError("a ratio is 0 to 100 (percent)")
    settings.set("front", "free_space_ratio", ratio)


def _mime(settings: Settings, text: str | None) -> None:
    mimetypes.init([str(values.existing_file(text or ""))])


def _root_mode(text: str) -> int:
    return 0o777 & ~int(values.octal(text))


def _verify_hostname(settings: Settings, text: str | None) -> None:
    if text == "0":
        settings.set("front", "any_hostname", True)


def _curldbg(settings: Settings, text: str | None) -> None:
    values.one_of("normal", "body")(text or "normal")
    settings.set("mount", "log_level", "debug")


def _ipresolve(settings: Settings, text: str | None) -> None:
    if (text or "").lower() != "whatever":
        raise ConfigurationError(
            "one IP version cannot be chosen; give a URL whose name has only that version"
        )


def _bucket(settings: Settings, text: str | None) -> None:
    settings.set("front", "bucket", values.word(text or ""))


def understood(name: str, meaning: str, apply: Apply | None) -> S3fsOption:
    return S3fsOption(name, Verdict.UNDERSTOOD, meaning, apply)


def accepted(name: str, warning: str, apply: Apply | None = None) -> S3fsOption:
    return S3fsOption(name, Verdict.ACCEPTED, warning, apply)


def refused(name: str, reason: str, nearest: str = "") -> S3fsOption:
    return S3fsOption(name, Verdict.REFUSED, reason, nearest=nearest)
