"""The effect of received changes on the responses that a box reads."""

import pytest

from retter.far import changes
from retter.far.changes import NO_PLACE, Effect, Heard, Message, keep_last_orders, place_of
from retter.store.write_behind import Purge, Removals

OWNER = b"o" * 16
OWNED, PUBLIC = b"@" + OWNER + b"a.b/x", b"*a.b/x"
BEFORE, AT, AFTER = place_of(b"1-0"), place_of(b"2-0"), place_of(b"3-0")


@pytest.mark.parametrize(
    ("removals", "owned", "public"),
    [
        (Removals(everything=True), Effect.GONE, Effect.GONE),
        (Removals(personal=True), Effect.GONE, Effect.VALID),
        (Removals(owners={OWNER}), Effect.GONE, Effect.VALID),
        (Removals(marks={7}), Effect.GONE, Effect.VALID),
        (Removals(marks={8}), Effect.VALID, Effect.VALID),
        (Removals(keys={PUBLIC}), Effect.VALID, Effect.GONE),
        (Removals(superseded={OWNED}), Effect.SUPERSEDED, Effect.VALID),
        (Removals(purges=[Purge(b"a.b/x", None, None)]), Effect.GONE, Effect.GONE),
        (Removals(purges=[Purge(None, b"/y", None)]), Effect.VALID, Effect.VALID),
    ],
)
def test_a_change_concerns_what_was_written_before_it(
    removals: Removals, owned: Effect, public: Effect
) -> None:
    heard = Heard()
    heard.note(AT, removals)
    heard.note(BEFORE, removals)  # told twice, or out of order
    assert heard.effect_on(OWNED, (7,), BEFORE) is owned
    assert heard.effect_on(PUBLIC, (), NO_PLACE) is public
    for place in (AT, AFTER):
        assert (
            heard.effect_on(OWNED, (7,), place)
            is heard.effect_on(PUBLIC, (), place)
            is Effect.VALID
        )


def test_the_oldest_changes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "HEARD_MAX", 3)
    heard = Heard()
    for number in range(5):
        heard.note(AT, Removals(keys={b"*a.b/%d" % number}))
    effects = [heard.effect_on(b"*a.b/%d" % number, (), BEFORE) for number in range(5)]
    assert effects == [Effect.VALID] * 2 + [Effect.GONE] * 3


def test_too_many_purges_count_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PURGES_MAX", 2)
    heard = Heard()
    for place in (BEFORE, AT, AFTER):
        heard.note_purge(place, Purge(b"a.b/other", None, None))
    assert heard.effect_on(PUBLIC, (), NO_PLACE) is Effect.GONE
    assert heard.effect_on(PUBLIC, (), BEFORE) is Effect.VALID


def test_of_orders_that_are_heard_together_the_last_of_each_kind_counts() -> None:
    told = [
        {"order": "pause", "id": "a"},
        {"order": "circuit", "mode": "open", "id": "b"},
        {"order": "resume", "id": "c"},
        {"order": "circuit", "mode": "auto", "id": "d"},
        {"order": "circuit", "mode": "open", "id": "b"},  # told twice
        {"order": "dance", "id": "e"},  # of a later version
    ]
    messages = [Message("one", orders=[order]) for order in told]
    keep_last_orders([*messages, Message("one", orders=[])])
    kept = [order["id"] for message in messages for order in message.orders]
    assert kept == ["c", "d", "e"]
