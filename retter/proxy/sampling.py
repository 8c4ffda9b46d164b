"""RETTER's own time for a request: the clock is read on some connections only.

Two more readings of a clock that is fine enough (the loop's counts milliseconds) would cost every
request a per cent. So one connection of sixteen is made of a class that reads it, and all others
know nothing of it.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

from retter.base.counters import Counters, Histogram
from retter.http.memo import HeadMemo
from retter.http.message import ResponseHead
from retter.http.response_parser import ResponseParser
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.pool import ConnectionPool
from retter.proxy.services import Services
from retter.proxy.upstream_connection import UpstreamConnection

MEASURED_OF = 16  # one connection of so many, the first one among them


class MeasuredDownstream(DownstreamConnection):
    """A client connection that notes how long its requests take until they are on their way.

    That is until they are written to the application, or answered by the store.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        before = self.requests.count
        began_at = perf_counter()
        super().data_received(data)
        if begun := self.requests.count - before:
            self._services.counters.overhead_request.add((perf_counter() - began_at) / begun)


class MeasuredUpstream(UpstreamConnection):
    """A connection to the application that notes how long an answer's first piece takes.

    That is from its arrival until it is written to the client, and stored if it is whole.
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
        overhead: Histogram,
    ) -> None:
        super().__init__(pool, loop, memo, parser, head_bytes_max, http_date)
        self._overhead = overhead

    def data_received(self, data: bytes) -> None:
        if self.answered or self._sink is None:
            super().data_received(data)
            return
        began_at = perf_counter()
        super().data_received(data)
        self._overhead.add(perf_counter() - began_at)


def client_connection_class(services: Services) -> type[DownstreamConnection]:
    """Return what the next client connection is made of."""
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
) -> UpstreamConnection:
    """Make the next connection to the application."""
    if pool.dials % MEASURED_OF == 1:
        return MeasuredUpstream(
            pool, loop, memo, parser, head_bytes_max, http_date, counters.overhead_answer
        )
    return UpstreamConnection(pool, loop, memo, parser, head_bytes_max, http_date)
