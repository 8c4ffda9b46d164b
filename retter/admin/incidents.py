"""The incidents: spells in which visitors would have noticed something without RETTER.

An incident begins when the situation is not good, and ends when it has been good, or as an
operator wants it, for a while. What it did to visitors is counted by difference.
"""

from collections import deque
from typing import Any, Final, NamedTuple

from retter.admin.situation import TONES, Situation, gravity
from retter.base.counters import NO_ANSWERS, Answers

KEPT_MAX: Final = 50  # some 1 KB each
SHOWN_MAX: Final = 10  # in the state document
CALM_S: Final = 30.0  # good for so long: it is over. What comes back sooner is the same once more
_TROUBLE: Final = TONES.index("busy")


class Totals(NamedTuple):
    """What became of all requests since the start."""

    gets: Answers = NO_ANSWERS
    others: Answers = NO_ANSWERS
    spared: int = 0

    def since(self, before: "Totals") -> "Totals":
        """Return what came after an earlier count."""
        return Totals(
            self.gets.since(before.gets),
            self.others.since(before.others),
            self.spared - before.spared,
        )


class Incident:
    """One spell of trouble."""

    def __init__(self, number: int, at: float, wall: float, totals: Totals) -> None:
        self.number = number
        self.began_at = at  # monotonic seconds
        self.began_wall = wall  # seconds since 1970
        self.trouble_at = at  # when there was trouble last
        self.over = False
        self.worst: Situation | None = None
        self.rows: list[str] = []  # in the order in which they came
        self._before = totals
        self.got = Totals()

    def note(self, situation: Situation, at: float, totals: Totals) -> None:
        """Take in a moment of trouble."""
        self.trouble_at = at
        self.got = totals.since(self._before)
        if self.worst is None or gravity(situation) >= gravity(self.worst):
            self.worst = situation
        if situation.row not in self.rows:
            self.rows.append(situation.row)

    def document(self) -> dict[str, Any]:
        """Return it as JSON can write it."""
        assert self.worst is not None, "an incident begins with a moment of trouble"
        lasted_s = self.trouble_at - self.began_at
        return {
            "number": self.number,
            "began": round(self.began_wall, 3),
            "ended": round(self.began_wall + lasted_s, 3) if self.over else None,
            "lasted_s": round(lasted_s, 1),
            "tone": self.worst.tone,
            "cause": self.worst.now,
            "rows": self.rows,
            "spared": self.got.spared,
            "gets": self.got.gets._asdict(),
            "others": self.got.others._asdict(),
        }


class Incidents:
    """The last incidents, the present one among them."""

    def __init__(self) -> None:
        self._kept: deque[Incident] = deque(maxlen=KEPT_MAX)
        self.present: Incident | None = None
        self.count = 0

    def note(
        self, situation: Situation, at: float, wall: float, before: Totals, totals: Totals
    ) -> Incident | None:
        """Take in the situation of a second; return the incident that has just ended.

        Args:
            at: Monotonic seconds.
            wall: The same moment, in seconds since 1970.
            before: What had become of requests before those that the situation follows from.
            totals: What has become of requests until now.
        """
        if TONES.index(situation.tone) >= _TROUBLE:
            if self.present is None:
                self.count += 1
                self.present = Incident(self.count, at, wall, before)
                self._kept.append(self.present)
            self.present.note(situation, at, totals)
        elif self.present is not None and at - self.present.trouble_at >= CALM_S:
            ended, self.present = self.present, None
            ended.over = True
            return ended
        return None

    def all(self) -> list[dict[str, Any]]:
        """Return what is kept, the newest last."""
        return [one.document() for one in self._kept]

    def recent(self) -> list[dict[str, Any]]:
        """Return the last few, the newest last."""
        return [one.document() for one in list(self._kept)[-SHOWN_MAX:]]
