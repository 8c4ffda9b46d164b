"""Incidents: what is kept of each, also after the end of the process."""

from typing import Any

from retter.admin.incidents import CALM_S, COURSE_MAX, KEPT_MAX, SHOWN_MAX, Incidents, Totals
from retter.admin.situation import Situation
from retter.base.counters import Answers

BAD = Situation(
    row="down",
    tone="bad",
    now="Nothing answers.",
    visitors="They wait.",
    retter="It tries again.",
    you="Start it.",
)
WORSE = Situation(
    row="hung",
    tone="bad",
    now="It hangs.",
    visitors="They wait.",
    retter="It waits.",
    you="Look at its log.",
)
GOOD = Situation(row="calm", tone="good", now="All is well.", visitors="", retter="", you="")


def spell(incidents: Incidents, at: float, *situations: Situation) -> None:
    """Bring one incident about that ends."""
    for number, situation in enumerate((*situations, GOOD)):
        totals = Totals(Answers(*[number] * len(Answers._fields)), spared=number)
        incidents.note(situation, at + number, 1000 + at + number, Totals(), totals)
    assert incidents.note(GOOD, at + 100 + CALM_S, 0.0, Totals(), Totals()) is not None


def test_the_course_says_what_was_the_case_and_since_when() -> None:
    incidents = Incidents()
    spell(incidents, 5.0, BAD, BAD, WORSE, BAD)
    whole = incidents.one(1)
    assert whole is not None
    told = [(one["at"], one["row"]) for one in whole["course"]]
    assert told == [(1005.0, "down"), (1007.0, "hung"), (1008.0, "down")]
    assert whole["course"][1] == {
        "at": 1007.0, "row": "hung", "tone": "bad", "now": "It hangs.", "you": "Look at its log.",
    }  # fmt: skip
    assert "course" not in incidents.all()[0], "the list is short"
    assert incidents.one(2) is None


def test_of_a_long_course_the_beginning_is_kept() -> None:
    incidents = Incidents()
    spell(incidents, 0.0, *[BAD, WORSE] * COURSE_MAX)
    whole = incidents.one(1)
    assert whole is not None
    assert len(whole["course"]) == COURSE_MAX
    assert whole["course"][0]["at"] == 1000.0


def test_another_process_goes_on_where_the_one_before_has_ended() -> None:
    first = Incidents()
    for number in range(3):
        spell(first, 1000.0 * number, BAD)
    first.note(WORSE, 9000.0, 10_000.0, Totals(), Totals(spared=4))
    assert first.recent()[-1]["ended"] is None
    second = Incidents()
    second.restore(first.whole())
    assert second.recent()[-1]["ended"] == 10_000.0, "it ended with its process at the latest"
    assert [one["number"] for one in second.all()] == [1, 2, 3, 4]
    spell(second, 0.0, BAD)
    assert [one["number"] for one in second.recent()] == [1, 2, 3, 4, 5]
    assert second.one(4) == {**first.whole()[-1], "ended": 10_000.0}


def test_no_more_are_kept_than_promised_over_all_processes() -> None:
    first = Incidents()
    for number in range(KEPT_MAX + 5):
        spell(first, 1000.0 * number, BAD)
    second = Incidents()
    second.restore(first.whole())
    for number in range(7):
        spell(second, 1000.0 * number, BAD)
    numbers: list[Any] = [one["number"] for one in second.all()]
    assert numbers == list(range(KEPT_MAX + 13 - KEPT_MAX, KEPT_MAX + 13))
    assert [one["number"] for one in second.recent()] == numbers[-SHOWN_MAX:]
    assert len(second.whole()) == KEPT_MAX
