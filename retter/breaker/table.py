"""The outcomes of requests, by the number of requests in flight when they started.

A request has one of three outcomes: in time, late, or failed. Its *rank* is the number in flight at
its start, itself included. One table counts the outcomes by rank. It answers three questions:

- Up to which rank do answers come in time? This is the *proven* rank.
- Are answers late from some rank on, but not below it? Then the application is saturated.
- Do requests fail from some rank on, but not below it? Then there is a *ceiling* (a backlog, a
  pool).

If answers are late or fail at all ranks alike, the number in flight is not the cause. A few
failures prove nothing either: a ceiling is accepted only if chance would produce such failures once
in a thousand times at most.
"""

from math import inf, log

from retter.breaker import constants


class Row:
    """The outcomes of the requests that started at one rank, or within a small range of ranks."""

    __slots__ = ("failed", "first", "in_time", "late")

    def __init__(self, first: int) -> None:
        self.first = first  # the lowest rank
        self.in_time = 0.0
        self.late = 0.0
        self.failed = 0.0

    @property
    def outcomes(self) -> float:
        """Sum of all remembered outcomes."""
        return self.in_time + self.late + self.failed

    def scale(self, factor: float) -> None:
        """Multiply all counts by `factor`."""
        self.in_time *= factor
        self.late *= factor
        self.failed *= factor


def surprise(bad_below: float, below: float, bad_above: float, above: float) -> float:
    """Return how unlikely it is that chance divides the bad outcomes like this, as -ln.

    If a bad outcome is as likely below as above, the probability of such a division of n outcomes
    is at most (n + 1) * exp(-surprise). It is the logarithm of the likelihood ratio. So few
    outcomes below prove as little as few above.
    """
    expected = (bad_below + bad_above) / (below + above)
    if not 0.0 < expected < 1.0:
        return 0.0
    return below * _divergence(bad_below / below, expected) + above * _divergence(
        bad_above / above, expected
    )


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two shares, in nats."""
    divergence = 0.0
    if share > 0.0:
        divergence += share * log(share / expected)
    if share < 1.0:
        divergence += (1.0 - share) * log((1.0 - share) / (1.0 - expected))
    return divergence


class ConcurrencyTable:
    """The rows, and the ranks computed from them."""

    def __init__(self, now: float, hint: int) -> None:
        self.rows: list[Row] = []
        self.by_rank: list[Row] = []  # the row of each rank, for the hot path
        first = 0
        while first <= constants.RANK_MAX:
            row = Row(first)
            self.rows.append(row)
            after = max(first + 1, int(first * constants.RANK_STEP))
            self.by_rank.extend([row] * (min(after, constants.RANK_MAX + 1) - first))
            first = after
        self.proven = 1  # the highest rank whose answers come in time
        self.late_from: float = inf  # the lowest rank whose answers are late, by `read_edge`
        self.ceiling: float = inf  # the highest rank whose requests do not fail
        self._passes_above = 0  # successes in a row of requests above the ceiling
        self.trial_at = now  # when one more than the ceiling may be tried
        self.hint = hint  # the operator's limit_start, used in the first second
        self._hint_until = now + constants.FIRST_S
        self._advanced_at = now

    @property
    def known_good(self) -> int:
        """The number in flight that is known to be good."""
        return max(self.proven, self.hint)

    def advance(self, now: float) -> None:
        """Let old outcomes decay; compute the proven rank and the ceiling."""
        faded = 0.5 ** ((now - self._advanced_at) / constants.TABLE_HALF_LIFE_S)
        self._advanced_at = now
        if now >= self._hint_until:
            self.hint = constants.SMALL
        for row in self.rows:
            if outcomes := row.outcomes:
                row.scale(min(faded, constants.ROW_OUTCOMES_MAX / outcomes))
        self.read_proven()
        if self.ceiling < inf:
            self.read_ceiling()

    def read_proven(self) -> None:
        """Find the highest rank with at least PROVEN_ANSWERS answers, most of them in time."""
        in_time = late = 0.0
        for row in reversed(self.rows):
            in_time += row.in_time
            late += row.late
            if in_time + late < constants.PROVEN_ANSWERS:
                continue
            if late <= constants.PROVEN_LATE_SHARE * (in_time + late):
                self.proven = max(1, row.first)
                return
            in_time = late = 0.0
        self.proven = 1

    def read_ceiling(self) -> bool:
        """Find the rank from which on requests fail; return whether that lowers the ceiling."""
        rows = self.rows
        edge = _edge(
            rows,
            [row.failed for row in rows],
            [row.outcomes for row in rows],
            constants.FAILED_SHARE_MIN,
            constants.CHANCE,
        )
        before = self.ceiling
        self.ceiling = inf if edge is None else max(constants.SPARE + 1, rows[edge].first - 1.0)
        return self.ceiling < before

    def read_edge(self) -> bool:
        """Find the rank from which on answers come late; return whether there is one."""
        rows = self.rows
        edge = _edge(
            rows,
            [row.late for row in rows],
            [row.in_time + row.late for row in rows],
            constants.LATE_SHARE_MIN,
            constants.LATE_CHANCE,
        )
        self.late_from = inf if edge is None else float(rows[edge].first)
        return edge is not None

    def failed_above_ceiling(self) -> None:
        """Record that a request failed above the ceiling: the ceiling is confirmed."""
        self._passes_above = 0

    def passed_above_ceiling(self, now: float, rank: int) -> None:
        """Record that a request above the ceiling got a good answer.

        After REFUTED_BY such answers without a failure between them, the failures counted between
        the ceiling and this rank lose weight.
        """
        self.trial_at = now
        self._passes_above += 1
        if self._passes_above < constants.REFUTED_BY:
            return
        for row in self.rows:
            if row.first > rank:
                break
            if row.first > self.ceiling:
                row.failed *= constants.REFUTED
        self.read_ceiling()


def _edge(
    rows: list[Row], bad: list[float], outcomes: list[float], share_min: float, chance: float
) -> int | None:
    """Return the row from which on the share of bad outcomes is most surprising.

    Return None if no share is surprising enough.
    """
    bad_below, below = 0.0, 0.0
    bad_above, above = sum(bad), sum(outcomes)
    if bad_above < constants.LEAN_MIN:
        return None
    enough = log(sum(map(bool, outcomes)) / chance)  # one test for each row
    found: int | None = None
    for index in range(len(rows)):
        if above < constants.LEAN_MIN:
            break
        if (
            below
            and bad[index] >= share_min * outcomes[index]
            and bad_above >= share_min * above
            and bad_above * below > bad_below * above
        ):
            # Subtraction leaves a rounding error, and no share may exceed 1.
            surprising = surprise(bad_below, below, min(bad_above, above), above)
            if surprising > enough:
                found, enough = index, surprising
        bad_below += bad[index]
        below += outcomes[index]
        bad_above -= bad[index]
        above -= outcomes[index]
    return found
