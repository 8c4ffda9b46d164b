"""Owners by their sessions: one person may be several owners, and a logout ends all of them.

A mark is a hash of a session value (owner.py). The shelves call `forget` when an owner has no
stored responses any more. So there are never more marks here than owners with stored responses.
"""

from typing import Final

# More owners than this with one mark are kept in a dictionary, so that adding one takes constant
# time. There may be as many as owners in the store: a client may send one login with different
# other cookies each time.
TUPLE_MAX: Final = 8


class OwnerMarks:
    """The owners with stored responses, by their marks."""

    __slots__ = ("_marks", "_owners")

    def __init__(self) -> None:
        self._marks: dict[bytes, tuple[int, ...]] = {}
        # Usually one owner for each mark, stored directly. The garbage collector does not track
        # bytes and tuples of them.
        self._owners: dict[int, bytes | tuple[bytes, ...] | dict[bytes, None]] = {}

    def add(self, owner: bytes, marks: tuple[int, ...]) -> None:
        """Add an owner with its first stored response."""
        if not marks or owner in self._marks:
            return
        self._marks[owner] = marks
        table = self._owners
        for mark in marks:
            owners = table.setdefault(mark, owner)
            if owners is owner or owners == owner:
                continue
            if isinstance(owners, dict):
                owners[owner] = None
            else:
                several = _several(owners)
                if len(several) < TUPLE_MAX:
                    table[mark] = (*several, owner)
                else:
                    table[mark] = dict.fromkeys((*several, owner))

    def of(self, owner: bytes) -> tuple[int, ...]:
        """Return an owner's marks."""
        return self._marks.get(owner, ())

    def owners(self, marks: tuple[int, ...]) -> list[bytes]:
        """Return the owners with one of the marks, each once."""
        owners = [owner for mark in marks for owner in _several(self._owners.get(mark, ()))]
        return list(dict.fromkeys(owners))

    def forget(self, owner: bytes) -> None:
        """Forget an owner without stored responses."""
        table = self._owners
        for mark in self._marks.pop(owner, ()):
            owners = table.pop(mark, owner)
            if owners is owner or owners == owner:
                continue
            if isinstance(owners, dict):
                owners.pop(owner, None)
                left: tuple[bytes, ...] | dict[bytes, None] = owners
            else:
                left = tuple([one for one in _several(owners) if one != owner])
            if left:
                table[mark] = left

    def clear(self) -> None:
        """Forget all owners."""
        self._marks, self._owners = {}, {}

    def __len__(self) -> int:
        return len(self._marks)


def _several(
    owners: bytes | tuple[bytes, ...] | dict[bytes, None],
) -> tuple[bytes, ...] | dict[bytes, None]:
    return (owners,) if isinstance(owners, bytes) else owners
