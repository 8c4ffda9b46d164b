"""Lines for readers that hang, disks that are full and terminals that are stopped."""

import fcntl
import io
import os
import pty
import resource
import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from retter.process.minute_summary import EVERY_S, Digest
from retter.telemetry import line_writer
from retter.telemetry.line_writer import WAITING_BYTES_MAX, LineWriter, lines_to, open_for_lines
from tests.support.harness import FakeProxy, get, reply

LINE = b"x" * 99 + b"\n"
BATCH = LINE * 100


class Reader:
    """What a writer writes to, and a reader who reads when asked to."""

    def __init__(self, kind: str) -> None:
        if kind == "pipe":
            self.its, self.ours = os.pipe()
        elif kind == "terminal":
            self.its, self.ours = pty.openpty()
        else:
            one, other = socket.socketpair()
            self.its, self.ours = one.detach(), other.detach()

    def read(self) -> bytes:
        """Read what is there now."""
        found = b""
        while select.select([self.its], [], [], 0)[0] and (data := os.read(self.its, 65536)):
            found += data
        return found.replace(b"\r\n", b"\n")

    def close(self) -> None:
        os.close(self.its)
        os.close(self.ours)


@pytest.fixture(params=["pipe", "terminal", "socket"])
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    reader = Reader(request.param)
    yield reader
    reader.close()


def refused(path: str, *_: object) -> int:
    assert path.startswith("/proc/self/fd/")
    raise PermissionError


def test_a_pipe_that_may_not_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", refused)
    reader = Reader("pipe")
    test_a_reader_that_hangs_is_not_waited_for(reader)
    reader.close()


def test_a_terminal_that_may_not_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", refused)
    reader = Reader("terminal")
    assert LineWriter(reader.ours).write(LINE) == 0
    assert reader.read() == LINE
    reader.close()


def test_a_reader_that_hangs_is_not_waited_for(reader: Reader) -> None:
    flags = fcntl.fcntl(reader.ours, fcntl.F_GETFL)
    writer = LineWriter(reader.ours)
    batches = 3 * WAITING_BYTES_MAX // len(BATCH)
    dropped = sum(writer.write(BATCH) for _ in range(batches))
    assert dropped >= batches * 100 // 2
    assert fcntl.fcntl(reader.ours, fcntl.F_GETFL) == flags, "others have this open file too"
    assert len(writer._waiting) <= WAITING_BYTES_MAX

    received = b""
    while len(received) < (batches * 100 - dropped) * len(LINE):
        came = reader.read()
        received += came
        assert came, "all that was not dropped comes"
        writer.flush()
    assert received == LINE * (batches * 100 - dropped), "whole lines, each once"
    assert writer.write(LINE) == 0
    assert reader.read() == LINE
    assert writer.close() == 0


def test_of_many_lines_at_once_those_are_kept_that_there_is_room_for() -> None:
    """However many requests were answered since the last tick."""
    reader = Reader("pipe")
    writer = LineWriter(reader.ours)
    many = LINE * (WAITING_BYTES_MAX * 2 // 3 // len(LINE))
    dropped = writer.write(many) + writer.write(many)
    assert WAITING_BYTES_MAX - len(LINE) < len(writer._waiting) <= WAITING_BYTES_MAX
    received = reader.read()
    lost = writer.close()
    received += reader.read()
    assert received.count(b"\n") + dropped + lost == 2 * many.count(b"\n")
    reader.close()


def test_what_is_left_at_the_end_is_counted() -> None:
    reader = Reader("pipe")
    writer = LineWriter(reader.ours)
    for _ in range(50):
        writer.write(BATCH)
    received = reader.read()
    left = writer.close()
    received += reader.read()
    assert 0 < left < 5000
    assert received.count(b"\n") + left == 5000
    assert writer.close() == 0
    reader.close()


def test_a_slow_reader_has_a_moment_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader("pipe")
    received: list[bytes] = []
    monkeypatch.setattr(time, "sleep", lambda _: received.append(reader.read()))
    writer = LineWriter(reader.ours)
    for _ in range(50):
        writer.write(BATCH)
    assert writer.close(60.0) == 0
    assert b"".join(received) + reader.read() == BATCH * 50
    reader.close()


def test_a_reader_that_has_gone() -> None:
    its, ours = os.pipe()
    writer = LineWriter(ours)
    os.close(its)
    dropped = sum(writer.write(BATCH) for _ in range(200))
    assert dropped + writer.close() == 200 * 100
    os.close(ours)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process grows beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = open_for_lines(str(path))
    with disk_of(150):
        for _ in range(3):
            assert writer.write(LINE) == 0
            assert path.read_bytes() == LINE, "no half of a line, at no time"
    writer.flush()
    assert path.read_bytes() == LINE * 3, "the line that was cut comes whole"
    assert writer.close() == 0


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 300))
def test_a_file_holds_whole_lines_however_full_its_disk_is(lengths: list[int], room: int) -> None:
    lines = [b"x" * length + b"\n" for length in lengths]
    with NamedTemporaryFile() as file:
        writer = open_for_lines(file.name)
        with disk_of(room):
            for line in lines:
                writer.write(line)
        found = Path(file.name).read_bytes()
        assert found == b"".join(lines)[: len(found)]
        assert found.endswith(b"\n") or not found
        assert writer.close() == 0
        assert Path(file.name).read_bytes() == b"".join(lines)


@pytest.mark.parametrize("flags", [0, os.O_APPEND])
def test_standard_output_that_is_a_file(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "out"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    writer = LineWriter(descriptor)
    with disk_of(150):
        writer.write(LINE * 2)
        assert path.read_bytes() == LINE
    writer.write(LINE)
    assert path.read_bytes() == LINE * 3
    os.close(descriptor)


def test_what_another_process_has_written_is_never_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    writer = open_for_lines(str(path))
    write = os.write

    def cut(descriptor: int, data: bytes) -> int:
        written = write(descriptor, data[:150])
        with open(path, "ab") as other:
            other.write(b"of another\n")
        monkeypatch.undo()
        return written

    monkeypatch.setattr(os, "write", cut)
    writer.write(LINE * 2)
    assert path.read_bytes().count(b"of another\n") == 1
    assert len(path.read_bytes()) == 2 * len(LINE) + 11, "each octet once"
    writer.close()


def test_half_a_line_of_a_process_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINE + b"half a li")
    writer = open_for_lines(str(path))
    writer.write(LINE)
    assert path.read_bytes() == LINE + b"half a li\n" + LINE
    again = open_for_lines(str(path))
    again.write(LINE)
    assert path.read_bytes() == LINE + b"half a li\n" + LINE + LINE
    writer.close()
    again.close()


def test_a_new_file_is_not_for_everybody(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_for_lines(str(tmp_path / "log")).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640
    (tmp_path / "log").chmod(0o604)
    open_for_lines(str(tmp_path / "log")).close()
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o604, "as its owner wants it"


def test_a_disk_that_stays_full() -> None:
    writer = open_for_lines("/dev/full")
    dropped = sum(writer.write(BATCH) for _ in range(200))
    assert dropped >= 200 * 100 - WAITING_BYTES_MAX // len(LINE) - 100
    assert dropped + writer.close() == 200 * 100


def test_why_nothing_can_be_written_is_known_at_once_and_until_it_can(tmp_path: Path) -> None:
    writer = open_for_lines(str(tmp_path / "log"))
    with disk_of(150):
        writer.write(LINE)
        assert writer.trouble == ""
        writer.write(LINE)
        assert writer.trouble == "No space left on device", "half a line fits"
        writer.write(b"y" * 49 + b"\n")
        assert writer.trouble == "No space left on device"
    writer.flush()
    assert writer.trouble == ""
    writer.close()


def test_a_slow_reader_is_no_trouble() -> None:
    reader = Reader("pipe")
    writer = LineWriter(reader.ours)
    for _ in range(50):
        writer.write(BATCH)
    assert writer._waiting and writer.trouble == ""
    writer.close()
    reader.close()


def test_a_fifo_that_nobody_reads_yet(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = open_for_lines(str(path))
    writer.write(LINE)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as fifo:
        assert fifo.read(1000) == LINE
    assert writer.write(LINE) == 0, "who reads it may go and come again"
    writer.close()


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "log"):
        with pytest.raises(OSError, match="directory"):
            open_for_lines(str(path))


def test_streams_that_are_no_files() -> None:
    text = io.StringIO()
    writer = lines_to(text)
    assert writer.write("ä\n".encode()) == 0
    assert text.getvalue() == "ä\n"
    text.close()
    assert writer.write(LINE) == 0
    assert writer.close() == 1
    nothing = lines_to(None)  # a process without standard output
    assert nothing.write(LINE) == 0
    assert nothing.close() == 1


def test_the_access_log_counts_what_nobody_takes(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    proxy = FakeProxy(access_log=str(path))
    client = proxy.client()
    answered = 0
    while not proxy.proxy.stats()["access_lines_dropped"]:
        client.sends(get("/" + "x" * 8000))
        proxy.upstream.sends(reply())
        client.received()
        answered += 1
        proxy.advance(0.05)
        assert answered < 1000
    proxy.proxy.close()
    assert proxy.proxy.stats()["access_lines_dropped"] > 100, "with those that waited at the end"


def test_dropped_lines_are_told_in_the_digest() -> None:
    services = FakeProxy().services
    digest = Digest(services)
    with capture_logs() as records:
        for dropped in (0, 7):
            services.counters.access_lines_dropped += dropped
            for _ in range(EVERY_S):
                digest.on_second(services.loop.time())
    (record,) = records
    assert (record["event"], record["access_lines_dropped"]) == ("digest", 7)


def test_a_device_that_takes_nothing_is_asked_again_later() -> None:
    taken: list[bytes] = []
    answers = iter([0, 3, 0])
    writer = LineWriter(-1)

    def put(data: bytearray) -> int:
        number = next(answers, len(data))
        taken.append(bytes(data[:number]))
        return number

    writer._put = put
    assert writer.write(LINE) == 0
    assert taken == [b""]  # asked once: the loop does not stand still for it
    writer.flush()
    writer.flush()
    assert b"".join(taken) == LINE
    assert writer.close() == 0


def test_lines_of_several_processes_are_not_mixed_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each write is whole lines, and so small that the pipe takes all of it or nothing."""
    monkeypatch.setattr(line_writer, "_beside_others", True)
    ours, its = os.pipe()
    sizes: list[int] = []
    write = os.write

    def spy(descriptor: int, data: Any) -> int:
        sizes.append(len(data))
        assert bytes(data).endswith(b"\n")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", spy)
    writer = LineWriter(its)
    long = b"y" * 5000 + b"\n"
    lines = b"".join([b"%d " % number + b"x" * 1000 + b"\n" for number in range(20)]) + long
    writer.write(lines)
    assert os.read(ours, 100_000) == lines
    assert max(sizes[:-1]) <= 4096 and sizes[-1] == len(long)
    writer.close()
    os.close(ours)
    os.close(its)
