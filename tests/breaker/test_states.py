"""The table of states: every state against every signal, and what an operator may force."""

import pytest

from retter.breaker import Signal, State
from retter.breaker.states import NEXT_STATE, next_state

EXPECTED = {
    State.CLOSED: {
        Signal.SATURATED: State.LIMITING,
        Signal.NO_PERMITS: State.LIMITING,
        Signal.OVERLOADED: State.LIMITING,
        Signal.STALLED: State.LIMITING,
        Signal.FAILING: State.OPEN,
        Signal.FORCED_OPEN: State.OPEN,
        Signal.FORCED_CLOSED: State.CLOSED,
        Signal.RELEASED: State.CLOSED,
    },
    State.LIMITING: {
        Signal.FAILING: State.OPEN,
        Signal.RELIEVED: State.CLOSED,
        Signal.FORCED_OPEN: State.OPEN,
        Signal.FORCED_CLOSED: State.CLOSED,
    },
    State.OPEN: {
        Signal.PROBE_PASSED: State.HALF_OPEN,
        Signal.FORCED_OPEN: State.OPEN,
        Signal.FORCED_CLOSED: State.CLOSED,
        Signal.RELEASED: State.LIMITING,
    },
    State.HALF_OPEN: {
        Signal.TRIAL_FAILED: State.OPEN,
        Signal.TRIALS_PASSED: State.LIMITING,
        Signal.FORCED_OPEN: State.OPEN,
        Signal.FORCED_CLOSED: State.CLOSED,
    },
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("signal", Signal)
def test_every_state_against_every_signal(state: State, signal: Signal) -> None:
    """A legal pair leads where it should, any other is a bug and raises."""
    if signal in EXPECTED[state]:
        assert next_state(state, signal) is EXPECTED[state][signal]
    else:
        with pytest.raises(AssertionError, match=signal.value):
            next_state(state, signal)


def test_the_table_has_nothing_else() -> None:
    """No pair is legal that is not listed here."""
    assert len(NEXT_STATE) == sum(len(moves) for moves in EXPECTED.values())


def test_the_words_of_the_header_field() -> None:
    """X-Circuit keeps the words that the original had."""
    assert [state.value for state in State] == ["CLOSED", "LIMITING", "OPEN", "HALF-OPEN"]
