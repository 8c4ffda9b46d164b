"""The flight recorder: the last changes of the circuit's state, with figures and in words."""

import math
import time
from collections import deque
from dataclasses import fields
from typing import Any

from retter.breaker import Signal, State, Transition
from retter.breaker.snapshot import Snapshot

TRIPS_MAX = 50          # some 2 KB each; a bad night has about so many
EVENTS_MAX = 20         # of them shown in the state document

_CAUSES = {
    Signal.NO_PERMITS: "more requests came than the application can work on",
    Signal.OVERLOADED: "the application refused work or dropped it",
    Signal.STALLED: "the application answered nothing any more",
    Signal.RELIEVED: "the application keeps up again",
    Signal.FAILING: "too many answers in a row, or too large a share of them, were failures",
    Signal.PROBE_PASSED: "a trial request was answered well",
    Signal.TRIAL_FAILED: "a request failed or came late while the load was being raised",
    Signal.TRIALS_PASSED: "the load was raised step by step and all went well",
    Signal.FORCED_OPEN: "an operator holds the circuit open",
    Signal.FORCED_CLOSED: "an operator holds the circuit closed",
    Signal.RELEASED: "the operator lets the circuit decide again",
}

_EFFECTS = {
    State.CLOSED: "Everything is forwarded",
    State.LIMITING: "GETs above the limit are answered from the store",
    State.OPEN: "GETs are answered from the store, and only trial requests are forwarded",
    State.HALF_OPEN: "A growing share is forwarded, and the rest is answered from the store",
}


def words(transition: Transition) -> str:
    """Say in one sentence what has changed, why, and with which figures."""
    cause = _CAUSES[transition.cause]
    effect = _EFFECTS[transition.after]
    if transition.cause is Signal.FORCED_OPEN:
        effect = "GETs are answered from the store wherever it has an answer"
    outcomes = transition.failures + transition.successes
    figures = f"{transition.in_flight} in flight, limit {transition.limit:.0f}"
    if transition.failures:
        figures += f", {transition.failures} of {outcomes} failed in the last 2 s"
    return f"{effect}: {cause} ({figures})."


def plain(record: Any) -> dict[str, Any]:
    """Return a dataclass as JSON can write it: rounded, and without infinities."""
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


class FlightRecorder:
    """Remembers the last transitions; nothing before it was made."""

    def __init__(self) -> None:
        self._trips: deque[dict[str, Any]] = deque(maxlen=TRIPS_MAX)
        self.by_cause: dict[tuple[State, Signal], int] = {}    # (state entered, cause) -> times

    def record(self, transition: Transition, snapshot: Snapshot) -> dict[str, Any]:
        """Remember a transition; return it as an event."""
        kind = (transition.after, transition.cause)
        self.by_cause[kind] = self.by_cause.get(kind, 0) + 1
        event = {
            "at": round(time.time(), 3),
            "from": transition.before.value,
            "to": transition.after.value,
            "cause": transition.cause.value,
            "words": words(transition),
        }
        figures = {
            name: value for name, value in plain(transition).items()
            if name not in ("at", "before", "after", "cause")
        }
        breaker = {name: value for name, value in plain(snapshot).items() if name != "at"}
        self._trips.append({**event, "figures": figures, "breaker": breaker})
        return event

    def trips(self) -> list[dict[str, Any]]:
        """Return what is remembered, the newest last."""
        return list(self._trips)

    def events(self) -> list[dict[str, Any]]:
        """Return the last events, without their figures, the newest last."""
        names = ("at", "from", "to", "cause", "words")
        return [{name: trip[name] for name in names} for trip in list(self._trips)[-EVENTS_MAX:]]
