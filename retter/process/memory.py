"""Settings of Python and of the C library that make a long-running process cheaper."""

import contextlib
import gc
from typing import Final

# Objects made and not yet freed before a collection: some milliseconds of traffic, and less than
# a millisecond to look through.
GC_YOUNG_MAX = 10_000

# The process keeps freed memory up to twice this size. A body of 1 MiB on its way needs that much.
KEPT_BLOCK_BYTES = 4 * 1024 * 1024


def collect_less_often() -> None:
    """Set the garbage collector up for a process that has started and now serves."""
    # What was made at the start stays for ever: no collection needs to look at it again. With
    # many connections, each pause is that much shorter.
    gc.collect()
    gc.freeze()
    # A request makes nothing that only a collection could free, so young objects are looked at
    # less often. Otherwise collections take 2.5 % of the time, if no head was seen before.
    gc.set_threshold(GC_YOUNG_MAX, 20, 20)


# Looks at young objects between two looks at older ones, and between two at all objects: after a
# thousand and four million responses. A tuple with a tuple in it is looked at twice, until it is
# left alone.
OLDER_LOOKS: Final = 16
ALL_LOOKS: Final = 65_536


class YoungObjects:
    """Lets the garbage collector look at young objects, and seldom at others."""

    def __init__(self) -> None:
        self._looks = 0

    def look_through(self) -> None:
        """Look at the objects that were made since the last look."""
        self._looks += 1
        gc.collect(0)
        if self._looks % OLDER_LOOKS == 0:
            gc.collect(1 if self._looks % ALL_LOOKS else 2)


def keep_freed_memory() -> None:
    """Make the C library keep freed blocks of memory, unless they are very large.

    Without this, the kernel maps, clears and unmaps memory for each large body on its way, which
    triples the cost of forwarding it (measured for 1 MiB: 1,700 us; with this, 500 us). glibc takes
    the largest block freed so far as its limit (mallopt(3), M_MMAP_THRESHOLD). The block freed here
    is never written to, so it takes no memory. Other C libraries ignore it.
    """
    block = bytes(KEPT_BLOCK_BYTES)
    del block


def give_back_freed_memory() -> None:
    """Return memory that was used and freed during the start to the system.

    The freed memory lies between blocks still in use, so glibc keeps it until malloc_trim(3) is
    called. It is 0.1 MB, and 0.8 MB if the source had to be compiled first. Other C libraries have
    no such function. The package ctypes would take 0.2 MB more than its machine code alone, which
    some builds of Python lack.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import _ctypes

        program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None: it and its libraries
        malloc_trim = _ctypes.dlsym(program, "malloc_trim")
        _ctypes.call_function(malloc_trim, (0,))
