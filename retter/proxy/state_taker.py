"""The new process's end of a handover (handover.py): it reads what the old process knows."""

import asyncio
import fcntl
import json
import mmap
import os
from collections.abc import Iterator
from typing import Final

from retter.base.frames import BadFrame, FrameReader, after_preamble
from retter.continuity.handover import go_on
from retter.proxy.handover import HandoverEnd
from retter.proxy.known_session_frames import know_sessions
from retter.proxy.lasting import may_be_kept
from retter.proxy.secrets import Secrets, unpacked_secrets
from retter.proxy.services import Services
from retter.proxy.state_link import Kind, StateLink
from retter.store.handover import SlotReader
from retter.store.packed_removals import unpacked_removals
from retter.store.write_behind import Removals

SECRETS_S: Final = 5.0  # to wait for the first frame, which is sent before the new process starts
# The time limit for the old process to write the whole state and for the new one to read it.
STATE_S: Final = 30.0


class Taker(HandoverEnd):
    """The end of the new process.

    Args:
        memory_fd: Descriptor of the file in memory; it is closed when the file has been read.
        secrets: Those of the old process.

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
        if self.services.far is not None and said.get("untold"):
            self.services.far.outbox.removed(unpacked_removals(said["untold"].encode()))
        if said["upstream"] == self.services.settings.upstream:
            if go_on(circuit, said["circuit"], self._demand, self._spent, now):
                self.services.answers.set_state(circuit.state)
                until = said.get("forced_until")
                self.services.breaker.circuit.forced_until = None if until is None else float(until)
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
            know_sessions(services, payload)
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
