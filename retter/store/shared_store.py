"""The store of one of several workers. Each look-up first applies the removals of the others."""

from typing import Final, Protocol

from retter.http.message import RequestHead
from retter.store.policy import Identity
from retter.store.record import Record, StoredResponse
from retter.store.rules import StoreRules
from retter.store.store import ResponseStore

# Called directly: `super()` would cost a third of the look for news.
_find: Final = ResponseStore.find


class News(Protocol):
    """The removals of other workers.

    Attributes:
        heads: The position up to which each worker has told its removals.
        seen: The octets of `heads` at the last look.
    """

    heads: "memoryview[int]"
    seen: bytes

    def look(self, now: float) -> None:
        """Apply new removals; `now` is monotonic seconds."""
        ...


class SharedStore(ResponseStore):
    """Stored responses near one worker.

    Attributes:
        news: The removals of other workers.
    """

    def __init__(self, rules: StoreRules, news: News) -> None:
        super().__init__(rules)
        self.news = news
        self._heads = news.heads

    def find(
        self,
        identity: Identity,
        request: RequestHead,
        now: float,
        superseded: bool = False,
        peeking: bool = False,
    ) -> Record | None:
        """Return the response for a request, as `ResponseStore.find` does."""
        if self._heads.tobytes() != self.news.seen:
            self.news.look(now)
        return _find(self, identity, request, now, superseded, peeking)

    def peek(
        self, identity: Identity, request: RequestHead, now: float
    ) -> tuple[StoredResponse | None, bool]:
        """Return the entry for this request, as `ResponseStore.peek` does."""
        self.news.look(now)
        return super().peek(identity, request, now)
