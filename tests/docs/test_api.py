"""The table of the state's fields, against what the admin listener answers."""

import json
import re
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from docs.api import OTHERS, STATE, Field, others_schemas, state_schema
from retter.admin import api
from tests.support.admin import FakeAdmin, admin_of, visit
from tests.support.harness import get

CHECK = fastjsonschema.compile(state_schema())


def paths_in(value: Any, path: str = "") -> set[str]:
    """Return the paths of all leaves that a document has, as the table writes them."""
    if isinstance(value, dict):
        return {found for name, one in value.items() for found in paths_in(one, f"{path}.{name}")}
    if isinstance(value, list):
        return {found for one in value for found in paths_in(one, f"{path}[]")}
    return {path.removeprefix(".")}


def is_described(path: str, fields: tuple[Field, ...] = STATE) -> bool:
    return any(
        re.fullmatch(re.escape(one.path).replace(r"\*", "[^.]+") + r"(\[\])?(\..*)?", path)
        for one in fields
    )


def busy_document(admin: FakeAdmin) -> Any:
    """Return a state in which there is something of everything."""
    proxy = admin.proxy
    for number in range(30):
        visit(admin, f"/page/{number % 3}")
    clients = [proxy.client(get("/slow")) for _ in range(60)]
    for _ in range(12):
        proxy.advance(1.0)
    admin.post("/api/circuit", "mode=open&seconds=60")
    visit(admin, "/page/1")
    proxy.advance(1.0)
    document = admin.state()
    for client in clients:
        client.resets()
    return document


def test_a_fresh_start_and_a_busy_hour_have_the_fields_of_the_table() -> None:
    with admin_of() as admin:
        fresh = admin.state()
        busy = busy_document(admin)
        for document in (fresh, busy):
            CHECK(document)
            undescribed = sorted(path for path in paths_in(document) if not is_described(path))
            assert undescribed == []
        found = paths_in(busy)
        for name in ("incidents[].cause", "events[].words", "busiest[].url", "routes[].route"):
            assert name in found, "the busy hour has it"


def test_without_fairness_it_is_shorter_and_still_right() -> None:
    with admin_of(fairness="off") as admin:
        CHECK(admin.state())


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "7"},
        {"situation": {}},
        {"forced": 3},
        {"incidents": [{"number": 1}]},
        {"totals": {}},
        {"turns": {}},
    ],
)
def test_the_schema_tells_what_is_wrong(change: dict[str, Any]) -> None:
    with admin_of() as admin:
        document = json.loads(json.dumps(admin.state())) | change
    with pytest.raises(fastjsonschema.JsonSchemaException):
        CHECK(document)


# The other paths

ASKED: dict[str, list[str]] = {
    "GET /api/history": ["/api/history", "/api/history?span=hour", "/api/history?span=month"],
    "GET /api/incidents": ["/api/incidents"],
    "GET /api/incidents?number=N": ["/api/incidents?number=1"],
    "GET /api/stored": ["/api/stored", "/api/stored?search=none"],
    "GET /api/trips": ["/api/trips"],
    "POST /api/why": [
        "/api/why url=http://shop.example/page/1",
        "/api/why url=http://shop.example/new&cookie=PHPSESSID=0123456789abcdef0123&method=POST",
    ],
    "POST /api/why, of a request that is none": [
        "/api/why url=http://shop.example/&header=Transfer-Encoding: x",
    ],
    "POST /api/circuit": ["/api/circuit mode=open&seconds=9", "/api/circuit mode=auto"],
    "POST /api/purge": ["/api/purge all=true"],
    "POST /api/pause": ["/api/pause seconds=9"],
    "POST /api/resume": ["/api/resume "],
    "any error": ["/api/purge ", "/api/incidents?number=99", "/nothing"],
}


def answers(admin: FakeAdmin, questions: list[str]) -> list[Any]:
    found: list[Any] = []
    for question in questions:
        path, is_post, form = question.partition(" ")
        found.append((admin.post(path, form) if is_post else admin.ask(path)).json)
    return found


def test_every_path_answers_with_the_fields_of_its_table() -> None:
    assert list(ASKED) == list(OTHERS)
    schemas = others_schemas()
    with admin_of() as admin:
        busy_document(admin)
        for name, questions in ASKED.items():
            check = fastjsonschema.compile(schemas[name])
            for document in answers(admin, questions):
                check(document)
                undescribed = [
                    path for path in paths_in(document) if not is_described(path, OTHERS[name])
                ]
                assert sorted(undescribed) == [], name


def test_every_path_of_the_listener_has_a_table() -> None:
    source = Path(api.__file__).read_text()
    paths = set(re.findall(r'^ +"(/api/[a-z]+)": \{', source, re.MULTILINE))
    assert len(paths) > 10
    described = {name.split()[1].partition("?")[0].strip(",") for name in OTHERS if " /" in name}
    assert paths - described == {"/api/state", "/api/events"}, "these are the table above"
