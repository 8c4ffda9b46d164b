"""One LMDB environment with the trees of a store: opened, checked, measured.

    records  slot key -> packed slot (packing.py)
    bodies   name of a body -> checksum and body
    uses     name of a body -> number of records that refer to it, if there are several; a tree of
             its own, so that a new count does not write the body again
    used     slot key -> when it was last used, in coarse steps, and what it costs
    marks    mark of a session -> its owners; a logout finds them here
    meta     format of the file, key of the hashes, rules, figures

LMDB copies a page before it changes it, so a kill or a power cut leaves the last commit intact.
These modules and folder.py handle the other problems of LMDB. The map is twice as large as the
entries, because deleted pages become free late and in pieces. No transaction lasts longer than a
call. All data that is read is verified.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from errno import EACCES, EAGAIN, EINVAL, EIO, ENOSPC, EPERM, EROFS, ESTALE, errorcode
from typing import Any, Final, NamedTuple

import lmdb

from retter.store.packing import FORMAT_VERSION
from retter.store.write_behind import COMMIT_BYTES

LmdbError: Final = lmdb.Error

FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"

# Threads that may read at the same time: two of each process, and of `retter store`.
READERS_MAX: Final = 32

# Sizes in lock.mdb: a reader, and the header before the readers (mdb.c: MDB_reader, MDB_txninfo).
READER_BYTES: Final = 64
READERS_AT_MAX: Final = 1024

# Size of the map, in addition to twice the entries: trees, lists of free pages, one commit.
MAP_SPARE_BYTES: Final = 16 * 1024 * 1024

# By their texts, which LMDB's errors end with.
_NUMBERS: Final = {os.strerror(number): number for number in errorcode}

PAGE_BYTES: Final = 4096  # of most machines: what entries cost is counted in these
HEADER_PAGES: Final = 3  # two headers, and the tree of trees


class Damaged(Exception):
    """The content does not verify, or LMDB did not write it."""


class Foreign(Exception):
    """The database belongs to another program."""


class Full(Exception):
    """The map is full, even after evicting."""


class Grown(OSError):
    """Another process, with a larger `--store-disk`, has made the file larger than this map."""


class Busy(OSError):
    """It cannot be read for the moment, for lack of memory or of places for readers."""


class Trees(NamedTuple):
    """The trees of the environment, as LMDB names them."""

    meta: Any
    records: Any
    bodies: Any
    uses: Any
    used: Any
    marks: Any


class Environment:
    """One LMDB environment.

    Args:
        folder: The path of the folder with its files.
        bytes_max: The size of all entries; the file may become twice as large.
        readonly: Write nothing; another process may write meanwhile. `bytes_max` is not used.
        readers_max: The number of threads, in all processes, that may read at the same time.
        map_bytes_min: The least size of the map, because another process has one of this size.

    Raises:
        OSError: The files cannot be made or opened.
        Damaged: This version cannot read the content.
        Foreign: The database belongs to another program.
    """

    def __init__(
        self,
        folder: str,
        bytes_max: int,
        *,
        readonly: bool = False,
        readers_max: int = READERS_MAX,
        map_bytes_min: int = 0,
    ) -> None:
        self.bytes_max = bytes_max
        self.map_bytes = max(2 * bytes_max + MAP_SPARE_BYTES, map_bytes_min)
        self.readonly = readonly
        self._path = os.path.join(folder, FILE)
        self._fd = -1
        _reserve_lock(os.path.join(folder, LOCK_FILE), readers_max)
        try:
            self._env = lmdb.open(
                os.fsencode(folder),  # of a text that is not UTF-8, it can make nothing
                map_size=0 if readonly else self.map_bytes,  # 0: the size that its writer chose
                max_dbs=8,
                max_readers=readers_max,
                mode=0o600,
                metasync=False,  # a power cut loses only the last commit, not the file
                readahead=False,  # the next page in the file is seldom needed
                meminit=False,
                readonly=readonly,
                create=not readonly,
            )
        except lmdb.Error as error:
            raise _cannot_open(error) from None
        try:
            self._open()
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except lmdb.Error as error:
            self.close()
            raise _cannot_open(error) from None
        except (Damaged, Foreign, OSError):
            self.close()
            raise
        self._length = os.fstat(self._fd).st_size

    def _open(self) -> None:
        env, create = self._env, not self.readonly
        with env.begin() as txn:
            if (txn.stat()["entries"] or self.readonly) and txn.get(b"meta") is None:
                raise Foreign
        meta = env.open_db(b"meta", create=create)
        with env.begin(write=create) as txn:
            version = txn.get(b"version", db=meta)
            if version is None:
                if txn.stat(meta)["entries"] or txn.stat()["entries"] > 1 or self.readonly:
                    raise Foreign
                txn.put(b"version", b"%d" % FORMAT_VERSION, db=meta)
                txn.put(b"site-key", os.urandom(16), db=meta)
            elif version != b"%d" % FORMAT_VERSION:
                raise Damaged(f"its format is version {version.decode('latin-1')[:20]}")
            self.site_key: bytes = txn.get(b"site-key", db=meta) or b""
            if len(self.site_key) != 16:
                raise Damaged("the key of its hashes is missing")
            self.bytes_used = figure(txn, meta, b"bytes")
            self.entries = figure(txn, meta, b"entries")
        records, bodies, uses, used = [
            env.open_db(name, create=create) for name in (b"records", b"bodies", b"uses", b"used")
        ]
        marks = env.open_db(b"marks", dupsort=True, dupfixed=True, create=create)
        self._trees = Trees(meta, records, bodies, uses, used, marks)

    def close(self) -> None:
        """Close the database; nothing is written."""
        self._env.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def check_readers(self) -> int:
        """Free the places of readers whose processes have been killed; return how many."""
        return int(self._env.reader_check())

    @property
    def page_bytes(self) -> int:
        """Size of a page in octets: that of the machine that made it, 4 KiB to 64 KiB."""
        return int(self._env.stat()["psize"])

    @property
    def file_bytes(self) -> int:
        """Size of the file in octets."""
        return int(self._env.info()["last_pgno"] + 1) * self.page_bytes

    @property
    def free_bytes(self) -> int:
        """Number of octets of the file that are free."""
        with self._env.begin() as txn:
            stats = [txn.stat(db) for db in self._trees]
        taken = sum([s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats])
        return max(0, self.file_bytes - (taken + HEADER_PAGES) * self.page_bytes)

    @property
    def map_size(self) -> int:
        """The size of the map in octets, as the last writer chose it."""
        return int(self._env.info()["map_size"])

    # -- notes

    def note(self, name: str) -> Any:
        """Return the note that `set_notes` wrote; None if there is none."""
        with self._env.begin() as txn:
            text = txn.get(b"note-" + name.encode(), db=self._trees.meta)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            return None

    def set_notes(self, notes: Mapping[str, object]) -> None:
        """Write notes beside the entries."""
        with self._env.begin(write=True) as txn:
            self.put_notes(txn, notes)

    def put_notes(self, txn: Any, notes: Mapping[str, object]) -> None:
        """Write notes with a transaction."""
        for name, value in notes.items():
            txn.put(b"note-" + name.encode(), json.dumps(value).encode(), db=self._trees.meta)

    # -- the file

    def keep_size(self) -> None:
        """Extend the file to the length in its header.

        Pages at its end that were allocated and freed in one commit are never written. Without
        this, a truncated file could not be recognised.
        """
        if os.stat(self._path).st_size < self.file_bytes:
            # Nobody else may write meanwhile: what another process appends would be cut off.
            with self._env.begin(write=True):
                if os.stat(self._path).st_size < self.file_bytes:
                    os.truncate(self._path, self.file_bytes)

    def check_length(self) -> None:
        """Look whether the file is as long as it was: reading beyond its end kills the process.

        LMDB never makes it shorter, and neither does RETTER.

        Raises:
            OSError: Somebody has cut it off.
        """
        length = os.fstat(self._fd).st_size  # 1 us
        if length < self._length:
            raise OSError(ESTALE, "somebody has cut it off")
        self._length = length

    def failure(self, error: Exception) -> OSError:
        """Return the reason why LMDB could not write."""
        number, text = errno_of(error)
        if isinstance(error, lmdb.MapResizedError):
            return Grown(number, "another process has made it larger")
        if number == EIO:  # also of a write that was cut short, as the last one on a full disk is
            with contextlib.suppress(OSError):
                found = os.statvfs(self._path)
                if found.f_bavail * found.f_frsize < COMMIT_BYTES:
                    return OSError(ENOSPC, os.strerror(ENOSPC))
        return OSError(number, text)

    def read_failure(self, error: Exception) -> OSError:
        """Return the reason why LMDB could not read."""
        if isinstance(error, lmdb.ReadersFullError):
            self.check_readers()  # the next read may find a place
        if isinstance(error, (lmdb.ReadersFullError, lmdb.MemoryError)):
            return Busy(EAGAIN, str(error))
        failure = self.failure(error)
        return failure if isinstance(failure, Grown) else OSError(EIO, str(error))

    def sync(self) -> None:
        """Wait until everything is on disk."""
        self._env.sync(True)


def _reserve_lock(path: str, readers_max: int) -> None:
    """Have room on the disk for the file in which LMDB notes who reads.

    LMDB writes to it through a map. If the disk is full, that raises a signal (SIGBUS) which kills
    the process, and no exception.

    Raises:
        OSError: There is no room.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in (EACCES, EPERM, EROFS):
            return  # LMDB says why, or needs none: on a read-only file system
        raise
    try:
        if not os.fstat(fd).st_size:
            os.posix_fallocate(fd, 0, READERS_AT_MAX + readers_max * READER_BYTES)
    finally:
        os.close(fd)


def figure(txn: Any, meta: Any, name: bytes) -> int:
    """Return a figure of the tree `meta`; 0 if it is not there.

    Raises:
        Damaged: It is no number.
    """
    text = txn.get(name, db=meta, default=b"0")
    if not text.isdigit():
        raise Damaged(f"{name.decode()} is no number")
    return int(text)


def errno_of(error: Exception) -> tuple[int, str]:
    """Return the error number and text of an LMDB error; EIO if it has no number."""
    text = str(error)
    number = _NUMBERS.get(text.rpartition(": ")[2], EIO)
    return (EIO, text) if number == EIO else (number, os.strerror(number))


def _cannot_open(error: Exception) -> OSError | Damaged:
    """Return what prevents a database from being opened.

    It is damaged only if LMDB can read it and not understand it. A lack of memory, of descriptors
    or of places for readers says nothing about the file, and it must not be set aside for it.
    """
    if isinstance(error, lmdb.ReadersFullError):
        return OSError(EAGAIN, "too many processes read it")
    number, text = errno_of(error)
    if number in (EIO, EINVAL) and not isinstance(error, lmdb.DiskError):
        return Damaged(str(error))
    return OSError(number, text)
