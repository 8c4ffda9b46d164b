"""Several boxes in front of one application, each a whole proxy without a socket."""

import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from retter.base.shared_memory import bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.breaker import Mode, State
from retter.config.settings import ConfigError, Settings
from retter.disk.news import News
from retter.far.siblings import Siblings
from retter.proxy import sharing
from retter.proxy.sharing import far_keys, tell_circuit, tell_pause, tell_resume
from retter.store.packed_removals import packed_removals, unpacked_removals
from retter.store.write_behind import Purge, Removals
from tests.support.disk import Clock, Later, open_at
from tests.support.far import SECRET, FakeServer, Timers, shelf_of
from tests.support.harness import FakeLoop, FakePeer, FakeProxy, field, get, reply, status_of

COOKIE = {"Cookie": "PHPSESSID=alice-0123456789abcdef"}


class LoopClock(Clock):
    """Shows the time of a loop."""

    def __init__(self, loop: FakeLoop) -> None:
        super().__init__()
        self.loop = loop

    @property
    def now(self) -> float:
        return self.loop.now

    @now.setter
    def now(self, _: float) -> None:
        pass


class Boxes:
    """Some boxes at one server, with one clock."""

    def __init__(self, count: int = 2, **settings: Any) -> None:
        self.loop = FakeLoop()
        self.clock = LoopClock(self.loop)
        self.server = FakeServer(self.clock)
        self.reader = Later()
        self.settings = settings
        self.proxies: list[FakeProxy] = []
        for _ in range(count):
            self.add()
        self.pass_time(2.0)

    def add(self, **how: Any) -> FakeProxy:
        disk = how.pop("disk", None)
        far = shelf_of(
            self.server, self.clock, "", reader=self.reader, call_later=Timers().call_later
        )
        proxy = FakeProxy(disk=disk, own_loop=self.loop, far=far, **self.settings)
        self.proxies.append(proxy)
        return proxy

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.loop.now += 0.05
            for proxy in self.proxies:
                proxy.proxy.ticker.tick(self.loop.now)
                proxy.settle()

    def look(self) -> None:
        """Let all reads be done."""
        while self.reader.work():
            pass


@pytest.fixture
def boxes() -> Iterator[Boxes]:
    made = Boxes(session_cookies=("PHPSESSID",))
    yield made
    for proxy in made.proxies:
        assert not proxy.loop.reported


def store(boxes: Boxes, body: bytes = b"a page", **fields: str) -> None:
    """Let the first box store a page."""
    proxy = boxes.proxies[0]
    client = proxy.client(get("/", headers=fields))
    proxy.upstream.sends(reply(body))
    assert client.received().endswith(body)
    boxes.pass_time(0.5)
    boxes.look()


def refused(proxy: FakeProxy, **fields: str) -> FakePeer:
    """Ask for the page while the application refuses connections."""
    proxy.auto_accept = False
    client = proxy.client(get("/", headers=fields))
    if proxy.dialled:
        proxy.refuse()
    return client


def test_a_healthy_request_never_asks_the_other_boxes(boxes: Boxes) -> None:
    store(boxes)
    one, other = boxes.proxies
    for proxy in (one, other):
        trips = boxes.server.trips
        client = proxy.client(get("/new"))
        proxy.upstream.sends(reply(b"new"))
        assert client.received().endswith(b"new")
        assert boxes.server.trips == trips and boxes.reader.work() == 0
        assert proxy.services.far is not None and proxy.services.far.reads.reads == 0


def test_the_second_box_answers_with_what_the_first_has_stored(boxes: Boxes) -> None:
    store(boxes)
    other = boxes.proxies[1]
    client = refused(other)
    assert client.received() == b"", "the read is under way, and the connection is tried again"
    boxes.look()
    answer = client.received()
    assert answer.endswith(b"a page") and field(answer, "X-Retter") == "cache"
    reads = boxes.server.trips
    assert refused(other).received().endswith(b"a page"), "from its own memory now"
    assert boxes.server.trips == reads
    other.assert_at_rest()


def test_everybody_gets_their_own_page_at_the_second_box(boxes: Boxes) -> None:
    store(boxes, b"alice's", **COOKIE)
    other = boxes.proxies[1]
    stranger = refused(other, Cookie="PHPSESSID=bob-0123456789abcdef")
    alice = refused(other, **COOKIE)
    boxes.look()
    assert alice.received().endswith(b"alice's")
    assert b"alice" not in stranger.received()


def test_who_finds_nothing_there_waits_for_a_restart_as_ever(boxes: Boxes) -> None:
    other = boxes.proxies[1]
    client = refused(other)
    boxes.look()
    assert client.received() == b"" and other.services.pool.held == 1
    client.resets()
    other.assert_at_rest()


def test_a_connection_that_breaks_is_answered_from_there(boxes: Boxes) -> None:
    store(boxes)
    other = boxes.proxies[1]
    client = other.client(get("/"))
    other.upstream.sends(b"HTTP/1.1 nonsense\r\n\r\n")
    assert client.received() == b""
    boxes.look()
    assert client.received().endswith(b"a page")
    missing = other.client(get("/missing"))
    other.upstream.sends(b"HTTP/1.1 nonsense\r\n\r\n")
    boxes.look()
    assert status_of(missing.received()) == 502
    other.assert_at_rest()


def test_a_client_that_left_meanwhile_is_no_problem(boxes: Boxes) -> None:
    store(boxes)
    other = boxes.proxies[1]
    client = other.client(get("/"))
    other.upstream.sends(b"HTTP/1.1 nonsense\r\n\r\n")
    client.resets()
    boxes.look()
    other.assert_at_rest()


def test_while_the_circuit_is_open_each_missing_page_is_looked_for_once(boxes: Boxes) -> None:
    store(boxes)
    other = boxes.proxies[1]
    other.services.breaker.circuit.set_mode(boxes.loop.now, Mode.OPEN)
    first, second = other.client(get("/")), other.client(get("/"))
    missing = other.client(get("/missing"))
    assert first.received() == missing.received() == b""
    boxes.look()
    assert first.received().endswith(b"a page") and second.received().endswith(b"a page")
    other.upstream.sends(reply(b"forwarded"))
    assert missing.received().endswith(b"forwarded"), "there is room for it"
    reads = other.services.far.reads.reads if other.services.far is not None else 0
    other.client(get("/missing?2"))
    boxes.look()
    other.client(get("/missing?2"))
    assert other.services.far is not None and other.services.far.reads.reads == reads + 1


def test_a_page_for_which_there_is_no_room_is_not_read_again_and_again(boxes: Boxes) -> None:
    store(boxes, b"x" * 100_000)
    other = boxes.proxies[1]
    other.services.store.shelves.resize(50_000, 6_000)
    boxes.pass_time(0.1)
    other.services.breaker.circuit.set_mode(boxes.loop.now, Mode.OPEN)
    client = other.client(get("/"))
    for _ in range(5):
        boxes.look()
    other.upstream.sends(reply(b"forwarded"))
    assert client.received().endswith(b"forwarded")


# -- changes and orders


def test_a_form_at_one_box_supersedes_the_page_at_the_other(boxes: Boxes) -> None:
    store(boxes)
    one, other = boxes.proxies
    client = refused(other)
    boxes.look()
    assert client.received().endswith(b"a page")
    form = b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1\r\n\r\nx"
    one.client(form)
    one.upstream.sends(reply(b"done"))
    boxes.pass_time(1.0)
    (slot,) = other.services.store.shelves.slots.values()
    assert slot[0][8], "it is marked as superseded"


def test_orders_of_an_operator_hold_at_all_boxes(boxes: Boxes) -> None:
    one, other = [proxy.services for proxy in boxes.proxies]
    tell_circuit(one, Mode.OPEN, 60.0)
    boxes.pass_time(0.5)
    circuit = other.breaker.circuit
    assert circuit.mode is Mode.OPEN and circuit.state is State.OPEN
    assert circuit.forced_until == pytest.approx(boxes.loop.now + 60.0, abs=1.0)
    tell_circuit(one, Mode.AUTO, 600.0)
    boxes.pass_time(0.5)
    assert other.breaker.circuit.mode is Mode.AUTO
    tell_pause(one, 30.0)
    boxes.pass_time(0.5)
    assert circuit.paused_until == pytest.approx(boxes.loop.now + 30.0, abs=1.0)
    late = boxes.add().services
    boxes.pass_time(0.5)
    assert late.breaker.circuit.paused_until is not None, "a box that begins later pauses too"
    tell_resume(one)
    boxes.pass_time(0.5)
    assert circuit.paused_until is None and late.breaker.circuit.paused_until is None
    assert late.breaker.circuit.mode is Mode.AUTO


def test_a_box_that_begins_obeys_no_order_that_was_replaced(boxes: Boxes) -> None:
    one = boxes.proxies[0].services
    tell_circuit(one, Mode.OPEN, 60.0)
    boxes.pass_time(0.5)
    tell_circuit(one, Mode.AUTO, 600.0)
    boxes.pass_time(0.5)
    late = boxes.add().services.breaker.circuit
    boxes.pass_time(0.5)
    assert (late.mode, late.counts.transitions) == (Mode.AUTO, 0), "not held open for a moment"
    tell_circuit(one, Mode.OPEN, 600.0)
    boxes.pass_time(0.5)
    tell_circuit(one, Mode.CLOSED, 2.0)
    boxes.pass_time(3.0)
    later = boxes.add().services.breaker.circuit
    boxes.pass_time(0.5)
    assert later.mode is Mode.AUTO, "as the others, since the last order is over"


def test_an_order_that_nobody_understands_or_that_is_over_changes_nothing(boxes: Boxes) -> None:
    one, other = [proxy.services for proxy in boxes.proxies]
    assert one.far is not None
    soon = one.far.wall() + 60.0
    for order in (
        {"order": "dance", "until": soon},
        {"order": "circuit", "mode": "sideways", "until": soon},
        {"order": "pause"},
        {"order": "pause", "until": one.far.wall() - 1.0},
        {"order": "resume", "until": soon},
    ):
        one.far.tell_order(order)
        boxes.pass_time(0.5)
    circuit = other.breaker.circuit
    assert circuit.mode is Mode.AUTO and circuit.paused_until is None


def test_without_other_boxes_nothing_is_told() -> None:
    proxy = FakeProxy()
    tell_pause(proxy.services, 30.0)
    tell_resume(proxy.services)


def test_what_the_application_calls_a_session_is_known_at_all_boxes(boxes: Boxes) -> None:
    one, other = [proxy.services for proxy in boxes.proxies]
    one.owner_rules.seen.learn_name(b"shop_sid")
    boxes.pass_time(2.0)
    assert other.owner_rules.seen.names == {b"shop_sid"}


# -- the breaker's part


def test_each_box_uses_its_part_of_the_application() -> None:
    boxes = Boxes(2, max_in_flight=10, limit_start=9)
    one = boxes.proxies[0].services.breaker.circuit
    assert (one.settings.max_in_flight, one.settings.limit_start) == (5, 4)
    assert one.limit.limit_start == 4
    assert one.full_at == 5
    for _ in range(2):
        boxes.add()
    boxes.pass_time(2.5)
    assert one.settings.max_in_flight == 2
    boxes.server.trouble = "away"
    boxes.pass_time(30.0)
    assert one.settings.max_in_flight == 2, "it does not take more because nobody is heard"
    boxes.server.trouble = ""
    boxes.proxies = boxes.proxies[:1]
    boxes.pass_time(10.0)
    assert one.settings.max_in_flight == 10
    assert one.full_at == inf


def test_without_a_limit_there_is_none_for_each_box_and_a_part_is_never_nothing() -> None:
    made = Boxes(3, limit_start=2)
    settings = made.proxies[0].services.breaker.circuit.settings
    assert (settings.max_in_flight, settings.limit_start) == (0, 1)
    assert made.proxies[0].services.breaker.circuit.full_at == inf
    made.proxies[0].proxy.apply(Settings(upstream="127.0.0.1:8080", max_in_flight=2))
    assert made.proxies[0].services.breaker.circuit.settings.max_in_flight == 1


# -- rules, disk, the end


def test_a_reload_with_other_rules_separates_what_boxes_share(boxes: Boxes) -> None:
    store(boxes)
    other = boxes.proxies[1]
    other.proxy.apply(Settings(upstream="127.0.0.1:8080", ignore_cookies=("theme",)))
    client = refused(other)
    boxes.look()
    assert b"a page" not in client.received()


def test_beside_a_disk_it_is_noted_what_was_heard_and_what_could_not_be_told(
    tmp_path: Path,
) -> None:
    boxes = Boxes(1)
    disk = open_at(tmp_path / "store", boxes.clock)
    proxy = boxes.add(disk=disk)
    far = proxy.services.far
    assert far is not None
    boxes.proxies[0].services.store.invalidation.empty(boxes.loop.now)
    boxes.pass_time(12.0)
    assert far.heard.place.strip(b"\0"), "it has heard something"
    boxes.server.trouble = "away"
    proxy.services.store.invalidation.purge(url=b"/told/later", now=boxes.loop.now)
    boxes.pass_time(2.0)
    boxes.proxies.remove(proxy)
    proxy.proxy.close()
    boxes.server.trouble = ""
    again = boxes.add(disk=open_at(tmp_path / "store", boxes.clock))
    assert again.services.far is not None
    assert again.services.far.heard.place == far.heard.place
    heard = boxes.proxies[0].services.far
    assert heard is not None
    before = heard.stats()["changes_heard"]
    boxes.pass_time(3.0)
    assert heard.stats()["changes_heard"] == before + 1


def test_what_is_untold_stays_beside_the_disk_until_the_server_has_it(tmp_path: Path) -> None:
    """Also if the process is killed, which leaves no time to write it then."""
    boxes = Boxes(1)
    disk = open_at(tmp_path / "store", boxes.clock)
    proxy = boxes.add(disk=disk)
    boxes.pass_time(1.0)
    boxes.server.trouble = "away"
    proxy.services.store.invalidation.purge(url=b"/told/later", now=boxes.loop.now)
    boxes.pass_time(sharing.PLACE_EVERY_S + 1.0)
    untold = unpacked_removals(disk.read_file(sharing.UNTOLD, 1000))
    assert untold.purges == [Purge(b"/told/later", None, None)]
    # The process is killed, and the next one starts while the server is still away.
    boxes.proxies.remove(proxy)
    disk.close()
    disk = open_at(tmp_path / "store", boxes.clock)
    again = boxes.add(disk=disk)
    assert unpacked_removals(disk.read_file(sharing.UNTOLD, 1000)) == untold
    boxes.pass_time(sharing.PLACE_EVERY_S + 1.0)
    assert unpacked_removals(disk.read_file(sharing.UNTOLD, 1000)) == untold
    boxes.server.trouble = ""
    heard = boxes.proxies[0].services.far
    assert heard is not None and again.services.far is not None
    before = heard.stats()["changes_heard"]
    boxes.pass_time(sharing.PLACE_EVERY_S + 1.0)
    assert heard.stats()["changes_heard"] == before + 1
    assert disk.read_file(sharing.UNTOLD, 1000) == b""


def test_what_the_ring_of_a_worker_may_lose_is_noted_before(tmp_path: Path) -> None:
    """A crowd of changes while the server is away: if the worker is killed, nobody else has it."""
    boxes = Boxes(1)
    disk = open_at(tmp_path / "store", boxes.clock)
    proxy = boxes.add(disk=disk)
    boxes.pass_time(sharing.PLACE_EVERY_S + 1.0)
    shelf, shared = proxy.services.far, divided(memoryview(bytearray(bytes_for(2))), 2)
    assert shelf is not None
    news = News(shared, 0)
    shelf.join(Siblings(WorkerPlace(0, 2, 0, shared), news))
    boxes.server.trouble = "away"
    boxes.pass_time(sharing.PLACE_EVERY_S / 2)
    purge = Removals(purges=[Purge(b"/purged", None, None)])
    for removals in (purge, *[Removals(keys={bytes([n]) * 20_000}) for n in range(5)]):
        news.publish(removals)
        shelf.removed(removals)
    boxes.pass_time(1.5)
    untold = unpacked_removals(disk.read_file(sharing.UNTOLD, 1_000_000))
    assert untold.purges == purge.purges and len(untold.keys) == 5
    assert shared.noted[0] == news.position and shared.told[0] < news.position
    disk.close()


def test_what_workers_could_not_tell_that_are_no_more_the_first_one_tells(tmp_path: Path) -> None:
    """There were three, and now there is one."""
    boxes = Boxes(1)
    disk = open_at(tmp_path / "store", boxes.clock)
    for number, url in ((1, b"/one"), (2, b"/two")):
        untold = Removals(purges=[Purge(url, None, None)])
        disk.write_now(f"{sharing.UNTOLD}-{number}", packed_removals(untold))
    boxes.server.trouble = "away"
    boxes.add(disk=disk)
    own = unpacked_removals(disk.read_file(sharing.UNTOLD, 1000))
    assert {purge.url for purge in own.purges} == {b"/one", b"/two"}
    assert disk.read_file(f"{sharing.UNTOLD}-1", 1000) == b""
    boxes.server.trouble = ""
    boxes.pass_time(sharing.PLACE_EVERY_S + 1.0)
    heard = boxes.proxies[0].services.far
    assert heard is not None and heard.stats()["changes_heard"] == 1
    assert disk.read_file(sharing.UNTOLD, 1000) == b""


def test_the_secrets_of_all_boxes_are_the_same(boxes: Boxes) -> None:
    one, other = [proxy.services for proxy in boxes.proxies]
    assert one.owner_rules.secret == other.owner_rules.secret
    assert one.secrets.tickets == other.secrets.tickets
    assert one.secrets.clients != other.secrets.clients


# -- settings


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(None, "No such file"), ("", "0 characters"), ("short\n", "5 characters"), ("x" * 31, "31")],
)
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: str | None, wrong: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    settings = Settings(upstream=":1", shared="redis://cache", shared_secret=str(path))
    with pytest.raises(ConfigError, match=wrong):
        far_keys(settings)


def test_blanks_around_a_secret_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"  " + SECRET + b"\n")
    settings = Settings(
        upstream=":1", shared="redis://cache", shared_secret=str(tmp_path / "secret")
    )
    assert far_keys(settings).owner == shelf_of(FakeServer(Clock()), Clock(), "x").keys.owner


def test_without_a_secret_or_without_the_package_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(upstream=":1", shared="redis://cache")
    with pytest.raises(ConfigError, match="needs --shared-secret"):
        far_keys(settings)
    monkeypatch.setattr(sharing, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'retter\[shared\]'"):
        far_keys(settings)


@pytest.mark.parametrize("jump_s", [56 * 365 * 86_400.0, -3600.0])
def test_a_clock_that_is_set_changes_no_time_that_boxes_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """Before, the other boxes held the circuit open for 56 years, if the order came just then."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    settings = Settings(upstream=":1", shared="redis://cache", shared_secret=str(path))
    real, set_by_s = time.time, [0.0]
    monkeypatch.setattr("time.time", lambda: real() + set_by_s[0])
    shelf = sharing.open_far(settings, FakeLoop())  # type: ignore[arg-type]
    assert shelf.wall() == pytest.approx(real(), abs=10.0)
    set_by_s[0] = jump_s
    assert shelf.wall() == pytest.approx(real(), abs=10.0)
    shelf.close()
