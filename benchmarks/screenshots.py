"""The pictures of the dashboard in docs/: the demonstration shop in a storm, in both themes.

A calm minute, then five times what the shop can do, and in the middle of that a few seconds in
which it is dead. Needs playwright (the `test` extra) and an installed Chromium.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PICTURE_BYTES_MAX = 200_000  # each; a clone should stay small

CALM_S, STORM_S, DEAD_AFTER_S, DEAD_FOR_S = 60, 100, 25, 5
AFTER_S = 35  # from when it is dead to the pictures: it has come back and works at its limit
CALM_RPS, STORM_RPS = 250, 2000
WIDTH, HEIGHT = 1200, 1230  # down to the figures


def retter(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """Start a command of this tree's."""
    return subprocess.Popen([sys.executable, "-m", "retter", *arguments], text=True, **options)


@contextlib.contextmanager
def demonstration() -> Iterator[dict[str, str]]:
    """Run the shop behind RETTER; the addresses of its parts, by the words of the welcome."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = retter("demo", "--with-proxy", f"127.0.0.1:{port}", stdout=subprocess.PIPE)
    try:
        assert demo.stdout is not None
        found: dict[str, str] = {}
        names = {"The shop, through": "proxy", "RETTER's dashboard": "admin", "Its knobs": "knobs"}
        for line in demo.stdout:
            for start, name in names.items():
                if line.strip().startswith(start):
                    found[name] = line.split()[-1]
            if len(found) == len(names):
                break
        yield found
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait()


def load(url: str, rate: int, seconds: int) -> "subprocess.Popen[str]":
    """Send so many requests a second."""
    return retter(
        "load", url, "--rate", str(rate), "--seconds", str(seconds), stdout=subprocess.DEVNULL
    )


def kill_for_a_while(knobs: str) -> None:
    """Have the shop be dead for a few seconds."""
    wish = json.dumps({"condition": "dead", "dead_for_s": DEAD_FOR_S}).encode()
    request = urllib.request.Request(
        f"{knobs}.json", wish, {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(request).close()


def main() -> int:
    """Take the pictures."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("Chromium is not installed")
        return 1
    with demonstration() as at, sync_playwright() as driver:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=program, args=options)
        print(f"{CALM_S} calm seconds ...")
        load(at["proxy"], CALM_RPS, CALM_S).wait()
        print(f"{STORM_S} seconds of storm ...")
        storm = load(at["proxy"], STORM_RPS, STORM_S)
        time.sleep(DEAD_AFTER_S)
        kill_for_a_while(at["knobs"])
        pages: dict[str, Any] = {}
        for theme in ("light", "dark"):
            pages[theme] = browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme
            ).new_page()
            pages[theme].goto(at["admin"])
        time.sleep(AFTER_S)
        for theme, page in pages.items():
            path = DOCS / f"dashboard-{theme}.png"
            # Hiding the caret would need a style that the page's policy forbids.
            page.screenshot(path=str(path), caret="initial")
            size = path.stat().st_size
            print(f"{path.name}: {size:,} bytes")
            assert size < PICTURE_BYTES_MAX, "too large for the repository"
        browser.close()
        storm.terminate()
        storm.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
