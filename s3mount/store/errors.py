"""The typed errors of every ObjectStore, and what a user can do about each."""


class StoreError(Exception):
    """A request that failed for good (retries included).

    `transient`: the same request may succeed later. `ambiguous`: the service may or may not have
    carried it out. `status` is the HTTP status (None: no answer), `code` the service's error code.
    """

    transient = False
    remedy = ""  # what a user can do about it

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        key: str = "",
        status: int | None = None,
        code: str = "",
        request_id: str = "",
        ambiguous: bool = False,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.key = key
        self.status = status
        self.code = code
        self.request_id = request_id
        self.ambiguous = ambiguous

    def __str__(self) -> str:
        """One log line: what was asked, of which key, what came back, what helps."""
        answer = " ".join(str(part) for part in (self.status, self.code) if part)
        request = f" request {self.request_id}" if self.request_id else ""
        line = f"{self.operation} {self.key!r}: {answer} {super().__str__()}{request}".strip()
        remedy = _REMEDY_BY_CODE.get(self.code, self.remedy)
        return f"{line}; {remedy}" if remedy else line


_REMEDY_BY_CODE = {"UserSuspended": "the account is suspended: ask who runs the service"}


class NotFound(StoreError):
    """No such key (or version)."""


class NoSuchBucket(StoreError):
    remedy = "the bucket is gone: what is unsent is kept here, and sent once it is back"


class NoSuchUpload(StoreError):
    """The multipart upload is unknown: completed, aborted, or never there."""


class AccessDenied(StoreError):
    remedy = "check the bucket's policy and what these credentials may do"


class BadCredentials(AccessDenied):
    """Unknown key id, wrong signature, expired token that could not be refreshed."""

    remedy = "renew the credentials where the mount reads them: it reads them again by itself"


class ClockSkewed(AccessDenied):
    """RequestTimeTooSkewed: this machine's clock is wrong."""

    remedy = "set this machine's clock: timedatectl set-ntp true"


class QuotaExceeded(StoreError):
    remedy = "make room in the bucket or have its quota raised; what is unsent is kept here"


class PreconditionFailed(StoreError):
    """412, or 409 of a conditional write that lost a race."""


class NotModified(StoreError):
    """304 of a GET with if_none_match."""


class InvalidRange(StoreError):
    """416: the range starts at or after the object's end."""


class InvalidPart(StoreError):
    """Complete named a part that is not there, or left one out where the service wants all."""


class EntityTooLarge(StoreError): ...


class KeyTooLong(StoreError): ...


class MetadataTooLarge(StoreError): ...


class NotImplementedByService(StoreError): ...


class Archived(StoreError):
    """The object is in Glacier or a like class and must be restored first."""


class InvalidRequest(StoreError):
    """Any other 4xx."""


class TransientError(StoreError):
    transient = True


class SlowDown(TransientError):
    """503 SlowDown, 429: ask less often."""


class ServerError(TransientError):
    """5xx."""


class ConnectionLost(TransientError):
    """No connection, or it broke before the answer was complete."""


class DeadlineExceeded(TransientError):
    """The request with its retries took longer than allowed."""


class CorruptAnswer(TransientError):
    """Too short, wrong checksum, XML that is cut or nonsense, a listing that repeats itself."""
