"""A WebSocket server for the tests: `python -m tests.real.echo PORT`."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve


async def answer(connection: ServerConnection) -> None:
    """Send back what comes, in its own form; "close N" closes with code N."""
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            await connection.close(int(message.split()[1]), "as asked")
        else:
            await connection.send(message)


async def main(port: int) -> None:
    async with serve(answer, "127.0.0.1", port, max_size=None, subprotocols=None) as server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
