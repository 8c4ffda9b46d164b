"""The effect of received changes on the responses that a box reads."""

import pytest

from retter.far import changes
from retter.far.changes import NO_PLACE, Heard, Verdict, place_of
from retter.store.write_behind import Purge, Removals

OWNER = b"o" * 16
OWNED, PUBLIC = b"@" + OWNER + b"a.b/x", b"*a.b/x"
BEFORE, AT, AFTER = place_of(b"1-0"), place_of(b"2-0"), place_of(b"3-0")


@pytest.mark.parametrize(
    ("removals", "owned", "public"),
    [
        (Removals(everything=True), Verdict.GONE, Verdict.GONE),
        (Removals(personal=True), Verdict.GONE, Verdict.VALID),
        (Removals(owners={OWNER}), Verdict.GONE, Verdict.VALID),
        (Removals(marks={7}), Verdict.GONE, Verdict.VALID),
        (Removals(marks={8}), Verdict.VALID, Verdict.VALID),
        (Removals(keys={PUBLIC}), Verdict.VALID, Verdict.GONE),
        (Removals(superseded={OWNED}), Verdict.SUPERSEDED, Verdict.VALID),
        (Removals(purges=[Purge(b"a.b/x", None, None)]), Verdict.GONE, Verdict.GONE),
        (Removals(purges=[Purge(None, b"/y", None)]), Verdict.VALID, Verdict.VALID),
    ],
)
def test_a_change_concerns_what_was_written_before_it(
    removals: Removals, owned: Verdict, public: Verdict
) -> None:
    heard = Heard()
    heard.note(AT, removals)
    heard.note(BEFORE, removals)  # told twice, or out of order
    assert heard.verdict(OWNED, (7,), BEFORE) is owned
    assert heard.verdict(PUBLIC, (), NO_PLACE) is public
    for place in (AT, AFTER):
        assert (
            heard.verdict(OWNED, (7,), place) is heard.verdict(PUBLIC, (), place) is Verdict.VALID
        )


def test_the_oldest_changes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "HEARD_MAX", 3)
    heard = Heard()
    for number in range(5):
        heard.note(AT, Removals(keys={b"*a.b/%d" % number}))
    verdicts = [heard.verdict(b"*a.b/%d" % number, (), BEFORE) for number in range(5)]
    assert verdicts == [Verdict.VALID] * 2 + [Verdict.GONE] * 3


def test_too_many_purges_count_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PURGES_MAX", 2)
    heard = Heard()
    for place in (BEFORE, AT, AFTER):
        heard.note_purge(place, Purge(b"a.b/other", None, None))
    assert heard.verdict(PUBLIC, (), NO_PLACE) is Verdict.GONE
    assert heard.verdict(PUBLIC, (), BEFORE) is Verdict.VALID
