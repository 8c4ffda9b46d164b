"""Errors by side: whose fault it is, what the client is told, what the breaker learns.

A peer's mistake raises one of these; our own bugs raise `AssertionError`. They are caught where a
callback enters (client_connection.py, upstream_connection.py, pool.py) and turned into an answer
in one place (exchange.py). The mapping error -> status, outcome, reason is the class itself.
"""

from enum import Enum

from retter.base.reason import Reason


class Outcome(Enum):
    """What one forwarded request tells the breaker about the application."""

    OK = "ok"  # answered, and not with a failure
    OVERLOAD = "overload"  # reset, timed out, 502, 503 or 504
    REFUSED = "refused"  # no connection: an overload that leaves no doubt, nobody listens
    ERROR = "error"  # another 5xx, a malformed or truncated answer
    NEUTRAL = "neutral"  # says nothing: cancelled, detached, or about the request alone


# The application speaks about this request or this client, not about itself: too many requests from
# it (RFC 6585 section 4), a method or an HTTP version that it does not know (RFC 9110 sections
# 15.6.2 and 15.6.6). RFC 5861 section 4 names only 500, 502, 503 and 504 as errors.
_ABOUT_THE_REQUEST = frozenset({429, 501, 505})
# The application has too much to do; other failures say that it has a fault.
_OVERLOAD_STATUSES = frozenset({429, 502, 503, 504})


def outcome_of(status: int, failure_statuses: frozenset[int] = frozenset()) -> Outcome:
    """Return what the status of an answer says about the application.

    Args:
        status: Of the final answer (200 to 599).
        failure_statuses: What the operator calls a failure (`--failure-statuses`).
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


class DownstreamGone(DownstreamError):
    """The client closed before its answer was complete."""

    reason = Reason.CLIENT_GONE


class UpstreamError(RetterError):
    """The application's fault: 502 or 504 without a stored response."""

    status = 502
    outcome = Outcome.OVERLOAD


class ConnectRefused(UpstreamError):
    """No connection: refused, unreachable, no such socket or name."""

    outcome = Outcome.REFUSED
    reason = Reason.CONNECT_REFUSED


class OutOfDescriptors(UpstreamError):
    """This process or machine has no descriptor or buffer left: our own fault, not theirs."""

    status, reason = 503, Reason.NO_DESCRIPTORS
    outcome = Outcome.NEUTRAL


class InternalError(UpstreamError):
    """This process has failed, for want of memory perhaps: our own fault, not theirs."""

    status, reason = 500, Reason.INTERNAL_ERROR
    outcome = Outcome.NEUTRAL


class ConnectTimeout(UpstreamError):
    """The connection was not accepted in time (a full backlog, a black hole)."""

    status, reason = 504, Reason.CONNECT_TIMEOUT


class UpstreamTLSFailed(UpstreamError):
    """No TLS with the application: a certificate that is not to be believed, or no TLS at all."""

    reason = Reason.UPSTREAM_TLS
    outcome = Outcome.ERROR


class UpstreamTLSClosed(ConnectRefused):
    """Closed in the handshake, without a word: no TLS there, or an application that restarts.

    Because of the latter it is held on to as a refused connection is.
    """

    reason = Reason.UPSTREAM_TLS


class UpstreamReset(UpstreamError):
    """Closed or reset before the answer was complete."""

    reason = Reason.UPSTREAM_RESET


class UpstreamTimeout(UpstreamError):
    """No first byte before the deadline, or a silence inside the answer."""

    status, reason = 504, Reason.UPSTREAM_TIMEOUT


class UpstreamMalformed(UpstreamError):
    """Not HTTP/1.x, or ambiguous framing. The connection is closed and never used again."""

    reason = Reason.UPSTREAM_MALFORMED
    outcome = Outcome.ERROR
