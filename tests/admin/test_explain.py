"""Explaining: what would happen to a request now, and why."""

from gzip import compress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.admin import POST, FakeAdmin, admin_of, fetch, visit, why
from tests.support.harness import field, get, reply, status_of
from tests.support.tracing import untraced


def test_why_it_would_be_forwarded() -> None:
    with admin_of() as admin:
        found = why(admin)
        assert (found["decision"], found["reason"]) == ("forward", "admitted")
        assert found["stored"] is None
        assert found["key"]["owner"] == "everyone"
        assert found["key"]["url"] == "shop.example/a"
        assert found["route"] == "GET /a"
        assert found["limits"]["limit"] == 8
        assert "no stored response" in found["words"]


def test_why_tells_what_would_happen_while_the_application_cannot_be_reached() -> None:
    """The circuit is still closed: only few requests have failed."""
    with admin_of(upstream_timeout_s=1.0, connect_hold_s=2.0) as admin:
        visit(admin, "/a")
        admin.proxy.upstream.ends()
        admin.proxy.auto_accept = False
        admin.proxy.client(get("/b"))
        admin.proxy.refuse()
        found = why(admin)
        assert (found["decision"], found["state"]) == ("forward", "CLOSED")
        begin = "It would be forwarded, but the application cannot be reached now (refused). "
        assert found["words"] == f"{begin}So the stored response would be used."
        without = f"{begin}It would get an error if that lasts for 2s (--connect-hold). "
        without += "There is no stored response to it."
        assert why(admin, url="http://shop.example/c")["words"] == without
        assert why(admin, method="POST")["words"] == without
        admin.proxy.auto_accept = True
        visit(admin, "/d")  # it is back
        assert why(admin)["words"].startswith("It would be forwarded to the application.")


def test_why_says_no_time_if_nothing_is_held_for_a_restart() -> None:
    with admin_of(connect_hold_s=0.0) as admin:
        admin.proxy.auto_accept = False
        admin.proxy.client(get("/b"))
        admin.proxy.refuse()
        assert " It would get an error. There is" in why(admin)["words"]


def test_why_tells_the_patience_of_now() -> None:
    with admin_of(patience_closed_s=4.0, patience_min_s=0.6) as admin:
        assert why(admin)["limits"]["patience_s"] == 4.0
        admin.post("/api/circuit", "mode=open")
        assert why(admin)["limits"]["patience_s"] == 0.6


def test_why_it_would_come_from_the_store() -> None:
    with admin_of() as admin:
        visit(admin, "/a")
        admin.post("/api/circuit", "mode=open")
        admin.proxy.advance(3)
        found = why(admin)
        assert (found["decision"], found["reason"]) == ("stored", "forced-open")
        assert found["stored"]["age_s"] == 3.0
        assert found["stored"]["whose"] == "everyone's"
        assert why(admin, method="POST")["decision"] == "forward"
        assert why(admin, cookie="PHPSESSID=abc")["decision"] == "stored"
        assert why(admin, header="X-Api-Key: 1")["stored"] is None


def test_why_asks_as_a_browser_or_as_the_client_that_is_described() -> None:
    with admin_of() as admin:
        fields = {"Accept": "text/html,*/*;q=0.8", "Upgrade-Insecure-Requests": "1"}
        fetch(admin, get("/a", headers=fields), reply(b"page"))
        fetch(admin, get("/b"), reply(b"for programs"))
        found = why(admin, **{"as": "browser", "header": "Accept: application/json"})
        assert found["stored"] is None  # who names types of its own asks for these
        url = "http://shop.example/b"
        assert why(admin, url=url, **{"as": "browser"})["stored"] is None
        assert why(admin, url=url, **{"as": "program"})["stored"] is not None
        assert why(admin, url=url)["stored"] is not None
        form = "url=http://shop.example/b&as=robot"
        assert admin.post("/api/why", form).status == 400


def test_why_finds_as_a_browser_what_a_browser_would_get() -> None:
    with admin_of() as admin:
        fields = {"Accept": "text/html,*/*;q=0.8", "Upgrade-Insecure-Requests": "1"}
        fetch(
            admin,
            get("/a", headers=fields),
            reply(compress(b"page"), headers={"Content-Encoding": "gzip"}),
        )
        assert why(admin, **{"as": "browser"})["stored"] is not None


def test_why_never_shows_a_secret() -> None:
    with admin_of(session_cookies=("PHPSESSID", "JSESSIONID")) as admin:
        visit(admin, "/a", cookie="PHPSESSID=topsecret-topsecret")
        for parameters in (
            {"cookie": "PHPSESSID=topsecret-topsecret"},
            {"header": "Authorization: Bearer topsecret"},
            {"url": "http://shop.example/a;jsessionid=topsecret"},
            {"url": "http://shop.example/a?PHPSESSID=topsecret-topsecret"},
        ):
            found = why(admin, **parameters)
            assert "topsecret" not in str(found)
            assert found["key"]["owner"] in ("session", "credential")
            assert len(found["key"]["owner_id"]) == 8
        found = why(admin, cookie="PHPSESSID=topsecret-topsecret")
        assert found["stored"]["whose"] == "the owner's own"


def test_why_it_would_wait() -> None:
    with admin_of(max_in_flight=1) as admin:
        visit(admin, "/a")
        waiting = admin.proxy.client(get("/slow"))
        assert why(admin, url="http://shop.example/b")["decision"] == "wait"
        admin.post("/api/pause")
        held = why(admin, url="http://shop.example/b")
        assert (held["decision"], held["reason"]) == ("hold", "paused")
        assert why(admin)["reason"] == "paused"
        assert waiting.received() == b""


def test_why_it_would_be_refused() -> None:
    """The words are true of the reason: a part of the site that fails has no queue."""
    with admin_of(queue_max=0, max_in_flight=1) as admin:
        visit(admin, "/slow/1")
        admin.proxy.client(get("/other"))
        full = why(admin, url="http://shop.example/new")
        assert (full["decision"], full["reason"]) == ("refuse", "queue-full")
        assert "no room in the queue" in full["words"]
    with admin_of() as admin:
        for number in range(5):
            for path, status in (("/well", "200 OK"), ("/fails", "500 Internal Server Error")):
                url = f"{path}/{number}"
                client = admin.proxy.client(get(url), (f"192.0.2.{number}", 1))
                admin.proxy.upstream.sends(reply(status=status))
                client.received()
                admin.proxy.advance(0.05)
        refused = why(admin, url="http://shop.example/fails/9")
        assert (refused["decision"], refused["reason"]) == ("refuse", "route-open")
        assert "this part of the site fails" in refused["words"]
        assert "queue" not in refused["words"]


def test_why_superseded_and_too_old() -> None:
    with admin_of(max_stale_s=60.0) as admin:
        visit(admin, "/form")
        fetch(admin, POST, reply(b"changed"))
        found = why(admin, url="http://shop.example/form")
        assert found["stored"]["superseded"] is True
        assert "superseded" in found["words"]
        admin.proxy.advance(61)
        found = why(admin, url="http://shop.example/form")
        assert found["stored"]["too_old"] is True
        assert "too old" in found["words"]


def test_why_it_is_no_request() -> None:
    with admin_of() as admin:
        found = why(admin, method="TRACE")
        assert (found["decision"], found["status"]) == ("error", 405)


def test_to_ask_why_changes_nothing() -> None:
    with admin_of() as admin:
        visit(admin, "/old")
        visit(admin, "/new")
        proxy = admin.proxy.proxy
        before = proxy.stats()
        keys = list(admin.proxy.services.store.shelves.slots)
        for parameters in ({}, {"cookie": "a=b"}, {"url": "http://shop.example/old"}):
            why(admin, **parameters)
        assert proxy.stats() == before
        assert list(admin.proxy.services.store.shelves.slots) == keys, "in the order of their use"


PATHS = ("/a", "/a", "/asset.css")
COOKIES = ("", "PHPSESSID=one", "theme=dark", "theme=dark; PHPSESSID=two")
METHODS = ("GET", "GET", "GET", "GET", "HEAD", "POST", "DELETE")
# What a client says beside its cookies: of codings, of credentials, of event streams.
FIELDS: tuple[dict[str, str], ...] = (
    {},
    {"Accept-Encoding": "gzip"},
    {"Accept-Encoding": "identity"},
    {"Accept-Encoding": "br", "Accept-Language": "de"},
    {"Authorization": "Basic abc"},
    {"Accept": "text/event-stream"},
    {"Range": "bytes=0-3"},
    {"Cache-Control": "no-cache"},
)
REPLIES = {
    "plain": reply(b"x" * 99, headers={"Cache-Control": "max-age=1"}),
    "public": reply(b"everyone's", headers={"Cache-Control": "public, max-age=1"}),
    "coded": reply(compress(b"x" * 99), headers={"Content-Encoding": "gzip"}),
    "coded for ever": reply(
        compress(b"x" * 99), headers={"Content-Encoding": "gzip", "Cache-Control": "no-transform"}
    ),
    "unknown coding": reply(b"?", headers={"Content-Encoding": "zoo"}),
    "varies": reply(b"auf Deutsch", headers={"Vary": "Accept-Language"}),
    "sets a cookie": reply(b"hello", headers={"Set-Cookie": "theme=dark"}),
    "begins a session": reply(b"welcome", headers={"Set-Cookie": "PHPSESSID=one"}),
    "withdrawn": reply(b"gone", status="410 Gone"),
    "redirects": reply(b"", status="302 Found", headers={"Location": "/a"}),
    "fails": reply(b"broken", status="500 Internal Server Error"),
}

ASKED = st.tuples(
    st.sampled_from(METHODS),
    st.sampled_from(PATHS),
    st.sampled_from(COOKIES),
    st.sampled_from(FIELDS),
)
"""A request: method, path, cookies, other fields."""


def message(asked: tuple[str, str, str, dict[str, str]]) -> bytes:
    method, path, cookie, fields = asked
    headers = {**fields, "Cookie": cookie} if cookie else fields
    return get(path, headers=headers).replace(b"GET", method.encode(), 1)


def answer_newest(admin: FakeAdmin, asked: int, answer: bytes) -> None:
    """Let the application answer the newest request, if more than `asked` have come."""
    if sent_upstream(admin) > asked and not admin.proxy.upstream.closed:
        admin.proxy.upstream.sends(answer)


def sent_upstream(admin: FakeAdmin) -> int:
    """Return how many requests have gone to the application."""
    return sum(peer.transport.buffer.count(b"HTTP/1.1\r\n") for peer in admin.proxy.upstreams)


PLAIN = ("GET", "/a", "", FIELDS[0])
GZIP = ("GET", "/a", "", FIELDS[1])
NOT_CODED = ("GET", "/a", "", FIELDS[2])
BUSY = [("hang", ("GET", "/asset.css", "", FIELDS[0]), "")] * 2
OPEN = ("mode", "open", "")


@pytest.mark.release
@untraced
@settings(max_examples=250, deadline=None)
@example("all", "off", 1, [("ask", PLAIN, "sets a cookie"), OPEN], PLAIN)
@example("all", "off", 1, [("ask", GZIP, "coded for ever"), OPEN, *BUSY], NOT_CODED)
@example("all", "on", 1, [("ask", GZIP, "coded"), OPEN, *BUSY], NOT_CODED)
@example("rfc9111", "off", 1, [("ask", PLAIN, "public"), OPEN, *BUSY], PLAIN)
@given(
    policy=st.sampled_from(["all", "rfc9111"]),
    fairness=st.sampled_from(["off", "on"]),
    max_in_flight=st.sampled_from([1, 2]),
    events=st.lists(
        st.one_of(
            st.tuples(st.just("ask"), ASKED, st.sampled_from(sorted(REPLIES))),
            st.tuples(st.just("hang"), ASKED, st.just("")),
            st.tuples(st.just("wait"), st.sampled_from([0.5, 20.0, 70.0]), st.just("")),
            st.tuples(st.just("mode"), st.sampled_from(["open", "closed", "auto"]), st.just("")),
            st.tuples(st.just("pause"), st.sampled_from(["pause", "resume"]), st.just("")),
        ),
        max_size=12,
    ),
    asked=ASKED,
)
def test_what_is_foretold_happens(
    policy: str,
    fairness: str,
    max_in_flight: int,
    events: list[tuple[str, Any, str]],
    asked: tuple[str, str, str, dict[str, str]],
) -> None:
    with admin_of(
        store_policy=policy,
        fairness=fairness,
        max_in_flight=max_in_flight,
        queue_max=1,
        max_stale_s=60.0,
    ) as admin:
        proxy = admin.proxy
        for what, value, answer in events:
            if what == "ask":
                before = sent_upstream(admin)
                client = proxy.client(message(value))
                answer_newest(admin, before, REPLIES[answer])
                client.resets()
            elif what == "hang":
                proxy.client(message(value))
            elif what == "wait":
                proxy.advance(value)
            elif what == "mode":
                admin.post("/api/circuit", f"mode={value}")
            else:
                admin.post(f"/api/{value}")
        foretold = foretell(admin, asked)
        before = sent_upstream(admin)
        client = proxy.client(message(asked))
        proxy.workers.work()
        received, sent = client.received(), sent_upstream(admin) - before
        if foretold["decision"] in ("forward", "probe"):
            assert (received, sent) == (b"", 1)
        elif foretold["decision"] in ("wait", "hold"):
            assert (received, sent) == (b"", 0)
        elif foretold["decision"] == "stored":
            assert field(received, "Cache-Status") == f"retter; hit; detail={foretold['reason']}"
        else:
            assert foretold["decision"] == "refuse"
            assert status_of(received) == 503
            assert foretold["reason"] in (field(received, "Cache-Status") or "")


def foretell(admin: FakeAdmin, asked: tuple[str, str, str, dict[str, str]]) -> dict[str, Any]:
    """Ask why twice, and see that the first question has changed nothing."""
    method, path, cookie, fields = asked
    parameters = {"url": f"http://shop.example{path}", "cookie": cookie, "method": method}
    form = "&".join(f"{name}={value}" for name, value in parameters.items())
    form += "".join(f"&header={name}: {value}" for name, value in fields.items())
    store = admin.proxy.services.store
    before, order = admin.proxy.proxy.stats(), list(store.shelves.slots)
    answers = [admin.post("/api/why", f"{form}&client=192.0.2.7") for _ in range(2)]
    assert answers[0].status == 200
    assert answers[0] == answers[1]
    assert admin.proxy.proxy.stats() == before
    assert list(store.shelves.slots) == order, "in the order of their use"
    document: dict[str, Any] = answers[0].json
    return document


def test_why_a_client_cannot_read_what_is_stored() -> None:
    """Also a response that may not be decoded (RFC 9110 section 7.7) is not to be promised."""
    with admin_of() as admin:
        fetch(admin, get("/a", headers={"Accept-Encoding": "gzip"}), REPLIES["coded for ever"])
        admin.post("/api/circuit", "mode=open")
        assert why(admin, header="Accept-Encoding: gzip")["decision"] == "stored"
        unread = why(admin, header="Accept-Encoding: identity")
        assert unread["decision"] == "forward"
        assert "in a content coding that the client does not accept" in unread["words"]


@pytest.mark.parametrize(
    "form",
    [
        "",
        "url=/a",
        "url=http://a/&header=nonsense",
        "url=http://a/&header=a:b%0Ac",
        "url=http://a/&method=G%0DT",
        "url=http://a/&url=http://b/",
        "url=http://a/&cookie=%E2%82%AC",
    ],
)
def test_wrong_questions(form: str) -> None:
    with admin_of() as admin:
        assert admin.post("/api/why", form).status == 400


def test_why_by_get() -> None:
    with admin_of() as admin:
        answer = admin.ask("/api/why?url=http%3A%2F%2Fa%2Fb%3Fc&header=Accept%3A+*%2F*&header=X:1")
        assert answer.json["key"]["owner"] == "credential"
