"""RETTER's own time for a request: the clock is read on some connections only.

Two readings of a precise clock (the loop's clock has milliseconds) would cost every request one per
cent. So one connection of sixteen has a class that reads it. All others do not measure anything.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

from retter.base.counters import Counters, Histogram
from retter.http.memo import HeadMemo
from retter.http.message import ResponseHead
from retter.http.response_parser import ResponseParser
from retter.net.write_batch import WriteBatch
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.pool import ConnectionPool
from retter.proxy.services import Services
from retter.proxy.upstream_connection import UpstreamConnection

MEASURED_OF = 16  # one connection of this many is measured, beginning with the first


class MeasuredDownstream(DownstreamConnection):
    """A client connection that measures RETTER's own time for its requests.

    It ends when the request waits to be written to the application, or has its answer from the
    store. The writing itself, of several messages together (write_batch.py), is not measured.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        before = self.requests.count
        began_at = perf_counter()
        super().data_received(data)
        if begun := self.requests.count - before:
            self._services.counters.overhead_request.add((perf_counter() - began_at) / begun)


class MeasuredUpstream(UpstreamConnection):
    """A connection to the application that measures RETTER's own time for the first piece.

    It lasts from the arrival of the piece until it waits to be written, and is stored if it is
    whole.
    """

    __slots__ = ("_overhead",)

    def __init__(
        self,
        pool: ConnectionPool,
        loop: asyncio.AbstractEventLoop,
        memo: HeadMemo[ResponseHead],
        parser: ResponseParser,
        head_bytes_max: int,
        http_date: Callable[[], str],
        batch: WriteBatch,
        overhead: Histogram,
    ) -> None:
        super().__init__(pool, loop, memo, parser, head_bytes_max, http_date, batch)
        self._overhead = overhead

    def data_received(self, data: bytes) -> None:
        if self.answered or self._sink is None:
            super().data_received(data)
            return
        began_at = perf_counter()
        super().data_received(data)
        self._overhead.add(perf_counter() - began_at)


def client_connection_class(services: Services) -> type[DownstreamConnection]:
    """Return the class for the next client connection."""
    counters = services.counters
    counters.client_protocols += 1
    if counters.client_protocols % MEASURED_OF == 1:
        return MeasuredDownstream
    return DownstreamConnection


def upstream_connection(
    counters: Counters,
    pool: ConnectionPool,
    loop: asyncio.AbstractEventLoop,
    memo: HeadMemo[ResponseHead],
    parser: ResponseParser,
    head_bytes_max: int,
    http_date: Callable[[], str],
    batch: WriteBatch,
) -> UpstreamConnection:
    """Make the next connection to the application."""
    if pool.dials % MEASURED_OF == 1:
        return MeasuredUpstream(
            pool, loop, memo, parser, head_bytes_max, http_date, batch, counters.overhead_answer
        )
    return UpstreamConnection(pool, loop, memo, parser, head_bytes_max, http_date, batch)
