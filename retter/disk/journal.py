"""What has been taken back, on disk before the answer that says so.

A logout is written here at once, before its answer goes out, and into the database with the next
commit. A process that is killed in between finds it here when it starts again. Nothing waits for
the disk: the page cache outlives the process. (A power cut may cost the last tenth of a second.)

The file has its size from the beginning, so that a full disk does not keep a logout out of it. It
begins with a number that is in the checksum of every entry; another number, and the file is empty.
"""

import json
import os
from struct import Struct
from typing import Any, Final
from zlib import crc32

from retter.store.owner import OWNER_BYTES
from retter.store.write_behind import Purge, Removals

# Some thousand logouts; they are needed until the next commit, a tenth of a second later.
JOURNAL_BYTES: Final = 256 * 1024

# One entry never has more: beyond, it says that everything goes.
ENTRY_BYTES_MAX: Final = 80 * 1024

_epoch = Struct("<Q")
_entry = Struct("<II")  # length, checksum


class Journal:
    """The file of what has been taken back since the last commit.

    Raises:
        OSError: It cannot be made or read.
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

    def read(self) -> Removals:
        """Return what was taken back and may not be in the database."""
        data = os.pread(self._fd, JOURNAL_BYTES, 0)
        removals = Removals()
        at = _epoch.size
        while at + _entry.size <= len(data):
            length, checksum = _entry.unpack_from(data, at)
            payload = data[at + _entry.size : at + _entry.size + length]
            if not length or len(payload) < length or checksum != self._checksum(payload):
                break
            removals.add(unpacked_removals(payload))
            at += _entry.size + length
        self._end = at
        return removals

    def note(self, removals: Removals) -> None:
        """Add what is taken back.

        Raises:
            OSError: It could not be written.
        """
        payload = packed_removals(removals)
        if len(payload) > ENTRY_BYTES_MAX or self._end + len(payload) + 64 > JOURNAL_BYTES:
            # No room: more goes than has to, which is nobody's page shown to somebody else.
            payload = packed_removals(Removals(everything=True))
            self._end = _epoch.size  # in place of all before
        entry = _entry.pack(len(payload), self._checksum(payload)) + payload
        os.pwrite(self._fd, entry, self._end)
        self._end += len(entry)

    def clear(self) -> None:
        """Forget all: it is in the database.

        Raises:
            OSError: It could not be written.
        """
        if self._end > _epoch.size:
            self._epoch = (self._epoch + 1) % 2**64
            os.pwrite(self._fd, _epoch.pack(self._epoch), 0)
            self._end = _epoch.size

    def sync(self) -> None:
        """Wait until the disk has it."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _checksum(self, payload: bytes) -> int:
        return crc32(payload, crc32(_epoch.pack(self._epoch)))


def packed_removals(removals: Removals) -> bytes:
    """Return removals as octets."""
    said: dict[str, Any] = {
        "owners": [one.hex() for one in removals.owners],
        "marks": list(removals.marks),
        "keys": [one.hex() for one in removals.keys],
        "superseded": [one.hex() for one in removals.superseded],
        "purges": [[_hex(one) for one in purge] for purge in removals.purges],
        "everything": removals.everything, "personal": removals.personal,
    }  # fmt: skip
    return json.dumps({name: value for name, value in said.items() if value}).encode()


def unpacked_removals(payload: bytes) -> Removals:
    """Return what was packed; what is not understood means that everything goes."""
    try:
        said = json.loads(payload)
        removals = Removals(
            bool(said.get("everything")), bool(said.get("personal")),
            {bytes.fromhex(one) for one in said.get("owners", ())},
            set(map(int, said.get("marks", ()))),
            {bytes.fromhex(one) for one in said.get("keys", ())},
            [_purge(one) for one in said.get("purges", ())],
            {bytes.fromhex(one) for one in said.get("superseded", ())},
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError):
        return Removals(everything=True)  # its checksum is right, and still it is not understood
    if any(len(owner) != OWNER_BYTES for owner in removals.owners):
        return Removals(everything=True)
    return removals


def _purge(texts: list[str | None]) -> Purge:
    url, prefix, owner = [None if text is None else bytes.fromhex(text) for text in texts]
    return Purge(url, prefix, owner)


def _hex(text: bytes | None) -> str | None:
    return None if text is None else text.hex()
