"""The old process's end of a handover (handover.py): it writes what this process knows."""

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Final

from retter.base.frames import PAYLOAD_BYTES_MAX, PREAMBLE, FrameWriter
from retter.continuity.handover import demand_of, spent_of, state_of
from retter.disk.journal import packed_removals
from retter.proxy.handover import HandoverEnd
from retter.proxy.known_session_frames import Sessions
from retter.proxy.lasting import written_rules
from retter.proxy.services import Services
from retter.proxy.state_link import Kind, StateLink
from retter.store.handover import SlotWriter
from retter.store.record import AGE_MAX, BODY, HEAD, INCOMPLETE, SUPERSEDED, VARIANT_KEY
from retter.store.write_behind import Removals, Slot

# A slice blocks the event loop for this long. Its last step may take as long again.
SLICE_S: Final = 0.001
# The pause between two slices: clients get half of the processor time.
REST_S: Final = 0.001

SESSIONS_EVERY: Final = 100  # in intervals of TELL_EVERY_S
FLUSH_S: Final = 1.0  # to send the last frames, when the old process ends


class Giver(HandoverEnd):
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
        """Send an empty snapshot for lack of memory: the successor begins with an empty store."""
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
        said: dict[str, object] = {
            "upstream": self.services.settings.upstream,
            "circuit": state_of(circuit),
            "forced_until": self.services.breaker.circuit.forced_until,
            "untold": _untold(self.services),
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


def _untold(services: Services) -> str:
    """Return the removals that other boxes have not been told, for the successor to tell."""
    untold = services.far.outbox.untold if services.far is not None else Removals()
    packed = packed_removals(untold)
    if len(packed) > PAYLOAD_BYTES_MAX // 2:  # of ended sessions there are never so many
        untold.everything = untold.everything or bool(untold.keys)
        untold.keys, untold.superseded = set(), set()
        packed = packed_removals(untold)
    if len(packed) > PAYLOAD_BYTES_MAX // 2:
        packed = packed_removals(Removals(everything=True))
    return packed.decode() if untold else ""


def _is_same(slot: Slot, later: Slot) -> bool:
    """Return whether a slot is unchanged, except for the times of its responses."""
    return len(slot) == len(later) and all(
        one[place] == other[place]
        for one, other in zip(slot, later, strict=True)
        for place in (HEAD, BODY, SUPERSEDED, AGE_MAX, VARIANT_KEY, INCOMPLETE)
    )


def make_memory() -> int:
    """Return the descriptor of a file in memory for the snapshot; -1 if there can be none.

    The file can be sealed, and has no path.
    """
    with contextlib.suppress(OSError, AttributeError):  # only Linux has it
        return os.memfd_create("retter-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return -1
