"""The sentences: each row of the table, as the figures that belong to it are told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.admin.situation import ROWS, TONES, Facts, derive, gravity, visitors
from retter.base.counters import Answers

WELL = Answers(fresh=240)
REFUSED = "connection refused: nothing listens there"

# row, tone, figures, what is going on
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("taking over", "off",
     {"draining": True, "successor": True, "connections": 3, "fault": REFUSED, "gets": WELL},
     "Another RETTER has taken over. This one finishes 3 connections."),
    ("draining", "off", {"draining": True, "connections": 1, "gets": WELL},
     "RETTER is shutting down. It finishes 1 connection."),
    ("no memory", "bad", {"out_of_memory": 2, "gets": WELL},
     "RETTER has run out of memory."),
    ("no descriptors", "bad", {"no_descriptors": 12, "gets": WELL},
     "RETTER has no descriptors left: 12 connections failed or were closed."),
    ("no room", "bad", {"turned_away": 5, "gets": WELL},
     "RETTER has no room for more clients: 5 connections closed or refused in the last 10 s."),
    ("paused", "off",
     {"paused_s": 20, "held": 4, "fault": REFUSED, "silent_s": 9.0, "gets": Answers(stored=90)},
     "An operator has paused the application, for 20 s more."),
    ("held open", "off", {"forced": "open", "forced_s": 552, "state": "OPEN", "in_flight": 3,
      "gets": Answers(40, 200)},
     "An operator holds the circuit open, for 9 min 12 s more."),
    ("held closed", "off", {"forced": "closed", "gets": WELL},
     "The configuration holds the circuit closed."),
    ("observing", "off", {"forced": "observe", "gets": WELL, "would_shed": 31},
     "The configuration has RETTER observe only. It would have spared the application 31 requests "
     "lately."),
    ("nothing there", "bad", {"met": False, "fault": REFUSED, "upstream": "127.0.0.1:8000"},
     f"Nothing answers at 127.0.0.1:8000: {REFUSED}."),
    ("down", "bad", {"fault": REFUSED, "silent_s": 1.0, "state": "OPEN", "gets": Answers(stored=9)},
     f"The application cannot be reached: {REFUSED}."),
    ("hung", "bad",
     {"state": "LIMITING", "unanswered_s": 14.0, "oldest_s": 14.0, "in_flight": 72, "waiting": 4,
      "gets": Answers(stored=330), "others": Answers(gave_up=48)},
     "The application hangs: no answer for 14 s."),
    ("failing", "bad",
     {"state": "OPEN", "errors": {"upstream-status": 40, "upstream-reset": 2},
      "gets": Answers(stored=300)},
     "The application fails: 40 answers with a 5xx status, 2 broken connections in the last 10 s."),
    ("recovering", "trial", {"state": "HALF-OPEN", "gets": Answers(40, 60)},
     "The application answers again."),
    ("one client", "busy",
     {"state": "LIMITING", "heaviest": ("192.0.2.0/24", 0.8), "in_flight": 8, "waiting": 9,
      "gets": Answers(80, 90)},
     "One client asks for more than its share: 192.0.2.0/24, 80 % of the work."),
    ("caught up", "busy", {"state": "LIMITING", "gets": WELL},
     "The application has caught up."),
    ("limiting", "busy",
     {"state": "LIMITING", "in_flight": 8, "waiting": 14, "gets": Answers(400, 1600)},
     "More requests come than the application can answer: it works on 8, and 14 wait."),
    ("one route, unasked", "note",
     {"routes_open": ("GET /search",), "requests": 9, "idle_s": 720.0},
     "A part of the site failed when it was last asked for: GET /search."),
    ("one route", "bad",
     {"routes_open": ("GET /a", "GET /b", "GET /c", "GET /d"), "gets": Answers(200, 40)},
     "A part of the site fails: GET /a, GET /b, GET /c and 1 more."),
    ("recovered", "good",
     {"gets": Answers(fresh=90, stored=5, failed=5), "errors": {"upstream-reset": 9},
      "well_s": 4.0},
     "The application has answered well for 4 s again."),
    ("some fail", "bad", {"gets": Answers(fresh=90, failed=10), "errors": {"upstream-reset": 10}},
     "10 % of the requests got an error in the last 10 s: 10 broken connections."),
    ("refusing", "bad", {"gets": Answers(fresh=95, refused=5)},
     "5 % of the requests get a 503."),
    ("gave up", "bad", {"gets": Answers(fresh=75), "others": Answers(gave_up=25)},
     "25 % of the requests were given up before an answer came."),
    ("hidden failures", "busy", {"gets": Answers(90, 10), "errors": {"upstream-timeout": 10}},
     "The application fails some requests (10 without an answer in time); the store hides most of "
     "that."),
    ("disk not used", "note", {"disk_trouble": "no space left on device", "gets": WELL},
     "The store on disk is not written: no space left on device."),
    ("disk set aside", "note", {"disk_aside": "its head is damaged", "gets": WELL},
     "The store on disk was broken and was set aside: its head is damaged."),
    ("shared store away", "note", {"shared_trouble": "connection refused", "gets": WELL},
     "The server that boxes share cannot be used: connection refused."),
    ("log lost", "note", {"log_lost": 1, "gets": WELL},
     "1 log line could not be written."),
    ("log lost", "note", {"log_lost": 0, "log_trouble": "no space left on device", "gets": WELL},
     "The access log is not written: no space left on device."),
    ("log lost", "note", {"log_lost": 7, "log_trouble": "no space left on device", "gets": WELL},
     "The access log is not written: no space left on device; 7 lines dropped in the "
     "last 10 s."),
    ("store full", "note", {"store_full": 0.99, "evicted": 7, "gets": WELL},
     "The store is full: 7 responses removed in the last 10 s."),
    ("late", "note", {"lag_s": 0.4, "gets": WELL},
     "RETTER itself is slow: it was held up for 400 ms."),
    ("first contact", "good", {"met": False, "upstream": ":8000"},
     "RETTER has just started and waits for the first contact with :8000."),
    ("no visitor", "good", {},
     "The application is there. No visitor has come yet."),
    ("idle", "good", {"requests": 9, "idle_s": 720.0},
     "All is quiet: nobody asks at present."),
    ("unanswered", "note",
     {"requests": 9, "timed_out": True, "unanswered_s": 99.0, "well_s": 90.0, "idle_s": 99.0},
     "The last request had no answer in time. Nobody has asked since."),
    ("working", "good", {"requests": 9, "in_flight": 2, "oldest_s": 8.0, "silent_s": 8.0},
     "The application works on 2 requests; the oldest has waited for 8 s."),
    ("busy", "good", {"requests": 9, "in_flight": 7, "gets": WELL},
     "The application is busy and keeps up."),
    ("well", "good", {"requests": 9, "gets": WELL},
     "All is well: the application answers."),
]  # fmt: skip


@pytest.mark.parametrize(("row", "tone", "figures", "now"), CASES, ids=[case[0] for case in CASES])
def test_each_row_says_what_is_going_on(
    row: str, tone: str, figures: dict[str, Any], now: str
) -> None:
    found = derive(Facts(**figures))
    assert (found.row, found.tone, found.now) == (row, tone, now)
    for sentence in (found.now, found.visitors, found.retter, found.you, *found.also):
        assert not sentence or (sentence.endswith(".") and not sentence[0].islower())
    if tone != "good":
        assert found.you or row in ("caught up", "one route, unasked"), (
            "an operator can do something"
        )


def test_each_row_has_a_case_and_a_name_of_its_own() -> None:
    assert [row.name for row in ROWS] == sorted(
        {row for row, *_ in CASES}, key=[row.name for row in ROWS].index
    )
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({now for *_, now in CASES}) == len(CASES)
    assert {row.tone for row in ROWS} == set(TONES)


# What visitors get


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, "No visitor has come yet."),
        ({"requests": 4, "idle_s": 720.0},
         "Nobody asks at present. The last request came 12 min ago."),
        ({"requests": 4, "paused_s": 20, "held": 4, "idle_s": 12.0},
         "Nobody has got an answer in the last 10 s; 4 wait for the end of the pause."),
        ({"requests": 4, "in_flight": 5, "oldest_s": 9.0},
         "Nobody has got an answer in the last 10 s; 5 requests at the application, the oldest for "
         "9 s."),
        ({"requests": 4, "gets": Answers(fresh=1)}, "In the last 10 s, the one GET got a page."),
        ({"requests": 4, "gets": Answers(stored=1)},
         "In the last 10 s, the one GET got a page, from the store."),
        ({"gets": Answers(30, 300), "others": Answers(fresh=40)},
         "In the last 10 s, all 330 GETs got a page, 300 of them from the store; all 40 other "
         "requests were answered."),
        ({"gets": Answers(0, 300, 20, 9, 1), "others": Answers(4, 0, 0, 0, 36), "in_flight": 40,
          "oldest_s": 14.0},
         "In the last 10 s, 300 of 330 GETs got a page, all of them from the store, 20 got a 503, "
         "9 got an error, 1 gave up; 4 of 40 other requests answered, 36 gave up; 40 requests at "
         "the application, the oldest for 14 s."),
    ],
)  # fmt: skip
def test_what_visitors_get_is_told_with_gets_and_others_apart(
    figures: dict[str, Any], said: str
) -> None:
    assert visitors(Facts(**figures)) == said


def test_what_happens_in_a_hang_depends_on_the_circuit() -> None:
    """While it is CLOSED each visitor waits for the patience first."""
    hung: dict[str, Any] = {"timed_out": True, "unanswered_s": 9.0, "silent_s": 9.0}
    closed = derive(Facts(**hung))
    assert (closed.row, closed.retter.split(";")[0]) == ("hung", "Each request is still forwarded")
    limiting = derive(Facts(**hung, state="LIMITING"))
    assert (limiting.row, limiting.retter.split(".")[0]) == ("hung", "GETs get their stored page")


# Rows beside each other


def test_an_operators_word_hides_no_failure() -> None:
    found = derive(Facts(forced="observe", state="OPEN", errors={"upstream-status": 9}, gets=WELL))
    assert (found.row, found.tone) == ("observing", "bad")
    assert found.rows_beside[0] == "failing"
    assert found.also[0].startswith("The application fails: 9 answers with a 5xx status")
    assert "the circuit would be OPEN now" in found.retter


def test_a_pause_says_nothing_of_an_application_that_is_exchanged() -> None:
    found = derive(Facts(paused_s=9, fault=REFUSED, silent_s=9.0, gets=Answers(refused=50)))
    assert (found.row, found.tone, found.also) == ("paused", "off", ())


def test_what_else_is_the_case_is_told_beside_a_failure() -> None:
    found = derive(Facts(state="OPEN", log_lost=3, store_full=1.0, evicted=2, gets=WELL))
    assert found.row == "failing"
    assert found.also == (
        "3 log lines could not be written.",
        "The store is full: 2 responses removed in the last 10 s.",
    )


# What must not mislead


def test_three_long_reports_on_a_quiet_site_are_no_hang() -> None:
    figures: dict[str, Any] = {"in_flight": 3, "oldest_s": 8.0, "unanswered_s": 8.0, "requests": 3}
    assert derive(Facts(**figures)).row == "working"
    assert derive(Facts(**figures | {"oldest_s": 11.0, "unanswered_s": 11.0})).row == "hung"


def test_a_quiet_site_that_hangs_is_not_well() -> None:
    """Two visitors wait, or got no answer after a wait; the store answers one of them."""
    waits: dict[str, Any] = {"in_flight": 2, "oldest_s": 11.0, "unanswered_s": 11.0, "requests": 3}
    assert derive(Facts(**waits, gets=Answers(stored=1))).row == "hung"
    over: dict[str, Any] = {"timed_out": True, "unanswered_s": 16.0, "well_s": 1.0, "requests": 3}
    assert derive(Facts(**over, gets=Answers(failed=1))).row == "hung"
    assert derive(Facts(**over, gets=WELL)).row == "hung", "those are older"


def test_one_connection_of_many_that_failed_is_no_outage() -> None:
    assert derive(Facts(fault="timed out", silent_s=0.2, gets=WELL, requests=9)).row == "well"


def test_a_limit_without_anybody_who_waits_is_told_without_a_queue() -> None:
    found = derive(Facts(state="LIMITING", in_flight=8, gets=Answers(40, 160)))
    assert found.now == "The application works at its limit: 8 requests at once."


def test_one_error_of_many_is_no_situation() -> None:
    assert derive(Facts(gets=Answers(fresh=20, failed=2), requests=22)).row == "well"


def test_a_hang_is_worse_than_a_part_that_fails() -> None:
    hung = derive(Facts(**CASES[[case[0] for case in CASES].index("hung")][2]))
    part = derive(Facts(routes_open=("GET /a",), gets=WELL))
    assert gravity(hung) > gravity(part) > gravity(derive(Facts(gets=WELL)))


counts = st.integers(0, 100_000)
answers = st.builds(Answers, counts, counts, counts, counts, counts)


@given(
    st.builds(
        Facts,
        state=st.sampled_from(["CLOSED", "LIMITING", "OPEN", "HALF-OPEN"]),
        forced=st.sampled_from([None, "open", "closed", "observe"]),
        forced_s=st.none() | counts, paused_s=st.none() | counts, draining=st.booleans(),
        fault=st.sampled_from(["", REFUSED]), met=st.booleans(), in_flight=counts,
        waiting=counts, oldest_s=st.floats(0, 1e6), silent_s=st.floats(0, 1e6),
        unanswered_s=st.floats(0, 1e6),
        timed_out=st.booleans(),
        gets=answers, others=answers, requests=counts, idle_s=st.floats(0, 1e6),
        routes_open=st.lists(st.just("GET /a"), max_size=5).map(tuple),
        heaviest=st.none() | st.tuples(st.just("192.0.2.0/24"), st.floats(0, 1)),
        errors=st.dictionaries(st.sampled_from(["upstream-status", "new-word"]), counts),
    )
)  # fmt: skip
def test_any_figures_make_sentences(facts: Facts) -> None:
    found = derive(facts)
    assert found.now and found.visitors and found.retter
    assert found.tone in TONES
    assert "nan" not in found.visitors
