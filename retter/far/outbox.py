"""The outbox: changes that a box has to tell the others, kept until the server has them.

It is kept while the server is away, and bounded. If there are too many changes, the other boxes are
told to drop too much rather than too little. `now` is monotonic seconds.
"""

from collections import deque
from typing import Any, Final

from retter.far.changes import Message
from retter.store.write_behind import Found, Removals, marked_superseded

# Changes of each kind that wait while the server is away. If there are more:
# - Marks of superseded keys are forgotten: the other boxes may show an older version.
# - For sessions, the other boxes drop all personal responses.
# - For pages that were withdrawn, they drop everything: nobody may see these any more.
UNTOLD_MAX: Final = 4096
# The same for the octets of superseded keys: 256 for each. The event loop packs all for the disk.
UNTOLD_MARKS_BYTES_MAX: Final = 1024 * 1024

# When the server comes back, it may have lost what was told to it last.
TELL_AGAIN_S: Final = 30.0
TELL_AGAIN_MAX: Final = 256

ORDERS_REMEMBERED_MAX: Final = 64


class Outbox:
    """The changes of one box.

    Attributes:
        box: The name of the box, so that it ignores its own messages.
        lost: Marks of superseded keys that were forgotten.
        noted: Rises with each change of what is untold.
    """

    def __init__(self, box: str) -> None:
        self.box = box
        self.lost = 0
        self.noted = 0
        self._next = Message(box)
        self._marks_bytes = 0  # of the superseded keys of the next message
        self._under_way: Message | None = None
        self._told: deque[tuple[float, Message]] = deque(maxlen=TELL_AGAIN_MAX)
        self._orders: deque[str] = deque(maxlen=ORDERS_REMEMBERED_MAX)
        self._names: set[bytes] = set()

    def __bool__(self) -> bool:
        return bool(self._next)

    def rename(self, box: str) -> None:
        """Use another name for the box."""
        self.box = self._next.box = box

    # -- what is to be told

    def removed(self, removals: Removals) -> None:
        """Tell the others to remove these responses too."""
        self.noted += 1
        untold = self._next.removals
        self._marks_bytes += sum(map(len, removals.superseded - untold.superseded))
        untold.add(removals)
        if len(untold.superseded) > UNTOLD_MAX or self._marks_bytes > UNTOLD_MARKS_BYTES_MAX:
            self.lost += len(untold.superseded)
            untold.superseded = set()
            self._marks_bytes = 0
        if len(untold.owners) + len(untold.marks) > UNTOLD_MAX:
            untold.personal = True
            untold.owners, untold.marks = set(), set()
        if len(untold.keys) > UNTOLD_MAX:
            untold.everything = True
            untold.keys = set()

    def order(self, order: dict[str, Any]) -> None:
        """Tell the others an operator's order; its `id` identifies it."""
        self._orders.append(order["id"])
        self._next.orders = [*self._next.orders, order][-ORDERS_REMEMBERED_MAX:]

    def names(self, names: set[bytes]) -> None:
        """Tell the others those of these session cookie names that are new."""
        new = names - self._names
        if new:
            self._names |= new
            self._next.names += sorted(new)

    # -- rounds

    @property
    def waits(self) -> Removals:
        """The removals that the next message tells."""
        return self._next.removals

    def take(self) -> Message:
        """Return the next message. It is under way until `done` or `failed` is called."""
        message, self._next = self._next, Message(self.box)
        self._under_way = message
        self._marks_bytes = 0
        return message

    def done(self, at: float) -> None:
        """Note that the server has the message that was under way."""
        if self._under_way is not None:
            self.noted += 1
            self._told.append((at, self._under_way))
            self._under_way = None
            self._forget_told(at)

    def _forget_told(self, now: float) -> None:
        """Forget messages that are too old to be told again."""
        told = self._told
        while told[0][0] < now - TELL_AGAIN_S:
            told.popleft()
        # A stranger can have URLs of 16 KB marked. Of too many, `removed` would forget all.
        if sum([len(message.removals.superseded) for _, message in told]) > UNTOLD_MAX:
            for _, message in told:
                message.removals.superseded = set()

    def failed(self) -> None:
        """Put the message that was under way at the beginning of the next one."""
        if self._under_way is not None:
            later, self._next = self._next, self._under_way
            self._under_way = None
            self._marks_bytes = sum(map(len, self._next.removals.superseded))
            self._next.orders += later.orders
            self._next.names += later.names
            self.removed(later.removals)

    def again(self, failed_at: float) -> None:
        """Send again what the server may have lost, since it was away from `failed_at` on."""
        for at, message in self._told:
            if at >= failed_at - TELL_AGAIN_S:
                self.removed(message.removals)
        self._next.names = sorted(self._names)

    def is_news(self, message: Message) -> bool:
        """Return whether the message is another box's; remove known orders from it."""
        if message.box == self.box:
            return False
        message.orders = [one for one in message.orders if one.get("id") not in self._orders]
        self._orders.extend([str(one.get("id")) for one in message.orders])
        self._names.update(message.names)
        return True

    # -- what the server may not know

    @property
    def untold(self) -> Removals:
        """The removals that the server may not know."""
        untold = Removals()
        for removals in self.messages:
            untold.add(removals)
        return untold

    @property
    def messages(self) -> list[Removals]:
        """The same removals by message, in the order in which they are told."""
        messages = [self._next] if self._under_way is None else [self._under_way, self._next]
        return [message.removals for message in messages]

    @property
    def is_all_told(self) -> bool:
        """Whether there is nothing that the server may not know."""
        return self._under_way is None and not self._next


def passed(key: bytes, found: Found, untold: list[Removals]) -> Found | None:
    """Apply the removals that the server does not know to a slot of it; None if it is removed."""
    for removals in untold:
        if removals.take(key, found.marks):
            return None
        if key in removals.superseded:
            found = Found(marked_superseded(found.slot), found.marks)
    return found
