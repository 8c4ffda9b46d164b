"""What the system tells: cores, CPU time and memory of processes, system calls, the machine."""

import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

# The work of one calibration: long enough to be timed, short enough not to matter beside a window.
CALIBRATION_TURNS: Final = 200_000

# Enough for 10,000 idle connections and one upstream connection for each, should a proxy reserve
# it.
DESCRIPTORS_WANTED: Final = 65_536
SPARE_DESCRIPTORS: Final = 128


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the proxy has for itself, and which all the rest shares."""

    proxy: int
    rest: int

    @property
    def apart(self) -> bool:
        """Tell whether there are two."""
        return self.proxy != self.rest


def cores() -> Cores:
    """Return the last core that we may use for the proxy, and the first for the rest."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(proxy=usable[-1], rest=usable[0])


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE for us and all that we start, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, DESCRIPTORS_WANTED), hard):  # above hard only root may go
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (ValueError, OSError):
            continue
        return limit
    return soft


def connections_possible() -> int:
    """Return how many clients a proxy can have that keeps two descriptors for each."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS) // 2


def calibrate(core: int) -> float:
    """Return the milliseconds of a fixed loop on a core: how fast the machine is right now."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        began = time.perf_counter()
        total = 0
        for number in range(CALIBRATION_TURNS):
            total += number & 7
        return 1000 * (time.perf_counter() - began)
    finally:
        os.sched_setaffinity(0, usable)


@contextmanager
def burners(count: int) -> Iterator[list[int]]:
    """Keep the machine busy: processes that only calculate, at the usual niceness."""
    commands = [[sys.executable, "-c", "while True: pass"]] * count
    running = [subprocess.Popen(command) for command in commands]
    try:
        yield [one.pid for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()


def tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on, which is the third of them."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU that processes have used."""

    user_s: float
    system_s: float

    def since(self, before: "CpuTime") -> "CpuTime":
        """Return what has been used after an earlier reading."""
        return CpuTime(self.user_s - before.user_s, self.system_s - before.system_s)


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """Return utime and stime of some processes together."""
    user = system = 0
    for pid in pids:
        if fields := _stat(pid):
            user += int(fields[11])
            system += int(fields[12])
    return CpuTime(user / TICKS_PER_S, system / TICKS_PER_S)


def rss_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of some processes together; pages they share count for each."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        except OSError:
            continue
    return total


def system_calls(pids: Iterable[int], load: Callable[[], int], folder: Path) -> dict[str, float]:
    """Return how often each system call was made for a request, or nothing where strace cannot.

    Args:
        pids: Whom to watch.
        load: Loads them and returns the number of requests.
        folder: For strace's output.
    """
    output = folder / "strace.txt"
    watch = [argument for pid in pids for argument in ("-p", str(pid))]
    if which("strace") is None:
        return {}
    tracer = subprocess.Popen(
        ["strace", "-c", "-f", "-qq", "-o", str(output), *watch],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.3)  # until it has attached to all threads
        if tracer.poll() is not None:
            return {}
        requests = load()
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.wait(timeout=15)
    counts = read_strace(output.read_text())
    return {name: count / requests for name, count in counts.items()} if requests else {}


def read_strace(text: str) -> dict[str, int]:
    """Return the calls by name of strace's summary."""
    # % time, seconds, usecs/call, calls, errors (may be empty), name
    line = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)
    return {name: int(calls) for calls, name in line.findall(text) if name != "total"}


def first_line(*command: str) -> str:
    """Return the first line that a program says, wherever it says it, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = (done.stdout + done.stderr).strip()
    return said.splitlines()[0].strip() if said else ""


def describe_machine() -> dict[str, str]:
    """Return what matters for figures."""
    cpu = re.search(r"model name\s*:\s*(.*)", _text("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _text("/proc/meminfo"))
    return {
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 1e6:.1f} GB" if memory else "",
        "kernel": f"{platform.system()} {platform.release()}",
        "load average at the start": " ".join(_text("/proc/loadavg").split()[:3]),
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def commit() -> str:
    """Return the commit that is measured, with a plus for changes on top of it."""
    here = str(Path(__file__).parent)
    name = first_line("git", "-C", here, "rev-parse", "--short=12", "HEAD")
    changed = first_line("git", "-C", here, "status", "--porcelain", "--", ":/retter")
    return name + ("+" if changed else "")
