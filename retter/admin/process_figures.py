"""Figures of this process as Prometheus' client libraries name them, read from /proc.

A figure that the system does not provide is None (for memory 0, because the dashboard shows it).
"""

import os
import resource


def rss_bytes() -> int:
    """Return the resident memory of this process; 0 if it is not known."""
    return _memory_pages(1) * os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes() -> int:
    """Return the resident memory that belongs to this process alone; 0 if it is not known."""
    return _memory_pages(1, without=2) * os.sysconf("SC_PAGE_SIZE")


def mapped_bytes() -> int:
    """Return the resident memory of mapped files, for example the store's: it can be dropped.

    0 if it is not known.
    """
    return _memory_pages(2) * os.sysconf("SC_PAGE_SIZE")


def virtual_bytes() -> int:
    """Return the address space of this process; 0 if it is not known."""
    return _memory_pages(0) * os.sysconf("SC_PAGE_SIZE")


def _memory_pages(column: int, without: int = 0) -> int:
    """Return a column of /proc/self/statm: 0 all, 1 resident, 2 resident and mapped or shared.

    Args:
        without: Another column, which is subtracted; 0 for none.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = [int(text) for text in file.read().split()]
            return pages[column] - (pages[without] if without else 0)
    except OSError:
        return 0


def open_fds() -> int | None:
    """Return the number of open file descriptors."""
    folder = "/proc/self/fd"
    try:
        # Linux 6.2 and later count them; a list of 12,000 names takes 5 ms. The list has one
        # more: its own.
        return os.stat(folder).st_size or len(os.listdir(folder)) - 1
    except OSError:
        return None


def max_fds() -> float:
    """Return RLIMIT_NOFILE, the most descriptors that may be open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float(soft) if soft != resource.RLIM_INFINITY else float("inf")


def start_time_s(pid: int | str = "self") -> float | None:
    """Return when a process was started, in seconds since 1970 (proc(5), starttime and btime)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the name in brackets, which may contain any character.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            boot_s = next(int(line[6:]) for line in file if line.startswith(b"btime "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return boot_s + ticks / os.sysconf("SC_CLK_TCK")
