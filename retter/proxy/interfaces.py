"""The interfaces between the two sides of a request.

A client connection begins a request and then calls the object that works on it, which calls the
connection back. Neither has to know the other's class. These are base classes and no Protocols:
compiled code (setup.py) calls a method of a base class directly, but looks up one of a Protocol.
"""

from abc import ABC, abstractmethod
from typing import Protocol

from retter.base.errors import DownstreamError
from retter.base.reason import Reason
from retter.http.forwarding import ForwardingFields
from retter.http.message import RequestHead
from retter.proxy.client_writer import ClientWriter
from retter.proxy.request import ParsedRequest
from retter.proxy.responses import Persistence
from retter.store.store import StoredResponse


class TunnelClientSide(Protocol):
    """The part of a tunnel that its client connection uses."""

    def client_data(self, data: bytes, now: float) -> None: ...
    def client_eof(self, now: float) -> None: ...
    def client_gone(self, now: float) -> None: ...
    def downstream_blocked(self) -> None: ...
    def downstream_writable(self) -> None: ...


class Work(ABC):
    """Work on a client's request: the exchange, and then the delivery of its response."""

    __slots__ = ()

    started_at: float  # when it went to the application (monotonic seconds)

    @property
    @abstractmethod
    def stream(self) -> bool:
        """Whether its response may take long on purpose (`--stream-paths`)."""

    @property
    @abstractmethod
    def event_stream(self) -> bool:
        """Whether an event stream is awaited or being received."""

    @property
    def answer_begun(self) -> bool:
        """Whether bytes of the application's answer went to the client: a Delivery sends them."""
        return False

    @property
    @abstractmethod
    def url(self) -> bytes:
        """Host and target, as the store has them."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether it has a connection to the application."""

    # -- from the client

    @abstractmethod
    def request_data(self, data: bytes, now: float) -> None:
        """Take a piece of the request's body."""

    @abstractmethod
    def downstream_blocked(self) -> None:
        """The client does not read."""

    @abstractmethod
    def downstream_writable(self) -> None:
        """The client reads again."""

    @abstractmethod
    def downstream_gone(self, now: float) -> None:
        """The client has closed its connection."""

    @abstractmethod
    def client_failed(self, error: DownstreamError, now: float) -> None:
        """The rest of the request cannot be read; the connection answers the client."""

    # -- from the clock

    @abstractmethod
    def sweep(self, now: float) -> None:
        """Look at the time limits. Called with every tick once it is older than HOLD_S."""

    @abstractmethod
    def overdue(self, reason: Reason, now: float) -> None:
        """The breaker's wait or patience for it is over."""

    @abstractmethod
    def broken(self, now: float) -> None:
        """End after a fault of our own: free the client and the place."""

    @abstractmethod
    def form_made(self, shown: StoredResponse | None, now: float) -> None:
        """A stored response has been decoded for the client whose patience is over.

        None: it could not be.
        """

    @abstractmethod
    def abort_request(self, now: float) -> None:
        """Abort: RETTER ends, or nobody waits for the answer."""


class Client(ABC):
    """The part of a client connection that its exchange uses."""

    __slots__ = ()

    forwarding: ForwardingFields
    out: ClientWriter  # to the client

    @abstractmethod
    def begin_answer(self, request: RequestHead) -> Persistence:
        """Decide whether the connection persists; called just before a response head is written."""

    @abstractmethod
    def close_after_answer(self) -> None:
        """Make the present answer the last one of the connection."""

    @abstractmethod
    def pause_body(self) -> None:
        """Stop reading: the application does not accept more of the body."""

    @abstractmethod
    def resume_body(self) -> None:
        """Resume reading."""

    @abstractmethod
    def hand_over(self, work: Work) -> None:
        """Pass the rest of the request's work to another object."""

    @abstractmethod
    def exchange_done(self, now: float) -> None:
        """The answer is complete: continue with the next request, or close."""

    @abstractmethod
    def await_form(self) -> None:
        """Begin no request until a stored response has been read or decoded for this one."""

    @abstractmethod
    def begin_again(self, parsed: ParsedRequest, now: float) -> None:
        """The disk has been read for a request without a body: decide about it."""

    @property
    @abstractmethod
    def gone(self) -> bool:
        """Whether the connection is closed."""

    @abstractmethod
    def begin_tunnel(self, tunnel: TunnelClientSide, now: float) -> None:
        """Pass all bytes received from now on to the tunnel."""

    @abstractmethod
    def close(self) -> None:
        """Close when all written bytes have been sent."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once and drop the bytes that are not yet sent."""

    @abstractmethod
    def close_midway(self, *, reset: bool) -> None:
        """Close in the middle of a response; `reset` if nothing else shows that it is truncated."""
