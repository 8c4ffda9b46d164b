"""An open circuit, or an open route: nothing goes upstream but one probe a wait.

Each time that a breaker opens it gets a new `Opening`. A probe carries the one that it was sent
for, so that an answer which comes after all that changes nothing.
"""

from retter.breaker import constants


class Opening:
    """The waits and the probes of one time that a breaker is open."""

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
        """Say whether one more probe may go upstream."""
        return now >= self.probe_at

    def send(self, now: float) -> None:
        """A probe goes upstream; if it is lost the next follows all the same."""
        self.probe_at = now + self.wait_s

    def failed(self, now: float, *, refused: bool = False) -> None:
        """A probe failed, or its patience is over.

        A refused connection costs the application nothing, since there is none: the wait does not
        grow, so that the first page after a restart is at most one short wait away.
        """
        if not refused:
            self.wait_s = self.longer_s
        self.probe_at = now + self.wait_s
