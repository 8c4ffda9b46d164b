"""The load generator: its schedule, its arithmetic, its reading of answers, and it on a wire."""

import asyncio
import json
import math
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.demo import load
from retter.demo.load_client import ClientConnection, Shot
from retter.demo.load_generator import _Generator, run_load, schedule
from retter.demo.load_plan import Burst, LoadError, LoadPlan, Phase
from retter.demo.load_report import LoadReport, Sample, Summary, as_json, percentile, summarize
from tests.support.loops import plain_loop, uv_loop


def sample(**changes: Any) -> Sample:
    plain = Sample(at=0.0, latency=0.01, post=False, status=200, source="", made_after=0.005,
                   error="", target=0)  # fmt: skip
    return plain._replace(**changes)


class TestPlan:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"phases": ()},
            {"phases": (Phase(1e9, 100),)},
            {"phases": (Phase(1, 1e6),)},
            {"phases": (Phase(-1, 10), Phase(10, 10))},
            {"post_share": 1.5},
            {"targets": ()},
            {"timeout_s": 0},
            {"connections_max": 0},
            {"bursts": (Burst(11, 1),)},
            {"bursts": (Burst(1, 0),)},
            {"bursts": (Burst(1, 1_000_001),)},
        ],
    )
    def test_limits(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"."):
            LoadPlan(url="http://127.0.0.1:1", **wrong)

    def test_even_gaps(self) -> None:
        plan = LoadPlan(url="http://x", phases=(Phase(1, 4), Phase(2, 1)), poisson=False)
        assert list(schedule(plan, random.Random(1))) == [0, 0.25, 0.5, 0.75, 1, 2]

    def test_a_phase_without_requests_is_a_pause(self) -> None:
        phases = (Phase(1, 2), Phase(5, 0), Phase(1, 1))
        plan = LoadPlan(url="http://x", phases=phases, poisson=False)
        assert list(schedule(plan, random.Random(1))) == [0, 0.5, 6]

    def test_a_burst_is_many_at_one_moment(self) -> None:
        plan = LoadPlan(
            url="http://x",
            phases=(Phase(1, 2), Phase(1, 0)),
            bursts=(Burst(0.25, 3),),
            poisson=False,
        )
        assert list(schedule(plan, random.Random(1))) == [0, 0.25, 0.25, 0.25, 0.5]

    @given(st.integers(0, 1000))
    def test_random_gaps_keep_the_rate(self, seed: int) -> None:
        plan = LoadPlan(url="http://x", phases=(Phase(5, 100), Phase(5, 400)))
        times = list(schedule(plan, random.Random(seed)))
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] < 10
        # Six standard deviations of a Poisson count.
        assert abs(sum(t < 5 for t in times) - 500) < 6 * math.sqrt(500)
        assert abs(sum(t >= 5 for t in times) - 2000) < 6 * math.sqrt(2000)


class TestSamples:
    @pytest.mark.parametrize(
        ("changes", "fresh", "stored"),
        [
            ({}, True, False),
            ({"made_after": 0.0}, True, False),
            ({"made_after": -0.0009}, True, False),  # X-Gen is cut to milliseconds
            ({"made_after": -0.1}, False, True),
            ({"made_after": -0.1, "source": "backend"}, False, True),
            ({"latency": 3.1, "made_after": 3.0}, False, False),
            ({"status": 503}, False, False),
            ({"status": 0, "error": "timeout"}, False, False),
            ({"status": 303}, True, False),
            ({"made_after": math.nan, "source": "cache"}, False, True),
            ({"made_after": math.nan, "source": "backend"}, True, False),
            ({"made_after": math.nan}, True, False),
        ],
    )
    def test_fresh_is_made_for_this_request_and_in_time(
        self, changes: dict[str, Any], fresh: bool, stored: bool
    ) -> None:
        assert (sample(**changes).fresh, sample(**changes).stored) == (fresh, stored)

    def test_percentiles(self) -> None:
        values = [float(n) for n in range(100, 0, -1)]
        assert percentile(values, 0.5) == 50
        assert percentile(values, 0.99) == 99
        assert percentile(values, 1) == 100
        assert percentile([7.0], 0.5) == 7
        assert math.isnan(percentile([], 0.5))

    @given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
    def test_a_percentile_is_reached_by_its_share(self, values: list[float], share: float) -> None:
        found = percentile(values, share)
        assert sum(value <= found for value in values) >= share * len(values) - 1e-6
        assert found in values

    def test_summary(self) -> None:
        figures = summarize(
            [
                sample(),
                sample(latency=0.03, made_after=-4.97),
                sample(latency=4, made_after=3.9),
                sample(status=503),
                sample(status=404),
                sample(status=0, error="timeout", latency=2),
                sample(post=True, status=303, latency=0.2),
                sample(post=True, status=0, error="reset"),
            ],
            2.0,
        )
        assert (figures.gets, figures.fresh, figures.stored, figures.late) == (6, 1, 1, 1)
        assert (figures.shed, figures.failed, figures.get_errors) == (1, 1, 1)
        assert figures.get_trouble == 3
        assert (figures.posts, figures.posts_answered) == (2, 1)
        assert figures.errors == {"timeout": 1, "reset": 1}
        assert figures.goodput == 1.0  # a GET and a POST in 2 s
        assert (figures.get_p50, figures.get_max, figures.post_p99) == (0.03, 4, 0.2)
        assert figures.stored_age_max == pytest.approx(5.0)

    def test_each_second_has_its_figures(self) -> None:
        plan = LoadPlan(url="http://x", phases=(Phase(2, 1),))
        report = LoadReport(plan, 0, [sample(at=0.1), sample(at=1.5), sample(at=1.9)])
        assert [second.gets for second in report.per_second()] == [1, 2]
        assert [s.at for s in report.between(0.1, 1.9)] == [0.1, 1.5]
        assert [s.at for s in report.between(0, 1.51, by_end=True)] == [0.1]
        content = json.loads(json.dumps(as_json(report)))
        assert content["total"]["gets"] == 3
        assert content["total"]["post_p99"] is None


class Listener:
    """Hears what a client connection reports."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def connection_free(self, connection: ClientConnection) -> None:
        self.heard.append("free")

    def connection_over(self, connection: ClientConnection, shot: Shot | None) -> None:
        self.heard.append("over" if shot is None else "lost")

    def answered(self, shot: Shot) -> None:
        self.heard.append("answered")


class FakeTransport(asyncio.Transport):
    """Tells the protocol at once when it is closed."""

    def __init__(self, protocol: ClientConnection) -> None:
        super().__init__()
        self._protocol = protocol
        self._open = True

    def write(self, data: Any) -> None:
        assert self._open

    def close(self) -> None:
        if self._open:
            self._open = False
            self._protocol.connection_lost(None)

    abort = close


def asked() -> tuple[Listener, ClientConnection, Shot]:
    listener = Listener()
    connection = ClientConnection(listener)
    connection.connection_made(FakeTransport(connection))
    shot = Shot(0.0, 0, False, b"GET / HTTP/1.1\r\n\r\n")
    connection.send(shot)
    return listener, connection, shot


LENGTH = b"HTTP/1.1 200 OK\r\nx-gen: 123\r\nX-Retter: cache\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    b"X-Gen: 123\r\nX-Retter: cache\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nX-Gen: 123\r\nX-Retter: cache\r\n\r\nhello"


class TestClient:
    @pytest.mark.parametrize("answer", [LENGTH, CHUNKED])
    @given(data=st.data())
    def test_reads_an_answer_however_it_is_cut(self, answer: bytes, data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1))))
        listener, connection, shot = asked()
        for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True):
            assert listener.heard == []
            connection.data_received(answer[start:end])
        assert listener.heard == ["answered", "free"]
        assert (shot.status, shot.made_ms, shot.source) == (200, 123, "cache")

    def test_an_answer_may_end_with_its_connection(self) -> None:
        listener, connection, shot = asked()
        connection.data_received(UNTIL_CLOSE)
        assert listener.heard == []
        connection.connection_lost(None)
        assert listener.heard == ["answered", "over"]
        assert shot.status == 200

    @pytest.mark.parametrize("answer", [b"", LENGTH[:20], LENGTH[:-1], CHUNKED[:-4]])
    def test_an_answer_cut_short_is_lost(self, answer: bytes) -> None:
        listener, connection, _ = asked()
        if answer:
            connection.data_received(answer)
        connection.connection_lost(None)
        assert listener.heard == ["lost"]

    @pytest.mark.parametrize(
        "answer",
        [
            LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"),
            LENGTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        ],
    )
    def test_a_connection_that_is_to_close_is_closed(self, answer: bytes) -> None:
        listener, connection, _ = asked()
        connection.data_received(answer)
        assert listener.heard == ["answered", "over"]

    @pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
    def test_some_answers_have_no_body(self, status: bytes) -> None:
        listener, connection, _ = asked()
        connection.data_received(b"HTTP/1.1 " + status + b"\r\n\r\n")
        assert listener.heard == ["answered", "free"]

    @pytest.mark.parametrize(
        "answer",
        [LENGTH + b"more", CHUNKED.replace(b"3\r\nhel", b"zz\r\nhel"),
                   b"SSH-2.0-OpenSSH_9\r\n\r\n", LENGTH.replace(b"123", b"soon")],
    )  # fmt: skip
    def test_nonsense_ends_the_connection(self, answer: bytes) -> None:
        listener, connection, _ = asked()
        connection.data_received(answer)
        assert listener.heard == ["lost"]

    def test_bytes_that_nobody_asked_for_end_it_too(self) -> None:
        listener, connection, _ = asked()
        connection.data_received(LENGTH)
        connection.data_received(LENGTH)
        assert listener.heard == ["answered", "free", "over"]


Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


Loops = Callable[[], asyncio.AbstractEventLoop]
both_loops = pytest.mark.parametrize("factory", [plain_loop, uv_loop])


def loaded(factory: Loops, answer: Answer, **plan: Any) -> LoadReport:
    """Run a plan against a server that answers each request head with `answer`."""

    async def main() -> LoadReport:
        serving: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving[writer] = asyncio.current_task()
            try:
                while not writer.is_closing():
                    head = await reader.readuntil(b"\r\n\r\n")
                    if head.startswith(b"POST"):
                        await reader.readexactly(9)
                    await answer(head, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        defaults: dict[str, Any] = {
            "phases": (Phase(0.3, 200),),
            "targets": ("/a", "/b", "/c"),
            "settle_s": 0.0,
            "poisson": False,
            "timeout_s": 30.0,
        }
        try:
            async with asyncio.timeout(60):
                return await run_load(LoadPlan(url=url, **(defaults | plan)))
        finally:
            server.close()
            for writer in serving:
                writer.close()
            # Each ends by itself now that its connection has; cancelled, it would complain.
            await asyncio.gather(*filter(None, serving.values()))

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def answered(total: Summary) -> int:
    """Return the GETs answered well, however long it took: a slow machine is no failure."""
    return total.fresh + total.late


def ok(head: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Retter: backend\r\n\r\nok"


@both_loops
class TestRun:
    def test_sends_what_was_planned(self, factory: Loops) -> None:
        heads: list[bytes] = []

        async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
            heads.append(head)
            writer.write(ok(head))

        report = loaded(factory, answer, post_share=0.5)
        total = report.summary()
        assert report.warmed == 3
        assert sorted(head.split()[1] for head in heads[:3]) == [b"/a", b"/b", b"/c"]
        assert total.gets + total.posts == 60
        assert total.gets == answered(total) > 10
        assert total.posts == total.posts_answered > 10
        assert sum(head.startswith(b"POST /cart/add") for head in heads) == total.posts

    def test_new_pages_are_asked_for_once(self, factory: Loops) -> None:
        targets: list[bytes] = []

        async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
            targets.append(head.split()[1])
            writer.write(ok(head))

        bursts = (Burst(0.1, 20),)
        report = loaded(factory, answer, new_pages=True, warm=(), bursts=bursts, post_share=0.0)
        assert answered(report.summary()) == len(targets) == 80
        assert len(set(targets)) == 80
        assert {target.partition(b"?")[0] for target in targets} == {b"/a", b"/b", b"/c"}

    def test_does_not_wait_for_answers(self, factory: Loops) -> None:
        async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
            """Say nothing, ever."""

        report = loaded(factory, answer, warm=(), timeout_s=0.2)
        total = report.summary()
        assert total.errors == {"timeout": 60}
        assert all(s.latency >= 0.2 for s in report.samples)

    def test_connections_are_bounded_and_the_wait_for_one_counts(self, factory: Loops) -> None:
        open_now = 0
        most = 0

        async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0.02)
            open_now -= 1
            writer.write(ok(head))

        report = loaded(factory, answer, connections_max=2, post_share=0.0)
        total = report.summary()
        assert most <= 2
        assert total.gets == 60
        assert answered(total) == 60
        # 60 answers by 2 connections at 20 ms take 0.6 s, and the load 0.3 s.
        assert total.get_max > 0.25

    def test_errors_are_told_apart(self, factory: Loops) -> None:
        async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
            match head.split()[1]:
                case b"/a":
                    writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                case b"/b":
                    writer.close()
                case _:
                    writer.write(ok(head)[:-1])
                    writer.close()

        report = loaded(factory, answer, post_share=0.0)
        total = report.summary()
        assert report.warmed == 0
        assert set(total.errors) == {"reset", "cut"}
        assert total.shed + total.get_errors == total.gets == 60

    def test_a_get_on_a_connection_that_was_just_closed_is_sent_again(self, factory: Loops) -> None:
        seen: set[asyncio.StreamWriter] = set()

        async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
            if writer in seen:
                writer.close()
            else:
                seen.add(writer)
                writer.write(ok(head))

        report = loaded(factory, answer, post_share=0.0)
        assert answered(report.summary()) == 60

    def test_what_is_sent_again_goes_over_a_new_connection(self, factory: Loops) -> None:
        async def main() -> None:
            generator = _Generator(LoadPlan(url="http://127.0.0.1:9"), "127.0.0.1", 9)
            used, gone = ClientConnection(generator), ClientConnection(generator)
            for connection in (used, gone):
                connection.connection_made(FakeTransport(connection))
                connection.uses = 1
            again, other = (Shot(0.0, 0, False, b"GET / HTTP/1.1\r\n\r\n") for _ in range(2))
            gone.send(again)
            gone.connection_lost(None)
            generator.connection_free(used)
            assert used.shot is None
            new = ClientConnection(generator)
            new.connection_made(FakeTransport(new))
            generator._waiting.append(other)
            generator.connection_free(new)
            assert new.shot is again
            generator.connection_free(used)
            assert used.shot is other
            await generator.close()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    def test_nobody_there_is_said(self, factory: Loops) -> None:
        plan = LoadPlan(url="http://127.0.0.1:9")
        nobody = pytest.raises(LoadError, match="nothing accepts")
        with asyncio.Runner(loop_factory=factory) as runner, nobody:
            runner.run(run_load(plan))


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["http://192.0.2.1"], "--this-server-is-mine"),
            (["ftp://127.0.0.1"], "HOST:PORT"),
            (["http://127.0.0.1:9"], "nothing accepts"),
            (
                ["http://127.0.0.1:9", "--rate", "1e9"],
                "--rate: '1e9' is not a number from 0.001 to ",
            ),
            (["http://127.0.0.1:9", "--rate", "x"], "--rate: 'x' is not a number from 0.001 to "),
            (["http://127.0.0.1:9", "--rate", "9999", "--seconds", "9999"], "are possible"),
            (
                ["http://127.0.0.1:9", "--timeout", "0"],
                "--timeout: '0' is not a number from 0.001 ",
            ),
            (["http://127.0.0.1:9", "--connections", "-1"], "--connections: '-1' is not a whole "),
            ([], "the following arguments are required: URL"),
            (["http://127.0.0.1:9", "--path", "x\r\ny"], "not a path"),
            (["http://127.0.0.1:9", "--urls", "0"], "--urls: '0' is not a whole number from 1 to "),
        ],
    )
    def test_refusals_are_one_line_and_exit_code_2(
        self, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert load.main(arguments) == 2
        out, error = capsys.readouterr()
        assert says in error
        assert error.count("\n") == 1
        assert out == "", "nothing was begun"

    def test_a_file_that_cannot_be_written_is_told_before_the_load(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert load.main(["http://127.0.0.1:9", "--json", "/no/such/folder/x"]) == 1
        assert "No such file" in capsys.readouterr().err

    def test_a_run_against_the_shop(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = [sys.executable, "-m", "retter.demo", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shop:
            assert shop.stdout is not None
            url = shop.stdout.readline().split()[-1]
            file = tmp_path / "load.json"
            flags = ["--rate", "100", "--seconds", "0.5", "--urls", "5"]
            flags += ["--timeout", "30", "--json", str(file)]
            try:
                assert load.main([url, *flags]) == 0
                assert load.main([url, *flags[:-1], str(tmp_path / "no" / "where")]) == 1
            finally:
                shop.terminate()
        content = json.loads(file.read_text())
        total = content["total"]
        assert content["warmed"] == 5
        assert total["fresh"] + total["late"] == total["gets"] > 20
        assert total["posts_answered"] == total["posts"]
        reached = content["application_after"]["gets"] - content["application_before"]["gets"]
        assert reached == 5 + total["gets"]
        assert "The application" in capsys.readouterr().out

    def test_a_second_is_a_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        load.tell(3, summarize([sample(), sample(status=0, error="timeout")], 1.0))
        assert capsys.readouterr().out.split()[:4] == ["3", "s", "1", "0"]

    def test_a_head_stands_above_the_first_second_and_again(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        many = summarize([sample()] * 99_999, 1.0)
        for second in range(1, 42):
            load.tell(second, many)
        lines = capsys.readouterr().out.splitlines()
        assert max(len(line) for line in lines) <= 80
        heads = [number for number, line in enumerate(lines) if "stored" in line]
        assert heads == [1, 23, 45]
        assert len(set(map(len, lines[2:20]))) == 1, "a column each"

    def test_the_table(self) -> None:
        report = LoadReport(
            LoadPlan(url="http://x", phases=(Phase(1, 4),)),
            2,
            [
                sample(),
                sample(made_after=-2.0),
                sample(status=0, error="timeout"),
                sample(post=True),
            ],
        )
        stats = {"gets": 5, "posts": 1, "answered": 6, "answered_gone": 1, "waiting": 3,
                 "longest_queue": 9}  # fmt: skip
        lines = load.table(report, dict.fromkeys(stats, 0), stats).splitlines()
        assert max(len(line) for line in lines) <= 80
        figures = {line[:37].strip(): line[37:].split() for line in lines}
        assert figures["got the page"] == ["2", "66.7", "%"]
        assert figures["fresh, from the application"] == ["1", "33.3", "%"]
        assert figures["stored, from RETTER"] == ["1", "33.3", "%"]
        assert figures["got no answer"] == ["1", "33.3", "%"]
        assert figures["lost: no answer in time"] == ["1"]
        assert figures["got GETs"] == ["5"]
        assert figures["had waiting at most"] == ["9"]
