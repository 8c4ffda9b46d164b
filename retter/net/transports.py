"""What the loops' transports do differently, made the same."""

import asyncio


def close_sending(transport: asyncio.Transport) -> None:
    """Close our sending side when all has been sent; the other side may go on.

    A connection that the other side has reset meanwhile is aborted: asyncio's loop raises OSError
    (ENOTCONN) for it, uvloop tells of it later.
    """
    try:
        transport.write_eof()
    except OSError:
        transport.abort()
