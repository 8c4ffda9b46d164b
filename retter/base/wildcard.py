"""Names with wildcards: cookies, fields, paths and media types as operators list them.

Names come from strangers, so there are no regular expressions here: with two wildcards in a pattern
they would backtrack over the same bytes again and again.
"""

from collections.abc import Callable, Iterable

_Parts = tuple[bytes, tuple[bytes, ...], bytes]  # before the first `*`, between, after the last


class _Names:
    """The names that match at least one of some patterns."""

    __slots__ = ("_ends", "_exact", "_others", "_starts")

    def __init__(self, patterns: Iterable[bytes]) -> None:
        exact: set[bytes] = set()
        starts: list[bytes] = []
        ends: list[bytes] = []
        others: list[_Parts] = []
        for pattern in patterns:
            first, *rest = pattern.split(b"*")
            if not rest:
                exact.add(first)
                continue
            last = rest.pop()
            middle = tuple([part for part in rest if part])
            if middle or (first and last):
                others.append((first, middle, last))
            elif last:
                ends.append(last)
            else:
                starts.append(first)
        self._exact = frozenset(exact)
        self._starts = tuple(starts)
        self._ends = tuple(ends)
        self._others = tuple(others)

    def fits(self, name: bytes) -> bool:
        """Return whether the whole name matches one of the patterns."""
        if name in self._exact or name.startswith(self._starts) or name.endswith(self._ends):
            return True
        for first, middle, last in self._others:
            if name.startswith(first) and name.endswith(last) and _has(name, first, middle, last):
                return True
        return False


def _has(name: bytes, first: bytes, middle: tuple[bytes, ...], last: bytes) -> bool:
    """Return whether the middle parts follow each other between the first and the last."""
    # The leftmost match of each part leaves most room for the next, so there is nothing to retry.
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end


def name_matcher(patterns: Iterable[bytes]) -> Callable[[bytes], bool]:
    """Return a predicate: the whole name matches one of the patterns, in which `*` is any text.

    It takes time in proportion to the name and the patterns, whatever they contain.
    """
    return _Names(patterns).fits
