"""The benchmark of abuse: its kinds, its bars and its page; no program is started."""

import os
import socket
import threading
from pathlib import Path

import pytest

from benchmarks.abuse import __main__ as command_line
from benchmarks.abuse import attack, report
from benchmarks.abuse.kinds import BURST, KINDS, Kind
from benchmarks.perf.report import readme
from tests.benchmarks.test_perf import result
from tests.support.harness import FakeProxy, reply


def row(retter: float, nginx: float, kb: float = 1000) -> report.Row:
    """Return a row with these costs in ms for each KB."""

    def cost(ms_per_kb: float) -> attack.Cost:
        return attack.Cost(ms_per_kb * kb / 1000, int(1000 * kb), 10)

    costs = [cost(retter * noise) for noise in (1.0, 0.9, 3.0)]
    return report.Row("cookies", "what is sent", costs, [cost(nginx)] * 3)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_answered(kind: Kind) -> None:
    """By as many answers as are waited for, or by one that ends the connection."""
    proxy = FakeProxy(circuit="observe")
    client = proxy.client(kind.message(7))
    for _ in range(kind.answers):
        if not client.closed:
            proxy.upstream.sends(reply(b""))
            proxy.settle()
    answers = client.received().count(b"HTTP/1.1 ")
    assert answers == kind.answers or (answers and client.closed)


def test_no_message_comes_twice() -> None:
    for kind in KINDS:
        one, other = kind.message(1), kind.message(2)
        assert one != other
        assert len(one) <= 70_000
        assert one.count(b"/page/") == kind.answers
        assert kind.answers in (1, BURST)


@pytest.mark.parametrize(
    ("retter", "nginx", "met"),
    [
        (report.CPU_MS_PER_KB_MAX * 0.99, 0.0001, True),
        (report.CPU_MS_PER_KB_MAX * 1.01, 0.0001, False),
        (1.0, 1.01 / report.RATIO_MAX, True),
        (1.0, 0.99 / report.RATIO_MAX, False),
    ],
)
def test_a_bar_is_an_absolute_one_or_nginx(retter: float, nginx: float, met: bool) -> None:
    """Or what ordinary requests cost. The median of the rounds counts."""
    one = row(retter, nginx)
    ordinary = row(0.0001, 0.0001)
    assert report.met(one, ordinary) is met
    assert report.missed([ordinary, one]) == ([] if met else ["cookies"])
    assert report.met(one, row(retter * 1.01, 0.0001)), "no dearer than what is ordinary"
    assert report.met(one, one) is met, "which has to meet a bar itself"
    assert one.retter_ms_per_kb == pytest.approx(retter)
    assert one.ratio == pytest.approx(retter / nginx)


def test_the_table_and_the_page() -> None:
    rows = [row(0.01, 0.002), row(1.0, 0.01)]
    text = report.table(rows)
    assert "0.0100" in text and "100.0" in text and text.count("MISSED") == 1
    page = report.page(rows, {"cpu": "Testing 3000"}, ["nginx/1.22.1"])
    assert "| cookies | 0.0100 | 0.0020 | 5.0 | 3,000 | what is sent |" in page
    assert page.count("**missed**") == 1
    assert "Testing 3000" in page and "nginx/1.22.1" in page
    assert max(map(len, page.splitlines())) < 110


def test_the_other_page_leads_to_it() -> None:
    """`make bench-report` writes that one anew, and leaves this one."""
    assert "(abuse.md)" in readme(result(retter=30.0), [])
    assert report.FILE.name == "abuse.md"
    assert report.FILE.is_file()
    assert "(abuse.md)" in report.FILE.with_name("README.md").read_text()


def test_cpu_time_of_another_process() -> None:
    assert 0 < attack.cpu_s([os.getpid()]) < 10_000
    assert attack.cpu_s([]) == 0


class Refuses(threading.Thread):
    """Answers what comes on one connection after another, and closes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0

    def run(self) -> None:
        for _ in range(2):
            connection, _ = self._listener.accept()
            with connection:
                self.connections += 1
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: HTTP/")
                connection.sendall(b"1.1 \r\n\r\n")
        self._listener.close()


def test_an_attacker_reconnects_and_counts() -> None:
    server = Refuses()
    server.start()
    attacker = attack.Attacker(server.port)
    for _ in range(2):
        attacker.send(b"abc", 0)
        attacker.receive(3)  # one more than there are: the end is waited for
    attacker.close()
    server.join(60)
    assert server.connections == 2
    assert attacker.sent == 6
    assert attacker.answered == 4


def test_an_unknown_kind_is_no_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["abuse", "--only", "cookies,nonsense"])
    with pytest.raises(SystemExit):
        command_line.main()
    assert "no such kind: nonsense" in capsys.readouterr().err
