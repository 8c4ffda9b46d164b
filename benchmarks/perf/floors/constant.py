"""Floor of all that answers from memory: whatever arrives, the same bytes go back, unparsed."""

import asyncio
from typing import Final, cast

from benchmarks.perf.floors.common import addresses, run

BODY: Final = b"x"


class Constant(asyncio.Protocol):
    """Takes each read for one request."""

    answer = b""
    closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._transport.write(self.answer)
        if self.closes:
            self._transport.close()


def main() -> None:
    """Serve."""
    parser = addresses()
    parser.add_argument("--body-bytes", type=int, required=True)
    parser.add_argument("--close", action="store_true")
    arguments = parser.parse_args()
    head = (
        "HTTP/1.1 200 OK\r\nDate: Mon, 03 Nov 2025 10:00:00 GMT\r\nContent-Type: text/html\r\n"
        f"Content-Length: {arguments.body_bytes}\r\nCache-Control: max-age=60\r\n"
        "X-Frame-Options: SAMEORIGIN\r\nX-Content-Type-Options: nosniff\r\n"
        + ("Connection: close\r\n\r\n" if arguments.close else "\r\n")
    )
    Constant.answer = head.encode() + BODY * arguments.body_bytes
    Constant.closes = arguments.close
    run(arguments.listen, Constant)


if __name__ == "__main__":
    main()
