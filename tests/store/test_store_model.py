"""The store against a naive model, which keeps lists and counts everything anew."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retter.http.message import RequestHead
from retter.store.accounting import OWNER_OVERHEAD_BYTES
from retter.store.policy import Identity, key_of
from retter.store.record import (
    ENTRY_OVERHEAD_BYTES,
)
from retter.store.s3fifo import GHOSTS_MIN
from tests.support.eviction import NaiveQueues
from tests.support.heads import response_head as response
from tests.support.stores import (
    MODEL_MAX,
    MODEL_SHARE,
    MODEL_STALE,
    MODEL_VARIANTS,
    VISITORS,
    accepts,
    bodies,
    make,
    request,
    targets,
    visitors,
    who,
)
from tests.support.tracing import untraced


@dataclass
class Entry:
    """One entry of the model, with the request that it was stored for."""

    accept: bytes
    varies: bool
    size: int
    body: bytes
    stored_at: float
    superseded: bool
    etag: bytes


class StoreMachine(RuleBasedStateMachine):
    """The store and a model that keeps plain lists and counts everything anew after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.keys: dict[bytes, list[Entry]] = {}  # least recently used first
        self.queues = NaiveQueues(GHOSTS_MIN)
        self.changes: dict[bytes, float] = {}

    @initialize()
    def start(self) -> None:
        self.store = make(
            bytes_max=MODEL_MAX,
            owner_share=MODEL_SHARE,
            variants_max=MODEL_VARIANTS,
            max_stale_s=MODEL_STALE,
        )

    # The model

    def used(self) -> int:
        entries = [entry for slot in self.keys.values() for entry in slot]
        owners = {key[1:17] for key in self.keys if key[:1] == b"@"}
        return (
            sum(entry.size for entry in entries)
            + sum(map(len, {e.body for e in entries}))
            + OWNER_OVERHEAD_BYTES * len(owners)
        )

    def held(self, owner: bytes) -> int:
        slots = [slot for key, slot in self.keys.items() if key[1:17] == owner and key[:1] == b"@"]
        entries = [entry for slot in slots for entry in slot]
        return sum(entry.size + len(entry.body) for entry in entries) + OWNER_OVERHEAD_BYTES

    def drop_last(self, key: bytes) -> None:
        self.keys[key].pop()
        if not self.keys[key]:
            self.forget(key)

    def forget(self, key: bytes) -> list[Entry]:
        self.queues.remove(key)
        return self.keys.pop(key)

    def size_of(self, key: bytes) -> int:
        return sum(entry.size + len(entry.body) for entry in self.keys[key])

    def make_room(self, owner: bytes) -> None:
        while owner and self.held(owner) > MODEL_MAX * MODEL_SHARE:
            self.drop_last(next(key for key in self.keys if key[1:17] == owner))
        while self.used() > MODEL_MAX:
            queues = self.queues
            queues.probation = [(key, self.size_of(key)) for key, _ in queues.probation]
            key = queues.next_to_go(MODEL_MAX)
            if len(self.keys[key]) == 1 and queues.on_probation(key):
                queues.leave_ghost(key)
            self.drop_last(key)

    def touch(self, key: bytes) -> None:
        self.keys[key] = self.keys.pop(key)
        self.queues.asked.add(key)

    def selected(self, key: bytes, accept: bytes) -> Entry | None:
        for entry in self.keys.get(key, []):
            if not entry.varies or entry.accept == accept:
                return entry
        return None

    def remove(self, key: bytes, entry: Entry) -> None:
        self.keys[key] = [held for held in self.keys[key] if held is not entry]
        if not self.keys[key]:
            self.forget(key)

    # The steps

    def asked(
        self, visitor: str, path: bytes, accept: bytes, *more: tuple[bytes, bytes]
    ) -> tuple[RequestHead, Identity]:
        head = request(*VISITORS[visitor], (b"accept", accept), *more, target=path)
        return head, who(head)

    @rule(
        visitor=visitors,
        path=targets,
        accept=accepts,
        varies=st.booleans(),
        body=bodies,
        delay_s=st.sampled_from([0.0, 0.5, 5.0, 20.0]),
        etag=st.sampled_from([b'"1"', b'"2"']),
    )
    def put(
        self,
        visitor: str,
        path: bytes,
        accept: bytes,
        varies: bool,
        body: bytes,
        delay_s: float,
        etag: bytes,
    ) -> None:
        asked, identity = self.asked(visitor, path, accept)
        fields: list[tuple[bytes, bytes]] = [(b"etag", etag)]
        if varies:
            fields.append((b"vary", b"accept"))
        head = response(*fields)
        body = bytes(bytearray(body))
        requested_at = self.now - delay_s
        stored = self.store.put(identity, asked, head, body, requested_at, self.now)
        key, owner = identity.key, identity.owner
        size = ENTRY_OVERHEAD_BYTES + len(key) + len(head.stored) + len(etag)
        limit = MODEL_MAX * MODEL_SHARE - OWNER_OVERHEAD_BYTES if owner else MODEL_MAX
        late = bool(owner) and requested_at <= self.changes.get(owner, -1.0)
        # The very same again is not weighed: it is there already.
        assert stored is (not late and size + len(body) <= limit)
        if not stored:
            return
        kept = [
            entry for entry in self.keys.get(key, []) if entry.varies and entry.accept != accept
        ]
        new = Entry(
            accept,
            varies,
            size,
            body,
            self.now - delay_s,
            requested_at <= self.changes.get(key, -1.0),
            etag,
        )
        is_new = key not in self.keys
        self.keys.pop(key, None)
        self.keys[key] = [new, *kept[: MODEL_VARIANTS - 1]]
        if not is_new:
            self.queues.add(key, 0)
        self.make_room(owner)
        if is_new:
            self.queues.add(key, 0)

    @rule(visitor=visitors, path=targets, accept=accepts, superseded=st.booleans())
    def lookup(self, visitor: str, path: bytes, accept: bytes, superseded: bool) -> None:
        asked, identity = self.asked(visitor, path, accept)
        found = self.store.lookup(identity, asked, self.now, superseded=superseded)
        expected: Entry | None = None
        for key in (identity.key, identity.public_key):
            entry = None if key is None else self.selected(key, accept)
            if key is None or entry is None:
                continue
            if self.now - entry.stored_at > MODEL_STALE:
                self.remove(key, entry)
                continue
            if superseded or not entry.superseded:
                expected = entry
                self.touch(key)
            break
        if expected is None:
            assert found is None
        else:
            assert found is not None
            assert (found.body, found.superseded, found.etag) == (
                expected.body,
                expected.superseded,
                expected.etag,
            )
            assert found.age(self.now) == pytest.approx(self.now - expected.stored_at)

    @rule(
        visitor=visitors,
        path=targets,
        accept=accepts,
        etag=st.sampled_from([b'"1"', b'"2"']),
        delay_s=st.sampled_from([0.0, 5.0]),
        grown=st.sampled_from([0, 10, 3000]),
    )
    def refresh(
        self, visitor: str, path: bytes, accept: bytes, etag: bytes, delay_s: float, grown: int
    ) -> None:
        asked, identity = self.asked(visitor, path, accept, (b"if-none-match", etag))
        head = response((b"etag", etag), (b"x", b"y" * grown), status=304)
        requested_at = self.now - delay_s
        self.store.refresh(identity, asked, head, requested_at, self.now)
        key = identity.key
        entry = self.selected(key, accept)
        if entry is None or entry.etag != etag:
            return
        vary = len(b"vary: accept\r\n") if entry.varies else 0
        entry.size = (
            ENTRY_OVERHEAD_BYTES
            + len(key)
            + len(response((b"etag", etag)).stored)
            + vary
            + len(b"x: \r\n")
            + grown
            + len(etag)
        )
        entry.stored_at = requested_at
        entry.superseded = entry.superseded and requested_at <= self.changes.get(key, -1.0)
        self.touch(key)
        self.make_room(identity.owner)

    @rule(visitor=visitors, path=targets)
    def supersede(self, visitor: str, path: bytes) -> None:
        _, identity = self.asked(visitor, path, b"a")
        marked = self.store.invalidation.supersede(identity, [identity.url], self.now)
        expected = 0
        for key in {identity.key, key_of(b"", identity.url)}:
            self.changes[key] = self.now
            for entry in self.keys.get(key, []):
                expected += not entry.superseded
                entry.superseded = True
        assert marked == expected

    @rule(visitor=visitors)
    def drop_owner(self, visitor: str) -> None:
        _, identity = self.asked(visitor, b"/1", b"a")
        dropped = self.store.invalidation.drop_owner(identity.owner, self.now)
        mine = [key for key in self.keys if identity.owner and key[1:17] == identity.owner]
        if identity.owner:
            self.changes[identity.owner] = self.now
        assert dropped == sum(len(self.forget(key)) for key in mine)

    @rule(path=targets)
    def purge(self, path: bytes) -> None:
        gone = [key for key in self.keys if key.endswith(b"a.b" + path)]
        assert self.store.invalidation.purge(url=b"a.b" + path) == sum(
            len(self.forget(k)) for k in gone
        )

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def every_byte_is_counted(self) -> None:
        if not hasattr(self, "store"):
            return
        stats = self.store.stats()
        entries = [entry for slot in self.keys.values() for entry in slot]
        assert stats["entries"] == len(entries)
        assert stats["keys"] == len(self.keys)
        assert stats["bodies"] == len({entry.body for entry in entries})
        assert stats["owners"] == len({key[1:17] for key in self.keys if key[:1] == b"@"})
        assert stats["bytes_used"] == self.used() <= MODEL_MAX


StoreMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestStoreMachine = untraced(StoreMachine.TestCase)


class HidingMachine(StoreMachine):
    """The same with purges of very many: what nobody finds any more is counted for a while."""

    @rule(path=targets)
    def hide(self, path: bytes) -> None:
        gone = [key for key in self.keys if key.endswith(b"a.b" + path)]
        assert self.store.shelves.hide(gone) == sum(len(self.forget(k)) for k in gone)

    @rule()
    def tick(self) -> None:
        self.store.free_some()

    @invariant()
    def every_byte_is_counted(self) -> None:
        if not hasattr(self, "store"):
            return
        if not self.store.shelves._hidden:
            super().every_byte_is_counted()
            return
        stats = self.store.stats()
        assert stats["entries"] == sum([len(slot) for slot in self.keys.values()])
        assert stats["keys"] == len(self.keys)
        assert self.used() <= stats["bytes_used"] <= MODEL_MAX


HidingMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestHidingMachine = untraced(HidingMachine.TestCase)
