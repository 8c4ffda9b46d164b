"""The situation of a proxy as it is found: since when, what visitors get, and its incidents."""

from collections.abc import Iterator
from typing import Any

import pytest

from retter.admin.watch import CALMER_S
from retter.base.counters import answers_to_gets, answers_to_others, spared, totals
from retter.breaker import State
from retter.disk.shelf import ShelfFigures
from tests.support.admin import FakeAdmin, admin_of
from tests.support.descriptors import without_descriptors
from tests.support.harness import get, reply
from tests.support.tracing import untraced

POST = b"POST /cart HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


def situation(admin: FakeAdmin) -> dict[str, Any]:
    found: dict[str, Any] = admin.state()["situation"]
    return found


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with admin_of(connect_hold_s=0, upstream_timeout_s=30) as found:
        yield found


def test_a_hung_application_is_no_peak(admin: FakeAdmin) -> None:
    """At a tenth of the capacity: GETs come from the store, and POSTs get no answer."""
    proxy = admin.proxy
    client = proxy.client()
    for number in range(40):
        client.sends(get(f"/{number % 4}"))
        proxy.advance(0.02)
        proxy.upstream.sends(reply())
    visitors = []
    for second in range(12):  # and now it answers nothing any more
        visitors += [proxy.client(get(f"/{number}")) for number in range(2)]
        visitors.append(proxy.client(POST))
        if second >= 2:
            visitors[3 * (second - 2) + 2].resets()  # its visitor has waited for two seconds
        proxy.advance(1.0)
    found = situation(admin)
    assert (found["row"], found["tone"]) == ("hung", "bad")
    assert found["now"].startswith("The application hangs: no answer for 1")
    assert "0 of 10 other requests answered, 10 gave up" in found["visitors"]
    state = admin.state()
    assert state["latency_ms"] == {"p50": None, "p99": None}, "no answer has a latency"
    assert state["minute"]["others"]["gave_up"] == 10
    (incident,) = state["incidents"]
    assert incident["ended"] is None
    assert incident["others"]["gave_up"] >= 9
    assert incident["spared"] == sum(state["totals"]["stored"].values()) > 0
    for visitor in visitors:
        visitor.resets()


@untraced
def test_a_quiet_site_hangs_until_the_application_answers(admin: FakeAdmin) -> None:
    proxy = admin.proxy
    proxy.client(get("/a"))
    proxy.upstream.sends(reply())
    proxy.advance(3600)  # nobody asks
    assert situation(admin)["tone"] == "good"
    for waited in ("31 s", "1 min 2 s"):  # one visitor after the other gets no answer
        proxy.client(get("/b"))
        proxy.advance(31)
        assert situation(admin)["now"] == f"The application hangs: no answer for {waited}."
    proxy.advance(70)
    assert situation(admin)["row"] == "unanswered"
    proxy.client(get("/a"))
    proxy.upstream.sends(reply())
    proxy.advance(CALMER_S + 1)
    assert situation(admin)["tone"] == "good"


def test_an_application_that_refuses_at_once_is_down(admin: FakeAdmin) -> None:
    """Nobody waits for it, and yet it has not answered for a while."""
    proxy = admin.proxy
    client = proxy.client(get())
    proxy.upstream.sends(reply())
    proxy.upstream.resets()
    proxy.auto_accept = False
    for _ in range(8):
        client.sends(get())
        if proxy.dialled:  # later ones are not even tried
            proxy.refuse()
        proxy.advance(0.5)
    assert situation(admin)["row"] == "down"
    proxy.auto_accept = True


def test_nothing_behind_the_upstream_is_not_green(admin: FakeAdmin) -> None:
    proxy = admin.proxy
    proxy.auto_accept = False
    assert situation(admin)["row"] == "first contact"
    client = proxy.client(get())
    proxy.refuse()
    proxy.advance(1.0)
    found = situation(admin)
    assert (found["row"], found["tone"]) == ("nothing there", "bad")
    assert found["now"] == "Nothing answers at 127.0.0.1:8080: refused."
    assert admin.state()["state"] == "CLOSED", "too few failures, yet nobody is served"
    proxy.auto_accept = True
    client.sends(get())
    proxy.upstream.sends(reply())
    proxy.advance(CALMER_S + 9)
    assert situation(admin)["tone"] == "good"


def test_a_better_situation_is_told_when_it_has_lasted(admin: FakeAdmin) -> None:
    proxy = admin.proxy
    proxy.auto_accept = False
    client = proxy.client(get())
    proxy.refuse()
    proxy.advance(1.0)
    began = situation(admin)["since"]
    proxy.auto_accept = True
    client.sends(get("/b"))
    proxy.upstream.sends(reply())
    assert situation(admin)["row"] == "nothing there", "one answer is no end"
    proxy.advance(CALMER_S + 1)
    assert situation(admin)["row"] != "nothing there"
    assert situation(admin)["since"] >= began


def test_what_an_operator_does_is_told_at_once(admin: FakeAdmin) -> None:
    for target, form, row in (
        ("/api/circuit", "mode=open", "held open"),
        ("/api/circuit", "mode=observe", "observing"),
        ("/api/pause", "seconds=20", "paused"),
        ("/api/resume", "", "observing"),
        ("/api/circuit", "mode=closed&seconds=9", "held closed"),
        ("/api/circuit", "mode=auto", "first contact"),
    ):
        admin.post(target, form)
        assert situation(admin)["row"] == row
    admin.proxy.services.draining = True
    assert situation(admin)["row"] == "draining"
    admin.proxy.services.handed_over = True
    assert situation(admin)["row"] == "taking over"


def test_why_the_application_fails_is_told_whether_the_store_hides_it_or_not() -> None:
    with admin_of(failure_volume=1000) as admin:
        proxy = admin.proxy
        client = proxy.client()
        for request, status in (
            (get("/a"), "200 OK"), (get("/a"), "500 Oops"), (POST, "500 Oops"), (POST, "502 Oops"),
            (POST, "500 Oops"),
        ):  # fmt: skip
            client.sends(request)
            proxy.upstream.sends(reply(b"x", status=status))
        found = situation(admin)
        assert (
            found["now"]
            == "60 % of the requests got an error in the last 10 s: 4 answers with a 5xx status."
        )


# Who gave up


@pytest.mark.parametrize("how", ["resets", "ends"])
def test_who_leaves_before_an_answer_gave_up_however_it_leaves(admin: FakeAdmin, how: str) -> None:
    proxy = admin.proxy
    waiting = [proxy.client(get("/slow")), proxy.client(POST)]
    for client in waiting:
        if how == "ends":
            client.ends()
            proxy.advance(0.1)
        client.resets()  # as the answer to what is sent to a client that has left
    counters = proxy.services.counters
    assert (answers_to_gets(counters).gave_up, answers_to_others(counters).gave_up) == (1, 1)
    assert admin.state()["totals"]["gave_up"] == 2


def test_who_closes_a_page_with_an_event_stream_has_not_given_up(admin: FakeAdmin) -> None:
    proxy = admin.proxy
    client = proxy.client(get("/events", headers={"Accept": "text/event-stream"}))
    client.resets()
    client = proxy.client(get("/half"))
    proxy.upstream.sends(reply(b"x" * 100)[:-50])
    proxy.advance(0.5)  # longer than the first bytes are held back
    client.resets()
    assert proxy.services.counters.clients_gone == 2
    assert answers_to_gets(proxy.services.counters).gave_up == 0


def test_gets_and_others_together_are_all_answers(admin: FakeAdmin) -> None:
    proxy = admin.proxy
    client = proxy.client()
    for request, status in ((get("/a"), "200 OK"), (POST, "200 OK"), (POST, "500 Oops")):
        client.sends(request)
        proxy.upstream.sends(reply(status=status))
    client.sends(get("/a"))
    proxy.upstream.sends(reply(status="500 Oops"))  # and the stored page is sent instead
    proxy.services.breaker.circuit.pause(proxy.loop.now, proxy.loop.now + 60)
    client.sends(get("/a"))
    admin.post("/api/resume")
    admin.post("/api/circuit", "mode=open")
    client.sends(get("/a"))
    counters = proxy.services.counters
    gets, others = answers_to_gets(counters), answers_to_others(counters)
    assert gets == (1, 3, 0, 0, 0)
    assert others == (1, 0, 0, 1, 0)
    assert gets.plus(others)[:4] == totals(counters)
    assert spared(counters) == 2, "an operator's word is not the application's failure"


def test_refusals_are_told_apart_by_method() -> None:
    with admin_of(max_in_flight=1, queue_max=0, write_wait_s=0) as admin:
        proxy = admin.proxy
        proxy.client(get("/slow"))
        refused = proxy.client(get("/b"))
        assert b" 503 " in refused.received()
        counters = proxy.services.counters
        assert answers_to_gets(counters).refused == 1
        assert answers_to_gets(counters)[:4] == totals(counters)


# Incidents


def test_an_incident_ends_when_all_has_been_well_for_a_while(admin: FakeAdmin) -> None:
    proxy = admin.proxy
    ended: list[Any] = []
    admin.admin.watch.on_incident_over.append(ended.append)
    proxy.auto_accept = False
    client = proxy.client(get())
    proxy.refuse()
    proxy.advance(5.0)
    proxy.auto_accept = True
    client.sends(get())
    proxy.upstream.sends(reply())
    proxy.advance(20.0)
    (incident,) = admin.ask("/api/incidents").json["incidents"]
    assert incident["ended"] is None and not ended
    proxy.advance(40.0)
    (incident,) = admin.ask("/api/incidents").json["incidents"]
    assert incident["ended"] == pytest.approx(incident["began"] + incident["lasted_s"], abs=0.1)
    assert incident["cause"].startswith("Nothing answers at ")
    assert (incident["gets"]["failed"], incident["spared"]) == (1, 0)
    assert len(ended) == 1
    assert admin.state()["incidents"] == [incident]


@pytest.mark.parametrize("number", ["7", "-1", "x", "9" * 5000])
def test_an_incident_that_does_not_exist_is_not_found(admin: FakeAdmin, number: str) -> None:
    assert admin.ask(f"/api/incidents?number={number}").status == 404


def test_history_is_kept_in_three_steps(admin: FakeAdmin) -> None:
    assert admin.ask("/api/history?span=year").status == 400
    proxy = admin.proxy
    client = proxy.client(get())
    proxy.upstream.sends(reply())
    proxy.advance(16 * 60.0)
    del client
    hour, day, month = (
        admin.ask(f"/api/history?span={span}").json for span in ("hour", "day", "month")
    )
    assert (hour["step_s"], len(hour["fresh"])) == (1, 960)
    assert (day["step_s"], len(day["fresh"])) == (60, 16)
    assert (month["step_s"], len(month["fresh"])) == (900, 1)
    assert day["fresh"][0] == pytest.approx(1 / 60, abs=0.01)
    assert month["state"] == ["CLOSED"]


def test_a_circuit_that_is_open_for_less_than_a_second_is_in_the_history(admin: FakeAdmin) -> None:
    admin.proxy.advance(60.0)
    admin.post("/api/circuit", "mode=open&seconds=30")
    admin.post("/api/circuit", "mode=closed&seconds=30")
    admin.proxy.advance(60.0)
    hour, day = (admin.ask(f"/api/history?span={span}").json["state"] for span in ("hour", "day"))
    assert (hour.count("OPEN"), hour[-1]) == (1, "CLOSED")
    assert day == ["CLOSED", "OPEN"]


# RETTER's own house


def count_up(admin: FakeAdmin, what: str) -> None:
    services = admin.proxy.services
    counters = services.counters
    if what == "log lost":
        counters.access_lines_dropped += 3
    elif what == "no room":
        counters.connections_refused += 2
    elif what == "no descriptors":
        services.clients.descriptors_max = 1
        admin.proxy.client()
        counters.connections_evicted += 1
    elif what == "no memory":
        counters.memory_errors += 1
    elif what == "late":
        admin.proxy.proxy.ticker.loop_lag_s = 0.3
    elif what == "store full":
        shelves: Any = services.store.shelves
        shelves.evicted_budget += 5
        shelves.bytes_used = services.settings.store_memory_bytes


@pytest.mark.parametrize(
    "what", ["log lost", "no room", "no descriptors", "no memory", "late", "store full"]
)
def test_what_retter_lacks_is_told_for_ten_seconds(admin: FakeAdmin, what: str) -> None:
    count_up(admin, what)
    assert situation(admin)["row"] == what
    admin.proxy.services.clients.descriptors_max = 0
    admin.proxy.advance(10 + CALMER_S + 2)
    assert situation(admin)["row"] != what


class Disk:
    """As much of a store on disk as the situation follows from."""

    def __init__(self) -> None:
        self.figures = ShelfFigures()
        self.trouble = self.set_aside = ""

    def stats(self) -> dict[str, Any]:
        return {}


def test_what_becomes_of_the_store_on_disk_is_told(admin: FakeAdmin) -> None:
    services: Any = admin.proxy.services
    disk = services.disk = Disk()
    disk.set_aside = "its head is damaged"
    assert situation(admin)["now"].endswith("set aside: its head is damaged.")
    disk.figures.commit_failures, disk.figures.last_failure = 1, "no space left on device"
    assert situation(admin)["now"] == "The store on disk is not written: no space left on device."
    disk.trouble = "the map cannot be read"
    found = situation(admin)
    assert found["now"] == "The store on disk is not written: the map cannot be read."
    assert found["also"] == ["The store on disk was broken and was set aside: its head is damaged."]
    services.disk = None


def test_without_a_descriptor_nobody_is_named_as_the_heaviest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What tells of it is read when it is needed first: when RETTER may have no descriptor left."""
    with admin_of() as admin:
        without_descriptors(monkeypatch, "retter.admin.turns")
        assert admin.admin.watch._heaviest(admin.proxy.loop.now, State.LIMITING) is None
