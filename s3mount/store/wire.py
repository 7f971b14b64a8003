"""The thin client of the hot requests: one attempt of one request, in the calling thread.

Where the bucket is, who asks, and what time the service takes it to be: an answer may correct
each of these, and the request is then made again at once.
"""

import itertools
import logging
import re
import threading
import time
from collections.abc import Mapping

from botocore.credentials import ReadOnlyCredentials
from urllib3.connectionpool import HTTPConnectionPool

from s3mount.core.config import StoreConfig
from s3mount.store import errors
from s3mount.store.answers import error_fields, error_for, http_date
from s3mount.store.counts import Counts
from s3mount.store.endpoint import Connection, Endpoint
from s3mount.store.exchange import Exchange
from s3mount.store.request import Answer, Request, addressed
from s3mount.store.signing import Signer

log = logging.getLogger(__name__)

_HOPS = 4  # redirects and renewals of credentials within one attempt
_DIAGNOSIS_HOLDS = 2.0  # seconds for which the reason found for one bodiless refusal serves all
# What new credentials may help against; a secret can change under the same key id.
_REFRESHABLE = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
# Answers that are acted upon: what is gone is forgotten, what has changed is a conflict.
_MEANT = frozenset({404, 412})
# Less is the latency of an answer; services allow 15 minutes.
_LEAST_SKEW = 60.0
_REGION_IN_TEXT = re.compile(r"expecting '([a-z0-9-]+)'")


class Wire:
    """Sends requests; all state is shared by the threads and guarded by `_lock` or immutable."""

    def __init__(
        self, config: StoreConfig, connection: Connection, counts: Counts, threads: int
    ) -> None:
        """`threads` is the most that may ever call `send` at once: a connection for each."""
        self._connection = connection
        self._exchange = Exchange(config, counts, threads, connection.ca_bundle)
        self._lock = threading.Lock()  # guards _route; held for no I/O but the first resolving
        self._route: tuple[Endpoint, Signer, HTTPConnectionPool] | None = None
        # Guards the two after it, and is held while the reason is asked for: many HEADs are
        # refused at once when a token expires.
        self._diagnosing = threading.Lock()
        self._diagnosed_at = -_DIAGNOSIS_HOLDS
        self._diagnosis: dict[str, str] = {}

    def send(self, request: Request, deadline: float) -> Answer:
        """Any 2xx answer, its body complete. `deadline` is of time.monotonic().

        Follows redirects to the bucket's region (learnt once) and renews credentials that were
        refused. Raises StoreError; `ambiguous` where the request may have been carried out.
        """
        for hop in itertools.count(1):
            route = self._routed()
            credentials = self._connection.credentials()
            answer = self._attempt(route, credentials, request, deadline)
            if 200 <= answer.status < 300:
                return answer
            error, again = self.judge(route[0], route[1], credentials, request, answer, deadline)
            if not again or hop == _HOPS:
                raise error
        raise AssertionError  # unreachable: count() never ends

    def judge(
        self,
        endpoint: Endpoint,
        signer: Signer,
        credentials: ReadOnlyCredentials | None,
        request: Request,
        answer: Answer,
        deadline: float,
    ) -> tuple[errors.StoreError, bool]:
        """The typed error of an answer that is no success, to a request made with these; and
        whether it told where, as whom or when to ask: it was refused, and is to be made again."""
        fields = self._fields(request, answer, deadline)
        again = (
            self._relocated(endpoint, request, answer, fields)
            or self._renewed(request, credentials, fields)
            or self._set_clock(signer, answer, fields)
        )
        key = request.about if request.key is None else request.key
        if answer.status in _MEANT and answer.body and not fields:
            # Cut, or a proxy's page: a file is not gone because somebody else says 404.
            cut = errors.CorruptAnswer(
                f"{answer.status} without an error of S3 in it",
                operation=request.operation,
                key=key,
                ambiguous=True,
            )
            return cut, again
        error = error_for(
            request.operation,
            key,
            answer.status,
            fields.get("Code", ""),
            fields.get("Message", ""),
            answer.request_id or fields.get("RequestId", ""),
        )
        return error, again

    def close(self) -> None:
        with self._lock:
            if self._route is not None:
                self._route[2].close()
            self._route = None

    # -- where to

    def route(self) -> tuple[Endpoint, Signer]:
        """As found out so far; the first time it may block."""
        endpoint, signer, _ = self._routed()
        return endpoint, signer

    def _routed(self) -> tuple[Endpoint, Signer, HTTPConnectionPool]:
        route = self._route
        if route is None:
            with self._lock:
                if self._route is None:
                    endpoint = self._connection.endpoint()
                    self._route = endpoint, Signer(endpoint.region), self._exchange.pool(endpoint)
                route = self._route
        return route

    def _forget_route(self, endpoint: Endpoint) -> None:
        """Idle connections of the old route are closed by their pool's finalizer."""
        with self._lock:
            if self._route is not None and self._route[0] == endpoint:
                self._route = None

    def _relocated(
        self, endpoint: Endpoint, request: Request, answer: Answer, fields: Mapping[str, str]
    ) -> bool:
        """Did the answer tell that the bucket is elsewhere? Then it is asked there next."""
        code = fields.get("Code", "")
        if answer.status not in {301, 302, 307, 308} and code not in {
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "TemporaryRedirect",
            "IllegalLocationConstraintException",
        }:
            return False
        region = answer.headers.get("x-amz-bucket-region") or fields.get("Region")
        if not region and (found := _REGION_IN_TEXT.search(fields.get("Message", ""))):
            region = found[1]
        if region and region != endpoint.region:
            self._connection.use_region(region)
        elif location := answer.headers.get("location"):
            self._connection.use_location(location)
        elif host := fields.get("Endpoint"):
            self._connection.use_location(f"{endpoint.scheme}://{host}")
        else:
            return False
        self._forget_route(endpoint)
        return True

    def _renewed(
        self,
        request: Request,
        credentials: ReadOnlyCredentials | None,
        fields: Mapping[str, str],
    ) -> bool:
        if fields.get("Code") not in _REFRESHABLE:
            # A HEAD does not say why; the LIST that asked for it may have had newer ones.
            return request.method == "HEAD" and self._connection.credentials() != credentials
        return self._connection.reload_credentials(credentials)

    def _set_clock(self, signer: Signer, answer: Answer, fields: Mapping[str, str]) -> bool:
        """The service took our time for wrong: from now on it is told its own."""
        theirs = http_date(answer.headers.get("date", ""))
        if fields.get("Code") not in _SKEWED or not theirs:
            return False
        skew = theirs - time.time()
        if abs(skew - signer.skew) < _LEAST_SKEW:
            return False
        log.warning(
            "this machine's clock is %.0f s %s the service's, which refuses its requests: they are"
            " signed with the service's time; set the clock (timedatectl set-ntp true)",
            abs(skew),
            "behind" if skew > 0 else "ahead of",
        )
        signer.skew = skew
        return True

    def _fields(self, request: Request, answer: Answer, deadline: float) -> dict[str, str]:
        """The error's fields. HEAD has no body, so a refusal's reason (expired token, other
        region) is looked for by a LIST without keys, once for all who are refused together."""
        if request.method != "HEAD" or answer.status not in {301, 307, 400, 401, 403}:
            return error_fields(answer.body)
        with self._diagnosing:
            if time.monotonic() - self._diagnosed_at >= _DIAGNOSIS_HOLDS:
                query = (("list-type", "2"), ("max-keys", "0"))
                look = Request("ListObjectsV2", "GET", None, query)
                credentials = self._connection.credentials()
                seen = self._attempt(self._routed(), credentials, look, deadline)
                fields = error_fields(seen.body)
                # A LIST may be denied for another reason than the HEAD was.
                self._diagnosis = fields if fields.get("Code") != "AccessDenied" else {}
                self._diagnosed_at = time.monotonic()
            return self._diagnosis

    def _attempt(
        self,
        route: tuple[Endpoint, Signer, HTTPConnectionPool],
        credentials: ReadOnlyCredentials | None,
        request: Request,
        deadline: float,
    ) -> Answer:
        endpoint, signer, pool = route
        target, headers = addressed(request, endpoint, signer, credentials)
        return self._exchange.send(pool, request, target, headers, deadline)
