"""The parts that all connections and exchanges of a process share: plain data, from build.py."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from retter.base.buffers import BufferBudget
from retter.base.counters import Counters
from retter.breaker import CircuitBreaker
from retter.compression.decoding import Decoding
from retter.compression.pipeline import Compression
from retter.config.settings import Settings
from retter.net.write_batch import WriteBatch
from retter.proxy.awaited_streams import AwaitedStreams
from retter.proxy.bound_connections import BoundConnections
from retter.proxy.clients import ClientRegistry
from retter.proxy.failed_page import FailedPage
from retter.proxy.goodness import Goodness
from retter.proxy.head_reader import HeadReader
from retter.proxy.interfaces import Work
from retter.proxy.keeping import Keeper
from retter.proxy.peers import Peers
from retter.proxy.pool import ConnectionPool
from retter.proxy.responses import AnswerWriter
from retter.proxy.secrets import Secrets
from retter.proxy.turns import Turns
from retter.proxy.upstream_connection import UpstreamConnection
from retter.proxy.withdrawals import Withdrawals
from retter.store.hints import Hints
from retter.store.owner import OwnerRules
from retter.store.policy import StorePolicy
from retter.store.store import ResponseStore

# Optional parts are imported where they are made, because they take memory.
if TYPE_CHECKING:
    from retter.base.worker_place import WorkerPlace
    from retter.disk.shelf import DiskShelf  # with lmdb, which may not be installed
    from retter.far.shelf import FarShelf  # with redis, which may not be installed
    from retter.proxy.learnt import LearntKeeper
    from retter.store.shared_sessions import SharedSessions
    from retter.telemetry.access_log import AccessLog


class Stream(Protocol):
    """An event stream or a tunnel: its time limits are checked once a second."""

    def sweep(self, now: float) -> None: ...
    def abort_request(self, now: float) -> None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Services:
    """The shared parts, and what follows from the settings."""

    loop: asyncio.AbstractEventLoop
    started_at: float  # monotonic seconds
    counters: Counters
    write_batch: WriteBatch
    http_date: Callable[[], str]  # the wall clock as in a Date field (RFC 9110 section 5.6.7)

    # what follows from the settings, and changes with them
    settings: Settings
    answers: AnswerWriter
    owner_rules: OwnerRules
    store_policy: StorePolicy
    failure_statuses: frozenset[int]
    # Whether a plain answer (ResponseHead.plain) may be a failure, or may not be stored.
    judges_plain_answers: bool
    access_log: "AccessLog | None"

    # from the client
    peers: Peers
    clients: ClientRegistry
    heads: HeadReader
    buffers: BufferBudget  # of bodies
    waiting: BufferBudget  # of parts of heads, and of requests that were read ahead
    turns: Turns

    # to the application
    breaker: CircuitBreaker
    pool: ConnectionPool
    bound: BoundConnections[UpstreamConnection]
    awaited_streams: AwaitedStreams = field(default_factory=AwaitedStreams)
    # in flight, in start order
    exchanges: dict[Work, None] = field(default_factory=dict[Work, None])
    # event streams and tunnels
    streams: dict[Stream, None] = field(default_factory=dict[Stream, None])

    # what becomes of its answers
    store: ResponseStore
    keeper: Keeper
    goodness: Goodness
    withdrawals: Withdrawals
    hints: Hints
    failed_page: FailedPage = field(default_factory=FailedPage)
    compression: Compression
    decoding: Decoding

    secrets: Secrets
    disk: "DiskShelf | None" = None  # behind the store
    far: "FarShelf | None" = None  # what several boxes share
    learnt: "LearntKeeper | None" = None  # what outlives the process beside the store
    place: "WorkerPlace | None" = None  # among several workers; None: this is the only process
    sessions: "SharedSessions | None" = None  # what several workers know of them
    handed_over: bool = False  # another process has taken the listening sockets over
    draining: bool = False  # all connections close after their next answer

    # Settings that each request reads. They are repeated here because `Settings` is not compiled:
    # to read one there takes 170 of 30,000 instructions of the processor.
    head_bytes_max: int = field(init=False)
    keep_alive_s: float = field(init=False)
    requests_per_connection_max: int = field(init=False)
    upstream_timeout_s: float = field(init=False)
    store_object_bytes_max: int = field(init=False)

    def __post_init__(self) -> None:
        self.use(self.settings)

    def use(self, settings: Settings) -> None:
        """Use other settings. What follows from them in other parts changes with `Proxy.apply`."""
        self.settings = settings
        self.head_bytes_max = settings.head_bytes_max
        self.keep_alive_s = settings.keep_alive_s
        self.requests_per_connection_max = settings.requests_per_connection_max
        self.upstream_timeout_s = settings.upstream_timeout_s
        self.store_object_bytes_max = settings.store_object_bytes_max


def free_memory(services: Services) -> None:
    """Drop what is not needed, because memory has run out, and keep less from now on."""
    services.counters.memory_errors += 1
    services.heads.forget_requests()
    services.heads.response_memo.clear()
    services.counters.memory_dropped += services.store.empty_and_shrink()
