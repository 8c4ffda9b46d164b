"""Builds the shared parts of a process."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from retter.base.buffers import BufferBudget
from retter.base.counters import Counters
from retter.breaker import CircuitBreaker, Transition
from retter.compression.coding import searchable_body
from retter.compression.decoding import Decoding
from retter.compression.pipeline import Compression, ThreadWorker
from retter.config.settings import Settings
from retter.config.units import parse_upstream
from retter.net.write_batch import WriteBatch
from retter.proxy.backlog import WAITING_BYTES_MAX
from retter.proxy.bound_connections import BoundConnections
from retter.proxy.clients import ClientRegistry
from retter.proxy.goodness import Goodness
from retter.proxy.head_reader import HeadReader
from retter.proxy.keeping import Keeper
from retter.proxy.lasting import attach
from retter.proxy.part_settings import (
    breaker_settings,
    configure_compression,
    error_page,
    failure_texts,
    judges_plain_answers,
    open_access_log,
    owner_rules,
    pool_options,
    store_rules,
)
from retter.proxy.peers import Peers
from retter.proxy.pool import ConnectionPool
from retter.proxy.responses import AnswerWriter
from retter.proxy.sampling import upstream_connection
from retter.proxy.secrets import Secrets
from retter.proxy.services import Services
from retter.proxy.turns import Turns
from retter.proxy.upstream_connection import UpstreamConnection
from retter.proxy.wall_clock import WallClock
from retter.proxy.withdrawals import Withdrawals
from retter.store.hints import Hints
from retter.store.policy import StorePolicy
from retter.store.store import ResponseStore, StoreRules

if TYPE_CHECKING:
    from retter.base.worker_place import WorkerPlace
    from retter.disk.shelf import DiskShelf
    from retter.far.shelf import FarShelf


def build_services(
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    on_transition: Callable[[Transition], None],
    pool_class: type[ConnectionPool],
    clock: Callable[[], float],
    disk: "DiskShelf | None" = None,
    secrets: Secrets | None = None,
    place: "WorkerPlace | None" = None,
    far: "FarShelf | None" = None,
) -> Services:
    """Make all shared parts of a process.

    Args:
        disk: The disk store behind the store in memory.
        secrets: The secrets of the process that this one takes over from.
        place: The place of this process among several workers.
        far: What several boxes share.

    Raises:
        ConfigError: A file cannot be read or written.
    """
    now = loop.time()
    secrets = _secrets(secrets, disk, far)
    rules = owner_rules(settings, None, secrets)
    counters = Counters()
    answers = AnswerWriter(headers=settings.headers, error_page=error_page(settings, pipe=True))
    breaker = _breaker(settings, now, answers, on_transition, secrets, place)
    peers = Peers(settings, secrets.clients)
    heads = HeadReader(settings, rules, peers.instance)
    store = _store(store_rules(settings, rules, secrets), disk, place)
    store.plain_body = searchable_body
    hints = Hints()
    worker = ThreadWorker(loop)
    compression = Compression(store, worker, loop.time)
    configure_compression(compression, settings)
    pool = _pool(settings, loop, pool_class, lambda: services)
    bound: BoundConnections[UpstreamConnection] = BoundConnections()
    clients = ClientRegistry(
        settings, loop, counters, peers, bound, lambda: pool.open + pool.dialling
    )
    pool.make_room = clients.make_room
    services = Services(
        loop=loop,
        started_at=now,
        counters=counters,
        write_batch=WriteBatch(loop),
        http_date=WallClock().http_date,
        settings=settings,
        answers=answers,
        owner_rules=rules,
        store_policy=StorePolicy(settings.store_policy),
        failure_statuses=frozenset(settings.failure_statuses),
        judges_plain_answers=judges_plain_answers(settings),
        access_log=open_access_log(settings, rules, counters, clock, None),
        peers=peers,
        clients=clients,
        heads=heads,
        buffers=BufferBudget(settings.buffer_memory_bytes),
        waiting=BufferBudget(WAITING_BYTES_MAX),
        turns=Turns(breaker, settings.crawler_words, rules),
        breaker=breaker,
        pool=pool,
        bound=bound,
        store=store,
        keeper=Keeper(store, rules, heads.forget_requests, hints, worker, loop.time),
        goodness=Goodness(failure_texts(settings)),
        withdrawals=Withdrawals(store, now),
        hints=hints,
        compression=compression,
        decoding=Decoding(store, worker),
        secrets=secrets,
        disk=disk,
        place=place,
        far=far,
    )
    if disk is not None:
        _attach_disk(services, disk, now)
    if place is not None:
        _share_sessions(services, place)
    return services


def _share_sessions(services: Services, place: "WorkerPlace") -> None:
    """Learn what other workers know of sessions, and tell them what this one learns."""
    from retter.proxy.memory_lock import MemoryLock
    from retter.store.shared_sessions import SharedSessions

    shared, heads, lock = place.shared, services.heads, MemoryLock(place.memory_fd)
    services.sessions = SharedSessions(
        shared.sessions,
        shared.learnt,
        shared.since,
        place.place,
        services.owner_rules,
        lock.take,
        lock.give_back,
        heads.forget_requests,
    )
    heads.look_around = services.sessions.look


def _store(
    rules: StoreRules, disk: "DiskShelf | None", place: "WorkerPlace | None"
) -> ResponseStore:
    """Make the store near this process."""
    if place is None:
        return ResponseStore(rules)
    from retter.disk.news import News
    from retter.disk.shared_behind import NoShelf, SharedBehind, follow
    from retter.store.shared_store import SharedStore

    if disk is None:  # nothing is stored, or the store on disk is broken
        news = News(place.shared, place.place)
        behind = SharedBehind(NoShelf(), news)
        behind.closed = True
    else:
        from retter.disk.shared_shelf import SharedShelf

        assert isinstance(disk, SharedShelf), "lasting.py opens it for a worker"
        news, behind = disk.news, disk.shared_behind
    store = SharedStore(rules, news)
    store.put_behind(behind)
    follow(store, news, behind)
    return store


def _secrets(secrets: Secrets | None, disk: "DiskShelf | None", far: "FarShelf | None") -> Secrets:
    """Return those of the process before, or new ones; a disk and other boxes need theirs."""
    secrets = secrets or Secrets()
    if far is not None:
        keys = far.keys
        return replace(secrets, owner=keys.owner, public=keys.public, tickets=keys.tickets)
    if disk is None:
        return secrets
    return replace(secrets, owner=disk.secret, public=disk.site_key)


def _breaker(
    settings: Settings,
    now: float,
    answers: AnswerWriter,
    on_transition: Callable[[Transition], None],
    secrets: Secrets,
    place: "WorkerPlace | None",
) -> CircuitBreaker:
    """Make the breaker; answers name its state."""

    def state_changed(transition: Transition) -> None:
        answers.set_state(transition.after)
        on_transition(transition)

    if place is None:
        return CircuitBreaker(breaker_settings(settings), now, state_changed, secrets.tickets)
    from retter.judgement.breaker import worker_breaker

    return worker_breaker(
        breaker_settings(settings), now, state_changed, answers.set_state, secrets.tickets, place
    )


def _pool(
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    pool_class: type[ConnectionPool],
    services: Callable[[], Services],
) -> ConnectionPool:
    """Make the pool of connections to the application.

    Args:
        services: Returns the shared parts, which are complete when the first connection is made.
    """

    def make_connection(pool: ConnectionPool) -> UpstreamConnection:
        parts = services()
        heads = parts.heads
        return upstream_connection(
            parts.counters,
            pool,
            loop,
            heads.response_memo,
            heads.response_parser,
            parts.settings.head_bytes_max,
            parts.http_date,
            parts.write_batch,
        )

    address = parse_upstream(settings.upstream)
    return pool_class(address, make_connection, loop, **pool_options(settings))


def _attach_disk(services: Services, disk: "DiskShelf", now: float) -> None:
    """Put the disk behind the store, and learn what was learnt before."""
    from retter.proxy.learnt import LearntKeeper

    settings, rules = services.settings, services.owner_rules
    attach(services.store, disk, rules, settings.store_policy, now)
    learnt = LearntKeeper(disk, services.breaker, rules, settings)
    learnt.restore(now)
    if services.place is None or services.place.leads:  # one of several workers writes it
        services.learnt = learnt
