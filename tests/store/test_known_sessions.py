"""Whose session the application has begun, and whose may be made up."""

from retter.store.known_sessions import (
    GIVEN_MAX,
    ISSUED,
    ISSUED_MAX,
    KEPT,
    KEPT_MAX,
    KEPT_S,
    UNKNOWN,
    KnownSessions,
)

MADE_UP, SET, OTHER = 1, 2, 3


def test_a_session_is_known_when_the_application_has_set_it() -> None:
    """Not when it is only used, except after a while."""
    known = KnownSessions()
    assert known.standing_of((MADE_UP,), 0.0) == (UNKNOWN, 0)
    known.answered((MADE_UP,), 0.0)
    assert known.standing_of((MADE_UP,), KEPT_S - 1) == (UNKNOWN, 0)
    assert known.standing_of((MADE_UP,), KEPT_S) == (KEPT, MADE_UP)
    known.given(SET)
    assert known.standing_of((SET,), 0.0) == (ISSUED, SET)
    known.answered((SET,), 0.0)
    assert known.standing_of((SET,), 1e6) == (ISSUED, SET)


def test_of_several_cookies_the_one_that_was_set_counts() -> None:
    """Whatever stands beside it, it is the same client."""
    known = KnownSessions()
    known.given(SET)
    assert known.standing_of((OTHER, SET), 0.0) == (ISSUED, SET)
    known.answered((OTHER, SET), 0.0)
    assert known.standing_of((MADE_UP, SET), 0.0) == (ISSUED, SET)
    assert known.standing_of((), 0.0) == (UNKNOWN, 0)


def test_sessions_in_use_outlive_any_number_that_are_not() -> None:
    """A crawler is given a new one with each answer, and makes up others."""
    known = KnownSessions()
    known.given(SET)
    known.answered((SET,), 0.0)
    for number in range(2 * (GIVEN_MAX + KEPT_MAX)):
        known.given(10 + number)
        known.answered((-10 - number,), 0.0)
    assert known.standing_of((SET,), 0.0) == (ISSUED, SET)
    assert len(known) <= ISSUED_MAX + GIVEN_MAX + KEPT_MAX
