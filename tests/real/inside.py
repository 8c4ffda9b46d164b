"""RETTER inside the test's own process, so that its figures can be looked at."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import retter
from retter.process.serving import run_on_loop
from tests.real.processes import DEADLINE_S, POLL_S

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, None], loop_name: str) -> None:
    """Run on that event loop. Whatever a callback raises fails the test."""
    complaints: list[dict[str, Any]] = []
    failures: list[Exception] = []

    async def watched() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        try:
            await main
        except Exception as error:
            failures.append(error)
            raise
        await asyncio.sleep(0)
        return 0

    try:
        run_on_loop(watched(), loop_name)
    except OSError:
        if failures:  # uvloop cannot close what a failed test has left open, and says only that
            raise failures[0] from None
        raise
    gc.collect()  # a socket that is still open fails this test, and no later one
    assert not complaints, complaints


async def eventually_async(attempt: Callable[[], object], what: str) -> None:
    """Let the loop run until the result is true."""
    async with asyncio.timeout(DEADLINE_S):
        while not attempt():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(POLL_S)


def at_rest(stats: dict[str, Any]) -> bool:
    """Whether nothing is in flight, held or open but idle connections to the application."""
    upstream, breaker = stats["upstream"], stats["breaker"]
    nothing = (
        stats["connections"]["open"], stats["exchanges"], stats["streams"],
        upstream["dialling"], upstream["held"], upstream["open"] - upstream["idle"],
        breaker.in_flight, breaker.old_others, breaker.waiting, breaker.waiting_without_stored,
    )  # fmt: skip
    return not any(nothing)


@asynccontextmanager
async def proxy_for(upstream: str, **settings: Any) -> AsyncGenerator[retter.RunningProxy, None]:
    """Run RETTER; in the end nothing may be left over."""
    wanted = retter.Settings(upstream=upstream, listen=("127.0.0.1:0",), **settings)
    async with retter.running(wanted) as proxy:
        yield proxy
        await eventually_async(lambda: at_rest(proxy.stats()), "all at rest")


def port_of(proxy: retter.RunningProxy) -> int:
    return int(proxy.address.rpartition(":")[2])


async def in_time(work: Awaitable[Result]) -> Result:
    """Wait for what must not take for ever."""
    return await asyncio.wait_for(work, DEADLINE_S)
