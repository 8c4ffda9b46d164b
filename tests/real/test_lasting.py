"""A store on disk with real processes: killed, started alone, taken over, used twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.conftest import StartRetter
from tests.real.processes import ApplicationProgram, RetterProgram, eventually
from tests.real.test_takeover import OBSERVE, is_alive, load_on, serving, stop_all
from tests.real.wire import fetch

SHOP = {"Host": "shop.example"}  # ports change with the process
ALICE = {**SHOP, "Cookie": "PHPSESSID=alice-0123456789abcdef"}
# A dead application is refused at once: nothing here waits for its restart.
AT_ONCE = ("--connect-hold", "0s")


def on_disk(folder: Path, count: int) -> bool:
    """Whether so many records have been committed, by another process."""
    from retter.disk.database import Database

    if not (folder / "data.mdb").exists():
        return False
    database = Database(str(folder), 1 << 20)
    try:
        return database.entries >= count
    finally:
        database.close()


def looked_at(store: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `retter store`."""
    command = [sys.executable, "-m", "retter", "store", *arguments, "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def mortal() -> Iterator[ApplicationProgram]:
    """An application of this test's alone, which may be killed."""
    application = ApplicationProgram()
    yield application
    application.kill()


def test_killed_and_started_alone_it_shows_what_it_had(
    mortal: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    options = ("--upstream", mortal.upstream, "--store", str(store), *AT_ONCE)
    first = start_retter(*options)
    assert fetch(first.port, "GET", "/page", SHOP).status == 200
    assert fetch(first.port, "GET", "/mine", ALICE).status == 200
    eventually(lambda: on_disk(store, 2), "both are on disk")
    first.signal(signal.SIGKILL)
    eventually(lambda: not first.alive, "it is dead")
    mortal.kill()

    second = start_retter(*options)
    answer = fetch(second.port, "GET", "/page", SHOP)
    assert (answer.status, answer.stored) == (200, True), "its very first request"
    assert fetch(second.port, "GET", "/mine", ALICE).stored
    assert fetch(second.port, "GET", "/mine", SHOP).status == 502, "it is alice's"
    assert fetch(second.port, "GET", "/new", SHOP).status == 502
    assert not list(tmp_path.glob("store.broken-*"))

    # And who looks into its folder meanwhile.
    info = looked_at(store, "info", "--json")
    assert (info.returncode, json.loads(info.stdout)["process"]) == (0, second.pid)
    assert "no damage was found" in looked_at(store, "verify").stdout
    assert "shop.example/page" in looked_at(store, "list", "--owner", "everyone").stdout
    refused = looked_at(store, "compact")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"a RETTER uses {store} (process {second.pid}); stop it first" in refused.stderr
    assert fetch(second.port, "GET", "/page", SHOP).stored


def test_a_second_one_on_the_same_folder_ends_with_one_line(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    options = ("--upstream", application.upstream, "--store", str(tmp_path / "store"))
    first = start_retter(*options)
    assert first.port
    second = start_retter(*options)
    assert second.wait() == 2
    eventually(lambda: second.lines, "it says why")
    assert len(second.lines) == 1
    assert f"used by another RETTER (process {first.pid})" in second.lines[0]
    assert fetch(first.port, "GET", "/").status == 200


def test_a_successor_has_what_was_stored_and_learnt(
    mortal: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    proxy = start_retter("--upstream", mortal.upstream, "--store", str(store), *OBSERVE, *AT_ONCE)
    port = proxy.port
    try:
        assert fetch(port, "GET", "/page").status == 200
        assert fetch(port, "GET", "/mine", ALICE).status == 200
        with load_on(port) as load:
            proxy.signal(signal.SIGUSR2)
            eventually(lambda: not proxy.alive or load.failures, "the old one ends")
        assert load.failures == []
        _, second = (one["pid"] for one in serving(proxy, 2))
        taken = next(one for one in proxy.records() if one["event"] == "taken-over")
        assert taken["entries"] >= 2, "what is in memory comes from the other's memory"
        assert (store / "learnt").stat().st_size > 100
        mortal.kill()
        assert fetch(port, "GET", "/page").stored
        assert fetch(port, "GET", "/mine", ALICE).stored
        assert not fetch(port, "GET", "/mine").stored
        os.kill(second, signal.SIGTERM)
        eventually(lambda: not is_alive(second), "it ends")
    finally:
        stop_all(proxy)


def test_a_successor_that_cannot_start_leaves_the_store_to_the_old_one(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    store, config = tmp_path / "store", tmp_path / "retter.toml"
    config.write_text("drain = '1s'\n")
    proxy = start_retter(
        "--upstream", application.upstream, "--store", str(store), "--config", str(config)
    )
    port = proxy.port
    config.write_text("dran = '1s'\n")
    proxy.signal(signal.SIGUSR2)
    proxy.wait_for_line(lambda line: "takeover-failed" in line)
    assert fetch(port, "GET", "/page").status == 200
    eventually(lambda: on_disk(store, 1), "it writes as before")
    assert proxy.stop() == 0


def test_what_was_learnt_is_on_disk_within_seconds(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    proxy = start_retter("--upstream", application.upstream, "--store", str(tmp_path / "store"))
    assert fetch(proxy.port, "GET", "/page").status == 200
    learnt = tmp_path / "store" / "learnt"
    eventually(learnt.exists, "it is written")
    assert learnt.stat().st_mode & 0o777 == 0o600


def test_the_history_goes_on_after_a_restart(
    mortal: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    arguments = (
        "--upstream", mortal.upstream, "--store", str(tmp_path / "store"), "--admin", "127.0.0.1:0",
        *AT_ONCE,
    )  # fmt: skip

    def asked(proxy: RetterProgram, target: str) -> Any:
        line = proxy.wait_for_line(lambda line: '"serving"' in line)
        return fetch(int(json.loads(line)["admin"].rpartition(":")[2]), "GET", target).json

    first = start_retter(*arguments)
    mortal.kill()
    eventually(
        lambda: fetch(first.port, "GET", "/") and asked(first, "/api/incidents")["incidents"],
        "an incident begins",
    )
    assert first.stop() == 0
    second = start_retter(*arguments)
    (incident,) = asked(second, "/api/incidents")["incidents"]
    assert incident["ended"] is not None, "it ended with the process, at the latest"
    whole = asked(second, "/api/incidents?number=1")
    assert whole["incident"]["course"]
    assert sum(whole["history"]["failed"]) > 0
    eventually(lambda: asked(second, "/api/history")["state"][-1:] == ["CLOSED"], "it goes on")
