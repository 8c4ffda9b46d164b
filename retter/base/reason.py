"""The reason words: why a response is what it is.

The same word is in the log line, the metric label, the `Cache-Status` detail and the admin API, so
that an operator who sees a word in one place can search for it in all others.
"""

from enum import StrEnum
from typing import Final

STATUS_CLASSES: Final = 6  # 1xx to 5xx; index 0 is for no status at all


class Reason(StrEnum):
    """The cause of a decision, or of a response that RETTER made itself.

    `row` is the index of the first counter of a reason, in a list that counts by reason and class
    of status. A dictionary would cost 0.15 us, because the hash of an Enum member is computed in
    Python.
    """

    row: int

    def __init__(self, *_: object) -> None:
        self.row = len(type(self).__members__) * STATUS_CLASSES

    # Forwarded
    ADMITTED = "admitted"  # forwarded and answered by the application
    PROBE = "probe"  # forwarded to find out whether it has recovered

    # Not forwarded, or RETTER did not wait: the breaker's decision
    LIMIT = "limit"  # as many in flight as the application can work on
    SINGLE_FLIGHT = "single-flight"  # limited, and the same key is or was in flight meanwhile
    FRESH_ENOUGH = "fresh-enough"  # limited, and the stored response is very young
    QUEUE_FULL = "queue-full"  # limited, no stored response, and the queue is full
    FAIR_SHARE = "fair-share"  # limited, and its client asks for more than others
    QUEUE_TIMEOUT = "queue-timeout"  # limited, queue wait expired
    OPEN = "open"  # the circuit is open
    HALF_OPEN = "half-open"  # recovering: above the limit of the ramp
    ROUTE_OPEN = "route-open"  # the breaker of this route is open
    PATIENCE = "patience"  # the first byte took longer than the patience
    FORCED_OPEN = "forced-open"  # an operator holds the circuit open
    PAUSED = "paused"  # an operator has paused the application

    # The application failed this request
    CONNECT_REFUSED = "connect-refused"
    CONNECT_TIMEOUT = "connect-timeout"
    UPSTREAM_TLS = "upstream-tls"  # the TLS handshake failed: an untrusted certificate, for example
    NO_DESCRIPTORS = "no-descriptors"  # no connection: this process has too many files open
    UPSTREAM_RESET = "upstream-reset"  # closed or reset before the answer was complete
    UPSTREAM_TIMEOUT = "upstream-timeout"  # no first byte, or a silence within the response
    UPSTREAM_MALFORMED = "upstream-malformed"
    UPSTREAM_STATUS = "upstream-status"  # it answered with a 5xx (not 501, 505)

    FAILURE_TEXT = "failure-text"  # an error page with a good status

    # The client failed this request
    BAD_REQUEST = "bad-request"
    CLIENT_TIMEOUT = "client-timeout"
    CLIENT_GONE = "client-gone"
    TOO_LARGE = "too-large"
    UNSUPPORTED = "unsupported"
    LOOP = "loop"

    # RETTER itself
    HTTPS_REDIRECT = "https-redirect"  # redirected to https
    INTERNAL_ERROR = "internal-error"  # a fault of RETTER itself, or no memory: its log says more
