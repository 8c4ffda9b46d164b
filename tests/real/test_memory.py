"""Memory: what happens when it runs out, in processes whose address space is limited."""

import resource
import subprocess
import sys
import time
from http.client import HTTPException
from typing import Any

from retter.proxy.slices import ASYNCIO_COPIES
from tests.real.conftest import StartRetter
from tests.real.inside import proxy_for, run
from tests.real.processes import ROOT, ApplicationProgram, RetterProgram, eventually
from tests.real.slow_readers import hold_little
from tests.real.wire import Client

MIB = 1024 * 1024
OBJECT_BYTES = 400_000


def limit_address_space(program: RetterProgram, room: int) -> None:
    """Leave a process so many octets more than it has now."""
    now = program.memory_bytes("VmSize")
    resource.prlimit(program.pid, resource.RLIMIT_AS, (now + room, now + room))


def told(program: RetterProgram, event: str) -> list[dict[str, Any]]:
    return [record for record in program.records() if record["event"] == event]


def test_a_store_that_is_too_large_for_the_memory(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    """Where the store has taken all memory, it is emptied, and serving goes on."""
    proxy = start_retter(
        "--upstream", application.upstream, "--loop", loop_name, "--store-memory", "1GiB"
    )
    client = Client(proxy.port)
    assert client.get("/download?bytes=1").status == 200
    limit_address_space(proxy, 24 * MIB)
    begun = time.monotonic()
    good = 0
    for number in range(160):  # 64 MB of different bodies
        size = OBJECT_BYTES + number
        try:
            good += len(client.get(f"/download?bytes={size}").body) == size
        except (OSError, HTTPException):
            client.close()
            client = Client(proxy.port)
    assert good >= 150, f"only those fail that found no memory: {proxy.output}"
    records = eventually(lambda: told(proxy, "out-of-memory"), "what has happened is told")
    assert len(records) <= 2 + time.monotonic() - begun, "one is told a second, not each"
    assert records[-1]["store_memory"] < 64 * MIB
    assert sum(record["dropped"] for record in records) >= 10
    assert proxy.alive
    assert len(proxy.output) < 20_000
    client.close()


# Like a listener that cannot accept for lack of memory: its loop is told again and again that
# somebody waits.
SPINNING = """
import asyncio, os, sys
from retter import Settings
from retter.process import program, running

listen = running.RunningProxy._listen

async def listen_and_fail(self, **how):
    await listen(self, **how)
    its, ours = os.pipe()
    os.write(ours, b"x")
    asyncio.get_running_loop().add_reader(its, fail)

def fail():
    raise MemoryError

running.RunningProxy._listen = listen_and_fail
sys.exit(program.run(Settings(
    upstream="127.0.0.1:9", listen="127.0.0.1:0", admin="off", event_loop=sys.argv[1],
)))
"""


def test_a_loop_that_can_do_nothing_but_fail_ends_with_one_line(loop_name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SPINNING, loop_name],
        cwd=ROOT,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [
        line
        for line in ended.stderr.splitlines() + ended.stdout.splitlines()
        if "serving" not in line
    ]
    assert ended.returncode == 1, ended.stderr
    assert len(lines) == 2 and all("out-of-memory" in line for line in lines), lines
    assert "exit_code" in lines[1]


# -- slow readers of one stored page --------------------------------------------------------------


def test_slow_readers_of_a_large_stored_page_hold_little_of_it(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream) as proxy:
            shared = loop_name == "uvloop" or not ASYNCIO_COPIES
            await hold_little(proxy, shared=shared)

    run(main(), loop_name)
