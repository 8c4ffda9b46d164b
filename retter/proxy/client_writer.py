"""Writes to one client, and keeps count of the octets that it has not read yet."""

import asyncio
from typing import Final, Protocol, cast

from retter.base.counters import Counters
from retter.net.transports import close_sending
from retter.net.write_batch import WriteBatch
from retter.proxy.backlog import Backlog
from retter.proxy.half_close import PROBE
from retter.proxy.slices import SlicedBody, copies

# Below this a head and a body are joined into one write; above it the copy costs more than the
# second buffer (measured: equal at 64 KiB, 32 us dearer at 1 MiB).
JOIN_BYTES_MAX: Final = 64 * 1024


class BacklogOwner(Protocol):
    """Decides whether more may be added to a backlog."""

    def backlog_grows(self) -> None: ...


class ClientWriter:
    """Writes to one client.

    Whole answers may wait for the end of the event loop's step (`write_whole`); all else is written
    at once, after what waits.

    Args:
        counters: Of the process; `sent` is counted here.

    Attributes:
        transport: The connection's transport, or a SlicedBody in its place.
        backlog: Set while the client reads more slowly than RETTER writes, else None.
        open: If False, all that is written is dropped.
        waiting: A whole answer that is not written yet. It is written before the next request of
            this client begins: if the client does not read, none begins.
    """

    __slots__ = (
        "_batch",
        "_counters",
        "_owner",
        "_probed",
        "_unsent",
        "backlog",
        "open",
        "transport",
        "waiting",
    )

    def __init__(self, transport: asyncio.Transport, counters: Counters, batch: WriteBatch) -> None:
        self.transport = transport
        self.open = True
        self.backlog: Backlog | None = None
        # Set only while there is a backlog: if a connection and its writer always referred to each
        # other, only the garbage collector could free them.
        self._owner: BacklogOwner | None = None
        self._probed = False  # the first octet of the answer has been sent ahead
        self._unsent = 0  # octets, if the client has taken nothing since last seen
        self.waiting = b""
        self._batch = batch
        self._counters = counters

    def write_whole(self, message: bytes) -> None:
        """Write an answer that is complete, with those of others if many become ready.

        Args:
            message: At most JOIN_BYTES_MAX and a head.
        """
        if self.waiting or self.backlog is not None or self._probed or not self.open:
            self.write(message)
        elif self._batch.gathers:
            self.waiting = message
            self._batch.add(self)
        else:
            self._counters.sent += len(message)
            self.transport.write(message)  # a backlog that begins with it counts it

    def write_waiting(self) -> None:
        """Write the answer that waits, if there is one."""
        message = self.waiting
        if message:
            self.waiting = b""
            if self.open:
                self._counters.sent += len(message)
                self.transport.write(message)  # a backlog that begins with it counts it

    def flush(self) -> None:
        """Write the answer that waits now; if that fails, only this connection ends."""
        if self.waiting:
            self._batch.write_now(self)

    def abort(self) -> None:
        """Close at once, without what waits."""
        self.waiting = b""
        self.transport.abort()

    def write(self, data: bytes) -> None:
        """Write to the client at once."""
        if self.waiting:
            self.write_waiting()
        if not self.open:
            return
        if self._probed:
            data = self._after_probe(data)
        self._counters.sent += len(data)
        if self.backlog is None:
            self.transport.write(data)  # a backlog that begins with it counts it
            return
        backlog, owner = self.backlog, self._owner
        assert owner is not None, "set with the backlog"
        self.transport.write(data)
        self._unsent += len(data)
        backlog.writes += 1
        owner.backlog_grows()

    def write_message(self, head: bytes, body: bytes) -> None:
        """Write a head and a body in one system call."""
        if self.waiting:
            self.write_waiting()
        if not self.open:
            return
        if self.backlog is not None:
            self.write(head + body)
            return
        if self._probed:
            head = self._after_probe(head)
        if len(body) <= JOIN_BYTES_MAX:
            message = head + body
            self._counters.sent += len(message)
            self.transport.write(message)
        else:
            self._counters.sent += len(head) + len(body)
            self.transport.writelines((head, body))

    def write_stored(self, head: bytes, body: bytes | memoryview) -> None:
        """Write a large stored response; its octets that the client has not read are no copy."""
        if self.waiting:
            self.write_waiting()
        if not self.open:
            return
        transport = self.transport
        if self._probed:
            head = self._after_probe(head)
        self._counters.sent += len(head) + len(body)
        if self.backlog is None and not copies(transport):
            transport.writelines((head, body))
            return
        self.transport = cast("asyncio.Transport", SlicedBody(transport, head, body))
        self.write_slices()

    @property
    def writes_slices(self) -> bool:
        """Whether a stored body is being written slice by slice."""
        return isinstance(self.transport, SlicedBody)

    def write_slices(self) -> bool:
        """Write as much of a stored body as the client reads; True if all of it is written."""
        slices = self.transport
        if not isinstance(slices, SlicedBody):
            return True
        while self.backlog is None and not slices.transport.is_closing():
            if not slices.write_on():
                self.transport = slices.transport
                slices.finish()
                return True
        return False

    def write_eof(self) -> None:
        """Close the sending direction; over TLS, which cannot be half-closed, close both."""
        self.flush()
        if self.open:
            if self.transport.can_write_eof():
                close_sending(self.transport)
            else:
                self.transport.close()

    # -- the first octet ahead (half_close.py)

    def probe(self) -> None:
        """Send the first octet of the answer ahead."""
        self.write(PROBE)
        self._probed = True

    def _after_probe(self, data: bytes) -> bytes:
        """Return the rest of an answer whose first octet has been sent ahead."""
        assert data.startswith(PROBE), "all answers begin with it"
        self._probed = False
        return data[len(PROBE) :]

    # -- what the client has not read

    def begin_backlog(self, backlog: Backlog, owner: BacklogOwner) -> None:
        """The client does not keep up from here on."""
        self.backlog = backlog
        self._owner = owner

    def end_backlog(self) -> bool:
        """Give the backlog's memory back; return whether the application waits for its end."""
        backlog, self.backlog = self.backlog, None
        self._owner = None
        if backlog is None:
            return False
        backlog.release()
        return backlog.full

    def note_unsent(self) -> bool:
        """Note how many octets are not sent yet. Return whether there are any."""
        self._unsent = self.transport.get_write_buffer_size()
        return self._unsent > 0

    def takes_something(self) -> bool:
        """Whether the client has read some of the octets that `note_unsent` has counted."""
        return 0 < self.transport.get_write_buffer_size() < self._unsent
