"""The facts that follow from the head of a request. Requests with the same bytes share them."""

from retter.breaker import Kind
from retter.http.content_coding import Accepted
from retter.http.message import RequestHead
from retter.store.policy import Identity


class ParsedRequest:
    """The facts that follow from a request's head.

    Args:
        kind: Whether the breaker may answer it without the application.
        stream: It takes long on purpose (`--stream-paths`).
        asks_events: It asks for an event stream and nothing else.
        binds: It authenticates its connection (bound_connections.py).
        ticket: The ticket in its cookie: its visitor has waited before (turns.py).
    """

    __slots__ = (
        "accepted",
        "asks_events",
        "binds",
        "client",
        "head",
        "identity",
        "kind",
        "stream",
        "ticket",
    )

    def __init__(
        self,
        head: RequestHead,
        identity: Identity,
        kind: Kind,
        stream: bool = False,
        asks_events: bool = False,
        binds: bool = False,
        ticket: bytes = b"",
    ) -> None:
        self.head = head
        self.identity = identity
        self.kind = kind
        self.stream = stream
        self.asks_events = asks_events
        self.binds = binds
        self.ticket = ticket
        self.accepted: Accepted | None = None  # computed when first needed
        # The number of the client that a trusted peer names, 0 if it names none; -1: not read yet.
        self.client = -1

    def identified_as(self, identity: Identity) -> "ParsedRequest":
        """Return the same request under another identity."""
        return ParsedRequest(
            self.head, identity, self.kind, self.stream, self.asks_events, self.binds, self.ticket
        )
