"""Boxes that share a server in memory: changes, writes, reads, and life without the server."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from retter.far import rounds, writes
from retter.far.keys import Keys
from retter.far.outbox import UNTOLD_MAX
from retter.far.pace import BEAT_EVERY_S, IN_TOUCH_S, NOT_YET, RETRY_S
from retter.far.reads import ABSENT_S, READ_MAX_S, READ_REST_S, READS_MAX
from retter.far.shelf import CLOSE_S, ROUND_MAX_S
from retter.far.writes import WRITE_AGAIN_S, WRITE_KEYS_MAX
from retter.store.policy import Identity, identify
from retter.store.write_behind import PURGES_MAX, Found, Purge, Removals
from tests.support.disk import Clock, Later
from tests.support.far import SECRET, Box, FakeServer, Timers, settle, shelf_of
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, BOB, request

PAGE = b"<p>a page</p>" * 100


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> FakeServer:
    return FakeServer(clock)


def identity_of(box: Box, path: bytes, *fields: tuple[bytes, bytes]) -> Identity:
    return identify(request(*fields, target=path), box.rules)


def put(
    box: Box, path: bytes, body: bytes = PAGE, *fields: tuple[bytes, bytes], **how: Any
) -> Identity:
    identity = identity_of(box, path, *fields)
    box.clock.now += 0.001
    now = box.clock.now
    head = response((b"content-type", b"text/html"), *how.get("head", ()))
    assert box.store.put(identity, request(*fields, target=path), head, body, now, now)
    return identity


def found(
    box: Box, path: bytes, *fields: tuple[bytes, bytes], superseded: bool = False
) -> bytes | None:
    identity = identity_of(box, path, *fields)
    box.look(identity)
    one = box.store.lookup(
        identity, request(*fields, target=path), box.clock.now, superseded=superseded
    )
    return None if one is None else one.body


def two(server: FakeServer, clock: Clock, **how: Any) -> tuple[Box, Box]:
    one, other = Box(server, clock, "one", **how), Box(server, clock, "other", **how)
    settle(clock, one, other, seconds=2.0)
    return one, other


# -- responses


def test_the_second_box_has_what_the_first_stored_within_a_second(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    put(one, b"/")
    put(one, b"/mine", b"alice", ALICE)
    settle(clock, one, other, seconds=1.0)
    assert found(other, b"/") == PAGE
    assert found(other, b"/mine", ALICE) == b"alice"
    assert found(other, b"/mine", BOB) is None
    assert found(other, b"/other") is None


def test_an_age_goes_on_at_the_other_box_whatever_its_clock_shows(
    server: FakeServer, clock: Clock
) -> None:
    one = Box(server, clock, "one")
    behind = Box(server, clock, "other", wall=lambda: clock.wall() - 300.0)
    settle(clock, one, behind)
    put(one, b"/")
    settle(clock, one, behind, seconds=100.0)
    identity = identity_of(behind, b"/")
    behind.look(identity)
    stored = behind.store.lookup(identity, request(target=b"/"), clock.now)
    assert stored is not None and stored.age(clock.now) == pytest.approx(100.0, abs=2.0)


def test_nothing_of_no_store_and_with_private_off_nothing_of_anybody_is_there(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock, personal=False)
    put(one, b"/secret", PAGE, head=[(b"cache-control", b"no-store")])
    put(one, b"/mine", b"alice", ALICE)
    settle(clock, one, other)
    assert not server.of_kind("e") and not server.of_kind("b")
    assert other.shelf.wants([identity_of(other, b"/mine", ALICE).key]) == []
    put(one, b"/", PAGE)
    settle(clock, one, other)
    assert found(other, b"/") == PAGE


def test_a_page_that_becomes_no_store_is_taken_away(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    put(one, b"/")
    settle(clock, one)
    assert len(server.of_kind("e")) == 1
    put(one, b"/", PAGE, head=[(b"cache-control", b"no-store")])
    settle(clock, one, seconds=WRITE_AGAIN_S)
    assert not server.of_kind("e")
    assert found(other, b"/") is None


def test_a_dump_of_the_server_shows_no_cookie_no_session_no_url_and_no_page(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    put(one, b"/account/orders?of=alice", b"alice@example.com lives here", ALICE)
    identity = put(one, b"/news", b"news for everyone")
    one.store.invalidation.purge(url=b"a.b/purged-by-url", now=clock.now)
    one.store.invalidation.supersede(identity, [b"a.b/changed"], clock.now)
    one.shelf.outbox.names({b"shop_session"})
    settle(clock, one, other)
    dump = server.dump()
    assert len(server.of_kind("e")) == 2 and len(dump) > 1000
    for text in (*ALICE, b"account", b"alice", b"news", b"purged", b"changed", b"shop_session"):
        assert text.lower() not in dump.lower()
    assert identity_of(one, b"/", ALICE).owner.hex().encode() not in dump


def test_equal_bodies_are_sent_once(server: FakeServer, clock: Clock) -> None:
    one, _ = two(server, clock)
    for number in range(5):
        put(one, b"/%d" % number)
    settle(clock, one)
    assert (one.shelf.stats()["written"], one.shelf.stats()["bodies_written"]) == (5, 1)
    assert len(server.of_kind("b")) == 1


def test_a_page_that_changes_all_the_time_is_written_once_a_minute(
    server: FakeServer, clock: Clock
) -> None:
    one, _ = two(server, clock)
    for number in range(round(3 * WRITE_AGAIN_S)):
        put(one, b"/", b"version %d" % number)
        settle(clock, one)
    assert 3 <= one.shelf.stats()["written"] <= 4
    settle(clock, one, seconds=WRITE_AGAIN_S)
    put(one, b"/", b"the last")
    settle(clock, one)
    other = Box(server, clock, "third")
    settle(clock, other)
    assert found(other, b"/") == b"the last"


def test_a_page_that_comes_again_with_another_date_is_written_every_ten_minutes(
    server: FakeServer, clock: Clock
) -> None:
    one, _ = two(server, clock)
    for second in range(0, 1300, 10):
        put(one, b"/", head=[(b"date", b"Sun, 06 Nov 1994 08:%d GMT" % second)])
        settle(clock, one, seconds=1.0)
        clock.now += 9.0
    assert one.shelf.stats()["written"] == 3


def test_no_more_than_a_round_is_written_at_once_and_what_is_evicted_meanwhile_is_counted(
    server: FakeServer, clock: Clock
) -> None:
    one, _ = two(server, clock)
    for number in range(WRITE_KEYS_MAX + 10):
        put(one, b"/%d" % number)
    settle(clock, one, seconds=0.25)
    assert one.shelf.stats()["written"] == WRITE_KEYS_MAX
    one.forget()
    settle(clock, one)
    assert (one.shelf.stats()["written"], one.shelf.stats()["dropped"]) == (WRITE_KEYS_MAX, 10)


def test_what_waits_is_bounded(
    server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "WAITING_MAX", 3)
    one, _ = two(server, clock)
    for number in range(5):
        put(one, b"/%d" % number)
    assert one.shelf.stats()["waiting"] == 3 and one.shelf.stats()["dropped"] == 2
    settle(clock, one)
    assert one.shelf.stats()["written"] == 3
    for number in range(3):
        put(one, b"/%d" % number, b"another version")
    put(one, b"/new")
    settle(clock, one)
    assert one.shelf.stats()["written"] == 4, (
        "what is new does not wait behind what was written lately"
    )
    monkeypatch.setattr(writes, "WAITING_MAX", 0)
    put(one, b"/new", b"another version")
    assert one.shelf.stats()["dropped"] == 3


def test_everything_there_goes_by_itself(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    identity = put(one, b"/mine", b"alice", ALICE)
    one.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    put(one, b"/")
    settle(clock, one, other)
    assert set(server.values) == set(server.expires) | set(server.of_kind("names"))
    assert max(server.expires.values()) <= clock.now + 1000.0 + rounds.NOTES_LONGER_S


def test_boxes_with_another_secret_see_nothing_and_break_nothing(
    server: FakeServer, clock: Clock
) -> None:
    one = Box(server, clock, "one")
    stranger = Box(server, clock, "stranger", keys=Keys(SECRET + b"!"))
    settle(clock, one, stranger)
    put(one, b"/")
    one.store.invalidation.empty(clock.now)
    put(one, b"/")
    settle(clock, one, stranger)
    assert found(stranger, b"/") is None
    assert (stranger.shelf.boxes, stranger.heard) == (1, [])


def test_values_that_somebody_else_has_written_do_not_exist(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    put(one, b"/a", b"page a")
    put(one, b"/b", b"page b")
    settle(clock, one)
    a, b = server.of_kind("e")
    server.values[a], server.values[b] = server.values[b], server.values[a]
    assert found(other, b"/a") is None and found(other, b"/b") is None
    assert other.shelf.stats()["unreadable"] == 2
    stream = one.shelf.keys.prefix + b"changes"
    server._xadd(stream, "MAXLEN", "~", 100, b"%d-0" % int(clock.wall() * 1000), "m", b"x" * 60)
    settle(clock, one, other)
    assert other.heard == [] and other.shelf.stats()["unreadable"] == 3


def test_a_record_without_its_body_does_not_exist(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    put(one, b"/")
    settle(clock, one)
    (body,) = server.of_kind("b")
    server.drop(body)
    assert found(other, b"/") is None


# -- changes


def test_a_logout_is_heard_everywhere_within_a_second(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    identity = put(one, b"/mine", b"alice", ALICE)
    settle(clock, one, other)
    assert found(other, b"/mine", ALICE) == b"alice"
    one.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, one, other, seconds=1.0)
    assert found(other, b"/mine", ALICE) is None
    third = Box(server, clock, "third")
    settle(clock, third)
    assert found(third, b"/mine", ALICE) is None, "nor does a box that begins later show it"


def test_a_box_that_has_not_heard_of_a_logout_brings_nothing_back(
    server: FakeServer, clock: Clock
) -> None:
    writer = Later()
    one = Box(server, clock, "one")
    late = Box(server, clock, "late", writer=writer)
    while not late.shelf.is_in_touch:
        settle(clock, one, late, seconds=0.05)
        writer.work()
    identity = put(late, b"/mine", b"alice", ALICE)
    settle(clock, late, seconds=0.3)
    assert writer.jobs, "it is about to write"
    one.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, one, seconds=0.1)
    writer.work()
    assert server.of_kind("e"), "it has written"
    third = Box(server, clock, "third")
    settle(clock, one, third)
    assert found(one, b"/mine", ALICE) is None
    assert found(third, b"/mine", ALICE) is None


def test_a_change_supersedes_at_the_other_box_and_a_new_page_is_valid_there_again(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    identity = put(one, b"/", b"old")
    settle(clock, one, other)
    clock.now += 1.0
    one.store.invalidation.supersede(identity, [identity.url], clock.now)
    settle(clock, one, other)
    assert found(other, b"/") is None
    assert found(other, b"/", superseded=True) == b"old"
    put(one, b"/", b"new")
    settle(clock, one, other)
    other.forget()
    settle(clock, other, seconds=ABSENT_S + 0.1)
    assert found(other, b"/") == b"new"


@pytest.mark.parametrize(
    "purge", [{"url": b"a.b/x"}, {"prefix": b"a.b/"}, {"url": b"/x"}, {}], ids=str
)
def test_a_purge_reaches_what_is_stored_there_and_what_others_hold(
    server: FakeServer, clock: Clock, purge: dict[str, bytes]
) -> None:
    one, other = two(server, clock)
    put(one, b"/x")
    put(one, b"/x", b"alice", ALICE)
    settle(clock, one, other)
    assert found(other, b"/x", ALICE) == b"alice"
    one.store.invalidation.purge(**purge, now=clock.now)
    settle(clock, one, other)
    third = Box(server, clock, "third")
    settle(clock, third)
    for box in (one, other, third):
        assert found(box, b"/x", ALICE) is None and found(box, b"/x") is None


def test_a_new_box_knows_purges_that_the_stream_has_forgotten(
    server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "CHANGES_KEPT", 2)
    monkeypatch.setattr(rounds, "PURGES_KEPT", 2)
    one, other = two(server, clock)
    put(one, b"/x", b"alice", ALICE)
    settle(clock, one, other)
    for path in (b"a.b/x", b"a.b/1"):
        one.store.invalidation.purge(url=path, now=clock.now)
        settle(clock, one)
    third = Box(server, clock, "third")
    settle(clock, third)
    assert found(third, b"/x", ALICE) is None
    for path in (b"a.b/2", b"a.b/3"):
        one.store.invalidation.purge(url=path, now=clock.now)
        settle(clock, one)
    fourth = Box(server, clock, "fourth")
    settle(clock, fourth)
    assert found(fourth, b"/x", ALICE) is None, "too many purges count for everything"


def test_a_page_that_the_application_took_back_is_gone_everywhere(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    identity = put(one, b"/")
    settle(clock, one, other)
    assert found(other, b"/") == PAGE
    clock.now += 1.0
    assert one.store.taken_back.withdraw(identity.key, clock.now)
    settle(clock, one, other)
    assert not server.of_kind("e")
    assert found(other, b"/", superseded=True) is None


def test_changes_do_not_keep_responses_from_being_written(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    identity = identity_of(one, b"/")
    for number in range(40):
        put(one, b"/%d" % number)
        one.store.invalidation.supersede(identity, [b"a.b/cart%d" % number], clock.now)
        clock.now += 0.05
        one.tick()
    assert one.shelf.stats()["written"] > 20
    settle(clock, one, other)
    assert other.shelf.stats()["changes_heard"] > 5


def test_what_is_told_comes_back_to_nobody(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    one.store.invalidation.empty(clock.now)
    settle(clock, one, other, seconds=3.0)
    assert (one.shelf.stats()["changes_told"], other.shelf.stats()["changes_told"]) == (1, 0)
    assert one.heard == [] and other.heard == [Removals(everything=True)]


def test_orders_and_names_are_told_once_also_to_a_box_that_begins_later(
    server: FakeServer, clock: Clock
) -> None:
    told: list[Any] = []
    one, other = two(server, clock)
    other.shelf.on_message = told.append
    one.shelf.tell_order({"order": "pause", "until": one.shelf.wall() + 30.0})
    one.shelf.outbox.names({b"sid"})
    settle(clock, one, other, seconds=2.0)
    server.trouble = "away"
    settle(clock, one, other, seconds=2.0)
    server.trouble = ""
    settle(clock, one, other, seconds=3.0)
    assert [len(message.orders) for message in told if message.orders] == [1]
    third = Box(server, clock, "third")
    late: list[Any] = []
    third.shelf.on_message = late.append
    settle(clock, third, seconds=2.0)
    assert [m.orders[0]["order"] for m in late if m.orders] == ["pause"]
    assert {name for message in late for name in message.names} == {b"sid"}


def test_of_a_box_that_is_killed_while_it_tells_a_change_nothing_is_shown_that_it_told(
    server: FakeServer, clock: Clock
) -> None:
    """Once the change is in the stream, so are its notes, which outlive the stream."""
    told = 0
    for takes in range(40):
        server.flush()
        one, other = two(server, clock)
        mine = put(one, b"/mine", b"alice", ALICE)
        put(one, b"/purged")
        changed = put(one, b"/changed")
        withdrawn = put(one, b"/withdrawn")
        settle(clock, one, other)
        assert found(other, b"/withdrawn") == PAGE
        clock.now += 1.0
        one.store.invalidation.drop_owner(mine.owner, clock.now, mine.marks)
        one.store.invalidation.purge(url=b"a.b/purged", now=clock.now)
        one.store.invalidation.supersede(changed, [changed.url], clock.now)
        assert one.store.taken_back.withdraw(withdrawn.key, clock.now)
        server.takes = takes
        settle(clock, one, seconds=0.05)
        server.takes = inf
        stream = one.shelf.keys.prefix + b"changes"
        if not server.values.get(stream):
            continue
        told += 1
        server.drop(stream)  # as if there had been thousands of changes since then
        third = Box(server, clock, "third")
        settle(clock, third)
        assert found(third, b"/mine", ALICE) is None
        assert found(third, b"/changed") is None
        assert found(third, b"/changed", superseded=True) == PAGE
        assert found(third, b"/withdrawn", superseded=True) is None
    assert 5 < told < 38, "it was killed before and after"


def test_boxes_that_tell_changes_in_the_same_moment_take_their_places_one_after_the_other(
    server: FakeServer, clock: Clock
) -> None:
    boxes = [Box(server, clock, f"box {number}") for number in range(4)]
    settle(clock, *boxes, seconds=2.0)
    for number, box in enumerate(boxes):
        box.store.invalidation.purge(url=b"a.b/%d" % number, now=clock.now)
    for box in boxes:
        box.tick()
    settle(clock, *boxes)
    for number, box in enumerate(boxes):
        purged = {purge.url for removals in box.heard for purge in removals.purges}
        assert purged == {b"a.b/%d" % other for other in range(4) if other != number}
        assert box.shelf.stats()["failures"] == 0


def test_after_a_clock_was_set_back_places_go_on_from_the_last_one_and_take_one_trip_each(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    one.store.invalidation.purge(url=b"a.b/1", now=clock.now)
    settle(clock, one, other)
    clock.wall_offset -= 3600.0
    settle(clock, one, other, seconds=2.0)
    looks = [name for name, *_ in server.commands].count("XREVRANGE")
    one.store.invalidation.purge(url=b"a.b/2", now=clock.now)
    one.tick()  # which gives no sign of life
    assert [name for name, *_ in server.commands].count("XREVRANGE") == looks
    settle(clock, one, other)
    assert other.heard[-1] == Removals(purges=[Purge(b"a.b/2", None, None)])


def test_a_box_that_finds_no_place_tells_its_change_later(
    server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two(server, clock)
    one.store.invalidation.empty(clock.now)
    with monkeypatch.context() as patched:
        patched.setattr(server, "_xadd", lambda *_: None)
        settle(clock, one, seconds=0.05)
        assert one.shelf.stats()["trouble"] == "other boxes are faster"
    settle(clock, one, other, seconds=3.0)
    assert other.heard == [Removals(everything=True)]


# -- how many boxes


def test_what_no_box_has_told_moves_nobody_past_later_changes(
    server: FakeServer, clock: Clock
) -> None:
    """As after an XADD of somebody else's, whose id is the last one that there can be."""
    one, other = two(server, clock)
    stream = one.shelf.keys.prefix + b"changes"
    last = (1 << 64) - 1
    server.values.setdefault(stream, []).append(((last, last), [b"m", b"junk"]))
    settle(clock, one, other)
    identity = put(one, b"/mine", b"alice", ALICE)
    settle(clock, one, other, seconds=3.0)
    server.drop(stream)  # the operator removes it
    one.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, one, other, seconds=2.0)
    assert Removals(owners={identity.owner}, marks=set(identity.marks)) in other.heard
    third = Box(server, clock, "third")
    settle(clock, third)
    assert found(third, b"/mine", ALICE) is None
    assert one.shelf.is_in_touch and other.shelf.is_in_touch


def test_a_stream_full_of_what_no_box_has_told_is_said(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    stream = one.shelf.keys.prefix + b"changes"
    after = int(clock.wall() * 1000) + 5000
    entries = server.values.setdefault(stream, [])
    entries += [((after, n), [b"m", b"junk"]) for n in range(rounds.CHANGES_READ_MAX)]
    settle(clock, one, other, seconds=3.0)
    assert not one.shelf.is_in_touch and "delete it" in one.shelf.stats()["trouble"]
    server.drop(stream)
    settle(clock, one, other, seconds=10.0)
    assert one.shelf.is_in_touch and other.shelf.is_in_touch


def test_boxes_are_counted_and_one_that_is_silent_is_not(server: FakeServer, clock: Clock) -> None:
    counted: list[int] = []
    one, other = two(server, clock)
    one.shelf.on_boxes = counted.append
    assert (one.shelf.boxes, other.shelf.boxes) == (2, 2)
    settle(clock, one, seconds=rounds.BOX_SILENT_S + 2 * BEAT_EVERY_S)
    assert counted == [1]
    settle(clock, one, other, seconds=2 * BEAT_EVERY_S)
    other.shelf.close()
    settle(clock, one, seconds=2 * BEAT_EVERY_S)
    assert counted == [1, 2, 1], "one that ends is not counted at once"


def test_all_processes_of_a_box_are_one(server: FakeServer, clock: Clock) -> None:
    worker, other_worker = two(server, clock)
    for box in (worker, other_worker):
        box.shelf.count_as(b"the box")
    settle(clock, worker, other_worker, seconds=rounds.BOX_SILENT_S + 2 * BEAT_EVERY_S)
    assert worker.shelf.boxes == other_worker.shelf.boxes == 1
    worker.shelf.leave()
    trips = server.trips
    worker.store.invalidation.empty(clock.now)
    settle(clock, worker, seconds=3.0)
    worker.shelf.close()
    assert server.trips == trips, "another process of this box tells what there is to be told"
    settle(clock, other_worker, seconds=1.0)
    assert other_worker.shelf.boxes == 1


def test_the_number_of_boxes_stays_while_the_server_is_away(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    server.trouble = "away"
    settle(clock, one, other, seconds=60.0)
    assert one.shelf.boxes == 2, "else both would ask as much as one alone may"


# -- a server that is away, slow, full, or has lost its data


def test_a_server_that_is_not_there_costs_nothing_but_the_sharing(
    server: FakeServer, clock: Clock
) -> None:
    server.trouble = "connection refused"
    one = Box(server, clock, "one")
    assert one.shelf.stats()["trouble"] == NOT_YET
    put(one, b"/")
    settle(clock, one, seconds=10.0)
    assert found(one, b"/") == PAGE
    assert one.shelf.stats()["trouble"] == "connection refused"
    assert not one.shelf.is_in_touch and one.shelf.wants([b"*a.b/x"]) == []
    assert server.trips <= 10 / RETRY_S + 1, "it is asked once a second"
    server.trouble = ""
    settle(clock, one, seconds=2.0)
    assert one.shelf.stats()["trouble"] == "" and one.shelf.stats()["written"] == 1, (
        "what waits is written then"
    )


@pytest.mark.parametrize("command", ["XADD", "ZADD", "SET", "MGET", "XRANGE", "TIME"])
def test_a_server_that_refuses_a_command_is_not_used(
    server: FakeServer, clock: Clock, command: str
) -> None:
    one, other = two(server, clock)
    server.refuses = frozenset([command])
    put(one, b"/")
    one.store.invalidation.purge(url=b"a.b/x", now=clock.now)
    settle(clock, one, other, seconds=4.0)
    assert found(other, b"/") is None
    assert one.shelf.stats()["failures"] + other.shelf.stats()["failures"] > 0
    server.refuses = frozenset()
    settle(clock, one, other, seconds=ABSENT_S + 1.0)
    assert found(other, b"/") == PAGE
    assert other.heard[0] == Removals(purges=[Purge(b"a.b/x", None, None)])


def test_what_happened_while_the_server_was_away_is_told_when_it_is_back(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    identity = put(one, b"/mine", b"alice", ALICE)
    settle(clock, one, other)
    assert found(other, b"/mine", ALICE) == b"alice"
    server.trouble = "away"
    settle(clock, one, other, seconds=3.0)
    one.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, one, other, seconds=60.0)
    server.trouble = ""
    settle(clock, one, other, seconds=2.0)
    assert found(other, b"/mine", ALICE) is None


def test_a_server_that_came_back_without_its_data_is_told_the_last_changes_again(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    identity = put(one, b"/mine", b"alice", ALICE)
    settle(clock, one, other)
    assert found(other, b"/mine", ALICE) == b"alice"
    # The other box hears nothing of this: the server dies at once, and its data with it.
    one.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, one, seconds=0.1)
    server.trouble = "away"
    settle(clock, one, other, seconds=3.0)
    server.flush()
    server.trouble = ""
    settle(clock, one, other, seconds=3.0)
    assert found(other, b"/mine", ALICE) is None


def test_a_server_with_an_older_clock_and_no_data_is_heard(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    one.store.invalidation.purge(url=b"a.b/1", now=clock.now)
    settle(clock, one, other)
    server.flush()
    clock.wall_offset -= 3600.0
    settle(clock, one, other, seconds=2.0)
    one.store.invalidation.purge(url=b"a.b/2", now=clock.now)
    settle(clock, one, other, seconds=3.0)
    assert Removals(purges=[Purge(b"a.b/2", None, None)]) in other.heard


def test_what_is_written_to_an_empty_server_with_an_older_clock_is_dropped_by_a_later_logout(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    one.store.invalidation.purge(url=b"a.b/1", now=clock.now)
    settle(clock, one, other)
    server.flush()
    clock.wall_offset -= 60.0
    settle(clock, one, other, seconds=2.0)
    identity = put(one, b"/mine", b"alice", ALICE)
    settle(clock, one, other)
    other.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, one, other, seconds=2.0)
    third = Box(server, clock, "third")
    third.shelf.heard.place = one.shelf.heard.place
    settle(clock, third)
    assert found(third, b"/mine", ALICE) is None


def test_a_box_that_was_away_for_more_changes_than_are_kept_drops_what_may_be_of_ended_sessions(
    server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "CHANGES_KEPT", 4)
    one, away = two(server, clock)
    one.store.invalidation.purge(url=b"a.b/first", now=clock.now)
    identity = put(away, b"/mine", b"alice", ALICE)
    put(away, b"/", PAGE)
    put(away, b"/purged", PAGE)
    settle(clock, one, away)
    one.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, one, seconds=0.3)
    one.store.invalidation.purge(url=b"/purged", now=clock.now)
    for number in range(8):
        settle(clock, one, seconds=0.3)
        one.store.invalidation.drop_owner(b"%016d" % number, clock.now, (number,))
    settle(clock, one, seconds=0.3)
    settle(clock, away)
    assert [removals.personal for removals in away.heard].count(True) == 1
    assert found(away, b"/mine", ALICE) is None
    assert found(away, b"/purged") is None
    assert found(away, b"/") == PAGE
    settle(clock, one, away, seconds=3.0)
    assert [removals.personal for removals in (*one.heard, *away.heard)].count(True) == 1


def test_what_nobody_here_has_written_to_the_server_is_passed_over(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    prefix = one.shelf.keys.prefix
    run: list[Any] = ["MAXLEN", "~", 100, b"%d-0" % int(clock.wall() * 1000)]
    server.run([("XADD", prefix + b"changes", *run, "odd", b"value")])
    sealed = one.shelf.keys.seal(prefix + b"purges", bytes(16) + b"[1, 2]")
    server.run([("RPUSH", prefix + b"purges", sealed)])
    third = Box(server, clock, "third")
    put(one, b"/")
    settle(clock, one, other, third)
    assert [box.shelf.stats()["failures"] for box in (one, other, third)] == [0, 0, 0]
    assert one.shelf.stats()["unreadable"] == 1 and third.shelf.stats()["unreadable"] == 2
    assert found(third, b"/") == PAGE


def test_changes_that_wait_are_bounded_and_too_much_is_dropped_rather_than_too_little(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    put(other, b"/mine", b"alice", ALICE)
    put(other, b"/")
    server.trouble = "away"
    settle(clock, one, other, seconds=3.0)
    identity = identity_of(one, b"/")
    for number in range(UNTOLD_MAX + 1):
        one.store.invalidation.supersede(identity, [b"a.b/%d" % number], clock.now)
        one.store.invalidation.drop_owner(b"%016d" % number, clock.now, (number,))
    assert one.shelf.stats()["changes_lost"] > 0
    assert one.shelf.outbox.untold.personal
    server.trouble = ""
    settle(clock, one, other, seconds=3.0)
    assert found(other, b"/mine", ALICE) is None
    assert found(other, b"/") == PAGE, "a public page is not lost for that"


def test_of_too_many_pages_that_were_withdrawn_none_is_shown_by_another_box(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    withdrawn = put(one, b"/withdrawn")
    settle(clock, one, other)
    assert found(other, b"/withdrawn") == PAGE
    server.trouble = "away"
    settle(clock, one, other, seconds=3.0)
    assert one.store.taken_back.withdraw(withdrawn.key, clock.now)
    for number in range(UNTOLD_MAX):
        one.shelf.removed(Removals(keys={b"*a.b/%d" % number}))
    assert one.shelf.outbox.untold == Removals(everything=True)
    server.trouble = ""
    settle(clock, one, other, seconds=3.0)
    assert found(other, b"/withdrawn", superseded=True) is None
    assert one.shelf.stats()["changes_lost"] == 0


def test_purges_while_the_server_is_away_are_bounded(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    put(other, b"/")
    server.trouble = "away"
    for number in range(PURGES_MAX):
        one.store.invalidation.purge(url=b"a.b/%d" % number, now=clock.now)
        one.store.invalidation.purge(url=b"a.b/0", now=clock.now)
        settle(clock, one, seconds=0.05)
    assert len(one.shelf.outbox.untold.purges) == PURGES_MAX
    one.store.invalidation.purge(url=b"a.b/one/more", now=clock.now)
    assert one.shelf.outbox.untold == Removals(everything=True)
    server.trouble = ""
    settle(clock, one, other, seconds=3.0)
    assert found(other, b"/") is None


def test_a_round_that_never_ends_is_broken_off(server: FakeServer, clock: Clock) -> None:
    one = Box(server, clock, "one", writer=Later(), reader=Later())
    settle(clock, one, seconds=ROUND_MAX_S)
    assert server.aborts == 0
    settle(clock, one, seconds=0.2)
    assert server.aborts >= 1
    assert one.shelf.away(clock.now) == NOT_YET


def test_the_end_does_not_wait_for_a_server_that_never_answers(
    server: FakeServer, clock: Clock
) -> None:
    class Stuck(Later):
        def finish(self, last: Callable[[], None], seconds: float) -> bool:
            waited.append(seconds)
            return False

    waited: list[float] = []
    one = Box(server, clock, "one", writer=Stuck(), reader=Stuck())
    settle(clock, one)
    one.store.invalidation.empty(clock.now)
    one.shelf.close()
    assert waited == [CLOSE_S, 0.0]
    assert server.aborts == 2, "both connections are broken off"
    assert one.shelf.outbox.untold.everything, "it is kept for the next process"


def test_a_box_that_ends_tells_what_is_untold(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    put(other, b"/")
    one.store.invalidation.empty(clock.now)
    one.shelf.close()
    assert not one.shelf.outbox.untold
    settle(clock, other)
    assert found(other, b"/") is None and other.shelf.boxes == 1


def test_a_box_that_ends_while_the_server_is_away_leaves_what_is_untold_to_its_successor(
    server: FakeServer, clock: Clock
) -> None:
    one, other = two(server, clock)
    put(other, b"/")
    server.trouble = "away"
    one.store.invalidation.empty(clock.now)
    one.shelf.close()
    server.trouble = ""
    again = Box(server, clock, "again")
    again.shelf.outbox.removed(one.shelf.outbox.untold)
    settle(clock, again, other)
    assert found(other, b"/") is None


def test_an_odd_answer_at_the_end_loses_nothing(
    server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two(server, clock)
    one.store.invalidation.empty(clock.now)
    monkeypatch.setattr(server, "_xadd", lambda *_: None)
    one.shelf.close()
    assert one.shelf.outbox.untold.everything, "it is kept for the next process"


# -- reads


def waiting(server: FakeServer, clock: Clock) -> tuple[Box, Later, Timers]:
    """Return a box whose reads are done when the test says so, and one page of another box."""
    one = Box(server, clock, "one")
    reader, timers = Later(), Timers()
    box = Box(server, clock, "reading", reader=reader, call_later=timers.call_later)
    settle(clock, one, box)
    put(one, b"/")
    put(one, b"/second")
    settle(clock, one, box)
    reader.work()
    return box, reader, timers


def asks(box: Box, path: bytes, into: list[bool]) -> None:
    (key,) = box.shelf.wants([identity_of(box, path).key])

    def came(one: dict[bytes, Found]) -> None:
        into.append(key in one)

    box.shelf.load([key], came)


def test_requests_for_the_same_key_wait_for_one_read(server: FakeServer, clock: Clock) -> None:
    box, reader, _ = waiting(server, clock)
    trips, came = server.trips, list[bool]()
    for _ in range(10):
        asks(box, b"/", came)
    assert reader.work() == 1
    assert came == [True] * 10
    assert server.trips == trips + 2, "the entry, and its body"


def test_others_wait_for_the_next_read_together(server: FakeServer, clock: Clock) -> None:
    box, reader, _ = waiting(server, clock)
    came: list[bool] = []
    for path in (b"/", b"/second", b"/third"):
        asks(box, path, came)
    assert (reader.work(), reader.work()) == (1, 1)
    assert came == [True, True, False]


def test_a_read_that_is_late_counts_as_absent_and_nobody_waits_for_a_while(
    server: FakeServer, clock: Clock
) -> None:
    box, reader, timers = waiting(server, clock)
    came: list[bool] = []
    asks(box, b"/", came)
    clock.now += 0.01
    timers.ring()
    assert came == [], "it is not late yet"
    asks(box, b"/second", came)
    clock.now += 0.01
    timers.ring()
    assert came == [False, False]
    assert box.shelf.wants([b"*a.b/"]) == []
    reader.work()
    assert came == [False, False] and box.shelf.stats()["reads_late"] == 2
    settle(clock, box, seconds=READ_REST_S + 0.1)
    assert found_later(box, reader) is True


def found_later(box: Box, reader: Later) -> bool:
    came: list[bool] = []
    asks(box, b"/", came)
    reader.work()
    return came[0]


def test_a_tick_ends_a_late_read_if_no_timer_does(server: FakeServer, clock: Clock) -> None:
    box, _, _ = waiting(server, clock)
    came: list[bool] = []
    asks(box, b"/", came)
    settle(clock, box, seconds=0.05)
    assert came == [False]


def test_a_read_that_fails_is_answered_at_once(server: FakeServer, clock: Clock) -> None:
    box, reader, _ = waiting(server, clock)
    came: list[bool] = []
    asks(box, b"/", came)
    asks(box, b"/second", came)
    server.trouble = "connection reset"
    reader.work()
    assert came == [False, False] and box.shelf.wants([b"*a.b/"]) == []


@pytest.mark.parametrize("how", ["read", "late", "failed"])
def test_a_request_that_breaks_keeps_no_other_one_waiting(
    server: FakeServer, clock: Clock, how: str
) -> None:
    box, reader, timers = waiting(server, clock)

    def breaks(_: dict[bytes, Found]) -> None:
        raise AssertionError("a bug")

    came: list[bool] = []
    box.shelf.load(box.shelf.wants([identity_of(box, b"/").key]), breaks)
    asks(box, b"/", came)
    asks(box, b"/second", came)  # which waits for the next read
    if how == "late":
        clock.now += 0.02
        with pytest.raises(AssertionError, match="a bug"):
            timers.ring()
        assert came == [False, False]
        return
    if how == "failed":
        server.trouble = "connection reset"
    with pytest.raises(AssertionError, match="a bug"):
        reader.work()
    reader.work()
    assert came == ([True, True] if how == "read" else [False, False])


def test_a_read_that_never_ends_is_broken_off(server: FakeServer, clock: Clock) -> None:
    box, _, _ = waiting(server, clock)
    asks(box, b"/", [])
    settle(clock, box, seconds=READ_MAX_S - 0.1)
    assert server.aborts == 0
    settle(clock, box, seconds=0.2)
    assert server.aborts >= 1


def test_what_is_absent_is_not_asked_for_again_soon(server: FakeServer, clock: Clock) -> None:
    box, reader, _ = waiting(server, clock)
    came: list[bool] = []
    asks(box, b"/third", came)
    reader.work()
    key = identity_of(box, b"/third").key
    assert box.shelf.wants([key]) == []
    settle(clock, box, seconds=ABSENT_S + 0.1)
    assert box.shelf.wants([key]) == [key]
    box.shelf.cannot_use(key)
    assert box.shelf.wants([key]) == []


def test_only_so_many_wait(server: FakeServer, clock: Clock) -> None:
    box, _, _ = waiting(server, clock)
    for number in range(READS_MAX):
        asks(box, b"/%d" % number, [])
    assert box.shelf.wants([b"*a.b/"]) == [] and box.shelf.stats()["reads_refused"] == 1


def test_a_box_that_hears_nothing_reads_nothing(server: FakeServer, clock: Clock) -> None:
    box, _, _ = waiting(server, clock)
    assert box.shelf.wants([b"*a.b/"])
    clock.now += IN_TOUCH_S
    assert box.shelf.wants([b"*a.b/"]) == []


def test_a_change_that_is_not_told_yet_counts_for_what_is_read(
    server: FakeServer, clock: Clock
) -> None:
    box, reader, _ = waiting(server, clock)
    came: list[bool] = []
    asks(box, b"/", came)
    box.store.invalidation.empty(clock.now)
    reader.work()
    assert came == [False]


@pytest.mark.parametrize("where", ["reads", "writes"])
def test_a_fault_of_our_own_is_reported(server: FakeServer, clock: Clock, where: str) -> None:
    box, _, _ = waiting(server, clock)

    def submit(_: Callable[[], Any], done: Callable[[Any], None]) -> None:
        done(AssertionError("a bug"))

    thread = {"reads": box.shelf.reads._thread, "writes": box.shelf._writer}[where]
    vars(thread)["submit"] = submit
    begin = {"reads": lambda: asks(box, b"/", []), "writes": lambda: settle(clock, box)}
    with pytest.raises(AssertionError, match="a bug"):
        begin[where]()


def test_all_figures_are_there(server: FakeServer, clock: Clock) -> None:
    one, other = two(server, clock)
    put(one, b"/")
    settle(clock, one, other)
    found(other, b"/")
    stats = other.shelf.stats()
    assert (stats["reads"], stats["hits"], stats["connected"], stats["boxes"]) == (1, 1, 1, 2)
    assert stats["bytes_received"] == one.shelf.stats()["bytes_sent"] > 0
    assert shelf_of(server, clock, "new").stats()["connected"] == 0
