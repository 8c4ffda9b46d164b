"""Sizes, durations, switches, shares and addresses: tables of forms, and round trips."""

from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.config import units
from retter.config.units import (
    ListenAddress,
    format_duration,
    format_size,
    parse_bool,
    parse_duration,
    parse_listen,
    parse_ratio,
    parse_size,
    parse_upstream,
)


def outcome(parse: Callable[[str], object], text: str) -> tuple[object, str]:
    """Return what was read and an empty message, or None and why it was refused."""
    try:
        return parse(text), ""
    except ValueError as error:
        return None, str(error)


DURATIONS = [
    ("0", 0.0),
    ("0s", 0.0),
    ("5", 5.0),
    ("1.5", 1.5),
    (".5", 0.5),
    ("1e1", 10.0),
    ("1.5s", 1.5),
    ("200ms", 0.2),
    ("2m", 120.0),
    ("24h", 86400.0),
    ("2d", 172800.0),
    ("250us", 0.00025),
    ("250µs", 0.00025),
    ("100ns", 1e-7),
    ("1h30m", 5400.0),
    ("1m0.5s", 60.5),
    ("1h0m0s", 3600.0),
    ("15 seconds", 15.0),
    ("1 minute 30 seconds", 90.0),
    ("2 Hours", 7200.0),
    (" 3S ", 3.0),
    ("1sec", 1.0),
    ("5min", 300.0),
    ("1day", 86400.0),
    ("366d", units.DURATION_S_MAX),
]
NOT_DURATIONS = [
    "",
    " ",
    "s",
    "abc",
    "-1",
    "-1s",
    "+1s",
    "1x",
    "1 2",
    "1s 2",
    "s1",
    "1.2.3s",
    "inf",
    "nan",
    "1e",
    "١s",
    "0x10",
    "1s,2s",
    "infinity seconds",
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", NOT_DURATIONS)
def test_what_is_no_duration_is_refused_with_the_right_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; write 1\.5s, 200ms, 2m, 24h") as told:
        parse_duration(text)
    assert repr(text) in str(told.value)


@pytest.mark.parametrize("text", ["367d", "1e300", "1e999", "99999h", "9" * 5000])
def test_a_duration_of_more_than_a_year_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than a year"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0"),
        (1.5, "1.5s"),
        (0.2, "200ms"),
        (120.0, "2m"),
        (86400.0, "24h"),
        (15.0, "15s"),
        (90.0, "90s"),
        (0.0005, "0.5ms"),
        (1e-9, "1e-09s"),
        (1 / 3, "0.3333333333333333s"),
    ],
)
def test_a_duration_is_written_in_its_largest_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, units.DURATION_S_MAX, allow_subnormal=False))
def test_a_written_duration_is_read_as_the_same_number(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 365 * 24 * 3600 * 1000))
def test_milliseconds_survive_writing_and_reading(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(f"{milliseconds}ms") == seconds
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text())
def test_any_text_is_a_duration_or_a_one_line_error(text: str) -> None:
    seconds, message = outcome(parse_duration, text)
    if not message:
        assert 0 <= cast("float", seconds) <= units.DURATION_S_MAX
    assert "\n" not in message


SIZES = [
    ("0", 0),
    ("1048576", 1 << 20),
    ("64MiB", 64 << 20),
    ("64mib", 64 << 20),
    ("64m", 64 << 20),
    ("64M", 64 << 20),
    ("64Mi", 64 << 20),
    ("64MB", 64_000_000),
    ("64k", 64 << 10),
    ("64KiB", 64 << 10),
    ("64kB", 64_000),
    ("2g", 2 << 30),
    ("2GB", 2_000_000_000),
    ("10b", 10),
    ("1.5MiB", 3 << 19),
    ("0.5k", 512),
    ("1.1GB", 1_100_000_000),
    (" 1 MiB ", 1 << 20),
    ("1024GiB", 1 << 40),
]


@pytest.mark.parametrize(("text", "octets"), SIZES)
def test_a_size_is_read(text: str, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a size; write 64MiB, 64MB, 64k or plain bytes"),
        ("-1", "is not a size"),
        ("1x", "is not a size"),
        ("MiB", "is not a size"),
        ("1e3", "is not a size"),
        ("1,5M", "is not a size"),
        ("1.", "is not a size"),
        ("9" * 5000, "is not a size"),
        ("0.1k", "is not a whole number of bytes"),
        ("1.5", "is not a whole number of bytes"),
        ("9999999g", "is larger than 1 PiB"),
    ],
)
def test_what_is_no_size_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_size(text)


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1KiB"),
        (64 << 20, "64MiB"),
        (3 << 30, "3GiB"),
        (64_000_000, "62500KiB"),
        ((1 << 20) + 1, "1048577"),
    ],
)
def test_a_size_is_written_in_its_largest_unit(octets: int, text: str) -> None:
    assert format_size(octets) == text


@given(st.integers(0, units.SIZE_BYTES_MAX))
def test_a_written_size_is_read_as_the_same_number(octets: int) -> None:
    assert parse_size(format_size(octets)) == octets


@pytest.mark.parametrize("text", ["true", "True", "t", "yes", "y", "on", "1", " ON "])
def test_true_has_many_names(text: str) -> None:
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "f", "no", "n", "off", "0"])
def test_false_has_many_names(text: str) -> None:
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "2", "maybe", "truefalse"])
def test_what_is_neither_true_nor_false_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is neither true nor false"):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("0.5", 0.5),
        (".5", 0.5),
        ("50%", 0.5),
        ("66 %", 0.66),
        ("1", 1.0),
        ("0", 0.0),
        ("150%", 1.5),
    ],
)
def test_a_share_is_read(text: str, share: float) -> None:
    assert parse_ratio(text) == share


@pytest.mark.parametrize("text", ["", "%", "half", "-0.5", "50%%", "5%0", "nan", "inf"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a share; write 0\.5 or 50%"):
        parse_ratio(text)


# Addresses

LISTEN = [
    (":80", ListenAddress("tcp", "", 80)),
    ("80", ListenAddress("tcp", "", 80)),
    ("*:80", ListenAddress("tcp", "", 80)),
    (":0", ListenAddress("tcp", "", 0)),
    (" :65535 ", ListenAddress("tcp", "", 65535)),
    ("127.0.0.1:0", ListenAddress("tcp", "127.0.0.1", 0)),
    ("localhost:8089", ListenAddress("tcp", "localhost", 8089)),
    ("my_host-1.example.org.:1", ListenAddress("tcp", "my_host-1.example.org.", 1)),
    ("[::1]:8089", ListenAddress("tcp", "::1", 8089)),
    ("[::]:80", ListenAddress("tcp", "::", 80)),
    ("[fe80::1%eth0]:80", ListenAddress("tcp", "fe80::1%eth0", 80)),
    ("unix:/run/retter.sock", ListenAddress("unix", path="/run/retter.sock")),
    ("unix:///run/retter.sock", ListenAddress("unix", path="/run/retter.sock")),
    ("unix:here.sock", ListenAddress("unix", path="here.sock")),
    ("unix:/with a:colon", ListenAddress("unix", path="/with a:colon")),
    (":80,proxy", ListenAddress("tcp", "", 80, proxy=True)),
    (":443 , tls,proxy ", ListenAddress("tcp", "", 443, proxy=True, tls=True)),
    ("unix:/r.sock,proxy", ListenAddress("unix", path="/r.sock", proxy=True)),
]


@pytest.mark.parametrize(("text", "address"), LISTEN)
def test_an_address_to_listen_on_is_read(text: str, address: ListenAddress) -> None:
    assert parse_listen(text) == address
    assert parse_listen(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no port; write :80"),
        ("localhost", "has no port"),
        ("[::1]", "has no port"),
        ("*", "has no port"),
        ("host:", "has no port"),
        ("host:x", "has no port"),
        ("host:-1", "has no port"),
        (":٨٠", "has no port"),
        (":65536", "a port is at most 65535"),
        (":" + "9" * 5000, "a port is at most 65535"),
        ("::1", "needs brackets"),
        ("::1:80", "needs brackets"),
        ("[::g]:80", "is not an IPv6 address"),
        ("[]:80", "is not an IPv6 address"),
        ("[::1%]:80", "is not an IPv6 address"),
        ("[::1%a b]:80", "is not an IPv6 address"),
        ("[1.2.3.4]:80", "is not an IPv6 address"),
        ("[::1\0]:80", "is not an IPv6 address"),
        ("1.2.3:80", "1.2.3 is not an IPv4 address"),
        ("300.1.1.1:80", "is not an IPv4 address"),
        ("a b:80", "is not an address"),
        ("*x:80", "is not an address"),
        ("-x:80", "is not an address"),
        ("x/y:80", "is not an address"),
        ("ü:80", "is not an address"),
        ("http://x:80", "is a URL; write where to listen as :80"),
        ("unix:", "names no socket"),
        ("unix:a\0b", "names no socket"),
        (":80,", "'' is not an option of an address; after a comma comes proxy or tls"),
        (":80,prox", "'prox' is not an option"),
        ("unix:/a,b", "'b' is not an option"),
        (":80,proxy,proxy", "an option is given twice"),
        (",proxy", "has no port"),
        ("unix:/" + "x" * 107, "has at most 107 bytes"),
        ("unix:/" + "ü" * 54, "has at most 107 bytes"),
    ],
)
def test_a_wrong_address_to_listen_on_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as told:
        parse_listen(text)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


UPSTREAM = [
    (":8080", "localhost", 8080, b"localhost:8080"),
    ("8080", "localhost", 8080, b"localhost:8080"),
    ("app:8080", "app", 8080, b"app:8080"),
    ("app:80", "app", 80, b"app"),
    ("http://app:8080", "app", 8080, b"app:8080"),
    ("http://app:8080/", "app", 8080, b"app:8080"),
    ("HTTP://app", "app", 80, b"app"),
    ("https://app", "app", 443, b"app"),
    ("HTTPS://app:8443/", "app", 8443, b"app:8443"),
    ("https://app:80", "app", 80, b"app:80"),
    ("http://:8080", "localhost", 8080, b"localhost:8080"),
    ("http://[::1]", "::1", 80, b"[::1]"),
    ("[::1]:8080", "::1", 8080, b"[::1]:8080"),
    ("[fe80::1%eth0]:8080", "fe80::1%eth0", 8080, b"[fe80::1]:8080"),
]


@pytest.mark.parametrize(("text", "host", "port", "authority"), UPSTREAM)
def test_an_application_is_found_by_host_and_port(
    text: str, host: str, port: int, authority: bytes
) -> None:
    address = parse_upstream(text)
    assert (address.kind, address.host, address.port, address.path) == ("tcp", host, port, "")
    assert address.authority == authority
    assert address.tls == text.lower().startswith("https:")
    assert parse_upstream(str(address)) == address


def test_an_application_is_found_by_the_path_of_a_socket() -> None:
    address = parse_upstream("unix:/run/app.sock")
    assert (address.kind, address.path) == ("unix", "/run/app.sock")
    assert address.authority == b"localhost"
    assert parse_upstream(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the application's address is missing; write :8080"),
        (" ", "the application's address is missing"),
        ("app", "has no port; write :8080, app:8080, https://app"),
        ("http://", "has no port"),
        ("http:///", "has no port"),
        ("http://app:", "has no port"),
        (":0", "port 0 cannot be connected to"),
        (":70000", "a port is at most 65535"),
        ("HTTPS://app:443/x", "a path is not possible.*write https://app:443$"),
        ("ftp://app", "is not an application's address"),
        ("://app:1", "is not an application's"),
        (
            "http://app/blog",
            "a path is not possible, since requests keep their own; write http://app$",
        ),
        ("http://app:1//", "a path is not possible"),
        ("http://app?x=1", "a path is not possible.*write http://app$"),
        ("http://app:8080#x", "a path is not possible.*write http://app:8080$"),
        ("http://unix:/run/app.sock", "a Unix socket is written unix:/run/app.sock$"),
        ("*:80", "is not an address"),
        ("::1:80", "needs brackets"),
    ],
)
def test_a_wrong_application_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_upstream(text)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="user name or password") as told:
        parse_upstream("http://me:secret@app:8080")
    assert "secret" not in str(told.value)


@given(st.text(alphabet=st.sampled_from("ahx1:.[]%/@?#-_*, \0ü"), max_size=20))
def test_any_text_is_an_address_or_a_one_line_error(text: str) -> None:
    for parse in (parse_listen, parse_upstream):
        for prefix in ("", "http://", "unix:", "["):
            address, message = outcome(parse, prefix + text)
            if not message:
                assert parse(str(address)) == address
            assert "\n" not in message


def test_a_long_wrong_value_is_shown_in_part() -> None:
    text = units.shown("x" * 1000)
    assert len(text) == units.SHOWN_CHARACTERS_MAX
    assert text.endswith("...")


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), ("a\nb", r"'a\nb'")])
def test_a_wrong_value_is_shown_on_one_line(value: object, text: str) -> None:
    assert units.shown(value) == text


@pytest.mark.parametrize(
    ("upstream", "listen", "same"),
    [
        (":8080", ":8080", True),
        (":8080", "127.0.0.1:8080", True),
        (":8080", "[::1]:8080", True),
        ("127.0.0.1:8080", "localhost:8080", True),
        ("127.0.0.1:8080", "0.0.0.0:8080", True),
        ("app.example:8080", "app.example:8080", True),
        ("unix:/a", "unix:/a", True),
        (":8080", ":8081", False),
        ("127.0.0.1:8080", "[::1]:8080", False),
        ("app.example:8080", ":8080", False),  # another machine, for all that is known
        ("127.0.0.1:8080", "192.0.2.1:8080", False),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", ":8080", False),
    ],
)
def test_who_reaches_whom(upstream: str, listen: str, same: bool) -> None:
    assert units.reaches(units.parse_upstream(upstream), units.parse_listen(listen)) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (":80", ":80", True),
        (":80", "127.0.0.1:80,tls", True),
        ("[::1]:80", ":80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("[::1]:80", "[0:0:0:0:0:0:0:1]:80", True),
        ("Shop:80", "shop:80", True),
        ("unix:/a", "unix:/a", True),
        (":0", ":0", False),
        (":80", ":81", False),
        ("0.0.0.0:80", "[::]:80", False),  # which is IPv6 alone
        ("0.0.0.0:80", "shop:80", False),  # it may be an address of IPv6
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:80", "[::1]:80", False),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", ":80", False),
    ],
)
def test_which_addresses_overlap(one: str, other: str, same: bool) -> None:
    assert units.overlap(units.parse_listen(one), units.parse_listen(other)) is same
    assert units.overlap(units.parse_listen(other), units.parse_listen(one)) is same
