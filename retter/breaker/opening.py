"""An open circuit or an open route: only one probe goes upstream in each wait.

A breaker gets a new `Opening` each time that it opens. A probe refers to the opening that it was
sent for. So the answer to a probe changes nothing if that opening has ended before.
"""

from retter.breaker import constants


class Opening:
    """The waits and the probes from the opening of a breaker to its end."""

    __slots__ = ("_wait_max_s", "probe_at", "wait_s")

    def __init__(self, now: float, wait_s: float, wait_max_s: float) -> None:
        self._wait_max_s = wait_max_s
        self.wait_s = wait_s
        self.probe_at = now + wait_s

    @property
    def longer_s(self) -> float:
        """The wait after a failure."""
        return min(self._wait_max_s, constants.WAIT_GROWTH * self.wait_s)

    def due(self, now: float) -> bool:
        """Return whether one more probe may go upstream."""
        return now >= self.probe_at

    def send(self, now: float) -> None:
        """Record that a probe goes upstream; the next follows even if this one has no result."""
        self.probe_at = now + self.wait_s

    def failed(self, now: float, *, refused: bool = False) -> None:
        """Record that a probe failed, or that its patience is over.

        After a refused connection the wait does not grow: no application is running, so the probe
        costs it nothing. So the first page after a restart comes within one short wait.
        """
        if not refused:
            self.wait_s = self.longer_s
        self.probe_at = now + self.wait_s
