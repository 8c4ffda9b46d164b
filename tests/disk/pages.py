"""Pages in a database of the test's own, for tests of the disk."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from retter.disk.database import Database
from retter.store.record import BODY
from retter.store.write_behind import Batch, Found, Removals, Written
from tests.store.test_packing import record
from tests.support.disk import Clock, open_at

NOW, WALL = 1000.0, 1_700_001_000.0
HERE = Path(__file__).parent.parent.parent


def batch(pages: dict[str, bytes], removals: Removals | None = None) -> Batch:
    slots = {}
    for path, body in pages.items():
        key = b"*a.b" + path.encode()
        one = record(key, body=body, stored_at=NOW, age_max_s=86400.0)
        slots[key] = Written((one,), ())
    return Batch(removals or Removals(), slots)


def bodies(database: Database, paths: list[str]) -> dict[str, bytes]:
    """Return those that are there, verified."""
    found = {}
    for path in paths:
        packed = database.slot_key(b"*a.b" + path.encode())
        if (one := database.read(packed, NOW, WALL, 86400.0)) is not None:
            found[path] = one.variants[0][BODY]
    return found


def child(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run code in another process, which may die of it."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )


def store_pages(path: Path, count: int = 20) -> dict[str, bytes]:
    pages = {f"/{n}": b"%d " % n * 3000 for n in range(count)}
    shelf = open_at(path, Clock(NOW))
    for key, waits in batch(pages).slots.items():
        shelf.behind.changed(key, waits.slot, (), NOW)
    shelf.close()
    return pages


def served_from(path: Path, pages: dict[str, bytes]) -> dict[str, bytes]:
    """Open a store as the next process does, and return what it would serve."""
    shelf = open_at(path, Clock(NOW))
    served: dict[str, bytes] = {}
    for page in pages:
        key = b"*a.b" + page.encode()
        found: list[dict[bytes, Found]] = []
        shelf.load([key], found.append)
        if key in found[0]:
            served[page] = found[0][key].slot[0][2]
    shelf.close()
    return served


def no_space(*_: Any) -> None:
    raise OSError(28, "No space left on device")
