"""The crowd beside a crawler, over sockets: what it reads, and that it asks by the clock."""

import asyncio

import pytest

from benchmarks.overload import crawl


def test_an_answer_is_read_as_far_as_it_matters() -> None:
    """Its status, when it was made, when to come again, and its cookies."""
    got = crawl._read(
        b"HTTP/1.1 503 Service Unavailable\r\nRefresh: 3\r\nRetry-After: 2\r\n"
        b"Set-Cookie: retter_turn=abc; Path=/\r\nX-Gen: 12.5\r\n\r\nbody"
    )
    assert got == crawl.Got(503, 12.5, 3.0, ("retter_turn=abc; Path=/",))
    with pytest.raises(ValueError, match="cut off"):
        crawl._read(b"HTTP/1.1 200 OK\r\n")


def test_who_is_told_to_wait_comes_again_with_its_cookie() -> None:
    """From its own address; a crawler takes what it gets."""
    seen: list[tuple[str, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append((writer.get_extra_info("peername")[0], head))
        told = b"Refresh: 0.01\r\nSet-Cookie: turn=1; Path=/\r\n" if len(seen) == 1 else b""
        status = b"503 Wait" if told else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\n%bX-Gen: 9e15\r\n\r\n" % (status, told))
        writer.close()

    async def ask() -> crawl.Crowd:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        crowd = crawl.Crowd(server.sockets[0].getsockname()[1], 20, 4.0, 1.0)
        await crowd._visitor(crawl.ALONE_S)
        await crowd._crawl(crawl.ALONE_S)
        server.close()
        return crowd

    crowd = asyncio.run(ask())
    assert crowd.beside.fresh == 1
    assert crowd.crawler.fresh == 1
    assert b"Cookie: turn=1" in seen[1][1]
    assert b"Cookie" not in seen[0][1]
    assert seen[0][0] == seen[1][0]
    assert seen[0][0].startswith("127.1.")
    assert seen[2][0].startswith("127.2.")
