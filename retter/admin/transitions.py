"""The last changes of the circuit's state, with figures and in words."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from retter.admin.set_clock import SetClock
from retter.breaker import Signal, State, Transition
from retter.breaker.snapshot import Snapshot

TRANSITIONS_MAX = 50  # some 2 KB each; enough for a night with many failures
TRIPS_TOLD = 8  # to the worker that answers operators: 16 KB
EVENTS_MAX = 20  # of them shown in the state document
SAME_S = 1.0  # a change that repeats within this time belongs to the same event

_SHOWN = ("at", "first_at", "times", "from", "to", "cause", "words")

_CAUSES = {
    Signal.SATURATED: "answers come late since more requests arrive than it can work on",
    Signal.NO_PERMITS: "more requests arrived than the application can work on",
    Signal.OVERLOADED: "the application refused or dropped requests",
    Signal.STALLED: "the application stopped answering",
    Signal.RELIEVED: "the application keeps up with the load again",
    Signal.FAILING: "too many responses in a row, or too large a share of them, were failures",
    Signal.PROBE_PASSED: "a probe succeeded",
    Signal.TRIAL_FAILED: "a request failed or was late while the load was increased",
    Signal.TRIALS_PASSED: "the load was increased step by step without failures",
    Signal.FORCED_OPEN: "an operator holds the circuit open",
    Signal.FORCED_CLOSED: "an operator holds the circuit closed",
    Signal.RELEASED: "the operator returned the circuit to automatic",
}

_EFFECTS = {
    State.CLOSED: "Everything is forwarded",
    State.LIMITING: "GETs above the limit are answered from the store",
    State.OPEN: "GETs are answered from the store, and only probes are forwarded",
    State.HALF_OPEN: "A growing share is forwarded, and the rest is answered from the store",
}


def words(transition: Transition) -> str:
    """Return one sentence: the change, its cause, and the figures."""
    cause = _CAUSES[transition.cause]
    effect = _EFFECTS[transition.after]
    if transition.cause is Signal.FORCED_OPEN:
        effect = "GETs are answered from the store wherever it has a response"
    outcomes = transition.failures + transition.successes
    figures = f"{transition.in_flight} in flight, limit {transition.limit:.0f}"
    if transition.failures:
        figures += f", {transition.failures} of {outcomes} failed in the last 2 s"
    return f"{effect}: {cause} ({figures})."


def plain(record: Any) -> dict[str, Any]:
    """Return a dataclass in a form for JSON: rounded, and without infinities."""
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, tuple):
        return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {
            str(_plain(name)): _plain(one)
            for name, one in value.items()  # pyright: ignore[reportUnknownVariableType]
        }
    return getattr(value, "value", value)


Event = dict[str, Any]
Kind = tuple[State, State, Signal]  # from, to, cause


class Recorded(NamedTuple):
    """A transition that is remembered."""

    kind: Kind
    at: float  # monotonic seconds
    event: Event  # with its figures


def _thinned(transitions: list[Recorded], length: int) -> list[Recorded]:
    """Return at most this many transitions, without the oldest ones of the most frequent kinds.

    So a state that changes back and forth only displaces earlier changes of the same kind.
    """
    kept = list(transitions)
    counts = Counter([one.kind for one in kept])
    while len(kept) > length:
        most, _ = counts.most_common(1)[0]
        counts[most] -= 1
        del kept[next(i for i, one in enumerate(kept) if one.kind == most)]
    return kept


class TransitionHistory:
    """Remembers the last transitions.

    A transition that repeats within a second is the same event again: its `times` are counted, its
    figures are the latest, and `first_at` is when it began.
    """

    def __init__(self) -> None:
        self._recorded: list[Recorded] = []
        self._events: list[Event] | None = []  # those shown; None: not chosen yet
        # Returns what other workers have remembered, which have judged for all.
        self.others: Callable[[], list[Event]] = list
        # Whether this process judges for all workers. What an operator orders, each of them does.
        self.judges: Callable[[], bool] = lambda: True
        self.now: Callable[[], float] = time.time  # the time of day
        self.by_cause: dict[tuple[State, Signal], int] = {}  # (state entered, cause) -> times

    def record(self, transition: Transition, snapshot: Snapshot) -> Event:
        """Remember a transition, unless another worker does; return it as an event."""
        now = round(self.now(), 3)
        event: Event = {
            "at": now,
            "first_at": now,
            "times": 1,
            "from": transition.before.value,
            "to": transition.after.value,
            "cause": transition.cause.value,
            "words": words(transition),
        }
        figures = {
            name: value
            for name, value in plain(transition).items()
            if name not in ("at", "before", "after", "cause")
        }
        breaker = {name: value for name, value in plain(snapshot).items() if name != "at"}
        kind = (transition.before, transition.after, transition.cause)
        if not self.judges():
            return event
        entered = (transition.after, transition.cause)
        self.by_cause[entered] = self.by_cause.get(entered, 0) + 1
        if (same := self._same(kind, transition.at)) is not None:
            event["first_at"] = same.event["first_at"]
            event["times"] = same.event["times"] + 1
            self._recorded.remove(same)
        document = {**event, "figures": figures, "breaker": breaker}
        self._recorded = _thinned(
            [*self._recorded, Recorded(kind, transition.at, document)], TRANSITIONS_MAX
        )
        self._events = None
        return event

    def clock_is_set(self, moved_s: float) -> None:
        """Move the times of what is remembered."""
        for one in self._recorded:
            for name in ("first_at", "at"):
                one.event[name] = round(one.event[name] + moved_s, 3)
        self._events = None

    def follow(self, clock: SetClock) -> None:
        """Take the times of day from a clock, and move them when it is set."""
        self.now = clock.now
        clock.on_set.append(self.clock_is_set)

    def _same(self, kind: Kind, at: float) -> Recorded | None:
        """Return the same transition if it has happened within the last second."""
        for one in reversed(self._recorded):
            if at - one.at >= SAME_S:
                return None
            if one.kind == kind:
                return one
        return None

    def told(self) -> list[Event]:
        """Return the last that this process has recorded, for the worker that answers operators."""
        return [one.event for one in self._recorded[-TRIPS_TOLD:]]

    def all(self) -> list[Event]:
        """Return what is remembered, the newest last."""
        return [one.event for one in self._with_others(self.others())]

    def _with_others(self, others: list[Event]) -> list[Recorded]:
        if not others:
            return self._recorded
        told = [
            Recorded((State(one["from"]), State(one["to"]), Signal(one["cause"])), one["at"], one)
            for one in others
        ]
        both = sorted([*self._recorded, *told], key=lambda one: one.event["at"])
        return _thinned(both, TRANSITIONS_MAX)

    def events(self) -> list[Event]:
        """Return the last events, without their figures, the newest last."""
        others = self.others()
        if others:
            return _shown(self._with_others(others))
        if self._events is None:
            self._events = _shown(self._recorded)
        return self._events


def _shown(recorded: list[Recorded]) -> list[Event]:
    some = [one.event for one in _thinned(recorded, EVENTS_MAX)]
    return [{name: event[name] for name in _SHOWN} for event in some]
