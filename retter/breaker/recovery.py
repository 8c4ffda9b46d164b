"""Recovery of an open circuit: probes, and the ramp by which load comes back.

OPEN: one GET a wait goes upstream as a probe; the wait grows with every failure. HALF_OPEN: the
requests in flight are limited, and every success makes room for one more, so that the load doubles
each round trip and stops growing where the application stops answering.
"""

from retter.breaker import constants
from retter.breaker.settings import BreakerSettings


class Recovery:
    """The waits, the probes and the ramp."""

    __slots__ = (
        "_successes",
        "_wait_s",
        "acted_at",
        "issued",
        "probe_at",
        "probes",
        "ramp",
        "settings",
    )

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self._wait_s = settings.open_min_s
        self.probe_at = 0.0
        self.acted_at = 0.0  # when half-open: of the last success, or request of our own
        self.probes = 0  # in flight, within their patience
        self.issued = 0  # since the start
        self.ramp = 0  # places when half-open
        self._successes = 0

    def open(self, now: float, *, relapse: bool) -> None:
        """OPEN is entered; after a failed ramp the wait grows."""
        self._wait_s = self._longer_s() if relapse else self.settings.open_min_s
        self.probe_at = now + self._wait_s
        self.probes = 0

    def probe_due(self, now: float) -> bool:
        """Say whether one more may go upstream."""
        return now >= self.probe_at and self.probes < constants.PROBES_MAX

    def issue_probe(self, now: float) -> None:
        """One goes upstream; if it is lost the next follows all the same."""
        self.probes += 1
        self.issued += 1
        self.probe_at = now + self._wait_s

    def give_probe_back(self) -> None:
        """One ended without saying anything."""
        self.probes -= 1

    def probe_failed(self, now: float, *, refused: bool = False) -> None:
        """One failed, or its patience is over.

        A refused connection costs the application nothing, since there is none: the wait does not
        grow, so that the first page after a restart is at most one short wait away.
        """
        self.probes -= 1
        if not refused:
            self._wait_s = self._longer_s()
        self.probe_at = now + self._wait_s

    def begin_ramp(self, now: float) -> None:
        """HALF_OPEN is entered."""
        self.acted_at = now
        self.ramp = constants.RAMP_START
        self._successes = 0

    def climb(self, now: float) -> bool:
        """One success: room for one more. Returns whether the ramp is over."""
        self.acted_at = now
        self.ramp += 1
        self._successes += 1
        return self._successes >= constants.RAMP_SUCCESSES and self.ramp >= constants.SPARE

    def _longer_s(self) -> float:
        return min(self.settings.open_max_s, constants.WAIT_GROWTH * self._wait_s)
