"""Listings whose pages lead nowhere, or to something only after a while."""

from itertools import count
from urllib.parse import parse_qs, urlsplit

import pytest

from s3mount.core.config import StoreConfig
from s3mount.store import errors, multipart, pages
from s3mount.store.memory import MemoryStore
from s3mount.store.s3 import S3Store
from tests.counting_proxy import Fault, Reply, Seen
from tests.memory_wire import store_in_memory

Page = tuple[list[str], list[str]]  # keys, common prefixes


class Script:
    """A service whose listing has these pages, each but the last with a token of its own."""

    def __init__(self, *listed: Page, then: Page | None = None) -> None:
        """`then`: what comes after them, for ever."""
        self._pages = list(listed)
        self._then = then
        self._tokens = count(1)
        self.asked: list[str | None] = []  # the tokens that came

    def weather(self, seen: Seen) -> Fault | None:
        return Fault(before=self._answer) if seen.operation == "ListObjectsV2" else None

    def _answer(self, seen: Seen) -> Reply:
        query = parse_qs(urlsplit(seen.target).query)
        self.asked.append(query.get("continuation-token", [None])[0])
        if self._then is None:
            page, more = self._pages.pop(0), len(self._pages) > 0
        else:
            page, more = self._pages.pop(0) if self._pages else self._then, True
        keys, prefixes = page
        token = f"t {next(self._tokens)}"
        text = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        text += f"<NextContinuationToken>{token}</NextContinuationToken>" if more else ""
        for key in keys:
            text += (
                f"<Contents><Key>{key}</Key><Size>1</Size>"
                "<LastModified>2026-11-20T11:00:00Z</LastModified></Contents>"
            )
        for prefix in prefixes:
            text += f"<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"
        return Reply("200 OK", [], f"<ListBucketResult>{text}</ListBucketResult>".encode())


def store_of(script: Script, retries: int = 0) -> S3Store:
    config = StoreConfig(bucket="b", endpoint_url="http://memory", retries=retries)
    return store_in_memory(MemoryStore(), config, script.weather)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_EMPTY", 20)


EMPTY: Page = ([], [])


async def test_pages_without_a_name_are_passed_over_to_the_one_that_has_some() -> None:
    """Or what is below them would not be there for whoever asks for one key."""
    script = Script(EMPTY, EMPTY, (["k"], []), EMPTY, ([], ["z/"]))
    store = store_of(script)
    page = await store.list("", max_keys=1)
    assert [one.key for one in page.objects] == ["k"]
    assert script.asked == [None, "t 1", "t 2"]
    page = await store.list("", token=page.next_token)
    assert (page.objects, page.prefixes, page.next_token) == ([], ["z/"], None)
    assert script.asked[3:] == ["t 3", "t 4"]


async def test_the_check_at_the_start_takes_one_request_whatever_was_deleted() -> None:
    script = Script(then=EMPTY)
    await store_of(script).check_bucket("")
    assert script.asked == [None]


async def test_an_empty_last_page_is_the_end() -> None:
    page = await store_of(Script(EMPTY, EMPTY)).list("")
    assert (page.objects, page.prefixes, page.next_token) == ([], [], None)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (EMPTY, EMPTY),
        ((["a"], []), EMPTY),
        (([], ["a/"]), ([], ["a/"])),
        ((["a", "b"], []), (["a"], [])),
    ],
)
async def test_pages_that_name_nothing_new_are_not_followed_for_ever(
    first: Page, then: Page
) -> None:
    script = Script(first, then=then)
    store, token = store_of(script), None
    with pytest.raises(errors.CorruptAnswer, match="leads nowhere"):
        while True:
            token = (await store.list("", token=token)).next_token
    assert 20 <= len(script.asked) <= 21
    assert len(set(script.asked)) == len(script.asked)


async def test_pages_in_another_order_are_all_told() -> None:
    """Services that keep directories sort "a/" before "a-b"; emoji have another place in UTF-16."""
    listed: list[Page] = [(["z"], ["a/"]), (["a-b"], []), EMPTY, (["\U0001f600"], []), (["z"], [])]
    store, token, names = store_of(Script(*listed)), None, []
    while True:
        page = await store.list("", token=token)
        names += [*page.prefixes, *(one.key for one in page.objects)]
        if (token := page.next_token) is None:
            break
    assert names == ["a/", "z", "a-b", "\U0001f600", "z"]


async def test_a_listing_that_ignores_where_to_begin_is_corrupt() -> None:
    """Those that go on by key, not by token, would ask for the same again for ever."""
    store = store_of(Script(then=(["a", "b"], [])))
    with pytest.raises(errors.CorruptAnswer, match="leads nowhere"):
        await store.list("", delimiter="", start_after="c")
    assert (await store.list("", delimiter="", start_after="a")).objects[-1].key == "b"
    # A common prefix is that of keys after it.
    page = await store_of(Script(([], ["a/"]))).list("", start_after="a/b")
    assert page.prefixes == ["a/"]


@pytest.mark.parametrize("key", ["k{}", "elsewhere"])
async def test_uploads_without_end_are_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(multipart, "MOST_UPLOADS", 1000)
    numbers = count()

    def answer(seen: Seen) -> Reply:
        number = next(numbers)
        name = key.format(number)
        text = (
            f"<IsTruncated>true</IsTruncated><NextKeyMarker>{name}</NextKeyMarker>"
            f"<NextUploadIdMarker>{number}</NextUploadIdMarker><Upload><Key>{name}</Key>"
            f"<UploadId>{number}</UploadId><Initiated>2026-11-20T11:00:00Z</Initiated></Upload>"
        )
        body = f"<ListMultipartUploadsResult>{text}</ListMultipartUploadsResult>"
        return Reply("200 OK", [], body.encode())

    config = StoreConfig(bucket="b", endpoint_url="http://memory", retries=0)
    store = store_in_memory(MemoryStore(), config, lambda seen: Fault(before=answer))
    with pytest.raises(errors.StoreError, match="AbortIncompleteMultipartUpload"):
        await store.list_uploads("k")
    assert next(numbers) == 11
