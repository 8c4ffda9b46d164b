"""Removals of stored responses, on disk before the client gets its response.

A logout is written here at once, before its response is sent, and into the database with the next
commit. If the process is killed in between, the next start finds it here. Nothing waits for the
disk, because the page cache survives the process. (A power cut may lose the last tenth of a
second.)

An entry that does not verify is where the entries end, unless others follow: then it is damaged.
What it removed is not known, so everything is removed.

The file has its full size from the beginning, so that a logout can be written to a full disk. The
file begins with a number that is part of the checksum of every entry. So a new number makes all
entries invalid: the file is empty then.
"""

import os
from struct import Struct
from typing import Final
from zlib import crc32

from retter.store.packed_removals import packed_removals as packed_removals
from retter.store.packed_removals import unpacked_removals as unpacked_removals
from retter.store.write_behind import Removals

# Room for some thousand logouts. They are needed until the next commit, a tenth of a second later.
JOURNAL_BYTES: Final = 256 * 1024

# Most octets of one entry. A longer one is replaced by the removal of everything.
ENTRY_BYTES_MAX: Final = 80 * 1024

_BEGIN: Final = b'{"'  # of each payload (packed_removals.py)

_epoch = Struct("<Q")
_entry = Struct("<II")  # length, checksum


class Journal:
    """The file of the removals since the last commit.

    Attributes:
        is_damaged: Whether `read` has found an entry that does not verify among others.

    Raises:
        OSError: The file cannot be made or read.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._fd).st_size < JOURNAL_BYTES:
                os.posix_fallocate(self._fd, 0, JOURNAL_BYTES)
            self._epoch = _epoch.unpack(os.pread(self._fd, _epoch.size, 0))[0]
        except OSError:
            os.close(self._fd)
            raise
        self._end = _epoch.size
        self.is_damaged = False

    def read(self) -> Removals:
        """Return the removals that the database may not have."""
        data = os.pread(self._fd, JOURNAL_BYTES, 0)
        removals = Removals()
        at = _epoch.size
        while True:
            while payload := self._entry_at(data, at):
                removals.add(unpacked_removals(payload))
                at += _entry.size + len(payload)
            self._end = at
            if removals.everything:
                return removals  # what stands behind may be older, see `note`
            at = self._next_entry(data, at)
            if at < 0:
                return removals
            self.is_damaged = True
            removals.add(Removals(everything=True))

    def _entry_at(self, data: bytes, at: int) -> bytes:
        """Return the payload of the entry at a place; empty if none begins there."""
        if at + _entry.size > len(data):
            return b""
        length, checksum = _entry.unpack_from(data, at)
        payload = data[at + _entry.size : at + _entry.size + length]
        if len(payload) < length or checksum != self._checksum(payload):
            return b""
        return payload

    def _next_entry(self, data: bytes, at: int) -> int:
        """Return where an entry begins behind one that does not verify; -1 if there is none."""
        at = data.find(_BEGIN, at + 1 + _entry.size)
        while at >= 0 and not self._entry_at(data, at - _entry.size):
            at = data.find(_BEGIN, at + 1)
        return max(-1, at - _entry.size)

    def note(self, removals: Removals) -> None:
        """Add removals.

        Raises:
            OSError: The file could not be written.
        """
        payload = packed_removals(removals)
        if len(payload) > ENTRY_BYTES_MAX or self._end + len(payload) + 64 > JOURNAL_BYTES:
            # No room: remove everything, so that no page is shown to another person.
            payload = packed_removals(Removals(everything=True))
            self._end = _epoch.size  # in place of all earlier entries
        entry = _entry.pack(len(payload), self._checksum(payload)) + payload
        os.pwrite(self._fd, entry, self._end)
        self._end += len(entry)

    def clear(self) -> None:
        """Remove all entries, because the database has them.

        Raises:
            OSError: The file could not be written.
        """
        if self._end > _epoch.size:
            self._epoch = (self._epoch + 1) % 2**64
            os.pwrite(self._fd, _epoch.pack(self._epoch), 0)
            self._end = _epoch.size

    def sync(self) -> None:
        """Wait until everything is on disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _checksum(self, payload: bytes) -> int:
        return crc32(payload, crc32(_epoch.pack(self._epoch)))
