"""The list of stored pages."""

from typing import Any

import pytest

from retter.admin.stored import LOOKED_AT_MAX, ROWS_MAX, SKIP_MAX
from tests.support.admin import FakeAdmin, admin_of
from tests.support.harness import get, reply


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
