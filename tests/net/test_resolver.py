"""Where the application's name leads, while the resolver answers, fails and hangs."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from retter.config.units import parse_upstream
from retter.net.resolver import Resolver, is_numeric

WITHIN_S = 60.0
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
FAILS = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Lookups:
    """A loop whose lookups end when and as the test says."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.asked: list[asyncio.Future[list[str]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
        assert (host, port) == ("app.example", 80)
        self.asked.append(self.loop.create_future())
        return [(socket.AF_INET, type, 6, "", (one, port)) for one in await self.asked[-1]]

    async def answer(self, answer: list[str] | Exception) -> None:
        """End the lookup that is begun or under way."""
        while not self.asked or self.asked[-1].done():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        if isinstance(answer, Exception):
            self.asked[-1].set_exception(answer)
        else:
            self.asked[-1].set_result(answer)
        for _ in range(3):
            await asyncio.sleep(0)


class Case:
    """A resolver and what it asks."""

    def __init__(self, upstream: str = "app.example:80") -> None:
        self.lookups = Lookups()
        loop: Any = self.lookups
        self.resolver = Resolver(parse_upstream(upstream), loop)

    def ask(self, within_s: float = WITHIN_S) -> "asyncio.Task[list[str]]":
        return asyncio.ensure_future(self.resolver.hosts(within_s))

    async def told(self, answer: list[str] | Exception) -> list[str]:
        """Ask, let the lookup end so, and return what is told."""
        asked = self.ask()
        await self.lookups.answer(answer)
        return await asked


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it; whatever a task raises unseen fails the test."""
    complaints: list[Any] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        await main

    asyncio.run(watched())
    assert not complaints


def test_a_name_is_asked_about_each_time() -> None:
    async def main() -> None:
        case = Case()
        assert await case.told(["192.0.2.1", "192.0.2.2", "192.0.2.1"]) == [
            "192.0.2.1",
            "192.0.2.2",
        ]
        case.resolver.worked("192.0.2.2")
        assert await case.told(["192.0.2.1", "192.0.2.2"]) == ["192.0.2.2", "192.0.2.1"]
        assert await case.told(["192.0.2.3"]) == ["192.0.2.3"]
        assert case.resolver.failures == 0 and not case.resolver.fault

    run(main())


def test_what_was_known_last_is_used_while_the_resolver_fails() -> None:
    async def main() -> None:
        case = Case()
        with pytest.raises(socket.gaierror):
            await case.told(FAILS)  # nothing is known yet
        assert not case.resolver.fault
        await case.told(["192.0.2.1"])
        assert await case.told(FAILS) == ["192.0.2.1"]
        assert "Temporary failure" in case.resolver.fault
        # From now on nobody waits for it: the lookup only tells whether it is over.
        for _ in range(3):
            assert await case.ask() == ["192.0.2.1"]
        assert len(case.lookups.asked) == 4, "one lookup at a time"
        await case.lookups.answer(FAILS)
        assert case.resolver.failures == 3
        assert await case.ask() == ["192.0.2.1"]
        await case.lookups.answer(["192.0.2.9"])
        assert not case.resolver.fault
        assert await case.told(["192.0.2.9"]) == ["192.0.2.9"]

    run(main())


def test_a_resolver_that_hangs_is_waited_for_once() -> None:
    async def main() -> None:
        case = Case()
        await case.told(["192.0.2.1"])
        assert await case.ask(within_s=0.002) == ["192.0.2.1"]
        assert case.resolver.fault
        for _ in range(3):
            assert await case.ask() == ["192.0.2.1"]
        assert len(case.lookups.asked) == 2, "the one that hangs takes one thread, not all"
        await case.lookups.answer(["192.0.2.2"])
        assert not case.resolver.fault
        assert await case.told(["192.0.2.2"]) == ["192.0.2.2"]

    run(main())


@pytest.mark.parametrize("answer", [NO_NAME, []])
def test_that_there_is_no_such_name_is_an_answer(answer: list[str] | Exception) -> None:
    """The old address may be somebody else's by now."""

    async def main() -> None:
        case = Case()
        await case.told(["192.0.2.1"])
        for _ in range(2):
            with pytest.raises(OSError, match=r"not known|no address"):
                await case.told(answer)
        assert not case.resolver.fault

    run(main())


def test_all_who_ask_together_share_a_lookup() -> None:
    async def main() -> None:
        case = Case()
        asked = [case.ask() for _ in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()  # one who gives up takes the answer from nobody
        await case.lookups.answer(["192.0.2.1"])
        assert await asyncio.gather(*asked[1:]) == [["192.0.2.1"]] * 19
        assert len(case.lookups.asked) == 1

    run(main())


@pytest.mark.parametrize(
    ("upstream", "hosts"),
    [
        ("192.0.2.1:80", ["192.0.2.1"]),
        ("[2001:db8::1]:80", ["2001:db8::1"]),
        ("[fe80::1%eth0]:80", ["fe80::1%eth0"]),
        (":80", ["127.0.0.1", "::1"]),
        ("LocalHost:80", ["127.0.0.1", "::1"]),
        ("https://localhost", ["127.0.0.1", "::1"]),
    ],
)
def test_nobody_is_asked_about_addresses_and_this_machine(upstream: str, hosts: list[str]) -> None:
    async def main() -> None:
        case = Case(upstream)
        assert await case.ask() == hosts
        case.resolver.worked(hosts[-1])
        assert await case.ask() == hosts[::-1]
        assert not case.lookups.asked
        case.resolver.close()

    run(main())


def test_closing_ends_a_lookup() -> None:
    async def main() -> None:
        case = Case()
        asked = case.ask()
        await asyncio.sleep(0)
        case.resolver.close()
        with pytest.raises(asyncio.CancelledError):
            await asked

    run(main())


def test_what_is_numeric() -> None:
    assert is_numeric("127.0.0.1") and is_numeric("::1") and is_numeric("fe80::1%eth0")
    assert not is_numeric("localhost") and not is_numeric("1.example") and not is_numeric("")
