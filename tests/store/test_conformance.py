"""One store, whatever is behind it: the same machine runs against memory alone and with a disk.

What is stored, for whom, what is superseded, taken back and dropped, and what is too old, is held
against a naive model. With a disk, memory may lose everything at any time, the process may be
restarted, and it may be killed: then what comes back must be what was stored for this very owner
and URL, and nothing that was dropped, superseded or taken back.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retter.http.message import RequestHead
from retter.store.owner import OwnerRules
from retter.store.policy import Identity, identify
from retter.store.store import ResponseStore, StoreRules
from tests.support.disk import Clock, Lasting
from tests.support.far import Box, FakeServer, settle
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, BOB, SECRET, request
from tests.support.tracing import untraced

EVERYONE, MAX_STALE_S = "everyone", 1000.0
COOKIES = {EVERYONE: (), "alice": (ALICE,), "bob": (BOB,)}
PATHS = (b"/a", b"/b", b"/a/c?d=e", b"/" + b"long" * 300)

who = st.sampled_from(sorted(COOKIES))
paths = st.sampled_from(PATHS)
bodies = st.sampled_from([b"one", b"two", b"three" * 2000])


class Entry:
    """An answer, as the model sees it."""

    def __init__(self, body: bytes, at: float, *, no_store: bool) -> None:
        self.body = body
        self.at = at
        self.no_store = no_store
        self.superseded = False
        self.withdrawn = False


class Near(RuleBasedStateMachine):
    """Memory alone."""

    store: ResponseStore
    owner_rules: OwnerRules

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.model: dict[tuple[str, bytes], Entry] = {}
        # Of each key what may come back from a disk: all since it was dropped, and of these what
        # has not been superseded.
        self.past: dict[tuple[str, bytes], set[bytes]] = {}
        self.fresh: dict[tuple[str, bytes], set[bytes]] = {}
        self.hidden: list[tuple[tuple[str, bytes], Entry, Any]] = []
        self.make()

    def make(self) -> None:
        self.owner_rules = OwnerRules(secret=SECRET)
        self.store = ResponseStore(StoreRules(secret=SECRET, max_stale_s=MAX_STALE_S))

    def look(self, identity: Identity) -> None:
        """Do what `begin` does before it asks the store."""

    def asked(self, who: str, path: bytes) -> tuple[RequestHead, Identity]:
        asked = request(*COOKIES[who], target=path)
        identity = identify(asked, self.owner_rules)
        self.look(identity)
        return asked, identity

    # -- what a proxy does

    @rule(who=who, path=paths, body=bodies, no_store=st.sampled_from([False, False, True]))
    def put(self, who: str, path: bytes, body: bytes, no_store: bool) -> None:
        self.clock.now += 1.0
        asked, identity = self.asked(who, path)
        fields = [(b"content-type", b"text/html")]
        if no_store:
            fields.append((b"cache-control", b"no-store"))
        now = self.clock.now
        assert self.store.put(identity, asked, response(*fields), body, now, now)
        self.model[who, path] = Entry(body, now, no_store=no_store)
        if not no_store:
            self.past.setdefault((who, path), set()).add(body)
            self.fresh.setdefault((who, path), set()).add(body)

    def expected(self, who: str, path: bytes, superseded: bool) -> bytes | None:
        own = self.model.get((who, path))
        for entry in (own, self.model.get((EVERYONE, path))):
            if entry is None or entry.withdrawn or self.clock.now - entry.at > MAX_STALE_S:
                continue
            if entry.superseded and not superseded:
                return None
            return entry.body
        return None

    def found(self, who: str, path: bytes, superseded: bool) -> bytes | None:
        asked, identity = self.asked(who, path)
        found = self.store.lookup(identity, asked, self.clock.now, superseded=superseded)
        return None if found is None else found.body

    @rule(who=who, path=paths, superseded=st.booleans())
    def lookup(self, who: str, path: bytes, superseded: bool) -> None:
        assert self.found(who, path, superseded) == self.expected(who, path, superseded)

    @rule(who=who, path=paths)
    def change(self, who: str, path: bytes) -> None:
        self.clock.now += 1.0
        _, identity = self.asked(who, path)
        self.store.invalidation.supersede(identity, [identity.url], self.clock.now)
        for one in {who, EVERYONE}:
            self.fresh.pop((one, path), None)
            if (entry := self.model.get((one, path))) is None:
                continue
            if entry.withdrawn:
                # Hidden and changed as well: it is not given back.
                del self.model[one, path]
            else:
                entry.superseded = True

    @rule(who=st.sampled_from(["alice", "bob"]))
    def log_out(self, who: str) -> None:
        self.clock.now += 1.0
        _, identity = self.asked(who, b"/a")
        self.store.invalidation.drop_owner(identity.owner, self.clock.now, identity.marks)
        self.drop(lambda key: key[0] == who)

    def drop(self, which: Any) -> None:
        for held in (self.model, self.past, self.fresh):
            for key in [key for key in held if which(key)]:
                del held[key]
        self.hidden = [one for one in self.hidden if not which(one[0])]

    @rule(path=paths)
    def purge_url(self, path: bytes) -> None:
        self.clock.now += 1.0
        self.store.invalidation.purge(url=b"a.b" + path, now=self.clock.now)
        self.drop(lambda key: key[1] == path)

    @rule()
    def purge_prefix(self) -> None:
        self.clock.now += 1.0
        self.store.invalidation.purge(prefix=b"/a", now=self.clock.now)
        self.drop(lambda key: key[1].startswith(b"/a"))

    @rule()
    def empty(self) -> None:
        self.clock.now += 1.0
        self.store.invalidation.empty(self.clock.now)
        self.drop(lambda _: True)

    @rule(who=who, path=paths)
    def take_back(self, who: str, path: bytes) -> None:
        self.clock.now += 1.0
        _, identity = self.asked(who, path)
        entry = self.model.get((who, path))
        withdrawn = self.store.taken_back.withdraw(identity.key, self.clock.now)
        there = entry is not None and not entry.withdrawn
        if withdrawn is None:
            # What is too old may be gone by now, or not.
            assert not there or self.clock.now - entry.at > MAX_STALE_S  # type: ignore[union-attr]
            return
        assert there and entry is not None
        entry.withdrawn = True
        self.past.pop((who, path), None)
        self.fresh.pop((who, path), None)
        self.hidden.append(((who, path), entry, withdrawn))

    @rule(back=st.booleans())
    def judge(self, back: bool) -> None:
        """It was a broken deployment, or it was not."""
        for key, entry, withdrawn in self.hidden:
            if self.model.get(key) is not entry:
                continue
            if not back:
                self.store.taken_back.discard(withdrawn)
                del self.model[key]
            else:
                self.store.taken_back.restore(withdrawn)
                entry.withdrawn = False
                if not entry.no_store:
                    self.past.setdefault(key, set()).add(entry.body)
                    if not entry.superseded:
                        self.fresh.setdefault(key, set()).add(entry.body)
        self.hidden = []

    @rule(seconds=st.sampled_from([0.05, 6.0, 400.0, 1001.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.tick()

    def tick(self) -> None:
        self.store.free_some()

    @invariant()
    def nobody_gets_what_is_somebody_elses(self) -> None:
        for who in COOKIES:
            for path in PATHS:
                found = self.found(who, path, True)
                own, public = self.model.get((who, path)), self.model.get((EVERYONE, path))
                assert found in (None, own and own.body, public and public.body)


class Here(Near):
    """Memory with a disk behind it."""

    def make(self) -> None:
        self.folders: list[Path] = []
        self.open(Path(tempfile.mkdtemp(prefix="retter-here-")) / "store")

    def open(self, folder: Path) -> None:
        self.folders.append(folder)
        self.lasting = Lasting(folder, self.clock, max_stale_s=MAX_STALE_S, fresh_for_s=10.0)
        self.store, self.owner_rules = self.lasting.store, self.lasting.rules

    def look(self, identity: Identity) -> None:
        self.lasting.look(identity)

    def tick(self) -> None:
        super().tick()
        self.lasting.tick()

    @rule()
    def forget(self) -> None:
        """Others have pushed everything out of memory."""
        self.keep_hidden()
        self.lasting.forget()
        self.lose_no_store()

    def lose_no_store(self) -> None:
        for key in [key for key, entry in self.model.items() if entry.no_store]:
            # What it had replaced is gone from the disk as well, with the next commit.
            del self.model[key]

    def keep_hidden(self) -> None:
        # What is hidden and not in memory any more cannot be given back, and is not found.
        self.judge(False)

    @rule()
    def restart(self) -> None:
        self.keep_hidden()
        self.lasting.disk.close()
        self.lose_no_store()
        self.open(self.folders[-1])

    @rule()
    def kill(self) -> None:
        """Kill the process: only the content of the disk is left."""
        self.keep_hidden()
        before = self.folders[-1]
        after = before.with_name(f"store{len(self.folders)}")
        shutil.copytree(before, after)
        disk = self.lasting.disk
        disk._database.close()
        disk._journal.close()
        disk._folder.close()
        shutil.rmtree(before)
        self.open(after)
        for who in COOKIES:
            for path in PATHS:
                self.adopt(who, path)

    def adopt(self, who: str, path: bytes) -> None:
        """Whatever came back must be allowed to; from here on it is what is stored."""
        _, identity = self.asked(who, path)
        key = (who, path)
        slot = self.store._slot(identity.key, self.clock.now)
        self.model.pop(key, None)
        if not slot:
            return
        (found,) = slot
        entry = Entry(found[2], found[6], no_store=False)
        entry.superseded = found[8]
        assert entry.body in self.past.get(key, ())
        assert entry.superseded or entry.body in self.fresh.get(key, ())
        self.model[key] = entry

    def teardown(self) -> None:
        if hasattr(self, "lasting"):
            self.lasting.disk.close()
            shutil.rmtree(self.folders[-1].parent)


class Far(Near):
    """Memory of one box, with a server behind it that another box uses too.

    Either box may lose its memory, and the server may be away or lose everything. What comes back
    must have been stored for this very owner and URL, and nothing that was dropped or taken back;
    what was superseded comes back as superseded.
    """

    def make(self) -> None:
        self.was_away = False
        self.server = FakeServer(self.clock)
        self.boxes = [Box(self.server, self.clock, name) for name in ("one", "two")]
        self.use(0)
        settle(self.clock, *self.boxes)

    def use(self, number: int) -> None:
        self.box = self.boxes[number]
        self.store, self.owner_rules = self.box.store, self.box.rules

    def tick(self) -> None:
        settle(self.clock, *self.boxes, seconds=0.5)
        if self.was_away:
            # The boxes tell again what the server may have lost, and that may concern what was
            # stored since: it is absent then.
            self.judge(False)
            for _ in range(60):
                if not any(box.shelf.away(self.clock.now) for box in self.boxes):
                    break
                settle(self.clock, *self.boxes, seconds=0.5)
            else:
                raise AssertionError("the server is there, and no box has noticed")
            settle(self.clock, *self.boxes, seconds=1.0)
            self.was_away = False
            self.adopt_all()

    @rule()
    def go_to_the_other_box(self) -> None:
        """A balancer sends everybody to the other box, some moments later."""
        self.judge(False)
        settle(self.clock, *self.boxes, seconds=1.5)
        self.use(self.boxes.index(self.box) ^ 1)
        self.adopt_all()

    @rule()
    def forget(self) -> None:
        """Others have pushed everything out of memory."""
        self.judge(False)
        self.box.forget()
        self.adopt_all()

    @rule()
    def restart(self) -> None:
        self.judge(False)
        number = self.boxes.index(self.box)
        self.box.shelf.close()
        self.boxes[number] = Box(self.server, self.clock, f"again{self.clock.now}")
        self.use(number)
        settle(self.clock, *self.boxes, seconds=0.5)
        self.adopt_all()

    @rule()
    def flush(self) -> None:
        self.server.flush()

    @rule(seconds=st.sampled_from([0.5, 3.0]))
    def be_away(self, seconds: float) -> None:
        self.server.trouble = "away"
        settle(self.clock, *self.boxes, seconds=seconds)
        self.server.trouble = ""
        self.was_away = True

    def adopt_all(self) -> None:
        for who in COOKIES:
            for path in PATHS:
                _, identity = self.asked(who, path)
                self.box.look(identity)
                self.adopt(who, path, identity)

    def adopt(self, who: str, path: bytes, identity: Identity) -> None:
        """Whatever came back must be allowed to; from here on it is what is stored."""
        key = (who, path)
        slot = self.store.shelves.slots.get(identity.key)
        self.model.pop(key, None)
        if not slot:
            return
        (found,) = slot
        entry = Entry(found[2], found[6], no_store=found[9])
        entry.superseded = found[8]
        assert entry.no_store or entry.body in self.past.get(key, ())
        assert entry.no_store or entry.superseded or entry.body in self.fresh.get(key, ())
        self.model[key] = entry


TestNear = untraced(Near.TestCase)
TestNear.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestHere = untraced(Here.TestCase)
TestHere.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestFar = untraced(Far.TestCase)
TestFar.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_a_page_that_was_read_from_the_disk_and_not_copied_is_taken_back() -> None:
    site = Here()
    site.begin()
    site.put(body=b"one", no_store=False, path=b"/a", who="alice")
    for step in (site.restart, site.forget):
        site.nobody_gets_what_is_somebody_elses()
        step()
    site.nobody_gets_what_is_somebody_elses()
    site.take_back(path=b"/a", who="alice")
    site.nobody_gets_what_is_somebody_elses()
    site.teardown()
