"""The store of one of several workers. Each look-up first applies what others have removed."""

from collections.abc import Callable

from retter.http.message import RequestHead
from retter.store.policy import Identity
from retter.store.record import Record, StoredResponse
from retter.store.rules import StoreRules
from retter.store.store import ResponseStore


class SharedStore(ResponseStore):
    """Stored responses near one worker.

    Args:
        look: Applies what others have removed by now; it gets the time in monotonic seconds.
    """

    def __init__(self, rules: StoreRules, look: Callable[[float], None]) -> None:
        super().__init__(rules)
        self._look = look

    def find(
        self,
        identity: Identity,
        request: RequestHead,
        now: float,
        superseded: bool = False,
        peeking: bool = False,
    ) -> Record | None:
        """Return the response for a request, as `ResponseStore.find` does."""
        self._look(now)
        return super().find(identity, request, now, superseded, peeking)

    def peek(
        self, identity: Identity, request: RequestHead, now: float
    ) -> tuple[StoredResponse | None, bool]:
        """Return the entry for this request, as `ResponseStore.peek` does."""
        self._look(now)
        return super().peek(identity, request, now)
