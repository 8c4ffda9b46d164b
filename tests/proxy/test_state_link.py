"""The link between a process and its successor: nothing waits, and nothing is lost or made up."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from retter.base.frames import PREAMBLE, BadFrame, FrameWriter
from retter.proxy import state_link
from retter.proxy.state_link import Kind, StateLink

Frames = list[tuple[int, bytes]]


def in_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def until(attempt: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not attempt():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


def pair() -> tuple[StateLink, StateLink, Frames]:
    """Return two ends, and what comes to the second one."""
    ours, its = socket.socketpair()
    one, other = StateLink(ours), StateLink(its)
    found: Frames = []
    other.on_frame = lambda kind, payload: found.append((kind, payload))
    return one, other, found


def test_more_than_the_other_end_takes_at_once_waits_and_comes_in_order() -> None:
    async def main() -> None:
        one, other, found = pair()
        one.start(asyncio.get_running_loop())
        said = [(Kind.PIECE, bytes([number]) * 200_000) for number in range(50)]
        for kind, payload in said:
            one.send(kind, payload)
        assert one.is_full
        other.start(asyncio.get_running_loop())
        await until(lambda: len(found) == len(said))
        assert found == said
        assert not one.is_full
        one.close()
        other.close()

    in_loop(main)


def test_what_comes_while_nobody_reads_is_for_later() -> None:
    async def main() -> None:
        one, other, found = pair()
        one.send(Kind.SECRETS, b"first")
        one.send(Kind.SEALED, b"stop")
        one.send(Kind.REMOVALS, b"later")
        one.start(asyncio.get_running_loop())
        assert other.read_first(30.0) == (Kind.SECRETS, b"first")

        def stop(kind: int, payload: bytes) -> None:
            found.append((kind, payload))
            if kind == Kind.SEALED:
                other.stop_reading()

        other.on_frame = stop
        other.start(asyncio.get_running_loop())
        await until(lambda: found)
        one.send(Kind.REMOVALS, b"and later")
        for _ in range(5):
            await asyncio.sleep(0)
        assert found == [(Kind.SEALED, b"stop")]
        other.read_on()
        await until(lambda: len(found) == 3)
        assert [payload for _, payload in found[1:]] == [b"later", b"and later"]
        one.close()
        other.close()

    in_loop(main)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "another program"),
        (PREAMBLE + FrameWriter().frame(Kind.WANT, b"")[:-1] + b"x", "checksum"),
        (PREAMBLE + FrameWriter().frame(99, b""), "unknown"),
        (b"", ""),
    ],
)
def test_what_is_not_understood_ends_the_link(octets: bytes, reason: str) -> None:
    async def main() -> None:
        ours, its = socket.socketpair()
        link, reasons = StateLink(ours), list[str]()

        def refuse(kind: int, payload: bytes) -> None:
            raise ValueError("unknown")

        link.on_frame, link.on_end = refuse, reasons.append
        link.start(asyncio.get_running_loop())
        its.sendall(octets)
        its.close()
        await until(lambda: reasons)
        assert len(reasons) == 1 and reason in reasons[0]
        assert not link.is_open
        link.send(Kind.REPORT)  # nobody hears it
        link.close()

    in_loop(main)


def test_the_last_words_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_link, "READ_BYTES", 100)

    async def main() -> None:
        one, other, found = pair()
        one.start(asyncio.get_running_loop())
        one.send(Kind.PIECE, b"x" * 5000)
        one.flush(30.0)
        one.close()
        reasons: list[str] = []
        other.on_end = reasons.append
        other.start(asyncio.get_running_loop())
        await until(lambda: reasons)
        assert found == [(Kind.PIECE, b"x" * 5000)]

    in_loop(main)


def test_who_sends_to_an_end_that_is_closed_hears_of_that() -> None:
    async def main() -> None:
        one, other, _ = pair()
        reasons: list[str] = []
        one.on_end = reasons.append
        one.start(asyncio.get_running_loop())
        other.close()
        one.send(Kind.REPORT, b"{}")
        await until(lambda: reasons)
        assert not one.is_open

    in_loop(main)


def test_the_first_frame_is_checked() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(b"x" * 100)
        with pytest.raises(BadFrame):
            StateLink(ours).read_first(30.0)
