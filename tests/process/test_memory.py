"""Memory that is freed goes back to the system."""

import subprocess
import sys


def test_what_starting_has_freed_goes_back_to_the_system() -> None:
    code = """
import re
from retter.process.memory import give_back_freed_memory

def resident_kib():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\\s+(\\d+)", status.read())[1])

blocks = [bytes(4000) for _ in range(10_000)]
last = blocks.pop()
del blocks
before = resident_kib()
give_back_freed_memory()
print(before - resident_kib())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) > 30_000
