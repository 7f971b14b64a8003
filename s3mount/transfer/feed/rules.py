"""Which names take part: --include and --exclude, in the manner of rsync. Pure.

The first rule that matches decides; what none matches takes part. What is in an excluded
directory is never looked at. In a pattern `*` and `?` stand for any characters but `/`, `**` for
any at all, `[a-z]` for one of a class; a `/` at its end means directories alone, one at its
beginning the top of the tree. A pattern without another `/` is compared with names, one that has
any with the end of the path, from a `/` on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    include: bool
    expression: re.Pattern[str]
    directories_only: bool


def parse_rule(pattern: str, *, include: bool) -> Rule:
    """Raises ValueError for a pattern that can match nothing."""
    body = pattern.rstrip("/")
    if not body:
        raise ValueError(f"{pattern!r} matches nothing: write a name, e.g. *.tmp or /cache/")
    anchored = body.startswith("/")
    text = _translated(body.lstrip("/"))
    start = "" if anchored else "(?:.*/)?"
    return Rule(include, re.compile(start + text, re.DOTALL), pattern.endswith("/"))


def _translated(glob: str) -> str:
    """As a regular expression. `**` stands for slashes, too."""
    pieces: list[str] = []
    position = 0
    while position < len(glob):
        if glob.startswith("**", position):
            pieces.append(".*")
            position += 2
            continue
        character = glob[position]
        closing = glob.find("]", position + 2) if character == "[" else -1
        if character == "*":
            pieces.append("[^/]*")
        elif character == "?":
            pieces.append("[^/]")
        elif closing > 0:
            inner = glob[position + 1 : closing]
            negated = inner[0] in "!^"
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[negated:])
            pieces.append(f"(?!/)[{'^' if negated else ''}{members}]")
            position = closing
        elif character == "\\" and position + 1 < len(glob):
            position += 1
            pieces.append(re.escape(glob[position]))
        else:
            pieces.append(re.escape(character))
        position += 1
    return "".join(pieces)


class Rules:
    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = tuple(rules)

    def admit(self, path: str, *, is_directory: bool) -> bool:
        """Whether the name at the end of `path` ('a/b') takes part, if those above it do."""
        for rule in self._rules:
            if rule.directories_only and not is_directory:
                continue
            if rule.expression.fullmatch(path):
                return rule.include
        return True

    def admit_below(self, path: str, *, is_directory: bool) -> bool:
        """As admit, all directories above included."""
        if not self._rules:
            return True
        cut = path.find("/")
        while cut >= 0:
            if not self.admit(path[:cut], is_directory=True):
                return False
            cut = path.find("/", cut + 1)
        return self.admit(path, is_directory=is_directory)
