"""The times of the rounds with the server, and how long a box may trust what it has received.

`now` is monotonic seconds.
"""

from typing import Final

# How often a box asks for changes of other boxes, and how often it sends a heartbeat.
HEAR_EVERY_S: Final = 0.25
BEAT_EVERY_S: Final = 1.0

# A box that has received nothing for this long neither reads nor writes responses.
IN_TOUCH_S: Final = 2.5

# The delay after a round that failed.
RETRY_S: Final = 1.0

# The first contact may take this long before it is reported as a problem.
FIRST_S: Final = 5.0

LATE: Final = "it does not answer in time"
NOT_YET: Final = "it has not answered yet"


class Pace:
    """The times of rounds.

    Attributes:
        trouble: Why the server is not used; "" if it is.
        failed_at: When the server went away; None if it is there.
    """

    def __init__(self, now: float) -> None:
        self.trouble = NOT_YET
        self.failed_at: float | None = None
        self._began_at = now
        self._round_at = 0.0  # when the next one is due
        self._beat_at = 0.0
        self._not_before = 0.0  # after a round that failed
        self._in_touch_until = 0.0

    def is_in_touch(self, now: float) -> bool:
        """Return whether all changes have been received lately."""
        return now < self._in_touch_until

    def may_begin(self, now: float) -> bool:
        """Return whether a round may begin: the last one has not failed just now."""
        return now >= self._not_before

    def is_due(self, now: float) -> bool:
        """Return whether a round is due even if there is nothing to send or write."""
        return now >= self._round_at

    def begin(self, now: float) -> bool:
        """Note that a round begins; return whether it sends a heartbeat."""
        self._round_at = now + HEAR_EVERY_S
        if now < self._beat_at:
            return False
        self._beat_at = now + BEAT_EVERY_S
        return True

    def worked(self, began_at: float, now: float, *, complete: bool) -> None:
        """Note that a round worked.

        Args:
            complete: All changes have been received. Otherwise the next round is due at once.
        """
        self.failed_at = None
        if complete:
            self._in_touch_until = began_at + IN_TOUCH_S
            self.trouble = ""
        else:
            self._round_at = now

    def failed(self, began_at: float, now: float, trouble: str) -> None:
        """Note that a round failed."""
        self.trouble = trouble
        self._in_touch_until = 0.0
        self._not_before = now + RETRY_S
        self._beat_at = 0.0
        if self.failed_at is None:
            self.failed_at = began_at

    def away(self, now: float) -> str:
        """Return why the server is not used; "" if it is, or if this box has only just begun."""
        if now < self._in_touch_until or now < self._began_at + FIRST_S:
            return ""
        return self.trouble or LATE
