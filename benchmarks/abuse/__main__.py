"""`make abuse`: print what abuse costs at RETTER and at nginx; exit 1 when a bar is missed.

    python -m benchmarks.abuse [--rounds 3] [--seconds 0.4] [--only cookies,chunks] [--write]

It takes about a minute and a half. Linux only.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.abuse.attack import attack
from benchmarks.abuse.kinds import KINDS, ORDINARY, Kind
from benchmarks.abuse.report import FILE, Row, missed, page, table
from benchmarks.perf import machine
from benchmarks.perf.peers import (
    Nginx,
    Retter,
    Running,
    Site,
    StartFailed,
    free_port,
    nginx_command,
    nginx_frame,
)
from benchmarks.perf.scenarios import SCENARIOS

_HEADS: Final = "large_client_header_buffers 4 70k; client_max_body_size 0;"
WARM_S: Final = 0.3


def _application(folder: Path, core: int) -> tuple[Running, int]:
    port = free_port()
    server = f"server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 ok; }} }}"
    folder.mkdir()
    command = nginx_command(folder, nginx_frame(folder, http=_HEADS, servers=server))
    return Running("application", command, port, folder, core), port


def _nginx(folder: Path, application: int, core: int) -> Running:
    port = free_port()
    folder.mkdir()
    server = f"""
upstream application {{ server 127.0.0.1:{application}; keepalive 64; }}
server {{
  listen 127.0.0.1:{port} backlog=1024;
  location / {{
    proxy_pass http://application;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  }}
}}"""
    command = nginx_command(folder, nginx_frame(folder, http=_HEADS, servers=server))
    return Running("nginx", command, port, folder, core)


def _retter(folder: Path, application: int, core: int) -> Running:
    port = free_port()
    folder.mkdir()
    scenario = next(one for one in SCENARIOS if one.name == "forward-64")
    site = Site(port, application, folder, scenario, admin=0, answer_bytes=0)
    return Running("retter", Retter().command(site), port, folder, core)


def measure(kinds: list[Kind], rounds: int, seconds: float) -> list[Row]:
    """Measure all kinds, each at RETTER and at nginx in turn."""
    cores = machine.cores()
    rows = [Row(kind.name, kind.about) for kind in kinds]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        application, port = _application(folder / "application", cores.rest)
        stack.callback(application.stop)
        retter = _retter(folder / "retter", port, cores.proxy)
        stack.callback(retter.stop)
        nginx = _nginx(folder / "nginx", port, cores.proxy)
        stack.callback(nginx.stop)
        os.sched_setaffinity(0, {cores.rest})
        for peer in (retter, nginx):
            peer.look_again()
            attack(KINDS[0], peer.port, peer.pids, WARM_S, 0)
        number = 1_000_000
        for _ in range(rounds):
            for kind, row in zip(kinds, rows, strict=True):
                for peer, costs in ((retter, row.retter), (nginx, row.nginx)):
                    number += 1_000_000
                    costs.append(attack(kind, peer.port, peer.pids, seconds, number))
                    if not peer.alive():
                        raise StartFailed(f"{peer.name} has ended: {peer.last_words()}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.abuse")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each kind and round")
    parser.add_argument("--only", metavar="NAMES", help="kinds, separated by commas")
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    options = parser.parse_args()
    wanted = [kind.name for kind in KINDS]
    if options.only:
        wanted = [ORDINARY, *options.only.split(",")]
    if unknown := set(wanted) - {kind.name for kind in KINDS}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    kinds = [kind for kind in KINDS if kind.name in wanted]
    versions = [version for version in (Retter().version(), Nginx().version()) if version]
    if len(versions) < 2:
        print("nginx is not installed", file=sys.stderr)
        return 2
    try:
        rows = measure(kinds, options.rounds, options.seconds)
    except StartFailed as error:
        print(error, file=sys.stderr)
        return 2
    print(table(rows), end="")
    if options.write:
        FILE.write_text(page(rows, machine.describe_machine(), versions))
        print(FILE)
    return 1 if missed(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
