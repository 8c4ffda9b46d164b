"""Errors by side: whose fault it is, what the client gets, what the breaker learns.

A peer's mistake raises one of these; our own bugs raise `AssertionError`. Errors are caught where a
callback enters (client_connection.py, upstream_connection.py, pool.py) and become a response in one
place (exchange.py). Status, outcome and reason of an error are attributes of its class.
"""

from enum import Enum

from retter.base.reason import Reason


class Outcome(Enum):
    """The result of a forwarded request, as evidence about the application."""

    OK = "ok"  # answered without a failure
    OVERLOAD = "overload"  # reset, timed out, 502, 503 or 504
    REFUSED = "refused"  # no connection: nobody listens, which is an unambiguous overload
    ERROR = "error"  # another 5xx, a malformed or truncated answer
    NEUTRAL = "neutral"  # says nothing: cancelled, detached, or about the request alone


# These statuses concern this request or this client, not the application: too many requests from
# the client (RFC 6585 section 4), a method or an HTTP version that is not supported (RFC 9110
# sections 15.6.2 and 15.6.6). RFC 5861 section 4 names only 500, 502, 503 and 504 as errors.
_ABOUT_THE_REQUEST = frozenset({429, 501, 505})
# These mean overload; other failures mean a fault.
_OVERLOAD_STATUSES = frozenset({429, 502, 503, 504})


def outcome_of(status: int, failure_statuses: frozenset[int] = frozenset()) -> Outcome:
    """Return what the status of a response says about the application.

    Args:
        status: Of the final response (200 to 599).
        failure_statuses: What the operator counts as failures (`--failure-statuses`).
    """
    if status in failure_statuses or (status >= 500 and status not in _ABOUT_THE_REQUEST):
        return Outcome.OVERLOAD if status in _OVERLOAD_STATUSES else Outcome.ERROR
    return Outcome.NEUTRAL if status in _ABOUT_THE_REQUEST else Outcome.OK


class RetterError(Exception):
    """Base of every error that a peer can cause."""

    status: int = 500
    reason: Reason


class DownstreamError(RetterError):
    """The client's fault. It says nothing about the application."""

    outcome = Outcome.NEUTRAL
    reason = Reason.BAD_REQUEST
    status = 400
    request_line: tuple[bytes, bytes] | None = None  # method and target, if they could be read

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class BadRequest(DownstreamError):
    """The head or the framing is malformed or ambiguous (RFC 9112 section 3, 5, 6, 11.2)."""


class RequestTimeout(DownstreamError):
    """The head or the body did not arrive in time (RFC 9110 section 15.5.9)."""

    status, reason = 408, Reason.CLIENT_TIMEOUT


class RequestTooLarge(DownstreamError):
    """A body over its limit: 413 (RFC 9110 section 15.5.14)."""

    status, reason = 413, Reason.TOO_LARGE


class Unsupported(DownstreamError):
    """Understood and refused: 405 method, 501 transfer coding, 505 version."""

    status, reason = 501, Reason.UNSUPPORTED


class LoopDetected(DownstreamError):
    """The request passed through this very process before (RFC 9110 section 7.6.3)."""

    status, reason = 508, Reason.LOOP


class UpstreamError(RetterError):
    """The application's fault: 502 or 504 without a stored response."""

    status = 502
    outcome = Outcome.OVERLOAD


class ConnectRefused(UpstreamError):
    """No connection: refused, unreachable, or an unknown socket or name."""

    outcome = Outcome.REFUSED
    reason = Reason.CONNECT_REFUSED


class OutOfDescriptors(UpstreamError):
    """This process or machine has no descriptor or buffer left: not the application's fault."""

    status, reason = 503, Reason.NO_DESCRIPTORS
    outcome = Outcome.NEUTRAL


class InternalError(UpstreamError):
    """This process failed, for lack of memory for example: not the application's fault."""

    status, reason = 500, Reason.INTERNAL_ERROR
    outcome = Outcome.NEUTRAL


class ConnectTimeout(UpstreamError):
    """The connection was not accepted in time (a full backlog, a black hole)."""

    status, reason = 504, Reason.CONNECT_TIMEOUT


class UpstreamTLSFailed(UpstreamError):
    """The TLS handshake with the application failed: an untrusted certificate, or no TLS at all."""

    reason = Reason.UPSTREAM_TLS
    outcome = Outcome.ERROR


class UpstreamTLSClosed(ConnectRefused):
    """Closed during the handshake without an alert: the application has no TLS, or it restarts.

    Because of the latter, requests are held as they are when a connection is refused.
    """

    reason = Reason.UPSTREAM_TLS


class UpstreamReset(UpstreamError):
    """Closed or reset before the response was complete."""

    reason = Reason.UPSTREAM_RESET


class UpstreamTimeout(UpstreamError):
    """No first byte before the deadline, or a silence within the response."""

    status, reason = 504, Reason.UPSTREAM_TIMEOUT


class UpstreamMalformed(UpstreamError):
    """Not HTTP/1.x, or ambiguous framing. The connection is closed and never used again."""

    reason = Reason.UPSTREAM_MALFORMED
    outcome = Outcome.ERROR
