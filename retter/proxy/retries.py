"""Whether a request may be sent a second time (RFC 9110 section 9.2.2)."""

from typing import Final

from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.upstream_connection import UpstreamConnection

# RFC 9110 section 9.2.2: to send these twice has the same effect as to send them once.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


def may_be_sent_again(
    parsed: ParsedRequest,
    body: RequestBody | None,
    connection: UpstreamConnection | None,
    *,
    unsent: bool,
) -> bool:
    """Return whether a request may be sent on another connection after this one was reset.

    The application has probably closed an idle connection when it was used again.

    Args:
        body: The request's body; it must still be kept.
        unsent: The connection was lost before the request was written: any method may be sent.
    """
    return (
        connection is not None
        and connection.reused
        and not connection.answered
        and (body is None or body.at_hand())
        and (parsed.head.method in _IDEMPOTENT or unsent)
    )
