"""The outcome of a status: what it says about the application, or only about the request."""

import pytest

from retter.base.errors import Outcome, outcome_of
from retter.breaker import State
from tests.support.harness import FakeProxy, body_of, field, get, reply, status_of

# About the request or its client, whatever the class of the status says.
OF_THE_REQUEST = ["429 Too Many Requests", "501 Not Implemented", "505 Version Not Supported"]
OF_THE_CLIENT = ["400 Bad Request", "403 Forbidden", "404 Not Found", "451 Unavailable", "499 Odd"]


@pytest.mark.parametrize("status", range(200, 600))
def test_only_what_the_application_fails_is_a_failure(status: int) -> None:
    failures = (Outcome.OVERLOAD, Outcome.ERROR)
    own_fault = status >= 500 and status not in (501, 505)
    assert (outcome_of(status) in failures) is own_fault
    assert outcome_of(status, frozenset({status})) in failures, "the operator's word is the last"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.OK), (304, Outcome.OK), (404, Outcome.OK), (429, Outcome.NEUTRAL),
        (500, Outcome.ERROR), (501, Outcome.NEUTRAL), (502, Outcome.OVERLOAD),
        (503, Outcome.OVERLOAD), (504, Outcome.OVERLOAD), (505, Outcome.NEUTRAL),
        (508, Outcome.ERROR), (599, Outcome.ERROR),
    ],
)  # fmt: skip
def test_too_much_to_do_is_told_from_a_fault(status: int, outcome: Outcome) -> None:
    assert outcome_of(status) is outcome


@pytest.mark.parametrize("status", [*OF_THE_REQUEST, *OF_THE_CLIENT])
def test_an_answer_about_the_request_goes_to_its_client_as_it_is(status: str) -> None:
    """There is a stored response, and it does not take the answer's place."""
    proxy = FakeProxy()
    credential = {"Authorization": "Bearer 0123456789"}
    client = proxy.client(get("/items", headers=credential))
    proxy.upstream.sends(reply(b"items"))
    client.received()
    client.sends(get("/items", headers=credential))
    proxy.upstream.sends(reply(b"no", status=status, headers={"Retry-After": "60"}))
    answer = client.received()
    assert (status_of(answer), body_of(answer)) == (int(status[:3]), b"no")
    assert field(answer, "Retry-After") == "60"
    assert field(answer, "X-Retter") == "backend"
    proxy.assert_at_rest()


@pytest.mark.parametrize("status", [*OF_THE_REQUEST, *OF_THE_CLIENT])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"FOO"])
def test_answers_about_the_request_leave_the_circuit_alone(status: str, method: bytes) -> None:
    """However many there are, and although nothing else is answered."""
    proxy = FakeProxy()
    client = proxy.client()
    for _ in range(60):
        client.sends(method + b" /login HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        proxy.upstream.sends(reply(b"no", status=status))
        proxy.advance(0.1)
        assert status_of(client.received()) == int(status[:3])
    snapshot = proxy.services.breaker.snapshot(proxy.loop.now)
    assert (snapshot.state, snapshot.transitions, snapshot.failures) == (State.CLOSED, 0, 0)
    assert snapshot.routes_open == ()
    assert snapshot.ceiling == float("inf")
    proxy.assert_at_rest()


def test_answers_about_the_request_end_no_outage() -> None:
    """The circuit is open, and a limiter in front of the application still says 429 to a bot."""
    proxy = FakeProxy()
    for number in range(20):
        if proxy.services.breaker.circuit.state is State.OPEN:
            break
        proxy.client(get(f"/{number}"), peername=(f"192.0.2.{number}", 50000))
        proxy.upstream.sends(reply(b"", status="503 Busy"))
    assert proxy.services.breaker.circuit.state is State.OPEN
    client = proxy.client()
    for _ in range(5):
        client.sends(b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        proxy.upstream.sends(reply(b"slow down", status="429 Too Many Requests"))
        assert status_of(client.received()) == 429
    assert proxy.services.breaker.circuit.state is State.OPEN


def test_the_operator_may_call_429_a_failure() -> None:
    proxy = FakeProxy(failure_statuses=(429,))
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"good"))
    client.received()
    client.sends(get())
    proxy.upstream.sends(reply(b"slow down", status="429 Too Many Requests"))
    answer = client.received()
    assert (status_of(answer), body_of(answer)) == (200, b"good")
    assert proxy.services.breaker.snapshot(proxy.loop.now).failures == 1
