"""Why an answer is what it is: ONE enum.

The same word stands in the log line, the metric label, the `Cache-Status` detail and the admin
API, so that an operator who sees a word in one place can search for it in all the others.
"""

from enum import StrEnum
from typing import Final

STATUS_CLASSES: Final = 6  # 1xx to 5xx, and before them 0: no status at all


class Reason(StrEnum):
    """The cause of a decision or of an answer that RETTER made itself.

    `row` is where the counters of a reason begin in a list that counts by reason and by class of
    status: a dictionary would cost 0.15 us, as the hash of an Enum's member is computed in Python.
    """

    row: int

    def __init__(self, *_: object) -> None:
        self.row = len(type(self).__members__) * STATUS_CLASSES

    # Forwarded
    ADMITTED = "admitted"  # forwarded and answered by the application
    PROBE = "probe"  # forwarded to find out whether it has recovered

    # Not forwarded, or not waited for: the breaker's decision
    LIMIT = "limit"  # as many in flight as the application can work on
    SINGLE_FLIGHT = "single-flight"  # limited, and the same key is in flight already
    FRESH_ENOUGH = "fresh-enough"  # limited, and the stored response is very young
    QUEUE_FULL = "queue-full"  # limited, no stored response, and no room to wait
    QUEUE_TIMEOUT = "queue-timeout"  # limited, waited for a place in vain
    OPEN = "open"  # the circuit is open
    HALF_OPEN = "half-open"  # recovering: over the ramp's limit
    ROUTE_OPEN = "route-open"  # this route alone is open
    PATIENCE = "patience"  # the first byte took longer than the patience
    FORCED_OPEN = "forced-open"  # an operator holds the circuit open
    PAUSED = "paused"  # an operator lets nothing through for a moment

    # The application failed this request
    CONNECT_REFUSED = "connect-refused"
    CONNECT_TIMEOUT = "connect-timeout"
    UPSTREAM_TLS = "upstream-tls"  # no TLS with it: a certificate not to be believed, ...
    NO_DESCRIPTORS = "no-descriptors"  # no connection: this process has too many files open
    UPSTREAM_RESET = "upstream-reset"  # closed or reset before the answer was complete
    UPSTREAM_TIMEOUT = "upstream-timeout"  # no first byte, or a silence inside the answer
    UPSTREAM_MALFORMED = "upstream-malformed"
    UPSTREAM_STATUS = "upstream-status"  # it answered with a 5xx (not 501, 505)

    FAILURE_TEXT = "failure-text"  # an error page whose status says that all is well

    # The client failed this request
    BAD_REQUEST = "bad-request"
    CLIENT_TIMEOUT = "client-timeout"
    CLIENT_GONE = "client-gone"
    TOO_LARGE = "too-large"
    UNSUPPORTED = "unsupported"
    LOOP = "loop"

    # RETTER itself
    HTTPS_REDIRECT = "https-redirect"  # told to come again by https
    INTERNAL_ERROR = "internal-error"  # a fault of its own, or no memory: its log says more
