"""The output of the commands: words, the screen of `retter top`, and errors, without a listener."""

import os
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.admin.controls import (
    FORCED_S_DEFAULT,
    FORCED_S_MAX,
    PAUSE_S_DEFAULT,
    PAUSE_S_MAX,
)
from retter.breaker import Mode
from retter.cli import CONTROL_WORDS, main
from retter.config.output import OutputLost
from retter.control import client, commands, top, words
from retter.process.running import ADMIN_TRIES

NOW = time.mktime((2026, 3, 1, 3, 42, 10, 0, 0, -1))  # local time, as it is shown

STATE: dict[str, Any] = {
    "version": "1.0", "pid": 4711, "uptime_s": 8000.0, "state": "LIMITING", "forced": None,
    "forced_remaining_s": None, "paused": False, "pause_remaining_s": None, "draining": False,
    "in_flight": 12, "limit": 13.2, "queue": 2,
    "upstream": {"address": ":8080", "connections_idle": 3, "connections_busy": 9},
    "connections": 412,
    "rates": {"fresh": 399.0, "stored": 1584.25, "refused": 0.7, "failed": 0.0, "gave_up": 2.0},
    "latency_ms": {"p50": 23.4, "p99": 1204.0}, "overhead_us": {"p50": 48.0, "p99": None},
    "store": {"entries": 511, "bytes": 9_332_326, "bytes_max": 67_108_864, "hits": 98,
              "misses": 2, "evictions": 0},
    "routes": [
        {"route": "GET /products/*", "state": "CLOSED", "requests": 32451, "errors": 0,
         "p50_ms": 24.0, "p99_ms": 81.0},
        {"route": "GET /a/very/long/route/" + "x" * 200, "state": "OPEN", "requests": 4,
         "errors": 3, "p50_ms": None, "p99_ms": None},
    ],
    "events": [{"at": NOW - 92, "from": "CLOSED", "to": "LIMITING", "cause": "no-permits",
                "words": "GETs above the limit are answered from the store: more came."}],
    "situation": {
        "row": "limiting", "tone": "busy", "since": NOW - 92,
        "now": "More requests come than the application can answer.",
        "visitors": "In the last 10 s, all 1,983 GETs got a page.",
        "retter": "RETTER keeps the application at its best load.",
        "you": "Nothing at once.", "also": ["The store is full."],
    },
    "minute": {
        "gets": {"fresh": 1000, "stored": 989, "refused": 0, "failed": 11, "gave_up": 0},
        "others": dict.fromkeys(("fresh", "stored", "refused", "failed", "gave_up"), 0),
    },
    "incidents": [],
    "totals": {}, "memory": {"rss_bytes": 41_000_000}, "loop_lag_ms": 0.42,
}  # fmt: skip


def state(**changes: Any) -> dict[str, Any]:
    return STATE | changes


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (552, "9 min 12 s"),
        (3599, "59 min"),
        (7980, "2 h 13 min"),
        (4 * 86400 + 3 * 3600, "4 d 3 h"),
        (-3, "0 s"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert words.length(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (0, "0"),
        (0.01, "<0.1"),
        (0.7, "0.7"),
        (3.0, "3"),
        (399.4, "399"),
        (1584.25, "1,584"),
    ],
)
def test_figures_have_the_digits_that_matter(value: float | None, said: str) -> None:
    assert words.number(value) == said


def test_status_says_first_what_is_the_matter() -> None:
    lines = words.status(STATE, NOW).splitlines()
    assert lines[0] == "LIMITING  since 03:40:38, for 1 min 32 s; the circuit is LIMITING"
    assert lines[1] == "More requests come than the application can answer."
    assert lines[3:17] == [
        "  visitors     In the last 10 s, all 1,983 GETs got a page.",
        "  RETTER does  RETTER keeps the application at its best load.",
        "  you can      Nothing at once.",
        "  also         The store is full.",
        "",
        "  in force     automatic",
        "  got a page   GETs 99.4 % of 2,000; others - in the last minute",
        "  answers/s    399 fresh, 1,584 stored, 0.7 refused, 0 failed, 2 gave up",
        "  its latency  23 ms typical, 1.2 s slowest 1 %",
        "  in flight    12 of 13, 2 in the queue",
        "  store        511 responses, 8.9 MiB of 64.0 MiB, 98 % hits",
        "  application  :8080, 9 connections busy, 3 idle",
        "  RETTER       1.0, process 4711, up 2 h 13 min, 412 clients connected",
        "  its cost     39.1 MiB, 48 us a request, event loop lag 0.4 ms",
    ]
    assert " ".join(" ".join(lines[-2:]).split()).endswith("answered from the store: more came.")
    assert max(len(line) for line in lines) <= 80


def test_more_may_be_in_flight_than_the_limit_for_gets() -> None:
    rows = dict(words.rows(state(in_flight=45, limit=5.5), NOW))
    assert rows["in flight"].startswith("45 (GETs are limited to 5.5, other methods are not), 2 in")


def test_workers_are_told_in_one_line() -> None:
    def worker(index: int, lag_ms: float, rss_bytes: int, connections: int) -> dict[str, Any]:
        memory = {"rss_bytes": rss_bytes}
        return {
            "worker": index, "pid": 700 + index, "connections": connections, "memory": memory,
            "loop_lag_ms": lag_ms,
        }  # fmt: skip

    few: list[Any] = [worker(0, 0.4, 30 << 20, 10), worker(1, 3.0, 34 << 20, 11)]
    assert words._workers(few) == (
        "2, each with 10 to 11 clients and up to 34.0 MiB; "
        "slowest event loop 3.0 ms (worker 1, process 701)"
    )
    many: list[Any] = [worker(index, 1.0, 1 << 20, 12) for index in range(64)]
    assert words._workers(many).startswith("64, each with 12 clients and up to 1.0 MiB; slowest")


def test_an_incident_is_told_with_what_it_did_to_visitors() -> None:
    one: dict[str, Any] = {
        "began": NOW - 600, "ended": None, "lasted_s": 552.0, "cause": "The application hangs.",
        "calm": False,
        "causes": [{"row": "hung", "lasted_s": 9.0, "now": "The application hangs."}],
        "spared": 3412,
        "gets": {"fresh": 1, "stored": 3412, "refused": 2, "failed": 0, "gave_up": 0},
        "others": {"fresh": 9, "stored": 0, "refused": 0, "failed": 0, "gave_up": 40},
    }  # fmt: skip
    assert words.incident(one, NOW) == (
        "03:32:10  9 min 12 s so far  3,412 answers saved by RETTER, 2 got a 503, 40 gave up. "
        "The application hangs."
    )
    assert "9 min 12 s, calm now  3,4" in words.incident(one | {"calm": True}, NOW)
    second = {"row": "limiting", "lasted_s": 75.0, "now": "More come."}
    assert words.incident(one | {"causes": [*one["causes"], second]}, NOW).endswith(
        "gave up. For 9 s: The application hangs. For 1 min 15 s: More come."
    )
    said = words.status(state(incidents=[one | {"ended": NOW - 48}]), NOW)
    assert "last incidents\n  03:32:10  9 min 12 s  3,412 answers saved by RETTER" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "automatic"),
        (
            {"forced": "open", "forced_remaining_s": 552},
            "held open until 03:51:22 (9 min 12 s more)",
        ),
        ({"forced": "observe"}, "observe mode by the configuration"),
        ({"paused": True, "pause_remaining_s": 20}, "automatic, paused until 03:42:30 (20 s more)"),
        ({"draining": True}, "automatic, shutting down"),
    ],
)
def test_what_is_in_force_is_said_with_its_end(changes: dict[str, Any], said: str) -> None:
    assert words.in_force(state(**changes), NOW) == said


def test_a_long_event_stays_in_its_column() -> None:
    event = STATE["events"][0] | {"words": "word " * 40}
    lines = words.status(state(events=[event]), NOW).splitlines()
    first, *rest = lines[lines.index("last changes of the circuit") + 1 :]
    assert len(rest) == 3
    assert all(len(line) <= 80 for line in lines)
    assert {len(line) - len(line.lstrip()) for line in rest} == {first.index("word")}


def test_why_the_application_cannot_be_reached_is_said() -> None:
    upstream = STATE["upstream"] | {"fault": "connection refused: nothing listens there"}
    said = words.status(state(upstream=upstream), NOW)
    assert "3 idle; connection refused: nothing listens there" in " ".join(said.split())


@pytest.mark.parametrize(
    ("n", "url", "parts", "said"),
    [
        (2, "http://a.example/b", "", "2 pages dropped from the store"),
        (0, "/b", "", "0 pages dropped from the store"),
        (0, "", "", "0 pages dropped from the store"),
        (
            0,
            "http://a.example/b",
            "",
            "0 pages dropped from the store; were they requested with another host? "
            "/path matches any host",
        ),
        (1, "/b", "disk workers", "1 page dropped from the store"),
        (
            1,
            "/b",
            "disk shared workers",
            "1 page dropped from the store; those at the other boxes are dropped too, and not "
            "counted",
        ),
    ],
)
def test_what_was_purged_is_said_with_what_may_have_been_meant(
    n: int, url: str, parts: str, said: str
) -> None:
    found = {"purged": n, "complete": True}
    assert words.purged(found, url, dict.fromkeys(parts.split())).split() == said.split()


def test_what_could_not_be_counted_in_time_is_said() -> None:
    said = words.purged({"purged": 1200, "complete": False}, "", {"disk": {}})
    assert " ".join(said.split()) == (
        "at least 1,200 pages dropped from the store; all are dropped, but to count them took "
        "too long"
    )


def test_a_day_ago_is_said_with_its_date() -> None:
    assert words.clock(NOW - 86400, NOW) == "2026-02-28 03:42:10"


def test_an_explanation_is_shown_whole() -> None:
    found = {
        "decision": "stored",
        "words": "It would be answered from the store.",
        "owner": {"class": "session"},
        "limits": [1, 2],
        "advice": [],
        "age_s": None,
        "queue_wait_s": 2.0,
        "cached": True,
    }
    assert words.why(found, "program") == (
        "It would be answered from the store.\n\n"
        "  asked as      a program such as curl, that accepts anything\n"
        "  decision      stored\n"
        "  owner: class  session\n"
        "  limits        1, 2\n"
        "  advice        -\n"
        "  age           -\n"
        "  queue wait    2.0 s\n"
        "  cached        yes\n"
    )
    assert "asked as      a browser; --plain" in words.why(found, "browser")


# The screen


def test_no_stranger_can_steer_the_operators_terminal() -> None:
    """Routes are made of paths; a terminal obeys ESC, and some of them the octet 0x9b."""
    route = STATE["routes"][0] | {"route": "GET /\x1b[2J\x9b2J\r\x07"}
    shown = top.screen(state(routes=[route]), [], NOW, columns=80, lines=24, colour=False)
    assert any("GET /?[2J?2J??" in line for line in shown)
    assert words.printable("GET /\x1b[2J\n") == "GET /?[2J\n"


def test_the_screen_shows_all_at_80_by_24() -> None:
    shown = top.screen(STATE, [100.0, 1000.0, 2000.0], NOW, columns=80, lines=24, colour=False)
    assert len(shown) <= 24
    assert max(len(line) for line in shown) <= 80
    whole = "\n".join(shown)
    for wanted in (
        "LIMITING",
        "399 fresh",
        "12 of 13",
        "511 responses",
        "GET /products/*",
        "all 1,983 GETs got a page",
        "2,000/s",
        "q quits",
    ):
        assert wanted in whole
    assert "\x1b" not in whole
    assert whole.count("█") == 4 + 2  # the last column whole, the one before it half as high


def test_what_is_the_case_is_not_cut_off_at_80_columns() -> None:
    situation = STATE["situation"] | {
        "now": f"The application cannot be reached: connection refused{': nothing there' * 2}.",
        "visitors": "In the last 10 s, " + "many words " * 20,
    }
    shown = top.screen(state(situation=situation), [], NOW, columns=80, lines=40, colour=False)
    assert " ".join(shown[1:3]) == situation["now"]
    assert shown[3].startswith("In the last 10 s, ") and shown[5] == ""
    assert max(len(line) for line in shown) <= 80


@given(
    columns=st.integers(1, 200), lines=st.integers(2, 60),
    history=st.lists(st.floats(0, 1e6), max_size=300), routes=st.integers(0, 10),
    events=st.integers(0, 20), trouble=st.sampled_from(["", "no answer since 03:42:10"]),
)  # fmt: skip
def test_no_terminal_is_too_small_for_the_screen(
    columns: int, lines: int, history: list[float], routes: int, events: int, trouble: str
) -> None:
    document = state(routes=STATE["routes"][:1] * routes, events=STATE["events"] * events)
    shown = top.screen(
        document, history, NOW, columns=columns, lines=lines, colour=False, trouble=trouble
    )
    assert len(shown) <= lines
    assert all(len(line) <= columns for line in shown)


def test_colours_mark_the_state_and_the_last_line_only() -> None:
    shown = top.screen(
        STATE, [], NOW, columns=80, lines=24, colour=True, trouble="no answer since 03:42:10"
    )
    assert [line for line in shown if "\x1b" in line] == [
        "\x1b[1;33mLIMITING  since 03:40:38, for 1 min 32 s; the circuit is LIMITING\x1b[0m",
        "\x1b[1;31mno answer since 03:42:10\x1b[0m",
    ]


# More than one RETTER


def test_as_many_neighbours_are_asked_for_as_there_can_be() -> None:
    assert client.NEIGHBOURS_MAX == ADMIN_TRIES - 1


def test_other_retters_are_named_with_the_command_for_each() -> None:
    assert words.others([]) == ""
    assert words.others([("127.0.0.1:9091", ":8001")]) == (
        "\nother RETTERs on this machine\n"
        "  127.0.0.1:9091  in front of :8001: retter status --admin 127.0.0.1:9091\n"
    )


# Mistakes


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RETTER_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["purge"], "purge: give exactly one of a URL, --prefix, --session and --all"),
        (
            ["purge", "/a", "--all"],
            "purge: give exactly one of a URL, --prefix, --session and --all",
        ),
        (["circuit", "open", "--for", "ever"], "circuit: argument --for: 'ever' is not a duration"),
        (["why"], "why: the following arguments are required: URL"),
        (["status", "now"], "status: unrecognized arguments: now; see retter status --help"),
        (
            ["why", "/a", "--cooky=a"],
            "why: unrecognized arguments: --cooky=a; did you mean --cookie?",
        ),
        (["status", "--admin", "9090:"], "--admin: "),
        (
            ["circuit", "open", "--for", "48h"],
            "circuit: argument --for: '48h' is not from 1s to 24h",
        ),
        (
            ["circuit", "auto", "--for", "10s", "--admin", "127.0.0.1:1"],
            "circuit: --for does not go with auto, which releases the circuit at once; give it "
            "with open, closed or observe",
        ),
        (["pause", "--for", "1h"], "pause: argument --for: '1h' is not from 1s to 5m"),
        (["why", "/", "--cookie", "a"], "why: argument --cookie: 'a' is not NAME=VALUE"),
        (["why", "/", "--header", "a"], "why: argument --header: 'a' is not NAME: VALUE"),
        (["why", "/", "--client", "a"], "why: argument --client: 'a' is not an IP address"),
        (["purge", "--session", "=a"], "purge: argument --session: '=a' is not NAME=VALUE"),
        (["config", "foo"], "config: argument ACTION: invalid choice: 'foo'"),
        (["config"], "config: the following arguments are required: ACTION (init, schema)"),
        (
            ["completion"],
            "completion: the following arguments are required: SHELL (bash, zsh, fish)",
        ),
    ],
)
def test_a_wrong_command_is_a_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "purge":
        arguments = [*arguments, "--admin", "127.0.0.1:1"]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"retter: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["circuit", "ajar"], "circuit: argument MODE: 'ajar' is none of these:"),
        (["circuit", "--for", "5m"], "circuit: --for needs a mode:"),
    ],
)
def test_who_names_no_mode_is_told_them_all(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--admin", "127.0.0.1:1"]) == 2
    first, *modes = capsys.readouterr().err.splitlines()
    assert first == f"retter: {message}"
    assert [line.split()[0] for line in modes] == [mode.value for mode in Mode]


@pytest.mark.parametrize("word", CONTROL_WORDS)
def test_every_command_explains_itself(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([word, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for wanted in (f"usage: retter {word}", "--admin", "--admin-token", "--config", "--json"):
        assert wanted in out


def test_an_order_holds_as_long_by_command_as_by_itself() -> None:
    assert commands.CIRCUIT_S == FORCED_S_DEFAULT
    assert commands.PAUSE_S == PAUSE_S_DEFAULT
    assert commands.CIRCUIT_S_MAX == FORCED_S_MAX
    assert commands.PAUSE_S_MAX == PAUSE_S_MAX


@pytest.mark.parametrize("as_json", [True, False])
def test_top_on_an_output_that_takes_nothing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    operators = SimpleNamespace(state=lambda: STATE)
    with open("/dev/full", "w") as full:
        for output in (full, None):
            monkeypatch.setattr(sys, "stdout", output)
            with pytest.raises(OutputLost):
                top.run(cast("Any", operators), as_json=as_json)
