"""The last public page that had to be answered from the store: RETTER itself requests it again."""

from retter.http.message import RequestHead
from retter.proxy.request import ParsedRequest


class FailedPage:
    """Remembers one page for `SelfProbe`.

    Attributes:
        head: The head of a request for it; None if there is none.
        proto: b"http" or b"https".
    """

    __slots__ = ("head", "proto")

    def __init__(self) -> None:
        self.head: RequestHead | None = None
        self.proto = b"http"

    def note(self, parsed: ParsedRequest, proto: bytes) -> None:
        """Remember a page that the application failed and the store answered."""
        identity = parsed.identity
        if (not identity.owner or identity.public_key is not None) and parsed.head.host:
            self.head = parsed.head
            self.proto = proto
