"""A reverse proxy of an aiohttp server and an aiohttp client, as one would write it."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
import sys

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding",
                        "upgrade", "content-length", "content-encoding"})  # fmt: skip


async def forward(request: web.Request) -> web.Response:
    """Ask the application and answer with what it says."""
    session: aiohttp.ClientSession = request.app["session"]
    fields = [
        (name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP
    ]
    async with session.request(
        request.method,
        f"{request.app['application']}{request.raw_path}",
        headers=fields,
        data=await request.read() if request.can_read_body else None,
        allow_redirects=False,
    ) as answer:
        kept = [
            (name, value)
            for name, value in answer.headers.items()
            if name.lower() not in HOP_BY_HOP
        ]
        return web.Response(status=answer.status, headers=kept, body=await answer.read())


async def application(port: int) -> web.Application:
    """Return the proxy in front of a port."""
    app = web.Application(client_max_size=1 << 30)
    app["application"] = f"http://127.0.0.1:{port}"
    app["session"] = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(
        application(int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        backlog=2048,
    )
