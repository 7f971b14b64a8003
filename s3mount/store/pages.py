"""Listings, page by page: each one leads on, and says something new."""

from urllib.parse import quote_from_bytes, unquote_to_bytes

from s3mount.core.config import StoreConfig
from s3mount.store.answers import http_date
from s3mount.store.base import ListPage
from s3mount.store.call import Lane
from s3mount.store.errors import CorruptAnswer
from s3mount.store.headers import RequestHeaders
from s3mount.store.listing import parse_list
from s3mount.store.request import Answer, Request
from s3mount.store.sender import Sender

_OPERATION = "ListObjectsV2"
# Pages with a token, one after the other, that bring no name behind those there were. Services
# answer empty ones where a page's worth of work, a thousand keys at least, has met nothing but
# deleted versions: so many of them are ten million of these in a row. And some, that keep
# directories, sort 'a/' before 'a-b'. Who answers more has no end.
MOST_EMPTY = 10_000


class Pages:
    def __init__(self, config: StoreConfig, sender: Sender, headers: RequestHeaders) -> None:
        self._config = config
        self._sender = sender
        self._headers = headers

    async def page(
        self,
        prefix: str,
        delimiter: str,
        start_after: str,
        token: str | None,
        max_keys: int,
        *,
        follow: bool = True,
    ) -> ListPage:
        """See ObjectStore.list. The token of an answer names, beside the service's own, the last
        entry so far and how many pages have not got beyond it, for a listing that goes round would
        do so for ever. `follow` False: the first page, names or not."""
        reached, idle = b"", 0
        if token is not None:
            text, number, token = token.split(" ", 2)
            reached, idle = unquote_to_bytes(text), int(number)
        while idle < MOST_EMPTY:
            page = await self._ask(prefix, delimiter, start_after, token, max_keys)
            if page.next_token is None:
                return page
            last = _last(page)
            reached, idle = (last, 0) if last > reached else (reached, idle + 1)
            if last or not follow:
                following = f"{quote_from_bytes(reached)} {idle} {page.next_token}"
                return ListPage(
                    page.objects, page.prefixes, following, page.answered_at, page.asked_at
                )
            token = page.next_token
        raise _corrupt(prefix, f"{MOST_EMPTY} pages without a name that is new")

    async def _ask(
        self,
        prefix: str,
        delimiter: str,
        start_after: str,
        token: str | None,
        max_keys: int,
    ) -> ListPage:
        query = [("list-type", "2"), ("encoding-type", "url")]
        query.append(("max-keys", str(min(max_keys, self._config.list_page_size))))
        if prefix:
            query.append(("prefix", prefix))
        if delimiter:
            query.append(("delimiter", delimiter))
        if token is not None:
            query.append(("continuation-token", token))
        elif start_after:
            query.append(("start-after", start_after))

        def parse(answer: Answer) -> ListPage:
            answered_at = http_date(answer.headers.get("date", ""))
            page = parse_list(answer.body, prefix, token, answered_at, answer.asked_at)
            first = token is None and not delimiter  # a common prefix may begin before it
            if first and b"" < (last := _last(page)) < _bytes(start_after):
                raise _corrupt(prefix, f"after {start_after[:200]!r} comes {last[:200]!r}")
            return page

        request = Request(_OPERATION, "GET", None, tuple(query), self._headers.list(), about=prefix)
        return await self._sender.read(request, parse, lane=Lane.METADATA)


def _last(page: ListPage) -> bytes:
    """The last of its entries, in the order of the service; empty where there is none."""
    key = _bytes(page.objects[-1].key) if page.objects else b""
    return max(key, _bytes(page.prefixes[-1])) if page.prefixes else key


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _corrupt(prefix: str, message: str) -> CorruptAnswer:
    return CorruptAnswer(f"the listing leads nowhere: {message}", operation=_OPERATION, key=prefix)
