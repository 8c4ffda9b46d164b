"""Overload control: which requests go to the application, and which are answered without it.

Pure code: `now` (monotonic seconds) is an argument of every call, and there is no I/O, no lock and
no randomness. Only the event loop changes the state. `CircuitBreaker` is the whole interface.
"""

from retter.breaker.breaker import CircuitBreaker
from retter.breaker.fairness import Asker
from retter.breaker.mode import FairnessMode, Mode
from retter.breaker.permit import Kind, Permit, Phase, Rejection
from retter.breaker.routes import route_of
from retter.breaker.settings import BreakerSettings
from retter.breaker.snapshot import Snapshot
from retter.breaker.states import Signal, State, Transition

__all__ = [
    "Asker",
    "BreakerSettings",
    "CircuitBreaker",
    "FairnessMode",
    "Kind",
    "Mode",
    "Permit",
    "Phase",
    "Rejection",
    "Signal",
    "Snapshot",
    "State",
    "Transition",
    "route_of",
]
