"""The incidents: spells in which visitors would have noticed something without RETTER.

An incident begins when the situation is not good, and ends when it has been good, or as an
operator wants it, for a while. Its effect on visitors is the difference of two counts.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from retter.admin.situation import TONES, Situation, gravity, length
from retter.base.counters import NO_ANSWERS, Answers

KEPT_MAX: Final = 50  # some 4 KB each
COURSE_MAX: Final = 20  # changes of the situation that are kept of each: the first ones
SHOWN_MAX: Final = 10  # in the state document
# An incident is over when all is good for this long. Trouble that returns sooner belongs to it.
CALM_S: Final = 30.0
_TROUBLE: Final = TONES.index("busy")
CAUSE_S: Final = 3.0  # a cause beside the worst one is shown if it lasted this long
# Consequences of a cause: they are shown as the cause only if nothing else is known.
_FOLLOWS: Final = frozenset(
    ("recovering", "caught up", "some fail", "refusing", "gave up", "hidden failures")
)


class Totals(NamedTuple):
    """The results of all requests since the start."""

    gets: Answers = NO_ANSWERS
    others: Answers = NO_ANSWERS
    spared: int = 0

    def since(self, before: "Totals") -> "Totals":
        """Return the difference from an earlier count."""
        return Totals(
            self.gets.since(before.gets),
            self.others.since(before.others),
            self.spared - before.spared,
        )

    @property
    def shows_trouble(self) -> bool:
        """Whether a visitor got no answer of the application that was good."""
        both = self.gets.plus(self.others)
        return bool(self.spared or both.refused or both.failed or both.gave_up)


class Incident:
    """One spell of trouble."""

    def __init__(self, number: int, at: float, wall: float, totals: Totals) -> None:
        self.number = number
        self.began_at = at  # monotonic seconds
        self.began_wall = wall  # seconds since 1970
        self.trouble_at = at  # when there was trouble last
        self.calm = False  # no trouble at present; it may come back
        self.over = False
        self.tone = TONES[0]
        self.worst: Situation | None = None  # shown as the cause
        self._last: Situation | None = None
        self.rows: list[str] = []  # in the order in which they came
        self.course: list[tuple[float, Situation]] = []  # seconds after the beginning
        self._latest: dict[str, tuple[float, Situation]] = {}  # by row: seconds it lasted, the last
        self._before = totals
        self.got = Totals()

    def note(self, situation: Situation, at: float, totals: Totals) -> None:
        """Record a moment of trouble."""
        lasted_s, before = self._latest.get(situation.row, (0.0, None))
        if before is not None and before is self._last and not self.calm:
            lasted_s += at - self.trouble_at
        self._latest[situation.row] = lasted_s, situation
        self._last = situation
        self.calm = False
        self.trouble_at = at
        self.got = totals.since(self._before)
        last = self.course[-1][1].row if self.course else ""
        if situation.row != last and len(self.course) < COURSE_MAX:
            self.course.append((at - self.began_at, situation))
        self.tone = max(self.tone, situation.tone, key=TONES.index)
        if self.worst is None or _gravity(situation) >= _gravity(self.worst):
            self.worst = situation
        if situation.row not in self.rows:
            self.rows.append(situation.row)

    def document(self) -> dict[str, Any]:
        """Return the incident in the types of JSON."""
        assert self.worst is not None, "an incident begins with a moment of trouble"
        lasted_s = self.trouble_at - self.began_at
        return {
            "number": self.number,
            "began": round(self.began_wall, 3),
            "ended": round(self.began_wall + lasted_s, 3) if self.over else None,
            "calm": self.calm,
            "lasted_s": round(lasted_s, 1),
            "tone": self.tone,
            "cause": self.worst.now,
            "causes": self._causes(self.worst),
            "rows": self.rows,
            "spared": self.got.spared,
            "gets": self.got.gets._asdict(),
            "others": self.got.others._asdict(),
        }

    def _causes(self, worst: Situation) -> list[dict[str, Any]]:
        """Return each cause and how long it was the case, in the order in which they came."""
        return [
            {"row": row, "lasted_s": round(lasted_s, 1), "now": situation.now}
            for row, (lasted_s, situation) in self._latest.items()
            if row == worst.row or (lasted_s >= CAUSE_S and row not in _FOLLOWS)
        ]

    def whole(self) -> dict[str, Any]:
        """Return its document with its course: each situation, and when it began."""
        course = [
            {
                "at": round(self.began_wall + after_s, 3),
                "row": one.row,
                "tone": one.tone,
                "now": one.now,
                "you": one.you,
            }
            for after_s, one in self.course
        ]
        return {**self.document(), "course": course}


def _gravity(situation: Situation) -> tuple[bool, int, int]:
    """Return the sort key of a cause: a consequence of another cause comes last."""
    return situation.row not in _FOLLOWS, *gravity(situation)


class Incidents:
    """The last incidents, the present one among them."""

    def __init__(self) -> None:
        self._kept: deque[Incident] = deque(maxlen=KEPT_MAX)
        self._earlier: list[dict[str, Any]] = []  # of processes before this one, with their course
        self.present: Incident | None = None
        self.count = 0

    def note(
        self, situation: Situation, at: float, wall: float, before: Totals, totals: Totals
    ) -> Incident | None:
        """Record the situation of a second; return the incident that has just ended.

        Args:
            at: Monotonic seconds.
            wall: The same moment, in seconds since 1970.
            before: The results of requests before those that the situation follows from.
            totals: The results of requests until now.
        """
        if TONES.index(situation.tone) >= _TROUBLE:
            if self.present is None:
                if situation.row == "caught up" and not totals.since(before).shows_trouble:
                    return None  # an operator has released the circuit
                self.count += 1
                self.present = Incident(self.count, at, wall, before)
                self._kept.append(self.present)
            self.present.note(situation, at, totals)
        elif self.present is not None:
            self.present.calm = True
            if at - self.present.trouble_at >= CALM_S:
                ended, self.present = self.present, None
                ended.over = True
                return ended
        return None

    def clock_is_set(self, moved_s: float) -> None:
        """Move the times of those that began in this process."""
        for one in self._kept:
            one.began_wall += moved_s

    def whole(self) -> list[dict[str, Any]]:
        """Return all incidents, each with its course, the newest last."""
        return [*self._earlier, *[one.whole() for one in self._kept]][-KEPT_MAX:]

    def one(self, number: int) -> dict[str, Any] | None:
        """Return an incident with its course, if it is kept."""
        return next((one for one in self.whole() if one["number"] == number), None)

    def all(self) -> list[dict[str, Any]]:
        """Return all incidents, the newest last."""
        return self._last(KEPT_MAX)

    def recent(self) -> list[dict[str, Any]]:
        """Return the last few, the newest last."""
        return self._last(SHOWN_MAX)

    def _last(self, wanted: int) -> list[dict[str, Any]]:
        kept = [one.document() for one in list(self._kept)[-wanted:]]
        earlier = self._earlier[-(wanted - len(kept)) :] if wanted > len(kept) else []
        return [*[_without_course(one) for one in earlier], *kept]

    def restore(self, whole: list[dict[str, Any]]) -> None:
        """Continue after the incidents of another process, the last of which ended with it.

        Raises:
            KeyError: What was given is not the result of `whole`.
            TypeError: The same.
        """
        earlier: list[dict[str, Any]] = []
        for one in whole[-KEPT_MAX:]:
            began, lasted_s = float(one["began"]), float(one["lasted_s"])
            # Earlier versions wrote one cause, and not whether it was calm.
            known: dict[str, Any] = {"causes": [], "calm": True, **one}
            complete: dict[str, Any] = {name: known[name] for name in _FIELDS}
            if complete["ended"] is None:
                complete["ended"] = round(began + lasted_s, 3)
            earlier.append(complete)
        self._earlier = earlier
        self.count = max([int(one["number"]) for one in earlier], default=0)


def words(one: Mapping[str, Any]) -> str:
    """Return in a sentence what visitors got in an incident, and then its causes."""
    gets, others = one["gets"], one["others"]
    parts = [f"{one['spared']:,} {'answer' if one['spared'] == 1 else 'answers'} saved by RETTER"]
    parts += [
        f"{gets[kind] + others[kind]:,} {what}" for kind, what in _BAD if gets[kind] + others[kind]
    ]
    return f"{', '.join(parts)}. {causes(one)}"


def causes(one: Mapping[str, Any]) -> str:
    """Return the cause of an incident; if there were several, each with its duration."""
    if len(one["causes"]) < 2:
        return str(one["cause"])
    told = [f"For {length(cause['lasted_s'])}: {cause['now']}" for cause in one["causes"]]
    return " ".join(told)


def time_of(one: Mapping[str, Any]) -> str:
    """Return how long an incident lasted: `42 s`, `42 s so far`, `42 s, calm now`."""
    now = "" if one["ended"] else ", calm now" if one["calm"] else " so far"
    return length(one["lasted_s"]) + now


_BAD: Final = (("refused", "got a 503"), ("failed", "got an error"), ("gave_up", "gave up"))

_FIELDS: Final = (
    "number",
    "began",
    "ended",
    "calm",
    "lasted_s",
    "tone",
    "cause",
    "causes",
    "rows",
    "spared",
    "gets",
    "others",
    "course",
)


def _without_course(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name != "course"}
