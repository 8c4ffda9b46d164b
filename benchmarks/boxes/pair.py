"""Two boxes behind HAProxy that share through a Redis: `python -m benchmarks.boxes.pair`.

In the foreground, as one program: it ends with a signal, and all that it has started with it.
HAProxy gives each request to the next box, so both get half of them.
"""

import argparse
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.overload.peers import free_port, path_of

START_S: Final = 30.0


def haproxy_configuration(listen: int, boxes: list[int]) -> str:
    """Return a configuration that changes nothing of a request."""
    servers = "\n".join(
        f"  server box-{number} 127.0.0.1:{port}" for number, port in enumerate(boxes)
    )
    return f"""\
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 2s
  timeout client 75s
  timeout server 120s
frontend visitors
  bind 127.0.0.1:{listen}
  maxconn 20000
  default_backend boxes
backend boxes
  balance roundrobin
  fullconn 20000
{servers}
"""


def wait_until_they_know_each_other(redis: int, boxes: int) -> None:
    """Wait until as many boxes are counted."""
    end = time.monotonic() + START_S
    client = Redis(port=redis)
    try:
        while time.monotonic() < end:
            try:
                names = list(client.scan_iter("retter:1:*:boxes"))
                if names and int(str(client.zcard(names[0]))) == boxes:
                    time.sleep(2.0)  # until each has counted the others
                    return
            except RedisError:
                pass  # it has only just been started
            time.sleep(0.05)
    finally:
        client.close()
    raise SystemExit("the boxes do not find each other")


def main() -> None:
    """Start all, and wait for the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.boxes.pair", description=__doc__)
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--max-in-flight", type=int, required=True, help="of both together")
    parser.add_argument("--admin", type=int, nargs="+", required=True, help="one for each box")
    options = parser.parse_args()
    haproxy = path_of("haproxy") or "haproxy"
    folder: Path = options.folder
    (folder / "secret").write_text(secrets.token_hex(32))
    redis = free_port()
    boxes = [free_port() for _ in options.admin]
    (folder / "haproxy.cfg").write_text(haproxy_configuration(options.listen, boxes))
    commands = [
        ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "",
         "--dir", str(folder)],
        *[
            [sys.executable, "-m", "retter", "--listen", f"127.0.0.1:{port}",
             "--upstream", f"127.0.0.1:{options.upstream}", "--admin", f"127.0.0.1:{admin}",
             "--trusted-proxies", "127.0.0.1",
             "--max-in-flight", str(options.max_in_flight), "--shared", f"redis://127.0.0.1:{redis}",
             "--shared-secret", str(folder / "secret")]
            for port, admin in zip(boxes, options.admin, strict=True)
        ],
    ]  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        started += [subprocess.Popen(command) for command in commands]
        wait_until_they_know_each_other(redis, len(boxes))
        started.append(subprocess.Popen([haproxy, "-db", "-f", str(folder / "haproxy.cfg")]))
        started[-1].wait()
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


if __name__ == "__main__":
    main()
