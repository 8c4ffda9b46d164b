"""The list of stored pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retter.admin.stored import LOOKED_AT_MAX, ROWS_MAX, SKIP_MAX
from retter.base.worker_place import WorkerPlace
from tests.support.admin import FakeAdmin, admin_of, replies, request
from tests.support.disk_of_workers import Crew
from tests.support.harness import get, reply
from tests.support.heads import response_head
from tests.support.stores import ALICE, put
from tests.support.stores import request as request_for


def ask(admin: FakeAdmin, query: str = "") -> dict[str, Any]:
    answer = admin.ask(f"/api/stored?{query}")
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


def visit(admin: FakeAdmin, target: str, cookie: str = "", body: bytes = b"page") -> None:
    client = admin.proxy.client()
    client.sends(get(target, headers={"Cookie": cookie} if cookie else None))
    admin.proxy.upstream.sends(reply(body))
    client.resets()


def test_the_newest_stand_first_and_nobody_is_named() -> None:
    with admin_of() as admin:
        visit(admin, "/old")
        admin.proxy.advance(10)
        visit(admin, "/cart", "PHPSESSID=0123456789abcdef", b"my cart")
        found = ask(admin)
        cart, old = found["entries"]
        assert (cart["url"].endswith("/cart"), cart["owner"], cart["bytes"]) == (True, "private", 7)
        assert (old["url"].endswith("/old"), old["owner"], old["status"]) == (True, "everyone", 200)
        assert old["age_s"] >= 10
        assert (found["of"], found["looked_through"], found["next"]) == (2, 2, None)
        assert "0123456789abcdef" not in str(found)
        assert [one["owner"] for one in ask(admin, "owner=everyone")["entries"]] == ["everyone"]
        assert [one["owner"] for one in ask(admin, "owner=private")["entries"]] == ["private"]
        assert [one["url"][-4:] for one in ask(admin, "search=/ol")["entries"]] == ["/old"]
        assert ask(admin, "search=nothing")["entries"] == []


def test_one_request_looks_through_a_part_and_the_next_goes_on() -> None:
    with admin_of() as admin:
        client = admin.proxy.client()
        for number in range(ROWS_MAX + 5):
            client.sends(get(f"/{number}"))
            admin.proxy.upstream.sends(reply(b"%d" % number))
        first = ask(admin)
        assert (len(first["entries"]), first["next"]) == (ROWS_MAX, ROWS_MAX)
        second = ask(admin, f"skip={first['next']}")
        assert (len(second["entries"]), second["next"]) == (5, None)
        urls = {one["url"] for one in first["entries"] + second["entries"]}
        assert len(urls) == ROWS_MAX + 5
        assert ask(admin, f"skip={SKIP_MAX}")["entries"] == []
        slots = admin.proxy.services.store.shelves.slots
        for number in range(LOOKED_AT_MAX):  # more than one request looks at
            slots[b"*a/x%d" % number] = next(iter(slots.values()))
        assert ask(admin, "search=/54")["next"] == LOOKED_AT_MAX
        slots.clear()


def test_of_a_very_large_store_the_newest_are_looked_through() -> None:
    """To pass over keys takes time too, and all visitors wait meanwhile."""
    with admin_of() as admin:
        visit(admin, "/page")
        slots = admin.proxy.services.store.shelves.slots
        slot = next(iter(slots.values()))
        for number in range(SKIP_MAX + 2 * LOOKED_AT_MAX):
            slots[b"*a/x%d" % number] = slot
        looked = ask(admin, f"search=none&skip={SKIP_MAX}")
        assert looked["looked_through"] == SKIP_MAX + LOOKED_AT_MAX < looked["of"]
        assert looked["next"] is None, "there are more, and they are not asked for"
        assert ask(admin, f"search=none&skip={SKIP_MAX - LOOKED_AT_MAX}")["next"] == SKIP_MAX
        slots.clear()


@pytest.mark.parametrize(
    "query",
    ["skip=-1", "skip=x", f"skip={SKIP_MAX + 1}", "skip=99999999", "owner=me", "skip=%C2%B2"],
)
def test_wrong_questions(query: str) -> None:
    with admin_of() as admin:
        assert admin.ask(f"/api/stored?{query}").status == 400


# Several workers


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    made = Crew(tmp_path / "store", monkeypatch)
    yield made
    made.close()


def test_with_workers_it_lists_what_all_of_them_have(crew: Crew) -> None:
    first, second = crew.workers
    count = ROWS_MAX + 3
    for number in range(count):
        crew.clock.now += 1
        asked = request_for(target=b"/%d" % number)
        if number == 5:
            asked = request_for(ALICE, target=b"/%d" % number)
        worker = second if number % 2 else first
        assert put(worker.store, asked, response_head(), b"page", crew.clock.now)
    first.shelf.flush()
    crew.clock.now += 10
    with admin_of(place=WorkerPlace(0, 2, 0, crew.shared)) as admin:
        admin.proxy.services.disk = first.shelf

        def listed(query: str) -> dict[str, Any]:
            crew.beat()
            peer = admin.connect()
            peer.sends(request(f"/api/stored?{query}"))
            assert peer.received() == b"", "the other one has not told what it has"
            crew.tick()
            (answer,) = replies(peer.received())
            peer.resets()
            assert answer.status == 200
            found: dict[str, Any] = answer.json
            return found

        found = listed("")
        assert (found["of"], found["looked_through"], found["next"]) == (count, count, ROWS_MAX)
        assert [one["url"] for one in found["entries"]] == [
            f"a.b/{number}" for number in range(count - 1, 2, -1)
        ]
        assert found["entries"][0] == {
            "url": f"a.b/{count - 1}", "owner": "everyone", "status": 200,
            "age_s": pytest.approx(10, abs=0.5), "bytes": 4, "variants": 1,
            "superseded": False, "withdrawn": False,
        }  # fmt: skip
        assert found["complete"] is True
        rest = listed(f"skip={found['next']}")
        assert [one["url"] for one in rest["entries"]] == ["a.b/2", "a.b/1", "a.b/0"]
        assert rest["next"] is None
        own = listed("owner=private")
        assert [(one["url"], one["owner"]) for one in own["entries"]] == [("a.b/5", "private")]
        assert "alice" not in str(own)
        assert [one["url"] for one in listed("search=/51")["entries"]] == ["a.b/51"]
        assert listed("owner=everyone&search=/5&skip=50")["entries"] == []
        assert admin.ask("/api/stored?owner=me").status == 400
        admin.proxy.services.disk = None
