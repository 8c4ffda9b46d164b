"""Sentinel promotes a replica, and HAProxy leads the boxes to whoever is the master.

Sentinel itself is not asked by RETTER. This is how docs/scaling.md says to use it.
"""

import contextlib
import signal
from pathlib import Path

from redis.exceptions import ConnectionError

from tests.real.boxes import SHOP, Boxes, Load, RedisProgram
from tests.real.boxes import mortal_application as mortal_application  # a fixture
from tests.real.conftest import StartRetter, need
from tests.real.processes import ApplicationProgram, Program, eventually, free_port
from tests.real.wire import fetch

HAPROXY = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
frontend shared
    bind 127.0.0.1:{port}
    default_backend master
backend master
    option tcp-check
    tcp-check send info\\ replication\\r\\n
    tcp-check expect string role:master
    server one 127.0.0.1:{one} check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
    server two 127.0.0.1:{two} check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
"""

SENTINEL = """
port {port}
bind 127.0.0.1
sentinel monitor shared 127.0.0.1 {master} 1
sentinel down-after-milliseconds shared 500
sentinel failover-timeout shared 5000
"""


def is_master(server: RedisProgram) -> bool:
    with contextlib.suppress(ConnectionError):  # of redis-py: its role changes just now
        return b"role:master" in server.text("INFO", "replication")
    return False


def test_a_failover_by_sentinel_is_no_error_for_a_visitor(
    mortal: ApplicationProgram, start_retter: StartRetter, programs: list[Program], tmp_path: Path
) -> None:
    one = RedisProgram(tmp_path)
    two = RedisProgram(tmp_path, "--replicaof", f"127.0.0.1 {one.port}")
    programs.extend((one, two))
    eventually(lambda: b"master_link_status:up" in two.text("INFO", "replication"), "a replica")
    sentinel = tmp_path / "sentinel.conf"
    sentinel.write_text(SENTINEL.format(port=free_port(), master=one.port))
    balancer, port = tmp_path / "haproxy.cfg", free_port()
    balancer.write_text(HAPROXY.format(port=port, one=one.port, two=two.port))
    programs.append(Program([need("redis-server", "redis-server"), str(sentinel), "--sentinel"]))
    programs[-1].wait_for_line(lambda line: "+monitor master shared" in line)
    programs[-1].wait_for_line(lambda line: "+slave slave" in line)  # it knows the replica
    programs.append(Program([need("haproxy", "haproxy"), "-db", "-f", str(balancer)]))
    boxes = Boxes(start_retter, mortal, f"redis://127.0.0.1:{port}", tmp_path)
    boxes.wait_until(lambda: boxes.shared(0)["boxes"] == 2 == boxes.shared(1)["boxes"], "2 boxes")
    load = Load(boxes.ports)
    load.start()
    try:
        boxes.wait_until(lambda: boxes.shared(0)["written"] > 5, "it is written to")
        one.signal(signal.SIGKILL)
        boxes.wait_until(boxes.away, "both notice it")
        eventually(lambda: is_master(two), "it is promoted")
        boxes.wait_until(boxes.connected, "both use the new master")
        assert fetch(boxes.ports[0], "GET", "/echo/later", SHOP).status == 200
    finally:
        load.end()
    assert set(load.statuses) == {200}
    mortal.kill()
    boxes.wait_for_status(1, "/echo/later", SHOP, 200)
