"""An operator who looks on: one open dashboard, and a scraper that comes every second.

A process of its own, so that what it does is not taken for RETTER's.
"""

import argparse
import contextlib
import http.client
import socket
import time
from typing import Final

from benchmarks.perf.helper import Helper

EVERY_S: Final = 1.0
TIMEOUT_S: Final = 10.0
STARTS_S: Final = 15.0
LISTEN: Final = b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"


class WatchFailed(Exception):
    """There is nobody to look at, or no metrics."""


class Watch(Helper):
    """Looks at an admin listener while it is entered."""

    module = "benchmarks.perf.watch"
    failed = WatchFailed

    def __init__(self, port: int, core: int) -> None:
        super().__init__(core, port)


def scrape(connection: http.client.HTTPConnection) -> None:
    """Fetch the metrics once.

    Raises:
        WatchFailed: There are none.
    """
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200 or b"retter_requests" not in text:
        raise WatchFailed(f"/metrics: {answer.status} {text[:100]!r}")


def watch(port: int) -> None:
    """Listen to events and scrape until the process is ended."""
    with socket.create_connection(("127.0.0.1", port), STARTS_S) as events:
        events.settimeout(TIMEOUT_S)
        events.sendall(LISTEN)
        scraper = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        due = time.monotonic()
        ready = False
        while events.recv(1 << 16):
            if time.monotonic() < due:
                continue
            due += EVERY_S
            scrape(scraper)
            if not ready:
                ready = True
                print("ready", flush=True)


def main() -> None:
    """Look on until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            watch(parser.parse_args().port)
        except (OSError, http.client.HTTPException, WatchFailed) as error:
            print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
