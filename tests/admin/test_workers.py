"""The figures of several workers: one of them answers for the whole."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse

from retter.admin import worker_figures
from retter.admin.whole import plus, points_plus
from retter.admin.worker_figures import PRESENT_S, Board
from retter.admin.workers import tell_figures
from retter.base.shared_memory import SharedMemory, bytes_for, divided
from retter.base.worker_place import WorkerPlace
from tests.support.admin import FakeAdmin, admin_of, visit
from tests.support.harness import get, reply


class Workers:
    """Two workers; the first one has the admin listener."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.shared = divided(memoryview(bytearray(bytes_for(2))), 2)
        self.first = self.start(0)
        self.second = self.start(1)

    def start(self, index: int) -> FakeAdmin:
        admin = self.stack.enter_context(admin_of(place=WorkerPlace(index, 2, index, self.shared)))
        proxy = admin.proxy.proxy
        api = admin.admin.api if index == 0 else None
        tell_figures(proxy, admin.admin.watch, admin.admin.transitions, leads=index == 0, api=api)
        return admin

    def second_passes(self) -> None:
        for one in (self.second, self.first):
            one.proxy.advance(1.0)

    def ask(self, worker: FakeAdmin, times: int) -> None:
        client = worker.proxy.client()
        for _ in range(times):
            client.sends(get("/a"))
            worker.proxy.upstream.sends(reply())
        client.resets()

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        answer = self.first.ask("/metrics")
        assert answer.status == 200, answer.body
        text = answer.body.decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse(text)
            for sample in family.samples
        }


@pytest.fixture
def workers() -> Iterator[Workers]:
    with ExitStack() as stack:
        yield Workers(stack)


def test_what_all_have_counted_is_added(workers: Workers) -> None:
    workers.ask(workers.first, 2)
    workers.ask(workers.second, 3)
    workers.second_passes()
    state = workers.first.state()
    assert state["totals"]["requests"] == 5 and state["minute"]["gets"]["fresh"] == 5
    assert state["latency_ms"]["p50"] is not None
    found = workers.metrics()
    assert sum([v for (name, _), v in found.items() if name == "retter_requests_total"]) == 5
    assert found["retter_upstream_response_seconds_count", ()] == 5


def test_each_worker_is_named_where_that_helps(workers: Workers) -> None:
    workers.second_passes()
    state = workers.first.state()
    assert [one["worker"] for one in state["workers"]] == [0, 1]
    assert state["memory"]["rss_bytes"] > state["workers"][0]["memory"]["rss_bytes"] > 0
    found = workers.metrics()
    assert found["retter_workers", ()] == 2
    for name in ("retter_worker_loop_lag_seconds", "retter_worker_resident_memory_bytes"):
        assert {labels for known, labels in found if known == name} == {
            (("worker", "0"),),
            (("worker", "1"),),
        }


def test_each_worker_is_told_by_itself(workers: Workers) -> None:
    workers.ask(workers.second, 15)
    waits = workers.second.proxy.client(get("/slow"))
    workers.second_passes()
    first, second = workers.first.state()["workers"]
    assert (first["leads"], second["leads"]) == (True, False)
    assert (first["requests_rate"], second["requests_rate"]) == (0, 16)
    assert (first["in_flight"], second["in_flight"]) == (0, 1)
    assert abs(first["since"] - time.time()) < 3600 and (first["restarts"] == 0)
    for _ in range(9):
        workers.second_passes()
    assert workers.first.state()["workers"][1]["requests_rate"] == 1.6
    workers.second_passes()
    assert workers.first.state()["workers"][1]["requests_rate"] == 0
    waits.resets()


def test_a_restart_is_counted_also_in_the_first_second_and_not_that_of_another_supervisor(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = workers.first.state()["workers"][1]["since"]
    for _ in range(2):
        workers.second = workers.start(1)
    second = workers.first.state()["workers"][1]
    assert second["restarts"] == 2 and second["since"] >= began
    monkeypatch.setattr("os.getppid", lambda: 4242)
    workers.second = workers.start(1)
    assert workers.first.state()["workers"][1]["restarts"] == 0


def test_amounts_are_those_of_the_workers_that_live(workers: Workers) -> None:
    client = workers.second.proxy.client()
    workers.second_passes()
    assert workers.metrics()["retter_connections", ()] == 1
    assert workers.first.state()["connections"] == 1
    client.resets()
    workers.first.proxy.advance(PRESENT_S + 1)  # the second one is dead
    assert workers.metrics()["retter_connections", ()] == 0
    assert workers.metrics()["retter_workers", ()] == 1


def test_no_sum_falls_when_a_worker_is_replaced(workers: Workers) -> None:
    workers.ask(workers.second, 3)
    workers.second_passes()
    workers.second = workers.start(1)
    workers.ask(workers.second, 1)
    workers.second.proxy.advance(workers.first.proxy.loop.now - workers.second.proxy.loop.now)
    workers.second_passes()
    assert workers.first.state()["totals"]["requests"] == 4
    found = workers.metrics()
    assert sum([v for (name, _), v in found.items() if name == "retter_requests_total"]) == 4


def test_no_sum_falls_when_the_first_worker_is_replaced_right_after_it_was_asked(
    workers: Workers,
) -> None:
    workers.second_passes()
    workers.ask(workers.first, 3)
    before = workers.metrics()
    workers.first = workers.start(0)
    after = workers.metrics()
    names = [key for key in before if key[0] == "retter_requests_total"]
    assert sum([before[key] for key in names]) == 3
    assert [after[key] for key in names] == [before[key] for key in names]


def test_the_first_worker_begins_with_the_sum_and_not_with_a_peak(workers: Workers) -> None:
    workers.ask(workers.second, 30)
    workers.second_passes()
    workers.first = workers.start(0)
    assert workers.first.state()["rates"]["fresh"] == 0


# -- what keeps all of them busy


def test_the_slowest_routes_and_the_busiest_pages_are_those_of_all(workers: Workers) -> None:
    visit(workers.first, "/both/1")
    for worker, path in ((workers.second, "/both/1"), (workers.second, "/there/1")):
        visit(worker, path)
    waits = [
        worker.proxy.client(get(path))
        for worker, path in (
            (workers.first, "/both/1"),
            (workers.second, "/both/1"),
            (workers.second, "/there/1"),
        )
    ]
    workers.second_passes()
    workers.second_passes()
    state = workers.first.state()
    assert {one["route"]: one["requests"] for one in state["routes"]} == {
        "GET /both/*": 2,
        "GET /there/*": 1,
    }
    places = {one["url"].removeprefix("shop.example"): one for one in state["busiest"]}
    assert {name: one["places"] for name, one in places.items()} == {"/both/1": 2, "/there/1": 1}
    assert places["/there/1"]["share"] == 0.333
    for client in waits:
        client.resets()
    workers.first.proxy.advance(PRESENT_S + 1)  # the second one is dead
    assert [one["route"] for one in workers.first.state()["routes"]] == ["GET /both/*"]


def test_lanes_and_the_heaviest_clients_are_those_of_all(workers: Workers) -> None:
    for worker in (workers.first, workers.second):
        worker.post("/api/circuit", "mode=open&seconds=60")
    bot = {"User-Agent": "GPTBot/1.2"}
    for worker, number, headers in (
        (workers.first, 1, {}),
        (workers.second, 2, {}),
        (workers.second, 3, bot),
    ):
        client = worker.proxy.client(
            get(f"/new/{number}", headers=headers), (f"192.0.2.{number}", 4000)
        )
        client.resets()
    workers.second_passes()
    workers.second_passes()
    turns = workers.first.state()["turns"]
    assert sum([lane["requests"] for lane in turns["lanes"].values()]) == 3
    assert sorted([one["client"] for one in turns["heaviest"]]) == ["", "", "gptbot"]
    workers.first.proxy.advance(PRESENT_S + 1)  # the second one is dead
    turns = workers.first.state()["turns"]
    assert sum([lane["requests"] for lane in turns["lanes"].values()]) == 3, "no sum falls"
    assert [one["client"] for one in turns["heaviest"]] == [""]


# -- the board


def board_of(place: int, shared: SharedMemory) -> Board:
    return Board(shared, place)


def test_figures_that_are_half_written_are_those_of_before() -> None:
    shared = divided(memoryview(bytearray(bytes_for(1))), 1)
    writer, reader = board_of(0, shared), board_of(1, shared)
    assert reader.others() == {}
    assert writer.write({"at": 1.0})
    assert reader.others() == {0: {"at": 1.0}}
    writer.write({"at": 2.0})
    shared.figures[0][20] ^= 1
    assert reader.others() == {0: {"at": 1.0}}
    shared.figures[0][20] ^= 1
    assert reader.others() == {0: {"at": 2.0}}
    assert reader.present(2.0 + PRESENT_S) == {}


def test_a_worker_that_is_killed_while_it_writes_leaves_the_figures_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = divided(memoryview(bytearray(bytes_for(1))), 1)
    writer = board_of(0, shared)
    for at in (1.0, 2.0, 3.0):
        writer.write({"at": at})

    class Killed(Exception):
        pass

    class Head:
        """The head is written last: the worker is killed before that."""

        size, unpack_from = worker_figures._head.size, worker_figures._head.unpack_from

        @staticmethod
        def pack_into(*_: object) -> None:
            raise Killed

    monkeypatch.setattr(worker_figures, "_head", Head)
    with pytest.raises(Killed):
        writer.write({"at": 4.0})
    monkeypatch.undo()
    following = board_of(0, shared)
    assert following.before == {"at": 3.0}
    following.write({"at": 5.0})
    assert board_of(1, shared).others() == {0: {"at": 5.0}}


def test_figures_that_are_too_large_are_not_written() -> None:
    shared = divided(memoryview(bytearray(bytes_for(1))), 1)
    writer = board_of(0, shared)
    assert not writer.write({"at": 1.0, "much": "x" * shared.figures[0].nbytes})
    assert board_of(1, shared).others() == {}


numbers = st.integers(0, 1000)
nested: Any = st.recursive(
    numbers,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner)
    ),
    max_leaves=8,
)


@given(nested)
def test_twice_the_same_is_the_double(value: Any) -> None:
    def doubled(one: Any) -> Any:
        if isinstance(one, dict):
            return {name: doubled(inner) for name, inner in one.items()}
        return [doubled(inner) for inner in one] if isinstance(one, list) else 2 * one

    assert plus(value, value) == doubled(value)


def test_what_one_alone_has_is_kept() -> None:
    assert plus({"a": 1, "c": "x"}, {"b": 2, "c": "y"}) == {"a": 1, "b": 2, "c": "x"}
    labels = (("a", "1"),)
    told = [["n", [["a", "1"]], 2], ["m", [], 1]]
    assert points_plus([("n", labels, 1.0)], told) == [("n", labels, 3.0), ("m", (), 1.0)]
