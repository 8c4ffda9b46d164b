"""Signals: stop, reload, hand over."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from retter.config.reload import Reload
from retter.config.settings import Settings
from retter.net.handover import Successor
from retter.process import signals
from retter.process.signals import SAME_SIGNAL_S, Signals
from tests.support.harness import FakeLoop


def test_signals_of_the_same_second_are_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal and the parent process both pass it on; only a later one is impatience."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)

    async def main() -> None:
        running: Any = None
        handlers = Signals(running, lambda: Settings(upstream=":1"))
        clock: Any = FakeLoop()
        handlers._loop = clock
        for _ in range(5):  # while it drains already
            handlers._on_stop()
            clock.now += SAME_SIGNAL_S / 5
            assert handlers._stopping.is_set() and not exits
        clock.now += 0.01
        handlers._on_stop()
        assert exits == [1]

    asyncio.run(main())


class FakeRunning:
    """The part of a running proxy that Signals uses."""

    def __init__(self) -> None:
        self.reloads = 0
        self.handed = False

    def reload(self, wanted: Settings) -> Reload:
        self.reloads += 1
        return Reload(wanted, {}, {})

    def hand_over(self) -> Successor:
        """Start a process that never says that it serves."""
        ready, its_ready = os.pipe()
        os.set_inheritable(its_ready, True)
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        os.close(its_ready)
        return Successor(pid, ready)

    def handed_over(self) -> None:
        self.handed = True

    def not_handed_over(self) -> None:
        self.handed = False


def with_signals(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[Signals, FakeRunning], Any]
) -> None:
    async def run() -> None:
        fake: Any = FakeRunning()
        handlers = Signals(fake, lambda: Settings(upstream=":1"))
        async with asyncio.timeout(10):
            await act(handlers, fake)

    monkeypatch.setattr(signals, "configure_log", lambda *_: None)
    asyncio.run(run())


def test_a_storm_of_hangups_is_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read all files, one after the other, and nobody was served meanwhile."""

    async def act(handlers: Signals, fake: FakeRunning) -> None:
        for _ in range(2):
            for _ in range(50):
                handlers._on_hangup()
            await asyncio.sleep(0)
        assert fake.reloads == 2

    with_signals(monkeypatch, act)


def test_a_successor_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was, for ever, and no other could be started."""
    monkeypatch.setattr(signals, "SUCCESSOR_S", 0.05)

    async def act(handlers: Signals, fake: FakeRunning) -> None:
        for _ in range(2):
            handlers._on_take_over()
            assert handlers._successor is not None
            pid = handlers._successor.pid
            while handlers._successor is not None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)  # not even a zombie is left
        assert not fake.handed
        assert not handlers._stopping.is_set()

    with_signals(monkeypatch, act)
