"""Differences between the loops' transports, made equal."""

import asyncio


def close_sending(transport: asyncio.Transport) -> None:
    """Close our sending side when everything has been sent; the other side may go on sending.

    A connection that the other side has reset meanwhile is aborted: asyncio's loop raises OSError
    (ENOTCONN) for it, uvloop reports it later.
    """
    try:
        transport.write_eof()
    except OSError:
        transport.abort()
