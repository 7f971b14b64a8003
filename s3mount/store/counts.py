"""How many requests were sent, by operation."""

import threading
from collections import Counter
from collections.abc import Mapping


class Counts:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _counter
        self._counter: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counter[name] += amount

    def snapshot(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counter)
