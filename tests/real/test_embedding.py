"""RETTER inside another program: the examples of the documentation run as they stand there."""

import asyncio
import contextlib
import json
import re
import textwrap
from typing import Any

import pytest

import retter
from tests.real.inside import at_rest, eventually_async, in_time, port_of, proxy_for, run
from tests.real.processes import ROOT, ApplicationProgram


def examples() -> dict[str, str]:
    """Every example that runs RETTER, by where it stands."""
    found: dict[str, str] = {}
    indented = re.findall(r"::\n\n((?:    .*\n|\n)+)", str(retter.__doc__))
    found["retter.__doc__"] = "\n".join(map(textwrap.dedent, indented))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        text = page.read_text() if page.exists() else ""
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            if "retter.running(" in block:
                found[f"{page.name}-{number}"] = block
    return found


@pytest.mark.parametrize("where", examples())
def test_the_example_runs(application: ApplicationProgram, loop_name: str, where: str) -> None:
    example = examples()[where]
    assert "retter.running(" in example and "8080" in example
    # The example's application listens on 8080, which may be taken here.
    here = re.sub(r'"(127\.0\.0\.1)?:8080"', f'"{application.upstream}"', example)
    names: dict[str, Any] = {"retter": retter, "asyncio": asyncio, "__name__": "__main__"}
    if "asyncio.run(" in here:  # a whole program
        exec(compile(here, where, "exec"), names)
        return
    # What stands inside a coroutine; "..." is where the reader's own work goes.
    body = textwrap.indent(here.replace("...", "seen.append(proxy)", 1), "    ")
    exec(compile(f"async def example(seen):\n{body}", where, "exec"), names)
    seen: list[retter.RunningProxy] = []
    run(names["example"](seen), loop_name)
    assert seen[0].address.startswith("http://127.0.0.1:")


async def ask(port: int, request: str) -> tuple[bytes, bytes]:
    """Send a request and return the answer's head and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head, body


def test_the_circuit_can_be_forced(application: ApplicationProgram, loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream) as proxy:
            port = port_of(proxy)
            assert proxy.state == "CLOSED"
            _, fresh = await ask(port, "GET /forced")
            proxy.set_circuit("open")
            head, stored = await ask(port, "GET /forced")
            assert b"\r\nX-Retter: cache\r\n" in head and stored == fresh
            assert b"detail=forced-open" in head
            head, _ = await ask(port, "POST /forced")  # always forwarded
            assert head.startswith(b"HTTP/1.1 200 ")
            proxy.set_circuit("auto")
            _, again = await ask(port, "GET /forced")
            assert json.loads(again)["count"] == json.loads(fresh)["count"] + 2
            with pytest.raises(ValueError, match="ajar"):
                proxy.set_circuit("ajar")
            stats = proxy.stats()
            assert (stats["requests"], stats["forwarded"]) == (4, 3)
            assert stats["stored"] == {"forced-open": 1}

    run(main(), loop_name)


def test_two_proxies_in_one_loop_know_nothing_of_each_other(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream) as one, proxy_for(application.upstream) as two:
            await ask(port_of(one), "GET /twice")
            assert (one.stats()["requests"], two.stats()["requests"]) == (1, 0)
            two.set_circuit("open")
            head, _ = await ask(port_of(two), "GET /twice")  # not stored by this one
            assert b"\r\nX-Retter: backend\r\nX-Circuit: OPEN\r\n" in head
            head, _ = await ask(port_of(one), "GET /twice")
            assert b"\r\nX-Retter: backend\r\nX-Circuit: CLOSED\r\n" in head

    run(main(), loop_name)


def test_leaving_the_block_closes_everything_at_once(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        settings = retter.Settings(upstream=application.upstream, listen=("127.0.0.1:0",))
        async with retter.running(settings) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(b"GET /wait?gate=never HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually_async(lambda: proxy.stats()["exchanges"], "it is on its way")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError):  # noqa: PT011 - refused, in the words of either loop
            await asyncio.open_connection("127.0.0.1", port_of(proxy))
        await eventually_async(lambda: at_rest(proxy.stats()), "nothing is left over")

    run(main(), loop_name)


def test_whoever_is_cancelled_again_and_again_leaves_nothing_open(
    application: ApplicationProgram, loop_name: str
) -> None:
    """As in a cancelled scope of anyio: no coroutine that has to wait gets on any more."""

    async def main() -> None:
        settings = retter.Settings(
            upstream=application.upstream,
            listen=("127.0.0.1:0", "127.0.0.1:0"),
            admin="127.0.0.1:0",
        )
        running: list[retter.RunningProxy] = []

        async def embed() -> None:
            async with retter.running(settings) as proxy:
                running.append(proxy)
                await asyncio.Event().wait()

        task = asyncio.ensure_future(embed())
        await eventually_async(lambda: running, "it runs")
        (proxy,) = running
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
        await eventually_async(lambda: proxy.stats()["connections"]["open"], "it is accepted")
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        for url in (*proxy.addresses, proxy.admin_address):
            with pytest.raises(OSError):  # noqa: PT011 - refused, in the words of either loop
                await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        with contextlib.suppress(ConnectionResetError):
            assert await in_time(reader.read()) == b""
        writer.close()
        assert proxy._proxy.ticker._timer is None, "its clock stands still"

    run(main(), loop_name)


def test_an_address_that_is_taken_is_an_error(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream) as proxy:
            from retter.net.sockets import ListenError

            taken = retter.Settings(
                upstream=application.upstream, listen=(f"127.0.0.1:{port_of(proxy)}",)
            )
            with pytest.raises(ListenError, match="another program"):
                async with retter.running(taken):
                    raise AssertionError("it listens where another does")

    run(main(), loop_name)
