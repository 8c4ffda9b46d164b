"""Owners by the sessions in them: one person may be several owners, and a logout ends them all.

A mark is a hash of a session value (owner.py). The shelves tell when an owner has nothing
stored any more, so there are never more of these than owners with something in the store.
"""

from typing import Final

# More owners than that with one mark stand in a dictionary, so that one more costs no more. There
# may be as many as the store has owners: somebody sends one login with ever new other cookies.
TUPLE_MAX: Final = 8


class OwnerMarks:
    """The owners with something stored, by their marks."""

    __slots__ = ("_marks", "_owners")

    def __init__(self) -> None:
        self._marks: dict[bytes, tuple[int, ...]] = {}
        # Mostly one owner each, who then stands there by itself. Bytes, and tuples of them, are
        # what the garbage collector can leave alone.
        self._owners: dict[int, bytes | tuple[bytes, ...] | dict[bytes, None]] = {}

    def add(self, owner: bytes, marks: tuple[int, ...]) -> None:
        """Note an owner who has just got something stored."""
        if not marks or owner in self._marks:
            return
        self._marks[owner] = marks
        table = self._owners
        for mark in marks:
            owners = table.get(mark)
            if owners is None or owners == owner:
                table[mark] = owner
            elif isinstance(owners, dict):
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
        """Return those who have one of the marks, each once."""
        found = [owner for mark in marks for owner in _several(self._owners.get(mark, ()))]
        return list(dict.fromkeys(found))

    def forget(self, owner: bytes) -> None:
        """Nothing is stored of an owner any more."""
        table = self._owners
        for mark in self._marks.pop(owner, ()):
            owners = table.get(mark)
            if owners is None or owners == owner:
                table.pop(mark, None)
                continue
            if isinstance(owners, dict):
                owners.pop(owner, None)
                left: tuple[bytes, ...] | dict[bytes, None] = owners
            else:
                left = tuple([one for one in _several(owners) if one != owner])
            if left:
                table[mark] = left
            else:
                del table[mark]

    def clear(self) -> None:
        """Nothing is stored of anybody."""
        self._marks, self._owners = {}, {}

    def __len__(self) -> int:
        return len(self._marks)


def _several(
    owners: bytes | tuple[bytes, ...] | dict[bytes, None],
) -> tuple[bytes, ...] | dict[bytes, None]:
    return (owners,) if isinstance(owners, bytes) else owners
