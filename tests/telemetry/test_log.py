"""Log records: their two forms, what they never contain, and that they never do harm."""

import io
import json
import re
from collections.abc import Iterator
from enum import StrEnum

import pytest
import structlog

from retter.telemetry import log


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
    log.get_logger().info("circuit", state=Word.OPEN, share=0.5)
    assert "\x1b[" in stream.getvalue()
    assert re.fullmatch(r"\S+Z \[info *\] circuit +share=0\.5 state=open\n", plain(stream))


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
