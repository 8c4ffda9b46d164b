"""The lanes and clients that operators see."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retter.admin.history import _sorted
from retter.admin.turns import heaviest_client
from retter.base.reason import Reason
from retter.breaker import Asker, Permit, Phase
from retter.breaker.baseline import Baseline
from retter.breaker.fairness import Fairness
from retter.breaker.permit import HEAVY, STRANGER
from retter.breaker.routes import RouteTable
from retter.control import words
from tests.support.admin import FakeAdmin, admin_of
from tests.support.harness import FakeProxy, get, reply

BOT = {"User-Agent": "GPTBot/1.2"}


@contextmanager
def crawled(**settings: Any) -> Iterator[tuple[FakeAdmin, FakeProxy]]:
    """Yield an admin listener, and a proxy with one place at which a crawler and others wait."""
    with admin_of(max_in_flight=1, **settings) as admin:
        proxy = admin.proxy
        proxy.client(get("/takes-the-place"), ("198.51.100.1", 1))
        proxy.client(get("/first"), ("198.51.100.2", 1))
        for number in range(8):
            proxy.client(get(f"/{number}", headers=BOT), ("203.0.113.5", number))
        proxy.client(get("/read"), ("192.0.2.7", 1))
        proxy.advance(0.1)
        yield admin, proxy


def test_the_state_has_lanes_and_the_heaviest_clients() -> None:
    """The document names the waiting requests by lane, and the crawler by its word."""
    with crawled() as (admin, proxy):
        turns = admin.state()["turns"]
        assert turns["mode"] == "on"
        assert turns["sorting"]
        assert turns["lanes"]["heavy"]["waiting"] >= 4
        assert turns["lanes"]["heavy"]["requests"] == 8
        first = turns["heaviest"][0]
        assert (first["client"], first["kind"], first["lane"]) == ("gptbot", "crawler", "heavy")
        assert first["demand"] > 0
        assert first["got"] == 0
        assert {row["lane"] for row in turns["heaviest"][1:]} == {"stranger"}
        assert {row["client"] for row in turns["heaviest"][1:]} == {""}, "visitors are not named"
        assert turns["fresh_share"] == {"visitors": 0.0, "heavy": 0.0}
        state = admin.state()
        rows = dict(words.rows(state, 0.0))
        assert "heavy wait" in rows["queue"]
        assert rows["most demand"].startswith("gptbot (")
        assert rows["fresh share"].startswith("0 % of visitors' requests, 0 % of")
        proxy.upstream.sends(reply(b"done"))


def test_in_good_times_nothing_is_shown() -> None:
    """Nobody is sorted, so nobody is named."""
    with admin_of() as admin:
        turns = admin.state()["turns"]
        assert not turns["sorting"]
        assert turns["heaviest"] == []
        assert "queue" not in dict(words.rows(admin.state(), 0.0))
    with admin_of(fairness="off") as admin:
        assert admin.state()["turns"] == {"mode": "off"}


def test_what_visitors_get_is_told_apart_from_what_a_crawler_gets() -> None:
    """Each of its requests that got a place, of those of the last ten seconds."""
    with crawled() as (admin, proxy):
        for _ in range(2):
            proxy.upstream.sends(reply(b"done"))
            proxy.advance(0.05)
        assert admin.state()["turns"]["lanes"]["stranger"]["places"] == 2
        assert admin.state()["turns"]["fresh_share"] == {"visitors": 1.0, "heavy": 0.0}


def test_who_grows_heavy_while_it_waits_is_a_visitor_no_more() -> None:
    """It counts with those in whose lane it is served, or not."""
    fairness = Fairness(b"secret", 0.0)
    permits = [permit_of(STRANGER) for _ in range(3)]
    for permit in permits:
        place = fairness.sort(Asker(1), 0.1, 0.0)
        permit.lane, permit.asker, permit.ticket, permit.since = place
        assert place.lane == STRANGER
    fairness.tick(0.0, 1.0, 0.01, enough=False)
    moved = [fairness.sort_again(permit, 0.0) for permit in permits]
    assert [place and place.lane for place in moved] == [HEAVY] * 3
    assert (fairness.asked, fairness.left) == ([0, 3, 3], [0, 3, 0])
    assert _sorted(fairness) == (0, 0, 3, 0)


def permit_of(lane: int) -> Permit:
    """Return one that waits in a lane."""
    route = RouteTable(0.0, Baseline()).get(b"GET /", 0.0)
    permit = Permit(Phase.QUEUED, Reason.ADMITTED, True, route, b"k", False, 0)
    permit.lane = lane
    return permit


def test_metrics_by_lane() -> None:
    """A label with three values."""
    pytest.importorskip("prometheus_client")
    with crawled() as (admin, _):
        families = text_string_to_metric_families(admin.ask("/metrics").body.decode())
        found = {
            (sample.name, sample.labels.get("lane")): sample.value
            for family in families
            for sample in family.samples
        }
        assert found["retter_lane_requests_total", "heavy"] == 8
        assert found["retter_lane_places_total", "heavy"] == 0
        assert found["retter_lane_waiting", "heavy"] == 8
        assert {lane for name, lane in found if name == "retter_lane_requests_total"} == {
            "known",
            "stranger",
            "heavy",
        }
        assert found["retter_clients_told_apart", None] >= 1


def test_why_says_the_lane_and_its_figures() -> None:
    """For an address, and for a crawler by its word."""
    with crawled() as (admin, _):
        url = "url=http://shop.example/new&client=192.0.2.99"
        turn = admin.post("/api/why", url).json["turn"]
        assert turn["fairness"] == "on"
        assert turn["lane"] == "stranger"
        assert turn["demand"] == 0
        turn = admin.post("/api/why", f"{url}&header=User-Agent: GPTBot/1").json["turn"]
        assert (turn["lane"], turn["crawler"]) == ("heavy", "gptbot")
        assert turn["heavy_above"] > 0
    with admin_of() as admin:
        assert admin.post("/api/why", url).json["turn"]["lane"] == "-"
    with admin_of(fairness="off") as admin:
        assert admin.post("/api/why", url).json["turn"] == {"fairness": "off"}


def test_the_access_log_has_the_lane(tmp_path: Any) -> None:
    """While somebody is sorted, and only then."""
    path = tmp_path / "access.log"
    with crawled(access_log=str(path)) as (_, proxy):
        proxy.advance(3.0)
        proxy.upstream.sends(reply(b"done"))
        proxy.advance(0.2)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    lanes = {line["target"]: line.get("lane") for line in lines}
    assert lanes["/7"] == "heavy"
    assert lanes["/read"] == "stranger"
    assert not any("retter_turn" in str(line) for line in lines)


def test_a_client_that_has_most_of_the_work_is_named_in_the_situation() -> None:
    """One that is alone is not: nobody else is there who could want a share."""
    with crawled() as (admin, proxy):
        fairness = proxy.services.breaker.circuit.fairness
        assert fairness is not None
        assert (
            heaviest_client(proxy.services, admin.admin.watch.history, proxy.loop.now) is not None
        )
        for _ in range(11):
            proxy.upstream.sends(reply(b"done"))
            proxy.advance(0.2)
        name, share = heaviest_client(
            proxy.services, admin.admin.watch.history, proxy.loop.now
        ) or ("", 0.0)
        assert name == "gptbot" and 0 < share <= 1
    with admin_of() as admin:
        assert heaviest_client(admin.proxy.services, admin.admin.watch.history, 0.0) is None
