"""Incidents: what is kept of each, also after the end of the process."""

from dataclasses import replace
from typing import Any

from retter.admin.incidents import (
    CALM_S,
    COURSE_MAX,
    KEPT_MAX,
    SHOWN_MAX,
    Incidents,
    Totals,
    causes,
    time_of,
    words,
)
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
        "at": 1007.0,
        "row": "hung",
        "tone": "bad",
        "now": "It hangs.",
        "you": "Look at its log.",
    }
    assert "course" not in incidents.all()[0], "the list is short"
    assert incidents.one(2) is None


def test_one_incident_with_two_causes_names_both() -> None:
    incidents = Incidents()
    follows = replace(BAD, row="refusing", now="Some get a 503.")
    blip = replace(BAD, row="limiting", tone="busy", now="More come.")
    course = [BAD] * 5 + [follows] * 9 + [blip] + [GOOD] * 20 + [WORSE] * 8
    for second, situation in enumerate(course):
        incidents.note(situation, float(second), 1000.0 + second, Totals(), Totals())
    (one,) = incidents.all()
    assert [(each["row"], each["lasted_s"]) for each in one["causes"]] == [
        ("down", 4.0),
        ("hung", 7.0),
    ]
    assert one["cause"] in [each["now"] for each in one["causes"]]
    assert words(one).endswith("For 4 s: Nothing answers. For 7 s: It hangs.")


def test_the_end_of_a_trouble_is_not_its_cause() -> None:
    incidents = Incidents()
    peak = replace(BAD, row="limiting", tone="busy", now="More come.")
    errors = replace(BAD, row="refusing", tone="bad", now="1 % get a 503.")
    end = replace(BAD, row="caught up", tone="busy", now="It has caught up.")
    trial = replace(BAD, row="recovering", tone="trial", now="It answers again.")
    for second, situation in enumerate([peak] * 5 + [errors] * 2 + [end] * 9 + [trial] * 9):
        incidents.note(situation, float(second), 1000.0 + second, Totals(), Totals())
    (one,) = incidents.all()
    assert (one["cause"], one["tone"]) == ("More come.", "bad")
    assert [each["row"] for each in one["causes"]] == ["limiting"]


def test_a_circuit_that_an_operator_has_released_is_no_incident() -> None:
    """It is LIMITING for a moment; stored pages of before were the operator's order."""
    end = replace(BAD, row="caught up", tone="busy", now="It has caught up.")
    quiet = Totals(Answers(fresh=9, stored=7))
    incidents = Incidents()
    incidents.note(end, 1.0, 1001.0, Totals(), quiet)
    assert (incidents.all(), incidents.present) == ([], None)
    # But trouble too short to be seen leaves this moment alone behind it.
    for trouble in (quiet._replace(spared=1), quiet._replace(others=Answers(refused=1))):
        incidents = Incidents()
        incidents.note(end, 1.0, 1001.0, Totals(), trouble)
        assert [one["rows"] for one in incidents.all()] == [["caught up"]]


def test_an_incident_says_that_it_is_calm_before_it_is_over() -> None:
    incidents = Incidents()
    incidents.note(BAD, 0.0, 1000.0, Totals(), Totals())
    assert time_of(incidents.all()[0]) == "0 s so far"
    incidents.note(GOOD, 5.0, 1005.0, Totals(), Totals())
    assert incidents.all()[0]["calm"]
    assert time_of(incidents.all()[0]) == "0 s, calm now"
    incidents.note(BAD, 10.0, 1010.0, Totals(), Totals())
    assert time_of(incidents.all()[0]) == "10 s so far"
    incidents.note(GOOD, 10.0 + CALM_S, 1050.0, Totals(), Totals())
    assert time_of(incidents.all()[0]) == "10 s"


def test_what_an_earlier_version_kept_is_still_told() -> None:
    first = Incidents()
    spell(first, 0.0, BAD)
    old = [{k: v for k, v in one.items() if k not in ("calm", "causes")} for one in first.whole()]
    second = Incidents()
    second.restore(old)
    assert causes(second.all()[0]) == "Nothing answers."


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
