"""The place of the store that several workers share: in `--store`, or else in memory."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import Final

from retter.config.settings import ConfigError, Settings
from retter.process.worker_settings import NEAR_SHARE
from retter.telemetry.log import get_logger

MEMORY: Final = "/dev/shm"
PREFIX: Final = "retter-store-"

# The file may become twice as large as what is stored in it (disk/database.py).
FILE_SHARE: Final = (1 - NEAR_SHARE) / 2

BYTES_MIN: Final = 1 << 20

log = get_logger()


@dataclass(frozen=True, slots=True)
class StorePlace:
    """The folder of the shared store.

    Attributes:
        path: Of the folder; "" if nothing is stored.
        bytes_max: The size of what is stored there.
        temporary: It is removed when RETTER ends.
    """

    path: str
    bytes_max: int
    temporary: bool = False

    def remove(self) -> None:
        """Remove the folder if it is temporary."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)


def place_of(settings: Settings, inherited: str = "") -> StorePlace:
    """Return the folder for these settings; a temporary one is made.

    Args:
        inherited: The temporary folder of the supervisor that this one takes over from.

    Raises:
        ConfigError: There is no package for it, or no folder can be made.
    """
    if not settings.store and not settings.store_memory_bytes:
        return StorePlace("", 0)
    try:
        import lmdb  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise ConfigError(
            "workers: several share a store, which needs the lmdb package; "
            "pip install 'retter[store]'"
        ) from None
    if settings.store:
        return StorePlace(settings.store, settings.store_disk_bytes)
    bytes_max = max(BYTES_MIN, int(settings.store_memory_bytes * FILE_SHARE))
    return StorePlace(inherited or _folder_in_memory(settings), bytes_max, temporary=True)


def _folder_in_memory(settings: Settings) -> str:
    where: str | None = None
    try:
        free = os.statvfs(MEMORY)
        if free.f_bavail * free.f_frsize >= settings.store_memory_bytes:
            where = MEMORY
    except OSError:
        pass  # there is none
    try:
        path = _make_in(where)
    except OSError as error:
        raise ConfigError(f"workers: no folder for the shared store: {error.strerror}") from None
    if where is None:
        log.warning(
            "store-not-in-memory",
            folder=path,
            advice=f"{MEMORY} is smaller than --store-memory: make it larger, or name a --store",
        )
    return path


def _make_in(where: str | None) -> str:
    folder = where or tempfile.gettempdir()
    _remove_left_behind(folder)
    return tempfile.mkdtemp(prefix=PREFIX, dir=folder)


def _remove_left_behind(folder: str) -> None:
    """Remove the folders of supervisors that were killed."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(PREFIX):
            continue
        with contextlib.suppress(OSError):  # also of one that ends just now
            if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                fd = os.open(os.path.join(entry.path, "lock"), os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(fd)
