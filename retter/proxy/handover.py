"""The handover of a process's state to its successor (SIGUSR2).

The old process continues to serve while the new one starts. When the new process is ready, it asks
for the state:

1. The old process writes the stored responses and the known sessions into a file in memory (the
   snapshot), in slices. Changes during that time are appended: removals at once, in their place in
   the order, and newly stored responses at the end. Then the file is sealed.
2. From then on each change goes over the link between the two processes. The new process reads the
   file, then the link, and reports when it has read the file.
3. The old process sends the state of the circuit, the demand of each client, and the used tickets.
   The new process begins to accept connections.
4. Until the old process ends, each process sends its removals to the other, before the next
   response that would conflict with them, and its requests in flight. The old process also sends
   what it stores.

So a response that one process removes is not shown by the other for longer than a message takes.
If the state cannot be read, the new process begins without it.
"""

import asyncio
import contextlib
import fcntl
import json
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from retter.base.frames import PREAMBLE, BadFrame, FrameReader, FrameWriter, after_preamble
from retter.breaker.handover import Shared, demand_of, go_on, spent_of, state_of
from retter.disk.journal import packed_removals, unpacked_removals
from retter.proxy.follower import Follower
from retter.proxy.lasting import may_be_kept, written_rules
from retter.proxy.secrets import Secrets, unpacked_secrets
from retter.proxy.services import Services
from retter.proxy.state_link import Kind, StateLink
from retter.store.handover import SlotReader, SlotWriter
from retter.store.lineage import Facts, Place
from retter.store.owner import OWNER_BYTES
from retter.store.record import AGE_MAX, BODY, HEAD, INCOMPLETE, SUPERSEDED, VARIANT_KEY
from retter.store.sessions import NAMES_LEARNT_MAX, SHARED_MAX
from retter.store.write_behind import Removals, Slot

# A slice blocks the event loop for this long. Its last step may take as long again.
SLICE_S: Final = 0.001
# The pause between two slices: clients get half of the processor time.
REST_S: Final = 0.001

TELL_EVERY_S: Final = 0.05  # as the breaker's tick
SILENT_S: Final = 5.0  # a process without reports for this long hangs and is not counted

SESSIONS_EVERY: Final = 20  # in intervals of TELL_EVERY_S

SESSIONS_PER_FRAME: Final = 200

SECRETS_S: Final = 5.0  # to wait for the first frame, which is sent before the new process starts
FLUSH_S: Final = 1.0  # to send the last frames, when the old process ends

# The time limit for the old process to write the whole state and for the new one to read it.
STATE_S: Final = 30.0


class Sessions:
    """The known sessions, and a record of those already sent."""

    def __init__(self, services: Services) -> None:
        self._rules = services.owner_rules
        self._sent: dict[object, object] = {}

    def frames(self) -> Iterator[bytes]:
        """Yield the sessions that have not been sent yet, in batches."""
        seen, lineages = self._rules.seen, self._rules.lineages
        yield from self._plain("names", list(seen.names))
        yield from self._plain("rolling", list(lineages.names))
        yield from self._plain("shared", list(seen.shared))
        yield from self._plain("begun", seen.all_issued())
        yield from self._plain("known", seen.known.all_marks())
        values = lineages.all_values()
        for begin in range(0, len(values), SESSIONS_PER_FRAME):
            rows: list[Any] = []
            for value in values[begin : begin + SESSIONS_PER_FRAME]:
                facts = lineages.facts_of(value)
                if facts is not None and self._sent.get(value) != facts:
                    self._sent[value] = facts
                    rows.append(_as_json(facts))
            yield json.dumps({"values": rows}).encode() if rows else b""

    def _plain(self, name: str, all_of_them: Sequence[Any]) -> Iterator[bytes]:
        sent = self._sent
        for begin in range(0, len(all_of_them), SESSIONS_PER_FRAME):
            new: list[Any] = []
            for one in all_of_them[begin : begin + SESSIONS_PER_FRAME]:
                if (name, one) not in sent:
                    sent[name, one] = None
                    new.append(one.hex() if isinstance(one, bytes) else one)
            yield json.dumps({name: new}).encode() if new else b""


def _as_json(facts: Facts) -> list[Any]:
    value, place, parent, continued, heirs, replaced_at = facts
    written_place = None
    if place is not None:
        earlier = [[owner.hex(), generation] for owner, generation in place.earlier]
        written_place = [place.lineage.hex(), place.generation, earlier]
    return [
        value.hex(),
        written_place,
        parent.hex(),
        continued,
        [one.hex() for one in heirs],
        replaced_at,
    ]


def _know_sessions(services: Services, payload: bytes) -> None:
    """Learn the sessions that another process knows.

    Raises:
        ValueError: The payload does not have the expected form.
    """
    rules = services.owner_rules
    seen, octets = rules.seen, bytes.fromhex
    try:
        said = json.loads(payload)
        for name in said.get("names", ())[:NAMES_LEARNT_MAX]:
            seen.learn_name(octets(name))
        rules.lineages.names.update(map(octets, said.get("rolling", ())[:NAMES_LEARNT_MAX]))
        for one in said.get("shared", ())[:SHARED_MAX]:
            if len(octets(one)) == OWNER_BYTES:
                seen.shared[octets(one)] = None
        for one in said.get("begun", ()):
            seen.restore_issued(octets(one))
        for mark, table, since in said.get("known", ()):
            seen.known.know(int(mark), str(table), float(since))
        for value, place, parent, continued, heirs, replaced_at in said.get("values", ()):
            rules.lineages.restore(
                (
                    octets(value),
                    None if place is None else _place(*place),
                    octets(parent),
                    bool(continued),
                    tuple(map(octets, heirs)),
                    float(replaced_at),
                )
            )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("no sessions") from error


def _place(lineage: str, generation: int, earlier: list[list[Any]]) -> Place:
    octets = bytes.fromhex
    known = tuple([(octets(one), int(number)) for one, number in earlier])
    return Place(octets(lineage), int(generation), known)


class _End:
    """The common part of both ends while both processes serve.

    Attributes:
        link: To the other end.
        shared: The other process's requests in flight; None while only one process serves.
    """

    def __init__(self, services: Services, link: StateLink) -> None:
        self.services = services
        self.link = link
        self.shared: Shared | None = None
        self._loop = services.loop
        self._applies = False  # a change from the other end, which is not sent back
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        link.on_frame = self.on_frame
        link.on_end = self.on_end

    # -- following the store

    def follow(self) -> None:
        """Listen to changes of the store."""
        store = self.services.store
        follower = store.behind
        if not isinstance(follower, Follower):
            follower = Follower(follower)
            store.put_behind(follower)
        follower.listeners.append(self)

    def follow_no_more(self) -> None:
        """Stop listening to changes of the store."""
        store = self.services.store
        follower = store.behind
        if isinstance(follower, Follower) and self in follower.listeners:
            follower.listeners.remove(self)
            if not follower.listeners:
                store.put_behind(follower.inner)

    def changed(self, key: bytes) -> None:
        """The responses stored under a key have changed or been removed."""

    def removed(self, removals: Removals) -> None:
        """This process has removed stored responses."""
        if not self._applies:
            self.link.send(Kind.REMOVALS, packed_removals(removals))

    # -- frames from the other end

    def on_frame(self, kind: int, payload: bytes) -> None:
        """Process the frames that either end may send."""
        now = self._loop.time()
        if kind == Kind.REMOVALS:
            self._applies = True
            try:
                self.services.store.invalidation.take_back(unpacked_removals(payload), now)
            finally:
                self._applies = False
        elif kind == Kind.REPORT:
            if self.shared is not None:
                self.shared.take(json.loads(payload), now)
                self._heard_at = now
        else:
            raise ValueError(f"a frame of kind {kind}")

    def share(self, *, comes: bool) -> None:
        """Begin to report to the other end: from now on both processes serve."""
        self.shared = Shared(self.services.breaker.circuit, comes=comes)
        self._heard_at = self._loop.time()
        self._tell()

    def _tell(self) -> None:
        self._timer = self._loop.call_later(TELL_EVERY_S, self._tell)
        if self.shared is not None:
            if self._loop.time() - self._heard_at > SILENT_S:
                self.shared.forget()
            self.link.send(Kind.REPORT, json.dumps(self.shared.report()).encode())

    def on_end(self, reason: str) -> None:
        """The other end is closed, or its frames cannot be read."""
        self.close()

    def close(self) -> None:
        """Close the link and continue without the other process."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.follow_no_more()
        if self.shared is not None:
            self.shared.end()
            self.shared = None
        self.link.close()


class Giver(_End):
    """The end of the old process.

    Args:
        memory_fd: Descriptor of the file in memory; it is closed when the file is sealed.
    """

    def __init__(self, services: Services, link: StateLink, memory_fd: int) -> None:
        super().__init__(services, link)
        self._memory_fd = memory_fd
        self._frames: FrameWriter | None = None  # while the snapshot is written
        self._buffer = bytearray()
        self._count = 0
        self._length = 0
        self._dirty: dict[bytes, None] = {}
        self._slots = SlotWriter()
        self._sessions = Sessions(services)
        self._steps: Iterator[None] | None = None
        self._next: asyncio.TimerHandle | None = None
        self._rounds = 0
        self.held_s_max = 0.0  # the longest slice
        self.link.send(Kind.SECRETS, services.secrets.packed())
        link.start(services.loop)
        # From now on this process does not report stored responses to the disk: the successor
        # will do so.
        self.follow()

    def changed(self, key: bytes) -> None:
        """The responses stored under a key have changed or been removed."""
        if not self._applies:
            self._dirty[key] = None

    def removed(self, removals: Removals) -> None:
        """This process has removed stored responses: send that in its place in the order."""
        if not self._applies:
            self._send(Kind.REMOVALS, packed_removals(removals))

    def on_frame(self, kind: int, payload: bytes) -> None:
        """Process a frame from the successor."""
        if kind == Kind.WANT:
            if self._memory_fd < 0:
                self._no_snapshot()
                return
            self._frames = FrameWriter()
            self._buffer += PREAMBLE
            self._go(self._snapshot())
        elif kind == Kind.LOADED:
            self._go(self._last_changes())
        else:
            super().on_frame(kind, payload)

    def _send(self, kind: Kind, payload: bytes) -> None:
        """Write a frame into the snapshot while that is written, else send it over the link."""
        if self._frames is None:
            self.link.send(kind, payload)
            return
        self._buffer += self._frames.frame(kind, payload)
        self._count += 1

    # -- in slices

    def _go(self, steps: Iterator[None]) -> None:
        self._steps = steps
        self._slice()

    def _slice(self) -> None:
        self._next = None
        if self._steps is None or not self.link.is_open:
            return
        begun = time.perf_counter()
        try:
            for _ in self._steps:
                if time.perf_counter() - begun >= SLICE_S:
                    self._next = self._loop.call_later(REST_S, self._slice)
                    break
            self._write()
        except OSError:
            self._no_snapshot()
        self.held_s_max = max(self.held_s_max, time.perf_counter() - begun)

    def _write(self) -> None:
        """Write the collected frames into the file.

        Raises:
            OSError: There is not enough memory.
        """
        if self._memory_fd < 0 or not self._buffer:
            return
        with memoryview(self._buffer) as view:
            at = 0
            while at < len(view):
                at += os.write(self._memory_fd, view[at:])
        self._length += len(self._buffer)
        self._buffer.clear()

    def _snapshot(self) -> Iterator[None]:
        services = self.services
        disk, rules = services.disk, services.owner_rules
        written = {
            "rules": written_rules(rules, services.settings.store_policy),
            "upstream": services.settings.upstream,
        }
        self._send(Kind.RULES, json.dumps(written).encode())
        if disk is not None:
            # The successor may read the disk before these removals are committed.
            self._send(Kind.REMOVALS, packed_removals(disk.behind.all_removals()))
        for frame in self._sessions.frames():
            if frame:
                self._send(Kind.SESSIONS, frame)
            yield
        for key in list(services.store.shelves.slots):
            yield from self._slot_steps(key, is_new=False)
        yield from self._dirty_steps()
        self._seal()

    def _seal(self) -> None:
        self._send(Kind.END, self._count.to_bytes(8, "little"))
        self._write()
        fcntl.fcntl(
            self._memory_fd,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE,
        )
        self._end_snapshot(self._length)

    def _no_snapshot(self) -> None:
        """There is no memory for the snapshot: the successor begins with an empty store."""
        self._steps = None
        self._end_snapshot(0)

    def _end_snapshot(self, length: int) -> None:
        self._frames = None
        self._buffer.clear()
        self._slots = SlotWriter(remembers=False)
        self._close_memory()
        self.link.send(Kind.SEALED, length.to_bytes(8, "little"))

    def _close_memory(self) -> None:
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1

    def _slot_steps(self, key: bytes, *, is_new: bool) -> Iterator[None]:
        """Send the responses stored under a key."""
        store = self.services.store
        slot = store.shelves.slots.get(key)
        if slot is None:
            if is_new:
                slot = ()
            else:
                return
        if self.link.is_full and self._frames is None:
            return
        marks = store.shelves.marks_of(key)
        now = self._loop.time()
        for is_slot, payload in self._slots.write(key, slot, marks, now, for_disk=is_new):
            if is_slot and not _is_same(slot, store.shelves.slots.get(key, ())):
                # The slot has changed, or was removed, since its first piece was sent.
                self._dirty[key] = None
                return
            self._send(Kind.SLOT if is_slot else Kind.PIECE, payload)
            yield

    def _dirty_steps(self) -> Iterator[None]:
        dirty = self._dirty
        while dirty:
            key = next(iter(dirty))
            del dirty[key]
            yield from self._slot_steps(key, is_new=True)

    def _last_changes(self) -> Iterator[None]:
        """Send the changes since the snapshot and then, in one step, the present state."""
        for frame in self._sessions.frames():
            if frame:
                self._send(Kind.SESSIONS, frame)
            yield
        yield from self._dirty_steps()
        circuit = self.services.breaker.circuit
        self._send(Kind.DEMAND, demand_of(circuit))
        self._send(Kind.SPENT, spent_of(circuit))
        said = {
            "upstream": self.services.settings.upstream,
            "circuit": state_of(circuit),
            "forced_until": self.services.forced_until,
        }
        self._send(Kind.CIRCUIT, json.dumps(said).encode())
        self.share(comes=False)

    def _tell(self) -> None:
        super()._tell()
        self._rounds += 1
        if self._next is None:
            self._go(self._news())

    def _news(self) -> Iterator[None]:
        yield from self._dirty_steps()
        if self._rounds % SESSIONS_EVERY == 0:
            for frame in self._sessions.frames():
                if frame:
                    self._send(Kind.SESSIONS, frame)
                yield

    def finish(self) -> None:
        """This process ends: send the remaining changes, and wait until they are sent."""
        if self.shared is not None:
            for _ in self._dirty_steps():
                pass
            self.link.flush(FLUSH_S)
        self.close()

    def close(self) -> None:
        """Close the link: there is no successor, or this process ends."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._steps = None
        self._close_memory()
        super().close()


class Taker(_End):
    """The end of the new process.

    Args:
        memory_fd: Descriptor of the file in memory; it is closed when the file has been read.
        told: The old process's secrets.

    Attributes:
        entries: Number of responses taken over.
        trouble: Why the state could not be taken over; "" if it could.
    """

    def __init__(
        self, services: Services, link: StateLink, memory_fd: int, secrets: Secrets
    ) -> None:
        super().__init__(services, link)
        self._memory_fd = memory_fd
        own = services.secrets
        self._same_secrets = (secrets.owner, secrets.public) == (own.owner, own.public)
        self._waits: asyncio.Future[bytes] | None = None
        self._for: Kind | None = None
        self._demand = self._spent = b""
        self._slots = SlotReader(remembers=False)
        self._own = Removals()  # of this process: applied to responses from the old one
        self._keeps_store = False
        self.entries = 0
        self.trouble = ""

    # -- before it serves

    async def load(self) -> None:
        """Take over the state as far as possible; afterwards this process may serve."""
        try:
            async with asyncio.timeout(STATE_S):
                await self._load()
        except TimeoutError:
            self._give_up("it does not come in time")
        except (BadFrame, ValueError, OSError) as error:
            self._give_up(str(error))
        finally:
            self._close_memory()

    async def _load(self) -> None:
        self.link.start(self._loop)
        length = int.from_bytes(await self._ask(Kind.WANT, Kind.SEALED), "little")
        try:
            await self._read_memory(length)
        except (BadFrame, ValueError, OSError) as error:
            self.trouble = str(error)
            self._keeps_store = False
            self.services.store.invalidation.empty(self._loop.time())
        self.link.read_on()
        self.follow()
        said = json.loads(await self._ask(Kind.LOADED, Kind.CIRCUIT))
        now = self._loop.time()
        circuit = self.services.breaker.circuit
        if said["upstream"] == self.services.settings.upstream:
            if go_on(circuit, said["circuit"], self._demand, self._spent, now):
                self.services.answers.set_state(circuit.state)
                until = said.get("forced_until")
                self.services.forced_until = None if until is None else float(until)
            else:
                self.trouble = self.trouble or "the state of the circuit is not understood"
        self.share(comes=True)
        self.link.read_on()

    async def _ask(self, what: Kind, answer: Kind) -> bytes:
        """Send a frame, and wait for the answer; later frames are not read yet."""
        self._waits, self._for = self._loop.create_future(), answer
        self.link.send(what)
        if not self.link.is_open:
            raise ValueError("the other process has ended")
        return await self._waits

    def _give_up(self, why: str) -> None:
        self.trouble = self.trouble or why
        self.close()

    def on_end(self, reason: str) -> None:
        """The old process has ended, or its frames cannot be read."""
        if self._waits is not None and not self._waits.done():
            self._waits.set_exception(ValueError(reason or "the other process has ended"))
        super().on_end(reason)

    async def _read_memory(self, length: int) -> None:
        """Read the snapshot: first verify all of it, then take it over.

        Raises:
            BadFrame: It does not verify.
            ValueError: A frame does not have the expected content.
        """
        if not length:
            raise ValueError("there was no memory for it")
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        if fcntl.fcntl(self._memory_fd, fcntl.F_GET_SEALS) & wanted != wanted:
            raise BadFrame("it is not sealed")
        if os.fstat(self._memory_fd).st_size != length:
            raise BadFrame("it has another length")
        with (
            # Before Linux 6.7, a sealed file cannot be mapped as shared, not even read-only.
            mmap.mmap(self._memory_fd, length, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped,
            memoryview(mapped) as view,
        ):
            count = 0
            for kind, payload in frames_in(view):
                if kind == Kind.END and int.from_bytes(payload, "little") != count:
                    raise BadFrame("frames are missing")
                count += 1
                if count % 64 == 0:
                    await asyncio.sleep(0)
            self._slots = SlotReader()
            for kind, payload in frames_in(view):
                self._take(kind, payload)
                count += 1
                if count % 64 == 0:
                    await asyncio.sleep(0)
            self._slots = SlotReader(remembers=False)

    def _close_memory(self) -> None:
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1

    # -- frames from the old process

    def on_frame(self, kind: int, payload: bytes) -> None:
        """Process a frame from the old process."""
        if kind == self._for and self._waits is not None:
            self.link.stop_reading()  # later frames are read later
            self._for = None
            if not self._waits.done():
                self._waits.set_result(payload)
            return
        self._take(kind, payload)

    def _take(self, kind: int, payload: bytes) -> None:
        now = self._loop.time()
        services = self.services
        if kind == Kind.PIECE:
            self._slots.take_piece(payload)
        elif kind == Kind.SLOT:
            self._take_slot(payload, now)
        elif kind == Kind.SESSIONS:
            _know_sessions(services, payload)
        elif kind == Kind.RULES:
            received = json.loads(payload)
            self._keeps_store = self._same_secrets and may_be_kept(
                received["rules"], services.owner_rules, services.settings.store_policy
            )
        elif kind == Kind.DEMAND:
            self._demand = payload
        elif kind == Kind.SPENT:
            self._spent = payload
        elif kind != Kind.END:
            super().on_frame(kind, payload)

    def _take_slot(self, payload: bytes, now: float) -> None:
        key, found, for_disk = self._slots.take_slot(
            payload, now, self.services.settings.max_stale_s
        )
        # The slot may be older than a removal in this process.
        if self._keeps_store and not (
            self._own.take(key, found.marks) or key in self._own.superseded
        ):
            self.services.store.shelves.take_over(key, found, now, tell=for_disk)
            self.entries += len(found.slot)

    def removed(self, removals: Removals) -> None:
        """This process has removed stored responses."""
        if not self._applies:
            self._own.add(removals)
        super().removed(removals)


def _is_same(slot: Slot, later: Slot) -> bool:
    """Return whether a slot is unchanged, except for the times of its responses."""
    return len(slot) == len(later) and all(
        one[place] == other[place]
        for one, other in zip(slot, later, strict=True)
        for place in (HEAD, BODY, SUPERSEDED, AGE_MAX, VARIANT_KEY, INCOMPLETE)
    )


def frames_in(data: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the frames of a snapshot.

    Raises:
        BadFrame: The snapshot does not verify, or does not end where it should.
    """
    reader, at, kind = FrameReader(), after_preamble(data), 0
    while at < len(data):
        one = reader.next_in(data, at)
        if one is None or kind == Kind.END:
            raise BadFrame("it is cut off, or goes on behind its end")
        kind, payload, at = one
        yield kind, payload
    if kind != Kind.END:
        raise BadFrame("it is cut off")


def read_secrets(link: StateLink) -> Secrets:
    """Read the old process's first frame: its secrets.

    Raises:
        ValueError: The first frame does not come or does not hold the secrets.
    """
    try:
        kind, payload = link.read_first(SECRETS_S)
    except (OSError, BadFrame) as error:
        raise ValueError(str(error)) from None
    if kind != Kind.SECRETS:
        raise ValueError("it does not begin with its secrets")
    return unpacked_secrets(payload)


def make_memory() -> int:
    """Return the descriptor of a file in memory for the snapshot; -1 if there can be none.

    The file can be sealed, and has no path.
    """
    with contextlib.suppress(OSError, AttributeError):  # only Linux has it
        return os.memfd_create("retter-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return -1
