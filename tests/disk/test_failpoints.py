"""Killed at every step of taking something back: what was said to be gone stays gone.

Each test stops the process at one step (an exception that nothing catches), and opens what is on
disk then as the next process would.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from retter.store.owner import OwnerRules
from retter.store.policy import identify
from retter.store.store import StoredResponse
from retter.store.write_behind import Removals
from tests.support.disk import Clock, Lasting, Later
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, BOB, request

# In this order; before "noted" the answer that says so has not gone out.
STEPS = ("noted", "begin", "removed", "written", "committed", "done", "cleared")


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Ends the process at a step."""

    def __init__(self) -> None:
        self.step = ""
        self.passed: list[str] = []

    def __call__(self, step: str) -> None:
        self.passed.append(step)
        if step == self.step:
            raise Killed


def put(lasting: Lasting, path: bytes, body: bytes, *fields: tuple[bytes, bytes]) -> None:
    lasting.clock.now += 1.0
    asked = request(*fields, target=path)
    identity = identify(asked, lasting.rules)
    now = lasting.clock.now
    head = response((b"content-type", b"text/html"))
    assert lasting.store.put(identity, asked, head, body, now, now)


def get(
    lasting: Lasting, path: bytes, *fields: tuple[bytes, bytes], superseded: bool = False
) -> StoredResponse | None:
    asked = request(*fields, target=path)
    identity = identify(asked, lasting.rules)
    lasting.look(identity)
    return lasting.store.lookup(identity, asked, lasting.clock.now, superseded=superseded)


def log_out(lasting: Lasting) -> None:
    identity = identify(request(ALICE), lasting.rules)
    lasting.store.invalidation.drop_owner(identity.owner, lasting.clock.now, identity.marks)


def log_out_elsewhere(lasting: Lasting) -> None:
    """With one of two cookies that made the owner: it is found by the mark of the session."""
    identity = identify(request((b"cookie", ALICE[1] + b"; other=1")), lasting.rules)
    lasting.store.invalidation.drop_owner(b"another-owner-16", lasting.clock.now, identity.marks)


def purge_url(lasting: Lasting) -> None:
    lasting.store.invalidation.purge(url=b"a.b/mine", now=lasting.clock.now)


def purge_all(lasting: Lasting) -> None:
    lasting.store.invalidation.empty(lasting.clock.now)


def take_back(lasting: Lasting) -> None:
    identity = identify(request(ALICE, target=b"/mine"), lasting.rules)
    lasting.look(identity)
    lasting.store._slot(identity.key, lasting.clock.now)
    assert lasting.store.taken_back.withdraw(identity.key, lasting.clock.now) is not None


def supersede(lasting: Lasting) -> None:
    identity = identify(request(ALICE, target=b"/mine"), lasting.rules)
    lasting.store.invalidation.supersede(identity, [identity.url], lasting.clock.now)


def go_on_after(change: Callable[[Lasting], None], lasting: Lasting) -> None:
    change(lasting)
    put(lasting, b"/new", b"stored meanwhile")
    lasting.clock.now += 6.0
    lasting.tick()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "change", [log_out, log_out_elsewhere, purge_url, purge_all, take_back, supersede]
)
def test_what_is_taken_back_stays_taken_back(
    tmp_path: Path, step: str, change: Callable[[Lasting], None], in_memory: bool
) -> None:
    clock, killer = Clock(), Killer()
    lasting = Lasting(tmp_path / "store", clock, failpoint=killer)
    put(lasting, b"/mine", b"private", ALICE)
    put(lasting, b"/other", b"of bob", BOB)
    lasting.disk.flush()
    if not in_memory:
        lasting.forget()
    clock.now += 1.0
    killer.step, killer.passed = step, []
    with pytest.raises(Killed):
        go_on_after(change, lasting)
    assert killer.passed[-1] == step

    shutil.copytree(tmp_path / "store", tmp_path / "after")
    after = Lasting(tmp_path / "after", clock)
    assert get(after, b"/mine", ALICE) is None
    if change is supersede:
        found = get(after, b"/mine", ALICE, superseded=True)
        assert found is not None and found.body == b"private", "it still hides a failure"
    else:
        assert get(after, b"/mine", ALICE, superseded=True) is None
    if change is not purge_all:
        others = get(after, b"/other", BOB)
        assert others is not None and others.body == b"of bob"
    after.disk.close()
    killer.step = ""
    lasting.disk.close()


def test_what_is_taken_back_is_gone_though_the_disk_is_too_slow_to_be_read(tmp_path: Path) -> None:
    """Nobody has read it for an hour, so its pages are not in the kernel's memory either."""
    clock = Clock()
    lasting = Lasting(tmp_path / "store", clock)
    put(lasting, b"/page", b"everyone's")
    put(lasting, b"/other", b"stays")
    lasting.disk.flush()
    lasting.forget()
    clock.now += 3600.0
    lasting.tick()
    key = identify(request(target=b"/page"), lasting.rules).key
    assert lasting.disk.is_slow(key)
    assert lasting.store.taken_back.withdraw(key, clock.now) is None, "it cannot be restored"
    assert lasting.store.stats()["withdrawn"] == 1
    assert get(lasting, b"/page") is None
    lasting.disk.close()
    after = Lasting(tmp_path / "store", clock)
    assert get(after, b"/page") is None
    other = get(after, b"/other")
    assert other is not None and other.body == b"stays"
    after.disk.close()


def test_the_steps_are_all_there_are(tmp_path: Path) -> None:
    clock, killer = Clock(), Killer()
    lasting = Lasting(tmp_path, clock, failpoint=killer)
    put(lasting, b"/mine", b"private", ALICE)
    lasting.disk.flush()
    killer.passed = []
    log_out(lasting)
    lasting.tick()
    assert killer.passed == ["take back", *STEPS]
    lasting.disk.close()


def test_a_logout_does_not_wait_for_the_next_commit(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    put(lasting, b"/mine", b"private", ALICE)
    lasting.tick()
    assert lasting.disk.figures.commits == 0, "pages wait for five seconds, or a megabyte"
    log_out(lasting)
    lasting.tick()
    assert lasting.disk.figures.commits == 1
    lasting.disk.close()


def test_a_page_of_the_disk_that_may_not_spare_the_application_is_known_all_the_same(
    tmp_path: Path,
) -> None:
    """A response to its visitor is withheld until it is whole, as this one can replace it."""
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    put(lasting, b"/mine", b"private", ALICE)
    supersede(lasting)
    lasting.disk.flush()
    lasting.forget()
    assert get(lasting, b"/mine", ALICE) is None
    asked = request(ALICE, target=b"/mine")
    identity = identify(asked, lasting.rules)
    assert identity.key in lasting.store.shelves.slots
    assert lasting.store.has_for(identity, asked, clock.now)
    lasting.disk.close()


def test_if_another_box_drops_all_owners_those_that_are_only_on_disk_are_dropped_too(
    tmp_path: Path,
) -> None:
    """A box that could not name all ended sessions says so."""
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    put(lasting, b"/mine", b"private", ALICE)
    put(lasting, b"/", b"public")
    lasting.disk.flush()
    lasting.forget()
    put(lasting, b"/his", b"private", BOB)
    lasting.store.invalidation.take_back(Removals(personal=True), clock.now)
    assert get(lasting, b"/mine", ALICE) is None
    assert get(lasting, b"/his", BOB) is None
    assert get(lasting, b"/") is not None
    identity = identify(request(ALICE, target=b"/mine"), lasting.rules)
    head = response((b"content-type", b"text/html"))
    asked = request(ALICE, target=b"/mine")
    asked_at = clock.now - 0.5
    assert not lasting.store.put(identity, asked, head, b"on its way", asked_at, clock.now)
    lasting.disk.close()
    again = Lasting(tmp_path, clock)
    assert get(again, b"/mine", ALICE) is None
    again.disk.close()


def test_a_page_stored_after_the_logout_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    put(lasting, b"/mine", b"before", ALICE)
    log_out(lasting)
    put(lasting, b"/mine", b"after", ALICE)
    lasting.disk.close()
    again = Lasting(tmp_path, clock)
    found = get(again, b"/mine", ALICE)
    assert found is not None and found.body == b"after"
    again.disk.close()


@pytest.mark.parametrize("fails", [1, 2])
def test_what_is_taken_back_while_a_write_fails_stays_so(tmp_path: Path, fails: int) -> None:
    """The batch under way is tried again, without what has been dropped meanwhile."""
    clock, writer = Clock(), Later()
    lasting = Lasting(tmp_path, clock, writer=writer)
    commit = lasting.disk._database.commit

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    put(lasting, b"/mine", b"private", ALICE)
    put(lasting, b"/other", b"of bob", BOB)
    for _ in range(fails):
        lasting.disk._database.commit = fail  # type: ignore[assignment]
        clock.now += 6.0
        lasting.tick()
        log_out(lasting)  # while it is under way
        lasting.forget()
        assert get(lasting, b"/mine", ALICE) is None
        writer.work()
        assert get(lasting, b"/mine", ALICE) is None
    lasting.disk._database.commit = commit  # type: ignore[method-assign]
    lasting.disk.close()
    again = Lasting(tmp_path, clock)
    assert get(again, b"/mine", ALICE, superseded=True) is None
    assert get(again, b"/other", BOB) is not None
    again.disk.close()


@pytest.mark.parametrize("left", [None, b"", bytes(31), bytes(32), bytes(33)])
def test_without_the_secret_nothing_personal_is_there_any_more(
    tmp_path: Path, left: bytes | None
) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    vary = (b"vary", b"x-kind")
    asked = request(target=b"/public")
    head = response((b"content-type", b"text/html"), vary)
    identity = identify(asked, lasting.rules)
    assert lasting.store.put(identity, asked, head, b"everyone's", clock.now, clock.now)
    put(lasting, b"/mine", b"private", ALICE)
    lasting.disk.close()
    (tmp_path / "secret").unlink()
    if left is not None:
        (tmp_path / "secret").write_bytes(left)
    again = Lasting(tmp_path, clock)
    assert any((tmp_path / "secret").read_bytes())
    assert again.disk.stats()["entries"] == 1
    assert get(again, b"/mine", ALICE) is None
    found = get(again, b"/public")
    assert found is not None and found.body == b"everyone's"
    again.disk.close()


def test_private_off_keeps_and_finds_nothing_personal(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    put(lasting, b"/mine", b"private-page", ALICE)
    put(lasting, b"/public", b"everyone's")
    lasting.disk.close()
    off = Lasting(tmp_path, clock, store_private="off")
    assert off.disk.stats()["entries"] == 1, "what was there is removed at the start"
    assert get(off, b"/mine", ALICE) is None
    put(off, b"/more", b"another-private", ALICE)
    off.disk.close()
    assert b"another-private" not in (tmp_path / "data.mdb").read_bytes()
    again = Lasting(tmp_path, clock)
    assert get(again, b"/more", ALICE) is None
    assert get(again, b"/public") is not None
    again.disk.close()


def test_no_store_is_never_on_disk_and_takes_what_was_there_away(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    put(lasting, b"/page", b"could be kept")
    lasting.disk.flush()
    asked = request(target=b"/page")
    head = response((b"cache-control", b"no-store"))
    identity = identify(asked, lasting.rules)
    clock.now += 1.0
    lasting.store.put(identity, asked, head, b"may-not-be-kept", clock.now, clock.now)
    found = get(lasting, b"/page")
    assert found is not None and found.body == b"may-not-be-kept", "memory has it"
    lasting.disk.close()
    assert b"may-not-be-kept" not in (tmp_path / "data.mdb").read_bytes()
    again = Lasting(tmp_path, clock)
    assert get(again, b"/page") is None
    again.disk.close()


def test_what_is_too_old_leaves_the_disk(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock, max_stale_s=7000.0)
    put(lasting, b"/old", b"old")
    lasting.disk.flush()
    lasting.forget()
    clock.now += 3650.0
    put(lasting, b"/new", b"new")
    lasting.disk.flush()
    clock.now += 3650.0
    lasting.tick()
    assert lasting.disk.stats()["entries"] == 1, "each hour it is looked for"
    assert get(lasting, b"/new") is not None
    lasting.disk.close()


def test_equal_bodies_are_on_disk_once(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    body = bytes(range(256)) * 200
    for number in range(10):
        put(lasting, b"/%d" % number, body)
    lasting.disk.flush()
    database = lasting.disk._database
    assert database.entries == 10
    assert database.bytes_used < 2 * len(body)
    for number in range(9):
        lasting.store.invalidation.purge(url=b"a.b/%d" % number, now=clock.now)
    lasting.disk.flush()
    assert len(get(lasting, b"/9").body) == len(body)  # type: ignore[union-attr]
    lasting.store.invalidation.purge(url=b"a.b/9", now=clock.now)
    lasting.disk.flush()
    assert (database.entries, database.bytes_used) == (0, 0), "every octet is given back"
    lasting.disk.close()


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Lasting(tmp_path, clock)
    for _ in range(5):
        put(lasting, b"/page", b"the same")
        lasting.disk.flush()
    assert lasting.disk.figures.written == 1
    clock.now += 700.0
    put(lasting, b"/page", b"the same")
    lasting.disk.flush()
    assert lasting.disk.figures.written == 2, "with the next step of time, that it is not too old"
    put(lasting, b"/page", b"another")
    lasting.disk.flush()
    assert lasting.disk.figures.written == 3
    lasting.disk.close()


def test_lineages_of_two_processes_are_never_the_same(tmp_path: Path) -> None:
    """The secret stays, and counting begins anew: what one made stands for another visitor now."""
    one, other = (
        OwnerRules(secret=b"s" * 32, origin=origin).lineages for origin in (b"one", b"other")
    )
    one.begin(b"name", b"value", 1.0)
    other.begin(b"name", b"value", 1.0)
    first, second = one.find(b"value"), other.find(b"value")
    assert first is not None and second is not None
    assert first.lineage != second.lineage


def test_marks_outlive_the_process_only_where_the_secret_does() -> None:
    lasting = OwnerRules(secret=b"s" * 32, lasting=True)
    assert lasting.mark(b"value") == OwnerRules(secret=b"s" * 32, lasting=True).mark(b"value")
    assert lasting.mark(b"value") != OwnerRules(secret=b"t" * 32, lasting=True).mark(b"value")
    assert OwnerRules(secret=b"s" * 32).mark(b"value") == hash(b"value")
