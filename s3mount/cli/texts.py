"""Amounts and times as people read them."""


def size_text(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def rate_text(per_second: float | None) -> str:
    """'' where nothing can be said."""
    return "" if per_second is None else f"{size_text(per_second)}/s"


def time_text(seconds: float | None) -> str:
    """Two units at most: 45s, 3m 20s, 2h 05m, 3d 04h; '' where nothing can be said."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """'1 file', '1,200 files'."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def printable(text: str) -> str:
    """Control characters do not reach the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
