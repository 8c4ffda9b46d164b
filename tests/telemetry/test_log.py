"""Log records: their two forms, what they never contain, and that they never do harm."""

import io
import json
import re
import time
from collections.abc import Iterator
from enum import StrEnum

import pytest
import structlog

from retter.telemetry import console, log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Word(StrEnum):
    OPEN = "open"


@pytest.fixture(autouse=True)
def _configuration_of_the_process_is_restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def plain(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9]*m", "", stream.getvalue())


def test_a_program_gets_one_json_object_a_line() -> None:
    stream = io.StringIO()
    log.configure("auto", "info", stream)
    logger = log.get_logger(part="breaker")
    logger.warning("circuit", state=Word.OPEN, share=0.5, key=b"/\xff", a=(1,))
    log.get_logger().info("a\nb")
    first, second = records(stream)
    assert list(first) == ["timestamp", "level", "event", "part", "state", "share", "key", "a"]
    stamp = first.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(stamp))
    assert first == {
        "event": "circuit",
        "level": "warning",
        "part": "breaker",
        "state": "open",
        "share": 0.5,
        "key": "/\xff",
        "a": [1],
    }
    assert second["event"] == "a\nb"


def test_values_without_a_json_type_are_written_as_text() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    log.get_logger().info("x", value=OSError(2, "gone"))
    assert records(stream)[0]["value"] == "[Errno 2] gone"


def test_a_person_gets_a_line_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    log.configure("auto", "info", stream)
    log.get_logger().warning("circuit", after="OPEN", now="The application fails.", share=0.5)
    assert "\x1b[" in stream.getvalue()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d warning Circuit OPEN[.] The application fails[.]\n", plain(stream)
    )


AT = time.mktime((2026, 3, 1, 3, 42, 10, 0, 0, -1))  # local time, as it is shown


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"event": "serving", "listen": ["http://127.0.0.1:80"], "upstream": ":8080", "pid": 7,
          "version": "1.0", "admin": "http://127.0.0.1:9090", "open_to": "every interface"},
         "03:42:10         RETTER 1.0 serves http://127.0.0.1:80 (open to every interface) in "
         "front of :8080; dashboard: http://127.0.0.1:9090"),
        ({"event": "situation", "level": "warning", "now": "The application hangs.", "row": "hung"},
         "03:42:10 warning The application hangs."),
        ({"event": "circuit", "level": "warning", "after": "OPEN", "changes": 7},
         "03:42:10 warning Circuit OPEN after 7 changes."),
        ({"event": "digest", "level": "warning", "requests": 3600, "fresh": 1000, "stored": 2000,
          "refused": 0, "failed": 600, "gave_up": 3, "state": "OPEN"},
         "03:42:10 warning Last minute: 3,600 requests, 1,000 fresh, 2,000 stored, 0 refused, 600 "
         "failed, 3 gave up; circuit OPEN"),
        ({"event": "circuit", "level": "warning", "after": "CLOSED", "tone": "good",
          "now": "All is well: the application answers."},
         "03:42:10         Circuit CLOSED. All is well: the application answers."),
        ({"event": "digest", "level": "warning", "requests": 9, "fresh": 9, "stored": 0,
          "refused": 0, "failed": 0, "gave_up": 0, "state": "CLOSED", "access_lines_dropped": 7},
         "03:42:10 warning Last minute: 9 requests, 9 fresh, 0 stored, 0 refused, 0 failed, 0 gave "
         "up; circuit CLOSED; 7 lines of the access log dropped"),
        ({"event": "access-log-not-written", "level": "warning", "path": "/log/a", "advice": "b",
          "error": "No space left on device"},
         "03:42:10 warning The access log /log/a is not written: No space left on device: b"),
        ({"event": "reload-failed", "level": "error", "error": "no file", "advice": "look"},
         "03:42:10 error   Not reloaded: no file: look"),
        ({"event": "reloaded", "changed": ["drain"]}, "03:42:10         Reloaded: drain changed."),
        ({"event": "stopped", "drained": True}, "03:42:10         Stopped."),
        ({"event": "store-failed", "level": "error", "error": "full", "store": "/a", "advice": "b"},
         "03:42:10 error   store failed: full; b; store /a"),
        ({"event": "serving"}, "03:42:10         serving"),  # of a program that embeds RETTER
    ],
)  # fmt: skip
def test_each_event_is_one_short_line(record: dict[str, object], said: str) -> None:
    assert console.line(record, AT, colour=False) == said


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"event": "circuit", "after": "CLOSED", "tone": "good"}, "info"),
        ({"event": "circuit", "after": "CLOSED"}, "info"),
        ({"event": "circuit", "after": "CLOSED", "tone": "bad"}, "warning"),
        ({"event": "circuit", "after": "HALF-OPEN", "tone": "trial"}, "info"),
        ({"event": "circuit", "after": "LIMITING", "tone": "busy"}, "warning"),
        ({"event": "circuit", "after": "OPEN", "tone": "bad"}, "warning"),
        ({"event": "circuit", "after": "OPEN", "tone": "off"}, "warning"),
        ({"event": "digest", "state": "CLOSED", "stored": 4, "failed": 0}, "info"),
        ({"event": "digest", "state": "CLOSED", "gave_up": 1}, "warning"),
        ({"event": "digest", "state": "CLOSED", "access_lines_dropped": 1}, "warning"),
        ({"event": "digest", "state": "OPEN", "stored": 4}, "warning"),
        ({"event": "situation", "tone": "note"}, "warning"),
    ],
)
def test_good_news_is_no_warning_to_a_person_and_as_before_to_programs(
    record: dict[str, object], shown: str
) -> None:
    assert console.shown_level({"level": "warning"} | record) == shown
    assert console.shown_level({"level": "error"} | record) == "error"
    stream = io.StringIO()
    log.configure("json", "info", stream)
    log.get_logger().warning(**record)  # type: ignore[arg-type]
    assert records(stream)[0]["level"] == "warning"


def test_what_another_line_says_is_left_out_at_a_terminal_only() -> None:
    for form, lines in (("console", 0), ("json", 1)):
        stream = io.StringIO()
        log.configure(form, "info", stream)
        log.get_logger().warning("application-absent", error="refused")
        for row, now in (
            ("log lost", "The access log is not written: full."),
            ("disk not used", "The store on disk is not written: full."),
        ):
            log.get_logger().warning("situation", row=row, now=now)
        assert stream.getvalue().count("\n") == 3 * lines
        log.get_logger().warning(
            "situation", row="log lost", now="9 log lines could not be written."
        )
        log.get_logger().warning("situation", row="down", now="The application cannot be reached.")
        assert stream.getvalue().count("\n") == 3 * lines + 2


def test_colours_may_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    log.configure("auto", "info", stream)
    log.get_logger().info("x")
    assert stream.getvalue() == plain(stream)


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ],
)
def test_the_form_may_be_chosen(form: str, stream: io.StringIO, is_json: bool) -> None:
    log.configure(form, "info", stream)
    log.get_logger().info("x")
    assert stream.getvalue().startswith("{") is is_json
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["d", "i", "w", "e"]),
        ("info", ["i", "w", "e"]),
        ("warning", ["w", "e"]),
        ("error", ["e"]),
    ],
)
def test_records_below_the_level_are_dropped(level: str, events: list[str]) -> None:
    stream = io.StringIO()
    log.configure("json", level, stream)
    logger = log.get_logger()
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    logger.error("e")
    assert [record["event"] for record in records(stream)] == events


@pytest.mark.parametrize("hostile", ["\x1b[2J", b"\x1b]0;owned\x07", "a\r\nretter: fine", "\x9b1m"])
def test_no_control_character_of_a_peer_reaches_the_terminal(hostile: str | bytes) -> None:
    stream = Terminal()
    log.configure("console", "info", stream)
    log.get_logger().info("x", target=hostile)
    text = plain(stream)
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()


def test_an_exception_is_written_with_its_traceback() -> None:
    for form in ("json", "console"):
        stream = io.StringIO()
        log.configure(form, "info", stream)
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            log.get_logger().exception("fault")
        assert "RuntimeError: broken" in stream.getvalue()
        assert "test_log.py" in stream.getvalue()


class BrokenStream(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_log_that_cannot_be_written_does_no_harm() -> None:
    log.configure("json", "info", BrokenStream())
    log.get_logger().info("x")
    closed = io.StringIO()
    log.configure("json", "info", closed)
    closed.close()
    log.get_logger().info("x")


def test_a_logger_made_early_follows_the_configuration() -> None:
    logger = log.get_logger()
    stream = io.StringIO()
    log.configure("json", "info", stream)
    logger.info("x")
    assert [record["event"] for record in records(stream)] == ["x"]


def test_records_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.get_logger().info("x")
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "x"
