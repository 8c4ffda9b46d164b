"""A RETTER whose standard output and standard error nobody reads goes on serving."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.real.processes import (
    DEADLINE_S,
    ROOT,
    ApplicationProgram,
    accepts,
    eventually,
    free_port,
)
from tests.real.wire import fetch

pytest.importorskip("prometheus_client")


def full_pipe() -> tuple[int, int]:
    """Return a pipe that takes nothing more; its flags are those of any other."""
    its, ours = os.pipe()
    os.set_blocking(ours, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(ours, b"\n" * 4096)
    os.set_blocking(ours, True)
    return its, ours


def dropped(admin: int) -> dict[str, float]:
    lines = fetch(admin, "GET", "/metrics").body.decode().splitlines()
    found = (line.rpartition(" ") for line in lines if "log_lines_dropped_total{" in line)
    return {name.split('"')[1]: float(value) for name, _, value in found}


def test_nobody_reads_the_logs(application: ApplicationProgram, loop_name: str) -> None:
    port, admin = free_port(), free_port()
    (out, its_out), (err, its_err) = full_pipe(), full_pipe()
    program = subprocess.Popen(
        [sys.executable, "-m", "retter", "--upstream", application.upstream,
         "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--loop", loop_name,
         "--access-log", "-", "--log-format", "json"],
        stdout=its_out, stderr=its_err, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    received: dict[int, bytes] = {out: b"", err: b""}
    try:
        eventually(lambda: accepts(port) and accepts(admin), "it serves without a word")
        target = "/hello?" + "x" * 7000
        for _ in range(200):
            assert fetch(port, "GET", target).status == 200
        program.send_signal(signal.SIGHUP)
        assert fetch(port, "GET", target).status == 200
        eventually(lambda: dropped(admin)["access"], "lines are counted that nobody takes")
        assert dropped(admin)["own"] == 0, "there is room for the few lines of this one"
        for descriptor in (its_out, its_err):
            assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK
            os.close(descriptor)

        def read(pipe: int) -> None:
            while data := os.read(pipe, 65536):
                received[pipe] += data

        readers = [threading.Thread(target=read, args=(pipe,)) for pipe in (out, err)]
        for reader in readers:
            reader.start()
        eventually(lambda: received[out].count(b"/hello?") > 100, "they are read after all")
        eventually(lambda: b'"serving"' in received[err], "and so are these")
        program.send_signal(signal.SIGTERM)
        assert program.wait(DEADLINE_S) == 0
        for reader in readers:
            reader.join(DEADLINE_S)
    finally:
        program.kill()
        program.wait()
        os.close(out)
        os.close(err)
    statuses = [json.loads(line)["status"] for line in received[out].splitlines() if line]
    assert set(statuses) == {200}
    events = [json.loads(line)["event"] for line in received[err].splitlines() if line]
    assert [events[0], *events[-2:]] == ["serving", "draining", "stopped"]
    assert "reloaded" in events
