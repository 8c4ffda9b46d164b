"""A proxy with a disk behind its store: what its clients see, and what is waited for."""

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from retter.breaker import Mode
from retter.config.settings import Settings
from retter.disk.hot_key import READS_PER_COPY
from retter.disk.opening import open_shelf
from retter.process.running import RunningProxy
from retter.proxy.lasting import may_be_kept, open_disk, written_rules
from retter.proxy.withdrawals import DOUBT_S
from retter.store.owner import OwnerRules
from retter.store.store import STEP_S
from tests.support.disk import EPOCH, Immediately, Later, disk_settings
from tests.support.harness import FakeProxy, body_of, field, get, reply, status_of

ALICE = {"Cookie": "PHPSESSID=alice-0123456789abcdef"}


# By proxy the thread that reads from its disk.
proxies: dict[FakeProxy, Later] = {}


class Site:
    """A folder, and one proxy after another on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader: Any = Later()
        self.proxy: FakeProxy | None = None
        self.later_s = 0.0

    def start(self, *, reader: Any = None, **settings: Any) -> FakeProxy:
        self.reader = reader or Later()
        made = disk_settings(self.path, connect_hold_s=0.0, **settings)
        clock: list[Any] = []
        shelf = open_shelf(
            made,
            self.reader,
            Immediately(),
            lambda: clock[0].now if clock else 1000.0,
            wall=lambda: EPOCH + self.later_s + (clock[0].now if clock else 1000.0),
        )
        proxy = self.proxy = FakeProxy(made, shelf)
        clock.append(proxy.loop)
        if reader is None:
            proxies[proxy] = self.reader
        return proxy

    def stop(self) -> None:
        assert self.proxy is not None
        self.proxy.proxy.close()
        self.later_s += 10.0
        self.proxy = None


@pytest.fixture
def site(tmp_path: Path) -> Any:
    site = Site(tmp_path / "store")
    yield site
    if site.proxy is not None:
        site.proxy.proxy.close()


def fetch(proxy: FakeProxy, path: str, body: str, headers: dict[str, str] | None = None) -> bytes:
    """Ask for a page that the application answers."""
    client = proxy.client(get(path, headers=headers))
    if proxy in proxies:
        proxies[proxy].work()
    proxy.upstream.sends(reply(body.encode()))
    return client.received()


def fetch_dead(proxy: FakeProxy, path: str, headers: dict[str, str] | None = None) -> bytes:
    """Ask for a page while nothing listens where the application was."""
    proxy.auto_accept = False
    client = proxy.client(get(path, headers=headers))
    if proxy in proxies:
        proxies[proxy].work()
    if proxy.dialled:
        proxy.refuse()
    return client.received()


def test_the_first_request_after_a_start_is_answered_with_the_application_dead(
    site: Site,
) -> None:
    proxy = site.start()
    fetch(proxy, "/page", "everyone's")
    fetch(proxy, "/mine", "of alice", ALICE)
    site.stop()
    proxy = site.start()
    answer = fetch_dead(proxy, "/page")
    assert (status_of(answer), body_of(answer)) == (200, b"everyone's")
    assert field(answer, "X-Retter") == "cache"
    assert int(field(answer, "Age") or 0) >= 10
    assert body_of(fetch_dead(proxy, "/mine", ALICE)) == b"of alice"
    assert status_of(fetch_dead(proxy, "/mine")) == 502
    assert status_of(fetch_dead(proxy, "/mine", {"Cookie": "PHPSESSID=bob-456789012345"})) == 502
    assert status_of(fetch_dead(proxy, "/never-stored")) == 502


def test_a_healthy_application_answers_itself_whatever_is_on_disk(site: Site) -> None:
    proxy = site.start()
    fetch(proxy, "/page", "old")
    site.stop()
    proxy = site.start()
    assert body_of(fetch(proxy, "/page", "new")) == b"new"
    site.stop()
    assert body_of(fetch_dead(site.start(), "/page")) == b"new"


def started_with_cold_page(site: Site) -> tuple[FakeProxy, Later]:
    """Store /cold, and start another process whose reads of the disk take until `work`."""
    fetch(site.start(), "/cold", "stored")
    site.stop()
    reader = Later()
    return site.start(reader=reader), reader


def test_a_request_waits_for_the_thread_and_nobody_else_does(site: Site) -> None:
    proxy, reader = started_with_cold_page(site)
    cold = proxy.client(get("/cold") + get("/cold"))
    assert (cold.received(), proxy.upstreams) == (b"", []), "nothing is decided yet"
    assert body_of(fetch(proxy, "/other", "of another")) == b"of another"
    proxy.upstream.resets()
    proxy.settle()
    proxy.auto_accept = False
    reader.work()
    proxy.refuse()
    answer = cold.received()
    assert (status_of(answer), body_of(answer)) == (200, b"stored")
    proxy.refuse()
    assert body_of(cold.received()) == b"stored", "and the next one on this connection, at once"


def test_a_client_that_leaves_while_the_disk_is_read_is_counted_and_gone(site: Site) -> None:
    proxy, reader = started_with_cold_page(site)
    client = proxy.client(get("/cold"))
    client.resets()
    reader.work()
    proxy.settle()
    assert proxy.services.counters.clients_gone == 1
    proxy.assert_at_rest()


def test_a_disk_that_does_not_answer_in_time_is_as_if_nothing_was_stored(site: Site) -> None:
    proxy, reader = started_with_cold_page(site)
    client = proxy.client(get("/cold"))
    assert proxy.upstreams == []
    proxy.advance(1.1)
    proxy.upstream.sends(reply(b"fresh"))
    assert body_of(client.received()) == b"fresh"
    reader.work()
    assert proxy.proxy.stats()["disk"]["reads_late"] == 1


def test_a_client_that_has_closed_its_side_gets_its_answer(site: Site) -> None:
    proxy, reader = started_with_cold_page(site)
    proxy.auto_accept = False
    client = proxy.client(get("/cold"))
    client.ends()
    reader.work()
    proxy.refuse()
    proxy.settle()
    assert body_of(client.received()) == b"stored"
    assert client.closed


def test_rules_that_tell_more_apart_empty_the_disk(site: Site) -> None:
    """A page that was public because a cookie did not count may be private now."""
    proxy = site.start(ignore_cookies=("theme",))
    fetch(proxy, "/page", "for one theme", {"Cookie": "theme=dark"})
    site.stop()
    proxy = site.start()
    assert status_of(fetch_dead(proxy, "/page")) == 502
    assert proxy.proxy.stats()["disk"]["entries"] == 0
    site.stop()
    assert status_of(fetch_dead(site.start(ignore_cookies=("theme",)), "/page")) == 502


def test_rules_that_tell_fewer_apart_keep_it(site: Site) -> None:
    proxy = site.start()
    fetch(proxy, "/page", "everyone's")
    site.stop()
    assert status_of(fetch_dead(site.start(ignore_cookies=("theme",)), "/page")) == 200


def test_a_successor_that_has_failed_leaves_the_rules_of_this_process(site: Site) -> None:
    """It notes its own before it serves. Else the next start would believe them."""
    proxy = site.start(ignore_cookies=("theme",))
    running = RunningProxy(proxy.proxy)
    disk = proxy.proxy.services.disk
    assert disk is not None
    disk.lend()
    disk._database.set_notes({"rules": written_rules(OwnerRules(secret=b"s" * 32), "all")})
    running.not_handed_over()
    fetch(proxy, "/page", "for one theme", {"Cookie": "theme=dark"})
    site.stop()
    assert status_of(fetch_dead(site.start(), "/page")) == 502


def test_a_process_without_a_store_gives_back_the_lock_of_the_one_before(tmp_path: Path) -> None:
    before = disk_settings(tmp_path)
    shelf = open_shelf(before, Immediately(), Immediately(), lambda: 1000.0)
    settings, fd = Settings(upstream="127.0.0.1:1"), os.dup(shelf.lock_fd)
    assert open_disk(settings, Mock(), lock_fd=fd) is None
    shelf.close()
    open_shelf(before, Immediately(), Immediately(), lambda: 1000.0).close()


def test_another_policy_empties_the_disk(site: Site) -> None:
    proxy = site.start()
    fetch(proxy, "/page", "stored")
    site.stop()
    assert status_of(fetch_dead(site.start(store_policy="rfc9111"), "/page")) == 502


@pytest.mark.parametrize("noted", [None, 7, {}, {"policy": "all"}, {"policy": "all", "vary_on": 3}])
def test_rules_that_are_not_understood_are_others(noted: object) -> None:
    rules = OwnerRules(secret=b"s" * 32)
    assert not may_be_kept(noted, rules, "all")
    assert may_be_kept(written_rules(rules, "all"), rules, "all")


def test_a_field_that_is_not_known_to_be_harmless_any_more_makes_others() -> None:
    rules = OwnerRules(secret=b"s" * 32)
    noted = written_rules(rules, "all")
    assert may_be_kept({**noted, "known_fields": noted["known_fields"][1:]}, rules, "all")
    assert not may_be_kept({**noted, "known_fields": [*noted["known_fields"], "x"]}, rules, "all")


def test_a_reload_that_tells_more_apart_empties_the_disk(site: Site) -> None:
    proxy = site.start(ignore_cookies=("theme",))
    fetch(proxy, "/page", "for one theme", {"Cookie": "theme=dark"})
    proxy.advance(6.0)
    proxy.proxy.apply(disk_settings(site.path, connect_hold_s=0.0))
    site.stop()
    proxy = site.start()
    assert proxy.proxy.stats()["disk"]["entries"] == 0


def test_a_smaller_max_stale_holds_at_once_for_what_is_on_disk(site: Site) -> None:
    proxy = site.start()
    fetch(proxy, "/page", "stored")
    site.stop()
    site.later_s += 100.0
    assert status_of(fetch_dead(site.start(max_stale_s=50.0, fresh_for_s=10.0), "/page")) == 502
    site.stop()
    assert site.start().proxy.stats()["disk"]["entries"] <= 1


def test_a_post_of_the_last_process_holds_in_the_next(site: Site) -> None:
    proxy = site.start()
    fetch(proxy, "/cart", "empty", ALICE)
    proxy.advance(6.0)
    client = proxy.client(
        b"POST /cart HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n"
        b"Cookie: PHPSESSID=alice-0123456789abcdef\r\n\r\n"
    )
    proxy.upstream.sends(reply(b"added"))
    assert status_of(client.received()) == 200
    site.stop()
    proxy = site.start()
    assert body_of(fetch_dead(proxy, "/cart", ALICE)) == b"empty", "where the application fails"
    identity = proxy.services.heads.parse(
        get("/cart", headers=ALICE), False, proxy.services.heads.request_memos[False, b"http"]
    ).identity
    head = proxy.services.heads.parse(
        get("/cart", headers=ALICE), False, proxy.services.heads.request_memos[False, b"http"]
    ).head
    assert proxy.services.store.find(identity, head, proxy.loop.now) is None, "not to spare it work"


def test_without_a_folder_there_is_no_disk() -> None:
    proxy = FakeProxy()
    assert proxy.services.disk is None and proxy.services.store.behind is None
    assert "disk" not in proxy.proxy.stats()


def test_what_was_learnt_comes_back_if_it_is_young(site: Site) -> None:
    proxy = site.start()
    login = get("/login", headers=ALICE)
    client = proxy.client(login)
    cookie = {"Set-Cookie": "PHPSESSID=alice-0123456789abcdef; path=/"}
    proxy.upstream.sends(reply(b"welcome", headers=cookie))
    assert client.received()
    fetch(proxy, "/mine", "of alice", ALICE)
    proxy.services.breaker.circuit.limit.peak_work_rate = 7.0
    rules = proxy.services.owner_rules
    mark = rules.mark(b"alice-0123456789abcdef")
    assert rules.seen.known.issued(9) == [mark]
    site.stop()
    proxy = site.start()
    assert proxy.services.breaker.circuit.limit.peak_work_rate == 7.0
    seen = proxy.services.owner_rules.seen
    assert seen.names == {b"PHPSESSID"}
    assert seen.known.issued(9) == [mark], "she is known, as before"
    site.stop()
    site.later_s += 3700.0
    proxy = site.start()
    assert proxy.services.breaker.circuit.limit.peak_work_rate == 0.0, (
        "it may have been changed since"
    )
    assert proxy.services.owner_rules.seen.names == {b"PHPSESSID"}, "this holds as the store does"


def test_a_worker_that_others_have_told_of_the_application_does_not_go_back_to_what_was_written(
    site: Site,
) -> None:
    proxy = site.start()
    fetch(proxy, "/page", "stored")
    limit = proxy.services.breaker.circuit.limit
    limit.peak_work_rate = 7.0
    proxy.advance(12.0)
    keeper = proxy.services.learnt
    assert keeper is not None
    limit.windows, limit.peak_work_rate = 1, 9.0
    assert keeper.restore(proxy.loop.now)
    assert limit.peak_work_rate == 9.0
    limit.windows = 0
    assert keeper.restore(proxy.loop.now)
    assert limit.peak_work_rate < 8.0


def test_it_is_written_every_ten_seconds_if_it_has_changed(site: Site) -> None:
    proxy = site.start()
    fetch(proxy, "/page", "stored")
    proxy.advance(12.0)
    file = site.path / "learnt"
    before = file.read_bytes()
    proxy.services.breaker.circuit.limit.peak_work_rate = 3.0
    proxy.advance(12.0)
    assert file.read_bytes() != before
    file.write_bytes(b"rotten")
    site.stop()
    (site.path / "learnt").write_bytes(b'{"at": 1, "names": [3]}')
    assert site.start().services.breaker.circuit.limit.peak_work_rate == 0.0


BROWSER = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Mode": "navigate", "Accept-Language": "fr"}


def test_while_the_application_starts_a_visitor_of_a_new_page_gets_one_that_comes_again(
    site: Site,
) -> None:
    """And the stored pages at once; programs get the error as ever."""
    proxy = site.start()
    fetch(proxy, "/page", "everyone's", BROWSER)
    site.stop()
    proxy = site.start()
    assert body_of(fetch_dead(proxy, "/page", BROWSER)) == b"everyone's"
    answer = fetch_dead(proxy, "/never-stored", BROWSER)
    assert status_of(answer) == 503
    assert field(answer, "Refresh") == field(answer, "Retry-After")
    assert 2 <= int(field(answer, "Refresh") or 0) <= 4
    assert field(answer, "Cache-Control") == "no-store"
    assert field(answer, "Cache-Status") == "retter; fwd=miss; detail=connect-refused"
    assert field(answer, "Set-Cookie") is None, "there is no line to stand in"
    assert "en train de redémarrer" in body_of(answer).decode()
    for other in ({}, {**BROWSER, "Accept": "application/json"}):
        assert status_of(fetch_dead(proxy, "/api", other)) == 502


def test_lineages_of_changing_sessions_come_back_and_lead_nowhere_else(site: Site) -> None:
    """Earlier responses are found again; those of an heir since then are for nobody else."""
    proxy = site.start()
    lineages = proxy.services.owner_rules.lineages
    lineages.begin(b"session", b"first", proxy.loop.now)
    lineages.inherit(b"first", b"second", proxy.loop.now)
    first = lineages.find(b"first")
    assert first is not None
    proxy.advance(70.0)
    second = lineages.find(b"second")  # after it was written: the process is killed now
    assert second is not None and second.lineage == first.lineage
    written = (site.path / "lineages").read_bytes()
    assert (site.path / "lineages").stat().st_mode & 0o777 == 0o600
    site.stop()
    (site.path / "lineages").write_bytes(written)
    again = site.start().services.owner_rules.lineages
    assert again.names == {b"session"}
    assert again.find(b"first") == first
    heir = again.find(b"second")
    assert heir is not None and heir.lineage != first.lineage
    assert heir.earlier == ((first.lineage, first.generation),)
    assert again.find(b"third") is None


@pytest.mark.parametrize("rotten", [b"", b"{}", b'{"at": 1, "names": [], "values": [[3]]}'])
def test_lineages_that_are_not_understood_are_none(site: Site, rotten: bytes) -> None:
    site.start()
    site.stop()
    (site.path / "lineages").write_bytes(rotten)
    assert len(site.start().services.owner_rules.lineages) == 0


def test_what_crawlers_asked_for_comes_back_and_no_address(site: Site) -> None:
    proxy = site.start()
    demand = proxy.services.breaker.circuit.fairness.demand  # type: ignore[union-attr]
    crawler, address = -12345, 1 << 40
    for client in (crawler, address):
        demand.note(client, 8.0, proxy.loop.now)
    demand.gave(crawler, 4.0, proxy.loop.now)
    demand.call(crawler, "examplebot")
    site.stop()
    assert str(address).encode() not in (site.path / "learnt").read_bytes()
    proxy = site.start()  # ten seconds later, which is its half-life
    demand, now = proxy.services.breaker.circuit.fairness.demand, proxy.loop.now  # type: ignore[union-attr]
    assert demand.demand_of(crawler, now) == pytest.approx(4.0, rel=0.01)
    assert demand.got_by(crawler, now) == pytest.approx(2.0, rel=0.01)
    assert demand.name_of(crawler) == "examplebot"
    assert address not in demand


HTML = {"Content-Type": "text/html"}
GZIP = {"Accept-Encoding": "gzip"}


def filled(site: Site, **settings: Any) -> FakeProxy:
    """Return a proxy whose disk has a page, and whose memory has nothing."""
    proxy = site.start(reader=Immediately(), **settings)
    client = proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"text " * 1000, headers=HTML))
    client.received()
    proxy.proxy.services.disk.flush()  # type: ignore[union-attr]
    forget(proxy)
    return proxy


def forget(proxy: FakeProxy) -> None:
    store = proxy.services.store
    store.invalidation.drop_keys(list(store.shelves.slots))
    while store.shelves._hidden:
        store.free_some()


def reads(proxy: FakeProxy) -> int:
    disk = proxy.services.disk
    assert disk is not None
    return disk.figures.reads


def in_memory(proxy: FakeProxy) -> int:
    return len(proxy.services.store.shelves.slots)


def test_what_is_read_from_the_disk_once_does_not_push_others_out_of_memory(site: Site) -> None:
    proxy = filled(site, circuit="open")
    for number in range(READS_PER_COPY - 1):
        assert body_of(proxy.client(get("/page")).received()) == b"text " * 1000
        assert (reads(proxy), in_memory(proxy)) == (number + 1, 0)
    proxy.client(get("/page")).received()
    assert in_memory(proxy) == 1, "this one is read often"
    proxy.client(get("/page")).received()
    assert reads(proxy) == READS_PER_COPY, "it comes from memory"


def test_what_is_compressed_for_a_client_is_kept_with_its_form(site: Site) -> None:
    proxy = filled(site, circuit="open", compress=("gzip",))
    first = proxy.client(get("/page", headers=GZIP)).received()
    assert field(first, "Content-Encoding") == "gzip"
    assert in_memory(proxy) == 1, "else each client would wait for it to be compressed anew"
    assert body_of(proxy.client(get("/page", headers=GZIP)).received()) == body_of(first)
    assert reads(proxy) == 1


def test_a_request_that_is_forwarded_reads_the_disk_once(site: Site) -> None:
    """Its response is compared with what is stored, and is the same."""
    proxy = filled(site)
    client = proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"text " * 1000, headers=HTML))
    assert status_of(client.received()) == 200
    assert (reads(proxy), in_memory(proxy)) == (1, 1)
    assert proxy.services.store.stats()["unchanged"] == 1


def test_a_page_that_differs_only_in_its_date_is_not_written_again(site: Site) -> None:
    """Most applications send another Date each second, and an SD card wears."""
    proxy = filled(site)
    disk = proxy.services.disk
    assert disk is not None
    written: set[int] = set()
    for second in range(3):
        client = proxy.client(get("/dated"))
        date = f"Tue, 01 Dec 2026 01:00:0{second} GMT"
        proxy.upstream.sends(reply(b"text " * 1000, headers={**HTML, "Date": date}))
        assert field(client.received(), "Date") == date
        disk.flush()
        written.add(disk.figures.written)
    assert written == {2}, "with the page of before"
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    assert field(proxy.client(get("/dated")).received(), "Date") == date


@pytest.mark.parametrize(("max_stale_s", "written"), [(40.0, 5), (86400.0, 2)])
def test_the_same_page_is_written_before_it_is_too_old_on_disk(
    site: Site, max_stale_s: float, written: int
) -> None:
    """With 40 s for which it is served, at least each 10 s."""
    proxy = site.start(reader=Immediately(), max_stale_s=max_stale_s)
    disk = proxy.services.disk
    assert disk is not None
    proxy.loop.now = 10_000 * STEP_S
    for second in range(0, 50, 5):
        client = proxy.client(get("/page"))
        date = f"Tue, 01 Dec 2026 01:00:{second:02} GMT"
        proxy.upstream.sends(reply(b"text " * 1000, headers={**HTML, "Date": date}))
        client.received()
        disk.flush()
        proxy.loop.now += 5.0
    assert written - 1 <= disk.figures.written <= written


def test_what_memory_has_no_room_for_is_served_from_the_disk(site: Site) -> None:
    proxy = filled(site, circuit="open")
    proxy.services.store.shelves.resize(1000, 1000)
    for _ in range(READS_PER_COPY + 1):
        assert body_of(proxy.client(get("/page")).received()) == b"text " * 1000
    assert in_memory(proxy) == 0


def test_what_is_purged_while_it_is_hot_is_not_read_again(site: Site) -> None:
    proxy = filled(site, circuit="open")
    for _ in range(3):
        assert status_of(proxy.client(get("/page")).received()) == 200
    store, now = proxy.services.store, proxy.loop.now
    store.invalidation.purge(url=b"shop.example/page", now=now)
    assert b"text" not in proxy.client(get("/page")).received(), "before it is committed"
    proxy.advance(6.0)
    assert proxy.services.disk.stats()["entries"] == 0  # type: ignore[union-attr]
    assert b"text" not in proxy.client(get("/page")).received(), "and then"


def test_a_page_that_one_client_was_refused_is_gone_after_the_doubt_though_only_on_disk(
    site: Site,
) -> None:
    """Memory has had to make room for others meanwhile, and the page is not read in between."""
    proxy = filled(site)
    client = proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"no such page", status="404 Not Found"))
    assert status_of(client.received()) == 404
    proxy.services.disk.flush()  # type: ignore[union-attr]
    forget(proxy)
    proxy.advance(DOUBT_S + 1)
    assert proxy.services.store.stats()["withdrawn"] == 1
    proxy.upstream.resets()
    proxy.settle()
    assert status_of(fetch_dead(proxy, "/page")) == 502
