"""Reads the folder of `--store` in another process, even while a RETTER uses it.

Nothing is written, and all transactions are short: a long one would keep the running RETTER from
reusing free space in its file (database.py).
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from errno import EACCES, EDQUOT, ENOSPC, EPERM
from typing import NamedTuple

from retter.base.steady_clock import SteadyClock, boot_id, since_boot
from retter.config.settings import ConfigError
from retter.disk.database import CLOCK, Database
from retter.disk.environment import Damaged, Foreign
from retter.disk.folder import DATA, HEADER_BYTES, broken_beside, damage_of
from retter.http.head_edit import fields_of
from retter.http.message import Fields
from retter.store.key_table import KeyTable
from retter.store.packing import Unpacked
from retter.store.policy import key_parts
from retter.store.purging import matches
from retter.store.record import StoredResponse


class Listed(NamedTuple):
    """A stored response, as an operator sees it."""

    url: bytes
    private: bool  # belongs to one owner; otherwise it is public
    response: StoredResponse  # its `body` is a hash; its times assume that now is 0
    size: int  # octets of the body, in its content coding

    @property
    def age_s(self) -> float:
        """Seconds since the application made the response."""
        return self.response.age(0.0)

    @property
    def fields(self) -> Fields:
        """The header fields."""
        return fields_of(self.response.head)


class Filter(NamedTuple):
    """A selection of responses: all given conditions must match."""

    prefix: bytes | None = None  # as in `ResponseStore.purge`
    private: bool | None = None
    older_s: float = 0.0
    younger_s: float = float("inf")
    larger: int = 0
    smaller: float = float("inf")

    def fits(self, key: bytes, one: Listed) -> bool:
        """Return whether a response matches."""
        return (
            (self.private is None or self.private is one.private)
            and self.older_s <= one.age_s <= self.younger_s
            and self.larger <= one.size <= self.smaller
            and (self.prefix is None or matches(key, None, self.prefix, None))
        )


class Faults(NamedTuple):
    """The result of a verification."""

    responses: int  # number of checked responses
    damaged: list[str]  # URLs; "" for one that cannot be read
    orphans: int  # number of bodies without a response
    miscounted: bool  # the counts do not agree with the content


@contextmanager
def opened(path: str) -> Generator[Database, None, None]:
    """Open the database of a folder for reading.

    Raises:
        ConfigError: The database does not exist, or may not be read.
        Damaged: RETTER did not write this content.
    """
    file = os.path.join(path, DATA)
    try:
        with open(file, "rb") as data:
            owner = os.fstat(data.fileno())
            header = data.read(HEADER_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"store: {path}: there is no store; name the folder that RETTER has as --store"
        ) from None
    except OSError as error:
        raise _cannot_open(file, error) from None
    if reason := damage_of(header, owner.st_size):
        raise Damaged(reason)
    lock = os.path.join(path, "lock.mdb")
    is_new = not os.path.exists(lock)
    try:
        database = Database(path, 0, readonly=True)
    except OSError as error:
        raise _cannot_open(path, error) from None
    except Foreign:
        raise ConfigError(
            f"store: {path} holds the database of another program; name the folder that RETTER "
            "has as --store"
        ) from None
    try:
        if is_new:  # if root made the file, RETTER could not open it any more
            with contextlib.suppress(OSError):
                os.chown(lock, owner.st_uid, owner.st_gid)
        yield database
    finally:
        database.close()


def time_of(database: Database) -> float:
    """Return the time of day by which its ages are kept."""
    return SteadyClock(time.time, since_boot, boot_id(), database.note(CLOCK)).now()


def _cannot_open(path: str, error: OSError) -> ConfigError:
    advice = ""
    if error.errno in (EACCES, EPERM):
        advice = "; run this as the user that RETTER runs as"
    elif error.errno in (ENOSPC, EDQUOT):
        advice = "; the list of readers (lock.mdb) needs a few KiB"
    return ConfigError(f"store: {path}: {error.strerror}{advice}")


def used_by(path: str) -> int:
    """Return the ID of the process that uses a folder; 0 for none, -1 if it is not known."""
    try:
        fd = os.open(os.path.join(path, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.pread(fd, 20, 0).decode("latin-1").strip()
        return int(number) if number.isdigit() else -1
    finally:
        os.close(fd)
    return 0


def listed(database: Database, wanted: Filter, wall: float) -> Iterator[Listed]:
    """Yield the matching responses, in no order; damaged ones are left out."""
    for _, unpacked in database.slots(0.0, wall):
        if unpacked is not None:
            for one in responses_of(unpacked):
                if wanted.fits(unpacked.key, one):
                    yield one


def responses_of(unpacked: Unpacked) -> list[Listed]:
    """Return the variants of a slot."""
    owner, url = key_parts(unpacked.key)
    return [
        Listed(url, bool(owner), one, size)
        for one, size in zip(unpacked.variants, unpacked.body_lengths, strict=True)
    ]


def verified(database: Database, wall: float, *, alone: bool) -> Iterator[Faults]:
    """Verify all entries; yield the result so far, from time to time and at the end.

    Args:
        alone: No other process writes. Only then can references and counts be checked.
    """
    counts = KeyTable()
    responses, keys, damaged = 0, 0, list[str]()
    for _, unpacked, whole in database.walk(0.0, wall):
        keys += 1
        responses += 0 if unpacked is None else len(unpacked.variants)
        if not whole:
            url = b"" if unpacked is None else key_parts(unpacked.key)[1]
            damaged.append(url.decode("latin-1"))
        for one in () if unpacked is None else unpacked.variants:
            number = int.from_bytes(one.body[:8])
            counts.set(number, max(0, counts.get(number)) + 1)
        if keys % 1000 == 0:
            yield Faults(responses, damaged, 0, miscounted=False)
    orphans, miscounted = 0, keys != database.entries
    if not alone:
        yield Faults(responses, damaged, 0, miscounted=False)
        return
    for name, count in database.body_counts():
        counted = counts.get(int.from_bytes(name[:8]))
        orphans += counted < 0
        miscounted = miscounted or (counted >= 0 and counted != count)
    yield Faults(responses, damaged, orphans, miscounted)


def set_aside(path: str) -> list[tuple[str, int]]:
    """Return the paths and sizes (octets) of broken databases that were set aside."""
    files: list[tuple[str, int]] = []
    for base in (os.path.abspath(path), os.path.join(path, "data")):
        for where in broken_beside(base):
            with contextlib.suppress(OSError):
                files.append((where, os.stat(os.path.join(where, DATA)).st_size))
    return files
