"""The schema's patterns accept what the parsers accept, and nothing else."""

import re
from typing import Any

import fastjsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retter.config.settings import SETTING_OF
from retter.config.template import in_file, json_schema

PROPERTIES = json_schema()["properties"]
CHECKS = {name: fastjsonschema.compile(one, use_default=False) for name, one in PROPERTIES.items()}

# What only arithmetic finds. All else a pattern finds too.
OUT_OF_BOUNDS = re.compile(
    "is longer than a year|is too short|is larger than 1 PiB|is not a whole number of bytes|is too "
    "small|the path of a socket has at most|whole number from|above 0 and at most 1|is not from"
)


def of_schema(name: str, value: Any) -> bool:
    try:
        CHECKS[name](value)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


def refusal(name: str, value: Any) -> str:
    try:
        SETTING_OF[name].kind.read(value)
    except ValueError as error:
        return str(error)
    return ""


def agree(name: str, value: Any) -> None:
    said = refusal(name, value)
    if not of_schema(name, value):
        assert said, f"{name}: {value!r} is refused by the schema alone"
    elif said:
        assert OUT_OF_BOUNDS.search(said), f"{name}: {value!r} is accepted by the schema: {said}"


def near(*tokens: str) -> st.SearchStrategy[str]:
    """Texts made of the tokens of a grammar and of what is close to them."""
    piece = st.sampled_from([*tokens, " ", "", "\t", "1", "0", "-"]) | st.text(max_size=2)
    return st.lists(piece, max_size=9).map("".join)


NUMBERS = ("1", "20", "007", ".", ".5", "1.", "1.5", "e", "E3", "e-2", "e+", "-1", "inf", "1_0")
UNITS = ("s", "ms", "µs", "Μs", "us", "NS", "sec", "seconds", "Min", "m", "h", "hours", "d", "days")
DURATIONS = near(*NUMBERS, *UNITS, "parsecs", "30 parsecs", "1h30m", "1 h", "secs")
SIZES = near(*NUMBERS, "b", "k", "Ki", "KiB", "kb", "\N{KELVIN SIGN}", "m", "MB", "g", "GiB", "t")
PORTS = (":80", ":0", ":00", ":65535", ":65536", ":99999", ":000080", "8080", ":", ":8080")
HOSTS = (
    "a", "app", "A-b_c", "a.b.", "127.0.0.1", "256.0.0.1", "1.2.3", "01.2.3.4", "a.1", "1.2.3.4.",
    "-a", "*", "[", "]", "[::1]", "[::]", "::", "1::", ":1", "1:2:3:4:5:6:7", "[1:2::3.4.5.6]",
    "a" * 253, "[fe80::1%eth0]", "%", "fffff", "localhost", "ä",
)  # fmt: skip
LISTENS = near(
    *PORTS, *HOSTS, ",", ",proxy", ",tls", "tls", "unix:", "/run/a", "//", "/", "http://"
)
UPSTREAMS = near(
    *PORTS, *HOSTS, "http://", "HTTPS://", "https://app", "ftp://", "unix:", "/a", "/", "?", "#",
    "@", "//", ",", "u:p@",
)  # fmt: skip
GROUPS = st.lists(st.sampled_from(["1", "ffff", "::", ":", "0", "1.2.3.4", "g"]), max_size=16)


@given(DURATIONS)
@example("30 parsecs")
@example("1e3")
@example("1e3 s")
@example(".5e3s")
@example("1h 30m\n")
@example("")
def test_a_duration(text: str) -> None:
    agree("drain", text)
    agree("connect_timeout", text)


@given(SIZES)
@example("1.5 MiB")
@example("1" * 19)
@example("1.0000000001m")
def test_a_size(text: str) -> None:
    agree("store_memory", text)
    agree("head_max", text)


@given(near(*NUMBERS, "%", "50%", "50 %", "0.5"))
def test_a_share(text: str) -> None:
    agree("failure_ratio", text)


@given(near("true", "YES", "on", "off", "n", "F", "10", "auto", "Auto", "open", "64", "65", "1, 2"))
@example("auto")
@example("0")
@example("32,64")
def test_a_word_and_a_number(text: str) -> None:
    for name in ("headers", "workers", "pool_size", "circuit", "loop", "client_prefix"):
        agree(name, text)


@given(LISTENS)
@example(":80,tls,proxy")
@example(":80 , tls")
@example(":80,tls,tls")
@example("*:80")
@example("unix:/run/a b,proxy")
def test_an_address_to_listen_on(text: str) -> None:
    agree("listen", text)
    agree("listen", [text])
    agree("listen", [":80", text])
    agree("admin", text)


@given(UPSTREAMS)
@example("https://app/")
@example("https://:1/")
@example("https://")
@example("https:///")
@example("app:80/")
@example("https://8080")
@example("unix://run/a,b")
def test_the_address_of_the_application(text: str) -> None:
    if text:  # an empty one is none, and a start needs one
        agree("upstream", text)


@given(GROUPS)
@example(["1:2:3:4:5:6:7::"])
@example(["1::3:4:5:6:7:8"])
@example(["::2:3:4:5:6:7:8"])
@example(["::1:2:3:4:5:6:7:8"])
@example(["1:2:3:4:5:6:1.2.3.4"])
@example(["1:2:3:4:5::1.2.3.4"])
def test_an_ipv6_address(groups: list[str]) -> None:
    agree("upstream", f"[{''.join(groups)}]:80")


@given(st.integers() | st.integers(-2, 100) | st.booleans() | st.floats(allow_nan=False))
def test_a_number(value: float) -> None:
    if isinstance(value, float) and value.is_integer():
        return  # JSON has one kind of numbers, and TOML two
    for setting in in_file():
        agree(setting.name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("failure_statuses", [404, "429"]),
        ("client_prefix", [24, 56]),
        ("headers", "no"),
        ("pool_size", "8"),
        ("circuit", "Observe"),
        ("listen", ":80,tls"),
        ("drain", "1h30m"),
    ],
)
def test_the_schema_accepts_what_a_start_accepts(name: str, value: Any) -> None:
    assert not refusal(name, value)
    assert of_schema(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drain", "30 parsecs"),
        ("store_memory", "1 ton"),
        ("upstream", "ftp://app"),
        ("listen", "80,ssl"),
        ("listen", []),
        ("admin", "127.0.0.1:9090,tls"),
        ("workers", 0),
        ("compress_level", 10),
        ("connect_timeout", 0),
        ("store", "a\0b"),
    ],
)
def test_the_schema_refuses_what_a_start_refuses(name: str, value: Any) -> None:
    assert not of_schema(name, value)


def test_long_white_space_takes_no_long_time() -> None:
    """Each of these would take minutes if white space could be divided in two ways."""
    for name in ("drain", "store_memory", "failure_ratio", "workers", "client_prefix", "headers"):
        assert not of_schema(name, f"1{' ' * 100_000}x")
    for name in ("upstream", "listen", "admin"):  # the first took 233 ms for 16 KiB
        assert not of_schema(name, f"{' ' * 400_000}x")
