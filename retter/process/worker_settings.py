"""The settings of one worker: its share of what the operator has set for the whole. Pure."""

from dataclasses import replace
from math import ceil
from typing import Final

from retter.config.settings import ConfigError, Settings

# The part of `--store-memory` that all workers' near stores have together if the shared store is in
# memory too. The rest is for the shared store.
NEAR_SHARE: Final = 1 / 4

# Less would hold some dozens of pages.
NEAR_BYTES_MIN: Final = 1 << 20


def near_bytes(settings: Settings, workers: int) -> int:
    """Return the memory for stored responses near each worker.

    Raises:
        ConfigError: It is too small.
    """
    share = 1.0 if settings.store else NEAR_SHARE
    bytes_each = int(settings.store_memory_bytes * share) // workers
    if settings.store_memory_bytes and bytes_each < NEAR_BYTES_MIN:
        least = ceil(NEAR_BYTES_MIN * workers / share) >> 20
        raise ConfigError(
            f"store_memory: too small for {workers} workers; give at least {least}MiB, or fewer "
            "--workers"
        )
    return bytes_each


def share_of(
    settings: Settings, workers: int, *, index: int, store: str = "", store_bytes: int = 0
) -> Settings:
    """Return the settings of one of so many workers.

    Connections, memory and the queue are divided. Times, sizes of single messages and the rules of
    the store are the same for each, and so is what may be in flight: the workers count together.
    The first worker has the admin listener.

    Args:
        store: The folder of the store that they share.
        store_bytes: The size of what is stored there.

    Raises:
        ConfigError: There is not enough for each.
    """

    def each(whole: int) -> int:
        return ceil(whole / workers)

    near = near_bytes(settings, workers)
    return replace(
        settings,
        workers=1,
        admin=settings.admin if index == 0 else "off",
        connections_max=each(settings.connections_max),
        buffer_memory_bytes=each(settings.buffer_memory_bytes),
        pool_size=each(settings.pool_size),
        queue_max=each(settings.queue_max),
        store=store,
        store_disk_bytes=store_bytes or settings.store_disk_bytes,
        store_memory_bytes=near,
        store_object_bytes_max=min(settings.store_object_bytes_max, near),
    )
