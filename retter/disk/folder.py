"""The folder of `--store`: its lock, its files, and a broken database.

    data.mdb, lock.mdb  the database
    secret              the key for the hashes of owners; without it, no personal entry can be found
    drops               removals since the last commit (journal.py)
    learnt, lineages    knowledge about the application and its sessions
    history             the charts and the incidents of the admin listener
    lock                locked by the RETTER that uses the folder
    reading, fault      whether a process died while it read the database

A mistake of the operator raises a ConfigError with one line of text. A damaged database is set
aside, and RETTER makes a new one.
"""

import contextlib
import faulthandler
import fcntl
import mmap
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from errno import EACCES, ENOENT, ENOMEM, ENOTDIR, EPERM
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

from retter.config.settings import ConfigError

DATA: Final = "data.mdb"
LOCK: Final = "lock.mdb"  # of LMDB: who reads
SECRET: Final = "secret"
SECRET_BYTES: Final = 32

# The files of the folder, and how the names of those of workers begin (shared_opening.py).
_OWN: Final = frozenset((
    DATA, "broken", "drops", "fault", "history", "learnt", "lineages", "lock", "lock.mdb",
    "reading", SECRET,
))  # fmt: skip
_OWN_BEGIN: Final = "drops-"

# On these file systems, a mapped file may change, or a lock may be valid on one machine only.
_REMOTE: Final = frozenset((
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2",
    "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
))  # fmt: skip

# A 32-bit process has 2 to 3 GB of address space, and the map takes twice the size of the store.
BITS32_BYTES_MAX: Final = 1024**3

# Fields of each of LMDB's two header pages (mdb.c, MDB_meta): magic, version, address, map size,
# the page size in the first of two 48-octet trees, the last page in use, the transaction.
_META_AT: Final = 16
_META: Final = Struct("=IIQQI44x48xQQ")
_MAGIC: Final = 0xBEEFC0DE
HEADER_BYTES: Final = 2 * 65536  # two pages of the largest size of LMDB

# `retter store` takes the lock for a moment (20 us), to find out whether another process holds it.
# Wait this long before a second try.
LOOKED_AT_S: Final = 0.02

# Indexes of those that use the database. Each has its own octet, because they write without a lock.
LOOP, READER, WRITER = range(3)
MARKS: Final = 3  # of each process


class Folder:
    """A folder that belongs to this process.

    Args:
        path: The folder; it is made if it does not exist.
        bytes_max: The size of `--store-disk`.
        lock_fd: The lock of the previous process; -1: this process takes the lock. That of another
            folder is closed, and this process takes the lock of its own.
        faults: The interpreter may write a note when a signal kills this process.
        place: Of this process among several workers, which share the folder; None: it is the only
            one, or their supervisor.

    Raises:
        ConfigError: The folder cannot be used.
    """

    def __init__(
        self,
        path: str,
        bytes_max: int,
        *,
        lock_fd: int = -1,
        faults: bool = False,
        place: int | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.set_aside_reason = ""
        self._faults = faults
        self._place = place
        self.is_lent = False  # another process uses it too
        self._files: dict[str, os.stat_result] = {}  # those in use, see `lost`
        self._fault_file: BinaryIO | None = None
        self._mapped: mmap.mmap | None = None
        # One octet for each that uses the database in this process: 1 while it does.
        self.reading = memoryview(bytearray(MARKS))
        self.lock_fd = lock_fd
        if sys.maxsize < 2**32 and bytes_max > BITS32_BYTES_MAX:
            raise ConfigError(
                "store_disk: a 32-bit process cannot map more than 1GiB; make it smaller"
            )
        check_place(path)
        try:
            os.makedirs(self.path, 0o700, exist_ok=True)
            if self._is_anothers():
                raise ConfigError(
                    f"store: {path} holds files of others; name a folder that is new or empty"
                )
            with contextlib.suppress(PermissionError):  # a volume of another user
                os.chmod(self.path, 0o700)
            self._look_at_files(path)
            self._lock(path)
            self._look_for_faults()
        except OSError as error:
            self.close()
            raise cannot_use(path, error) from None
        except ConfigError:
            self.close()
            raise

    def _is_anothers(self) -> bool:
        """Return whether others use the folder, as with `--store /var/lib`: it is closed to them.

        A file system of its own may have `lost+found`.
        """
        if not os.stat(self.path).st_mode & 0o077:
            return False
        names = set(os.listdir(self.path)) - {"lost+found"}
        return bool(names) and names.isdisjoint((DATA, SECRET))

    def _look_at_files(self, shown: str) -> None:
        """Refuse a folder with a named pipe: who opens one waits for ever for its other end.

        Files that others may read, as after a copy or from a backup, are closed to them.
        """
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if stat.S_ISFIFO(entry.stat().st_mode):
                        raise ConfigError(f"store: {shown}/{entry.name} is a pipe; remove it")
                    is_own = entry.name in _OWN or entry.name.startswith(_OWN_BEGIN)
                    if is_own and entry.is_file(follow_symlinks=False):
                        os.chmod(entry.path, 0o600)

    def _lock(self, shown: str) -> None:
        if self.lock_fd >= 0:
            if self._place is not None or is_lock_of(self.lock_fd, self.path):
                os.set_inheritable(self.lock_fd, False)
                self.is_lent = self._place is None
                return
            os.close(self.lock_fd)  # the process before had another --store
            self.lock_fd = -1
        fd = os.open(self.at("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.lock_fd = fd
        try:
            self._take(fd)
        except BlockingIOError:
            by = os.pread(fd, 20, 0).decode("latin-1").strip()
            who = f" (process {by})" if by.isdigit() else ""
            raise ConfigError(
                f"store: {shown} is used by another RETTER{who}; give each its own folder"
            ) from None
        claim(fd)

    @staticmethod
    def _take(fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOKED_AT_S)  # `retter store` may hold it for a moment
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def at(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return os.path.join(self.path, name)

    def remember_files(self) -> None:
        """Note which files are in use from now on.

        Raises:
            OSError: One of them does not exist.
        """
        if self._place is None:  # workers need them only until the last one ends
            self._files = {name: os.stat(self.at(name)) for name in ("lock", DATA)}

    def lost(self) -> str:
        """Return the name of a file in use that is not in the folder any more, else "".

        Somebody has removed the folder, or put another copy in its place: what is written to the
        open files is not in it.
        """
        for name, used in self._files.items():
            try:
                if os.path.samestat(os.stat(self.at(name)), used):
                    continue
            except OSError:
                pass
            return name
        return ""

    def names(self, begin: str) -> list[str]:
        """Return the names of the files that begin so."""
        return [name for name in os.listdir(self.path) if name.startswith(begin)]

    def close(self) -> None:
        """Release the folder."""
        if self._fault_file is not None:
            faulthandler.disable()
            self._fault_file.close()
            self._fault_file = None
        self.reading.release()
        self.reading = memoryview(bytearray(MARKS))
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    # -- a database that killed the process

    def _look_for_faults(self) -> None:
        """Set the database aside if it killed the previous process; then watch this one.

        A page beyond the end of the file, or one that the disk cannot read, raises a signal
        (SIGBUS) instead of an exception. The next start would read it again. `reading` shows that
        a process was reading the database. The interpreter writes `fault` when a signal kills the
        process; after a kill -9, it is empty.
        """
        died, place = self._size("fault") > 0, self._place
        fd = os.open(self.at("reading"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < mmap.PAGESIZE:
                os.posix_fallocate(fd, 0, mmap.PAGESIZE)
            self._mapped = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)
        marks_at = 0 if place is None else place * MARKS
        self.reading = memoryview(self._mapped)[marks_at : marks_at + MARKS]
        if place is None:  # else the supervisor has looked, and the marks of other workers stay
            inside = any(self._mapped[:])
            watched = self._size("fault") >= 0
            if inside and (died or not watched):
                self.set_aside("a process died while it read the database")
            self._mapped[:] = bytes(mmap.PAGESIZE)
            with contextlib.suppress(OSError):
                os.unlink(self.at("fault"))
        self.reading[:] = bytes(MARKS)
        if self._faults and not faulthandler.is_enabled():
            fault_fd = os.open(
                self.at("fault"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            self._fault_file = os.fdopen(fault_fd, "wb")
            faulthandler.enable(self._fault_file)

    def _size(self, name: str) -> int:
        """Return the size of a file, or -1 if it does not exist."""
        try:
            return os.stat(self.at(name)).st_size
        except OSError:
            return -1

    def enter(self, who: int) -> None:
        """Note that a read of the database begins. It costs 0.1 us: it only writes to memory."""
        self.reading[who] = 1

    def leave(self, who: int) -> None:
        """Note that the read has ended."""
        self.reading[who] = 0

    # -- a broken database

    def check_file(self) -> None:
        """Set the database aside if LMDB did not write it, or if the file is shorter than it says.

        LMDB would map it, and reading a page that does not exist kills the process.

        Raises:
            ConfigError: The file cannot be read.
        """
        try:
            with open(self.at(DATA), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                header = file.read(HEADER_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"store: {self.at(DATA)}: {error.strerror}") from None
        if not size:
            os.unlink(self.at(DATA))  # the process that made it ended before it wrote anything
            return
        if reason := damage_of(header, size):
            self.set_aside(reason)

    def map_bytes(self) -> int:
        """Return the largest size of a map of the database so far; 0 if it is not known."""
        try:
            with open(self.at(DATA), "rb") as file:
                return max([one.map_bytes for one in _metas(file.read(HEADER_BYTES))], default=0)
        except OSError:
            return 0

    def set_aside(self, reason: str) -> str:
        """Move the database away, and return its new path. Only the last one is kept.

        Raises:
            OSError: The database can be neither moved nor removed.
        """
        self.set_aside_reason = self.set_aside_reason or reason
        if self._size(DATA) < 0:
            return ""
        for base in (self.path, self.at("data")):  # beside the folder, if it is writable
            where = f"{base}.broken-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
            try:
                for old in broken_beside(base):
                    shutil.rmtree(old, ignore_errors=True)
                os.makedirs(where, 0o700, exist_ok=True)
                os.replace(self.at(DATA), os.path.join(where, DATA))
            except OSError:
                with contextlib.suppress(OSError):
                    os.rmdir(where)
                continue
            with contextlib.suppress(OSError):
                os.unlink(self.at(LOCK))
            return where
        os.unlink(self.at(DATA))
        return ""

    # -- the secret

    def secret(self) -> tuple[bytes, bool]:
        """Return the key for the hashes of owners, and whether it was made just now.

        Raises:
            ConfigError: The key can be neither read nor made.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                with open(self.at(SECRET), "rb") as file:
                    secret = file.read(SECRET_BYTES + 1)
                # A disk that has lost a page of it shows zeros: no key for anything.
                if len(secret) == SECRET_BYTES and any(secret):
                    os.chmod(self.at(SECRET), 0o600)
                    return secret, False
            secret = os.urandom(SECRET_BYTES)
            self.write(SECRET, secret, sync=True)
        except OSError as error:
            raise ConfigError(f"store: {self.at(SECRET)}: {error.strerror}") from None
        return secret, True

    def write(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """Replace a file as a whole; after an error, the old file is unchanged.

        Raises:
            OSError: The file could not be written.
        """
        new = self.at(name + ".new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(new, self.at(name))

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Raises:
            OSError: The file could not be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.at(name))

    def read(self, name: str, bytes_max: int) -> bytes:
        """Return the content of a file; empty if it does not exist or cannot be read."""
        try:
            with open(self.at(name), "rb") as file:
                data = file.read(bytes_max + 1)
        except OSError:
            return b""
        return data if len(data) <= bytes_max else b""


def check_place(shown: str) -> None:
    """Check that a folder can be where `--store` says, without making it.

    Raises:
        ConfigError: It cannot.
    """
    path = os.path.abspath(shown)
    if (kind := file_system(path)) in _REMOTE:
        raise ConfigError(
            f"store: {shown} is on a network file system ({kind}), which may change under a "
            "mapped file; take a local folder"
        )
    if os.path.lexists(path) and not os.path.isdir(path):
        raise ConfigError(f"store: {shown} is not a folder")
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        raise ConfigError(f"store: {shown}: {os.strerror(ENOTDIR)}")


def cannot_use(shown: str, error: OSError) -> ConfigError:
    """Return the complaint about a folder, or about the file in it that cannot be used.

    Args:
        shown: The folder as it is in the settings.
    """
    folder, name = os.path.abspath(os.fsencode(shown)), ""
    if error.filename is not None:
        at = os.path.abspath(os.fsencode(error.filename))
        if os.path.dirname(at) == folder:
            name = "/" + os.fsdecode(os.path.basename(at))
    elif error.errno in (EACCES, EPERM, ENOENT):  # of LMDB, which names no file
        for one in (DATA, LOCK):
            at = os.path.join(folder, one.encode())
            leads_nowhere = os.path.islink(at) and not os.path.exists(at)
            if leads_nowhere or (os.path.exists(at) and not os.access(at, os.R_OK | os.W_OK)):
                name = "/" + one
                break
    advice = ""
    if error.errno == ENOMEM:
        advice = "; it needs twice --store-disk of address space (ulimit -v)"
    return ConfigError(f"store: {shown}{name}: {error.strerror}{advice}")


def is_lock_of(lock_fd: int, path: str) -> bool:
    """Return whether a lock is that of a folder, and not of one that was there before."""
    try:
        return os.path.samestat(os.fstat(lock_fd), os.stat(os.path.join(path, "lock")))
    except OSError:
        return False


def claim(lock_fd: int) -> None:
    """Write into the lock that this process uses the folder.

    Raises:
        OSError: It cannot be written, for instance because the disk is full.
    """
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)


class _Meta(NamedTuple):
    """One of the two header pages; `error` says why it is none."""

    transaction: int = 0
    bytes_needed: int = 0  # by the file, for this transaction
    map_bytes: int = 0
    error: str = ""


def _metas(header: bytes) -> Iterator[_Meta]:
    page_bytes = 0
    for at in (0, 1):
        begin = at * (page_bytes or 4096) + _META_AT
        if len(header) < begin + _META.size:
            yield _Meta(error="its header is cut off")
            return
        magic, version, _, map_bytes, found_bytes, last, transaction = _META.unpack_from(
            header, begin
        )
        if magic != _MAGIC:
            yield _Meta(error="its header is not that of a database")
            return
        if version != 1 or not 512 <= found_bytes <= 65536 or found_bytes & (found_bytes - 1):
            yield _Meta(error="its header is of another version")
            return
        page_bytes = found_bytes
        yield _Meta(transaction, (last + 1) * page_bytes, map_bytes)


def damage_of(header: bytes, size: int) -> str:
    """Return the damage that the header of a database shows; "" for none."""
    metas = list(_metas(header))
    if error := metas[-1].error:
        return error
    _, needed, _, _ = max(metas)
    return f"it is cut off: {size} of {needed} octets" if size < needed else ""


def broken_beside(base: str) -> list[str]:
    """Return the folders with databases that were set aside."""
    folder, name = os.path.split(base)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [os.path.join(folder, one) for one in names if one.startswith(name + ".broken-")]


def file_system(path: str, mounts: Callable[[], str] | None = None) -> str:
    """Return the kind of the file system of a path, which need not exist; "" if not known."""
    try:
        text = (mounts or _mounts)()
    except OSError:
        return ""
    path = os.path.realpath(path)
    best, kind = "", ""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _mounts() -> str:
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        return file.read()
