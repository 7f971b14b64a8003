"""What `s3mount status` says, as rows of words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from s3mount.cli.asking import left_text
from s3mount.cli.texts import count_text, printable, rate_text, size_text, time_text
from s3mount.control.answers import is_readable_status
from s3mount.core.prices import Prices, cost

Json = Any

# Styles of rich's.
GOOD, WARNING, BAD, DIM, HEAD = "green", "yellow", "bold red", "dim", "bold"
SHOWN = 20  # rows of a kind in the report


@dataclass(frozen=True, slots=True)
class Row:
    """`label` is '' where it goes on with the row before."""

    label: str
    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class PriceList:
    prices: Prices
    source: str


def report(status: Json, price_list: PriceList) -> list[Row]:
    """All that there is to say."""
    return [
        *head(status),
        *queue(status),
        *_some("transfers", [transfer_text(one) for one in by_motion(status)]),
        *problems(status, SHOWN),
        *left_behind(status),
        *totals(status, price_list),
        *machine(status),
        *hidden(status),
    ]


def _some(label: str, lines: list[str], most: int = SHOWN, style: str = "") -> Iterator[Row]:
    for number, line in enumerate(lines[:most]):
        yield Row("" if number else label, line, style)
    if len(lines) > most:
        yield Row("", f"and {len(lines) - most:,} more", style)


def head(status: Json) -> list[Row]:
    pending = status["pending"]
    where = f"{status['bucket']}:/{status['prefix']} on {status['mountpoint']}"
    phase = pending["phase"] + (", read-only" if status["read_only"] else "")
    service = f" at {status['endpoint']}" if status["endpoint"] else ""
    up = time_text(status["uptime"])
    return [
        Row("mount", printable(where), HEAD),
        Row("", f"{phase} for {up}{service}, process {status['pid']}"),
    ]


def summary(status: Json) -> str:
    """One line of a mount among others."""
    if not is_readable_status(status):
        return printable(f"{status.get('mountpoint')}  {other_version(status)}")
    pending, totals = status["pending"], status["totals"]
    parts = [
        f"{status['mountpoint']}  {status['bucket']}:/{status['prefix']}",
        pending["phase"],
        f"{left_text(pending)} pending" if pending["intents"] or pending["bytes"] else "idle",
    ]
    if pending["bytes"]:
        parts.append(speed_text(pending))
    parts.append(f"{count_text(totals['files'], 'file')} {size_text(totals['bytes'])} sent")
    parts.append(f"{size_text(totals['bytes_in'])} read")
    parts.append(count_text(totals["requests"], "request"))
    if pending["errors"]:
        parts.append(f"{len(pending['errors'])} not sent: {pending['errors'][0]}")
    if status["failures"]:
        parts.append(f"{len(status['failures'])} failed")
    return printable(", ".join(part for part in parts if part))


def other_version(status: Json) -> str:
    """Why the mount's status is not shown."""
    version = status.get("version")
    return (
        f"is served by s3mount {version}, whose status this one cannot read; --json shows it, and a"
        " new mount will be of this version"
    )


def speed_text(pending: Json) -> str:
    rate, left = rate_text(pending["per_second"]), time_text(pending["eta"])
    return ", ".join(part for part in (rate, f"{left} left" if left else "") if part)


def queue(status: Json) -> list[Row]:
    pending = status["pending"]
    running: dict[str, int] = {}
    for intent in status["intents"]:
        if intent["state"] == "running":
            running[intent["kind"]] = running.get(intent["kind"], 0) + 1
    kinds = [
        f"{count:,} {kind}" + (f" ({running[kind]} under way)" if kind in running else "")
        for kind, count in status["queue"].items()
        if count
    ]
    rows = [Row("pending", ", ".join(kinds) or "no changes")]
    if pending["bytes"]:
        files = count_text(pending["files"], "file")
        speed = speed_text(pending)
        size = size_text(pending["bytes"])
        rows.append(Row("", f"{size} of {files} to be sent" + (f", {speed}" if speed else "")))
    if pending["unfinished"]:
        rows.append(Row("", f"{count_text(pending['unfinished'], 'file')} still being written"))
    return rows


def by_motion(status: Json) -> list[Json]:
    """Transfers, those that move first, then by size."""
    return sorted(status["transfers"], key=lambda one: (not one["moving"], -one["size"]))


def share(transfer: Json) -> float:
    return float(transfer["sent"] / transfer["size"]) if transfer["size"] else 0.0


def transfer_text(transfer: Json) -> str:
    return "  ".join(part for part in (_progress(transfer), printable(transfer["path"])) if part)


def _progress(transfer: Json) -> str:
    size = f"{size_text(transfer['sent'])} of {size_text(transfer['size'])}"
    return f"{int(share(transfer) * 100):3}%  {size}  {motion_text(transfer)}"


def motion_text(transfer: Json) -> str:
    """Rate and time left, or why there is none."""
    if transfer["error"]:
        return f"failed {count_text(transfer['attempts'], 'time')}: {transfer['error']}"
    if not transfer["moving"]:
        return "being written" if transfer["open"] else "waits"
    left = time_text(transfer["eta"])
    return rate_text(transfer["per_second"]) + (f"  {left} left" if left else "")


def problems(status: Json, most: int) -> list[Row]:
    rows: list[Row] = []
    failing = [one for one in status["intents"] if one["error"]]
    lines = [_failing(one) for one in failing]
    known = {f"{one['what']}: {one['error']}" for one in failing}
    lines += [printable(error) for error in status["pending"]["errors"] if error not in known]
    rows += _some("not sent", lines, most, WARNING)
    rows += _some("failed", [printable(text) for text in status["failures"][::-1]], most, BAD)
    conflicts = [
        printable(f"{one['key']} was changed by another host; ours: {', '.join(one['kept'])}")
        for one in status["conflicts"][::-1]
    ]
    rows += _some("conflicts", conflicts, most, WARNING)
    rows += _some("journal", list(status["journal"].get("problems", ())), most, BAD)
    return rows


def _failing(intent: Json) -> str:
    again = "" if intent["again_in"] is None else f", again in {time_text(intent['again_in'])}"
    attempts = count_text(intent["attempts"], "attempt")
    return printable(f"{intent['what']}: {intent['error']} ({attempts}{again})")


def left_behind(status: Json) -> list[Row]:
    recovery = status["recovery"]
    rows: list[Row] = []
    if recovery["recovered"]["intents"]:
        what = count_text(recovery["recovered"]["intents"], "change")
        rows.append(Row("recovered", f"{what} of an earlier mount were taken up"))
    rows += _some("unclosed", [printable(text) for text in recovery["recoverable"]])
    rows += _some("uploads", [printable(text) for text in recovery["uploads"]])
    rows += _some("elsewhere", [printable(str(one)) for one in status["journal"].get("others", ())])
    return rows


def totals(status: Json, price_list: PriceList) -> list[Row]:
    total = status["totals"]
    sent = f"{count_text(total['files'], 'file')}, {size_text(total['bytes'])}"
    moved = f"{size_text(total['bytes_out'])} out, {size_text(total['bytes_in'])} in"
    rows = [
        Row("sent", f"{sent}; over the network {moved}"),
        Row("requests", f"{total['requests']:,}, {faults_text(total)}"),
        Row("", requests_text(status)),
        Row("cost", cost_text(status, price_list)),
    ]
    return [row for row in rows if row.text]


def faults_text(total: Json) -> str:
    retries = count_text(total["retries"], "retry", "retries")
    return f"{retries}, {count_text(total['slow_downs'], 'slow-down')}"


def requests_text(status: Json) -> str:
    ordered = sorted(status["requests"].items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered if count)


def cost_text(status: Json, price_list: PriceList) -> str:
    found = cost(price_list.prices, status["requests"], status["totals"]["bytes_in"])
    money = f"{found.total:.4f} {price_list.prices.currency}"
    return f"about {money}, {found.traffic:.4f} of it for traffic (estimate: {price_list.source})"


def machine(status: Json) -> list[Row]:
    spool, cache = status["spool"], status["cache"]
    used = f"{size_text(spool['used'])} of {size_text(spool['limit'])} used"
    if spool["waiting"]:
        used += f", {count_text(spool['waiting'], 'writer')} waiting for room"
    return [
        *([Row("workers", workers_text(status))] if status["workers"] else []),
        Row("spool", used),
        Row("cache", cache_text(cache)),
    ]


def workers_text(status: Json) -> str:
    """busy/limit of each lane."""
    lanes = []
    for name, lane in status["workers"].items():
        slowed = f" of {lane['most']}" if lane["limit"] < lane["most"] else ""
        waiting = f" +{lane['waiting']}" if lane["waiting"] else ""
        lanes.append(f"{name} {lane['busy']}/{lane['limit']}{slowed}{waiting}")
    return ", ".join(lanes)


def cache_text(cache: Json) -> str:
    reads = cache["hits"] + cache["misses"]
    hits = f"{100 * cache['hits'] // reads}% of {count_text(reads, 'read')}, " if reads else ""
    disk = f", {size_text(cache['disk_bytes'])} on disk" if "disk_bytes" in cache else ""
    size = f"{size_text(cache['cached_bytes'])} of {size_text(cache['memory_limit'])} in memory"
    return f"{hits}{size}{disk}"


def hidden(status: Json) -> list[Row]:
    """Keys that the mount cannot show."""
    names, rows = status["namespace"], []
    for label in ("unreachable", "shadowed"):
        if names[label]:
            samples = [f"{key!r} ({why})" for key, why in names[f"{label}_samples"].items()]
            more = names[label] - len(samples)
            text = ", ".join(samples) + (f" and {more:,} more" if more > 0 else "")
            rows.append(
                Row(label, printable(f"{count_text(names[label], 'key')}: {text}"), WARNING)
            )
    return rows
