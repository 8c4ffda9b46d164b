"""The ticket's cookie is taken out of a head, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.http.turn_cookie import VALUE_BYTES_MAX, set_ticket, without_ticket

TICKET = b"A" * 30 + b"-_"


def head(*lines: bytes) -> bytes:
    """Return a head with these fields."""
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (b"Cookie: retter_turn=%b", None),
        (b"cookie:retter_turn=%b", None),
        (b"Cookie: retter_turn=%b ", None),
        (b"Cookie: a=1; retter_turn=%b", b"Cookie: a=1"),
        (b"Cookie: retter_turn=%b; a=1", b"Cookie: a=1"),
        (b"Cookie: a=1; retter_turn=%b; b=2", b"Cookie: a=1; b=2"),
        (b"Cookie: a=1;retter_turn=%b;b=2", b"Cookie: a=1;b=2"),
        (b"Cookie: a=1;  retter_turn=%b ; b=2;", b"Cookie: a=1; b=2;"),
        (b"COOKIE:  a=1; retter_turn=%b; retter_turn=x", b"COOKIE:  a=1"),
    ],
)
def test_the_cookie_is_taken_out(line: bytes, left: bytes | None) -> None:
    """All other octets stay; a line with nothing else goes whole."""
    given_head = head(b"A: 1", line % TICKET, b"Z: 2")
    expected = head(b"A: 1", *([] if left is None else [left]), b"Z: 2")
    assert without_ticket(given_head) == (expected, TICKET)


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: my_retter_turn=abc",
        b"Cookie: retter_turns=abc",
        b"Cookie: a=retter_turn=abc",
        b"Cookie: retter_turn",
        b"Cookie: retter_turn=a,b",
        b'Cookie: retter_turn="abc"',
        b"Cookie: retter_turn=" + b"a" * (VALUE_BYTES_MAX + 1),
        b"X-Cookie: retter_turn=abc",
        b"Referer: /?retter_turn=abc",
    ],
)
def test_what_is_not_ours_stays(line: bytes) -> None:
    """Another name, another field, a value that no ticket has."""
    given_head = head(line)
    assert without_ticket(given_head) == (given_head, b"")


def test_an_empty_value_goes_as_well() -> None:
    """It is the name that the application must not see."""
    assert without_ticket(head(b"Cookie: retter_turn=")) == (head(), b"-")


@given(st.lists(st.sampled_from([b"a=1", b" b=2", b"", b" ", b' c="x;y"', b"d"]), max_size=6))
def test_other_cookies_stay_octet_by_octet(pieces: list[bytes]) -> None:
    """Wherever ours stands among them."""
    for at in range(len(pieces) + 1):
        with_ours = [*pieces[:at], b" retter_turn=" + TICKET, *pieces[at:]]
        left, ticket = without_ticket(head(b"Cookie:" + b";".join(with_ours)))
        assert ticket == TICKET
        line = b"Cookie:" + b";".join(pieces)
        assert left == (head(line) if line[7:].strip(b" \t") else head())


def test_it_is_set_for_the_browser_alone() -> None:
    """No script sees it, and no other site's form sends it."""
    plain = set_ticket(TICKET, 120, secure=False)
    assert plain == (f"retter_turn={TICKET.decode()}; Max-Age=120; Path=/; HttpOnly; SameSite=Lax")
    assert set_ticket(TICKET, 120, secure=True) == plain + "; Secure"
