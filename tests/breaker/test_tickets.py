"""Tickets cannot be made up, made older, moved to another client or used twice."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.breaker.tickets import TICKET_BYTES, TICKET_S, TICKETS_MAX, Tickets

CLIENT = 77


def test_a_ticket_says_since_when_its_holder_tries() -> None:
    """For as long as it is good."""
    tickets = Tickets(b"secret", 100.0)
    text = tickets.issue(CLIENT, 130.0)
    assert len(text) == TICKET_BYTES
    ticket = tickets.read(text, CLIENT, 130.0 + TICKET_S - 1)
    assert ticket is not None
    assert ticket.since == pytest.approx(130.0, abs=0.2)
    assert tickets.read(text, CLIENT, 130.0 + TICKET_S + 1) is None, "expired"


@given(change=st.integers(1, 255), at=st.integers(0, 23), client=st.integers(0, 1 << 56))
@settings(max_examples=300)
def test_no_octet_of_it_can_be_changed_and_nobody_else_can_use_it(
    change: int, at: int, client: int
) -> None:
    """The MAC covers the time, the number and the client."""
    tickets = Tickets(b"secret", 0.0)
    text = tickets.issue(CLIENT, 1.0)
    raw = bytearray(urlsafe_b64decode(text))
    raw[at] ^= change
    assert tickets.read(urlsafe_b64encode(bytes(raw)), CLIENT, 1.0) is None
    if client != CLIENT:
        assert tickets.read(text, client, 1.0) is None
    assert Tickets(b"another", 0.0).read(text, CLIENT, 1.0) is None


@given(text=st.binary(max_size=40))
def test_what_is_no_ticket_is_none(text: bytes) -> None:
    """Whatever octets a client sends."""
    tickets = Tickets(b"secret", 0.0)
    tickets.issue(CLIENT, 0.0)
    assert tickets.read(text, CLIENT, 0.0) is None


def test_a_ticket_is_good_for_one_place() -> None:
    """It stands once, and is used up once."""
    tickets = Tickets(b"secret", 0.0)
    text = tickets.issue(CLIENT, 0.0)
    ticket = tickets.read(text, CLIENT, 0.0)
    assert ticket is not None
    assert tickets.stand(ticket.number)
    assert not tickets.stand(ticket.number), "it stands in the line"
    tickets.leave(ticket.number)
    assert tickets.stand(ticket.number), "it came again"
    tickets.spend(ticket.number)
    assert not tickets.stand(ticket.number)
    for _ in range(1000):
        assert tickets.read(text, CLIENT, 1.0) is None


@given(st.lists(st.sampled_from(["issue", "spend", "stand", "leave"]), max_size=60))
def test_no_history_brings_a_used_ticket_back(history: list[str]) -> None:
    """Whatever is done with others."""
    tickets = Tickets(b"secret", 0.0)
    text = tickets.issue(CLIENT, 0.0)
    tickets.spend(0)
    number = 0
    for step in history:
        if step == "issue":
            tickets.issue(CLIENT, 0.0)
            number += 1
        elif step == "spend":
            tickets.spend(number)
        elif step == "stand":
            tickets.stand(number)
        else:
            tickets.leave(number)
        assert tickets.read(text, CLIENT, 0.0) is None


def test_what_is_remembered_of_tickets_is_bounded() -> None:
    """A ticket whose bit is needed for another one is worth nothing: it could be used twice."""
    tickets = Tickets(b"secret", 0.0)
    first = tickets.issue(CLIENT, 0.0)
    tickets.spend(0)
    tickets._issued += TICKETS_MAX - 1
    assert tickets.read(first, CLIENT, 0.0) is None
    second = tickets.issue(CLIENT, 0.0)  # takes the bit of the first
    assert tickets.read(first, CLIENT, 0.0) is None
    assert tickets.read(second, CLIENT, 0.0) is not None
    assert len(tickets._spent) == TICKETS_MAX // 8
