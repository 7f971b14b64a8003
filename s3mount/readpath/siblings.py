"""Which small files to fetch ahead when a directory's files are read one after another.

Pure. Positions are those of the directory's own order (the order of its listing).
"""

from dataclasses import dataclass

# Files passed over (directories, large files, names skipped by a pattern) that still count as
# reading in order.
SLACK = 8
FIRST_WINDOW = 8
# What was fetched ahead is believed at open for a second after it was asked for (ruling 17): no
# more is fetched than will be opened by then.
BELIEVED = 0.7


@dataclass(slots=True)
class SiblingReadahead:
    """One directory; `window` is the most files fetched ahead."""

    window: int
    _position: int = -1
    _requested: int = 0  # every position below it was fetched or is past
    _ahead: int = 0
    _opened_at: float | None = None

    def opened(self, position: int, count: int, now: float | None = None) -> range:
        """The file at `position` of `count` is read now: positions to fetch ahead.

        Nothing for the first file, then a window that doubles. Half a window is fetched at a
        time, so that requests leave together. With `now` (seconds) a slow reader's window is
        smaller.
        """
        step = position - self._position
        known = self._position >= 0
        self._position = position
        pause = now - self._opened_at if now is not None and self._opened_at is not None else 0.0
        self._opened_at = now
        if not known or step < 0 or step > SLACK:  # elsewhere, or a pass that starts anew
            self._ahead = 0
            self._requested = position + 1
            return range(0)
        if step == 0:
            return range(0)
        left = self._requested - position - 1
        if self._ahead and left > self._ahead // 2:
            return range(0)
        most = self.window if pause <= 0 else min(self.window, max(2, int(BELIEVED * step / pause)))
        self._ahead = min(max(2 * self._ahead, FIRST_WINDOW), most)
        start = max(self._requested, position + 1)
        stop = min(position + 1 + self._ahead, count)
        if stop <= start:
            return range(0)
        self._requested = stop
        return range(start, stop)
