"""The destination of log lines: a file, a pipe, a socket, a terminal; it never waits for the
reader.

A pipe that nobody reads, a stopped terminal and a full disk accept nothing. What they have not
accepted is kept, in bounded number, and offered again; beyond that, whole lines are dropped and
counted. A regular file is written to directly: a network file system that hangs stops RETTER too.
A file never ends in half a line: the part of a line that a full disk has accepted is removed
again, and half a line of a killed process is ended by a newline.

O_NONBLOCK belongs to the open file and not to the descriptor: set on a standard output that this
process was given, it would surprise all other programs that share it, the shell first of all. So
it is never set there. A socket is written to with a flag of that one call; a pipe or a terminal
is opened again through its entry in /proc, which gives an open file of our own. Where that is
refused (it belongs to another user, or there is no /proc), a pipe is polled before each write
and gets no more than certainly fits; a terminal, which promises nothing, is written to normally.
"""

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

# Bytes of lines that wait for the reader, besides those offered last: some seconds of a busy site's
# access log, and little for a small machine.
WAITING_BYTES_MAX: Final = 1024 * 1024

# At the end of the program, a slow reader has this long to read the remaining lines.
CLOSE_S: Final = 0.5
_POLL_S: Final = 0.01


class LineWriter:
    """Writes lines to an open file.

    Args:
        descriptor: Of the open file.
        its_own: The file has been opened for this writer alone. The writer closes it at the end.
            It is non-blocking already if its kind has that mode.
    """

    def __init__(self, descriptor: int, *, its_own: bool = False) -> None:
        self.trouble = ""  # why the last write failed; "" also while a reader is only slow
        self._waiting = bytearray()
        self._close: Callable[[], object] = lambda: None
        self._put: Callable[[bytearray], int] = lambda data: os.write(descriptor, data)
        try:
            kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        except OSError:  # the parent process has closed it: every write will fail
            return
        if its_own:
            self._close = lambda: os.close(descriptor)
        if kind == stat.S_IFREG:
            self._put = _to_file(descriptor)
            if _ends_within_a_line(descriptor):
                self._waiting += b"\n"
        elif not its_own:
            self._share(descriptor, kind)

    def _share(self, descriptor: int, kind: int) -> None:
        if kind == stat.S_IFSOCK:
            shared = socket.socket(fileno=os.dup(descriptor))
            self._put = lambda data: shared.send(data, socket.MSG_DONTWAIT)
            self._close = shared.close
        elif kind in (stat.S_IFIFO, stat.S_IFCHR):
            try:
                again = os.open(
                    f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
                )
            except OSError:
                if kind == stat.S_IFIFO:
                    self._put = _asking(descriptor)
            else:
                if kind == stat.S_IFIFO:
                    self._put = lambda data: os.write(again, _whole_lines(data))
                else:
                    self._put = lambda data: os.write(again, data)
                self._close = lambda: os.close(again)

    def write(self, lines: bytes) -> int:
        """Write lines, each with its end, now or later; return how many had to be dropped."""
        waiting = self._waiting
        if waiting and len(waiting) + len(lines) > WAITING_BYTES_MAX:
            self.flush()
            room = max(0, WAITING_BYTES_MAX - len(waiting))
            if waiting and len(lines) > room:
                kept = lines.rfind(b"\n", 0, room) + 1
                waiting += lines[:kept]
                return lines.count(b"\n", kept)
        waiting += lines
        self.flush()
        return 0

    def flush(self, wait_s: float = 0.0) -> None:
        """Write the waiting lines that the reader takes within `wait_s`. Never raises."""
        waiting = self._waiting
        until = time.monotonic() + wait_s if wait_s else 0.0
        while True:
            try:
                # A device may accept nothing without an error: it is tried again later.
                while waiting and (written := self._put(waiting)):
                    del waiting[:written]
                if not waiting:
                    self.trouble = ""
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                # A stream that is no file and has been closed raises ValueError.
                self.trouble = getattr(error, "strerror", None) or str(error)
            if not (waiting and wait_s) or time.monotonic() >= until:
                return
            time.sleep(_POLL_S)

    def close(self, wait_s: float = 0.0) -> int:
        """Write the rest, wait at most `wait_s` for the reader; return how many lines were lost."""
        self.flush(wait_s)
        dropped = self._waiting.count(b"\n")
        self._waiting.clear()
        with suppress(OSError):
            self._close()
        self._put = _to_nobody
        self._close = lambda: None
        return dropped


def _to_file(descriptor: int) -> Callable[[bytearray], int]:
    """Return a function that writes to a regular file: whole lines only, also on a full disk."""

    def put(data: bytearray) -> int:
        written = os.write(descriptor, data)
        if written < len(data):
            cut = written - (data.rfind(b"\n", 0, written) + 1)
            if cut and _take_back(descriptor, cut):
                written -= cut
            if not written:  # there is room for a part of a line and no more: the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    return put


def _take_back(descriptor: int, size: int) -> bool:
    """Cut off the last octets of a file; False if another process has written since."""
    with suppress(OSError):
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if os.fstat(descriptor).st_size == end:
            os.ftruncate(descriptor, end - size)
            os.lseek(descriptor, end - size, os.SEEK_SET)
            return True
    return False


def _ends_within_a_line(descriptor: int) -> bool:
    """Return whether a regular file ends in half a line; False if it may not be read."""
    with suppress(OSError), open(f"/proc/self/fd/{descriptor}", "rb") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    return False


def _asking(pipe: int) -> Callable[[bytearray], int]:
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)

    def put(data: bytearray) -> int:
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(pipe, data[: select.PIPE_BUF])

    return put


def forked() -> None:
    """This process was just forked: others write to the same pipes from now on."""
    global _beside_others
    _beside_others = True


def _whole_lines(data: bytearray) -> bytearray:
    """Return the lines that the pipe takes at once or not at all, if others write to it too.

    A pipe takes any part of a larger write (pipe(7)), and the next line of another process would
    stand in the middle of a line. A single line that is larger is written in any case.
    """
    if not _beside_others or len(data) <= select.PIPE_BUF:
        return data
    end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1
    return data[: end or data.find(b"\n") + 1 or None]


_beside_others = False


def _to_nobody(_: bytearray) -> int:
    raise BrokenPipeError


def open_for_lines(path: str) -> LineWriter:
    """Open a file to append lines to it. Its owner may write a new one, its group may read it.

    Raises:
        OSError: It cannot be opened.
    """
    flags = os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags | os.O_WRONLY, 0o640)
    except OSError:
        # A FIFO that nobody reads yet. Opened for reading too, it needs no other reader.
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            raise
        descriptor = os.open(path, flags | os.O_RDWR)
    return LineWriter(descriptor, its_own=True)


def lines_to(stream: TextIO | None) -> LineWriter:
    """Return a writer to the file behind a stream such as `sys.stdout`.

    `sys.stdout` is None if the process was started without one. A program that embeds RETTER may
    have replaced it by a stream that is no file.
    """
    if stream is None:
        return LineWriter(-1)
    try:
        stream.flush()
        return LineWriter(stream.fileno())
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        writer = LineWriter(-1)

        def put(data: bytearray) -> int:
            stream.write(data.decode())
            stream.flush()
            return len(data)

        writer._put = put
        return writer
