"""The imports of an idle process: most of its memory is code."""

import subprocess
import sys

import pytest

# Each of these is needed to serve at all, or by a dependency. They import others in turn.
NEEDED = (
    "__future__, _ctypes, array, asyncio, datetime, h11, inspect, ipaddress, json, "
    "logging, queue, random, resource, urllib.parse, uvloop, zlib"
)

# Parts that few requests and few installations need. They are imported when they are needed.
LAZY = {
    "retter.admin.api", "retter.admin.connection", "retter.admin.dashboard", "retter.admin.explain",
    "retter.admin.metrics", "retter.admin.state", "retter.continuity.handover",
    "retter.continuity.learnt", "retter.http.proxy_header", "retter.net.certificates",
    "retter.options", "retter.proxy.follower", "retter.proxy.handover", "retter.proxy.handshake",
    "retter.proxy.learnt", "retter.proxy.proxy_protocol", "retter.proxy.redirect",
    "retter.proxy.state_giver", "retter.proxy.state_link",
    "retter.proxy.state_taker", "retter.proxy.tls", "retter.proxy.tunnel",
    "retter.proxy.waiting_page", "retter.store.handover", "retter.store.packing",
    "retter.store.write_behind", "retter.telemetry.access_log", "retter.telemetry.console",
}  # fmt: skip


def modules_after(code: str, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def idle() -> set[str]:
    """Start the whole program, and stop it when it serves."""
    code = """
import os, signal, sys, threading

log, writable = os.pipe()
os.dup2(writable, 2)

def stop_when_it_serves():
    for line in open(log):
        if '"serving"' in line:
            print(*sys.modules)
            os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_when_it_serves, daemon=True).start()
from retter.cli import main
sys.exit(main(sys.argv[1:]))
"""
    return modules_after(
        code, "--listen", "127.0.0.1:0", "--upstream", ":1", "--admin", "127.0.0.1:0"
    )


def test_what_few_need_is_imported_when_it_is_needed(idle: set[str]) -> None:
    assert {"retter.proxy.exchange", "retter.admin.listener"} <= idle
    assert LAZY.isdisjoint(idle)
    packages = {name.split(".")[1] for name in idle if name.startswith("retter.")}
    assert packages.isdisjoint({"control", "demo", "disk", "far"})
    assert {"redis", "retter.proxy.sharing"}.isdisjoint(idle)


def test_no_module_of_others_is_imported_without_need(idle: set[str]) -> None:
    """OpenSSL's digests take 0.65 MB, for example, `pickle` 0.4 MB and `pathlib` 0.25 MB."""
    needed = modules_after(f"import sys, {NEEDED}; print(*sys.modules)")
    ours = {name for name in idle if name.split(".")[0] in {"retter", "structlog"}}
    ours |= {name for name in idle if name.endswith("__mypyc")}  # the compiled modules' library
    assert idle - ours - needed <= {"_blake2"}  # what `hashlib` is used for, without OpenSSL's part
