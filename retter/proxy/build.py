"""Builds the shared parts of a process from the settings, and selects each part's own settings."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from math import inf
from ssl import SSLContext
from typing import TYPE_CHECKING, TypedDict

from retter.base.buffers import BufferBudget
from retter.base.counters import Counters
from retter.base.wildcard import name_matcher
from retter.breaker import BreakerSettings, CircuitBreaker, FairnessMode, Mode, Transition
from retter.compression.decoding import Decoding
from retter.compression.pipeline import Compression, ThreadWorker
from retter.config.settings import ConfigError, Settings
from retter.config.units import parse_upstream
from retter.http.content_coding import Negotiator
from retter.proxy.awaited_streams import AwaitedStreams
from retter.proxy.bound_connections import BoundConnections
from retter.proxy.clients import ClientRegistry
from retter.proxy.failed_page import FailedPage
from retter.proxy.goodness import Goodness
from retter.proxy.head_reader import HeadReader, encoded
from retter.proxy.keeping import Keeper
from retter.proxy.lasting import attach
from retter.proxy.peers import Peers
from retter.proxy.pool import ConnectionPool
from retter.proxy.responses import AnswerWriter
from retter.proxy.sampling import upstream_connection
from retter.proxy.secrets import SECRET_BYTES, Secrets
from retter.proxy.services import Services
from retter.proxy.turns import Turns
from retter.proxy.upstream_connection import UpstreamConnection
from retter.proxy.wall_clock import WallClock
from retter.proxy.withdrawals import Withdrawals
from retter.store.hints import Hints
from retter.store.owner import OwnerRules
from retter.store.policy import StorePolicy
from retter.store.sessions import SessionsSeen
from retter.store.store import ResponseStore, StoreRules

if TYPE_CHECKING:
    from retter.base.worker_place import WorkerPlace
    from retter.disk.shelf import DiskShelf
    from retter.telemetry.access_log import AccessLog


class PoolOptions(TypedDict):
    """The arguments of `ConnectionPool.reconfigure`."""

    idle_max: int
    idle_s: float
    max_age_s: float
    connect_timeout_s: float
    tls: SSLContext | None
    tls_name: str


def build_services(
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    on_transition: Callable[[Transition], None],
    pool_class: type[ConnectionPool],
    clock: Callable[[], float],
    disk: "DiskShelf | None" = None,
    secrets: Secrets | None = None,
    place: "WorkerPlace | None" = None,
) -> Services:
    """Make all shared parts of a process.

    Args:
        disk: The disk store behind the store in memory.
        secrets: The secrets of the process that this one takes over from.
        place: The place of this process among several workers.

    Raises:
        ConfigError: A file cannot be read or written.
    """
    now = loop.time()
    counters = Counters()
    answers = AnswerWriter(headers=settings.headers, error_page=error_page(settings))

    def state_changed(transition: Transition) -> None:
        answers.set_state(transition.after)
        on_transition(transition)

    secrets = secrets or Secrets()
    if disk is not None:
        secrets = replace(secrets, owner=disk.secret, public=disk.site_key)
    rules = owner_rules(settings, None, secrets)
    peers = Peers(settings, secrets.clients)
    heads = HeadReader(settings, rules, peers.instance)
    store = ResponseStore(store_rules(settings, rules, disk))
    hints = Hints()
    worker = ThreadWorker(loop)
    bound: BoundConnections[UpstreamConnection] = BoundConnections()
    compression = Compression(store, worker, loop.time)
    configure_compression(compression, settings)
    breaker = CircuitBreaker(breaker_settings(settings), now, state_changed, secrets.tickets)

    def make_connection(pool: ConnectionPool) -> UpstreamConnection:
        bytes_max = services.settings.head_bytes_max
        return upstream_connection(
            counters,
            pool,
            loop,
            heads.response_memo,
            heads.response_parser,
            bytes_max,
            services.http_date,
        )

    address = parse_upstream(settings.upstream)
    pool = pool_class(address, make_connection, loop, **pool_options(settings))
    clients = ClientRegistry(
        settings, loop, counters, peers, bound, lambda: pool.open + pool.dialling
    )
    pool.make_room = clients.make_room
    services = Services(
        loop=loop,
        started_at=now,
        counters=counters,
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
        turns=Turns(breaker, settings.crawler_words, rules),
        breaker=breaker,
        pool=pool,
        bound=bound,
        awaited_streams=AwaitedStreams(),
        exchanges={},
        streams={},
        store=store,
        keeper=Keeper(store, rules, heads.forget_requests, hints, worker, loop.time),
        goodness=Goodness(failure_texts(settings)),
        withdrawals=Withdrawals(store, now),
        hints=hints,
        failed_page=FailedPage(),
        compression=compression,
        decoding=Decoding(store, worker),
        secrets=secrets,
        disk=disk,
        place=place,
    )
    if disk is not None:
        attach(store, disk, rules, settings.store_policy, now)
        from retter.proxy.learnt import LearntKeeper

        services.learnt = LearntKeeper(disk, breaker, rules, settings)
        services.learnt.restore(now)
    return services


# -- each part's own settings ---------------------------------------------------------------------


def breaker_settings(settings: Settings) -> BreakerSettings:
    """Select the breaker's settings."""
    return BreakerSettings(
        mode=Mode(settings.circuit),
        max_in_flight=settings.max_in_flight,
        limit_start=settings.limit_start,
        patience_min_s=settings.patience_min_s,
        patience_max_s=settings.patience_max_s,
        patience_closed_s=settings.patience_closed_s,
        queue_wait_s=settings.queue_wait_s,
        queue_max=settings.queue_max,
        write_wait_s=settings.write_wait_s,
        retry_after_s=settings.retry_after_s,
        failure_ratio=settings.failure_ratio,
        failure_volume=settings.failure_volume,
        open_min_s=settings.open_min_s,
        open_max_s=settings.open_max_s,
        fresh_for_s=settings.fresh_for_s,
        fairness=FairnessMode(settings.fairness),
    )


def owner_rules(settings: Settings, before: OwnerRules | None, secrets: Secrets) -> OwnerRules:
    """Make the rules that distinguish owners, and keep what is known about sessions."""
    return OwnerRules(
        secret=secrets.owner,
        lasting=True,  # the secret outlives this process: on disk or in its successor
        origin=os.urandom(SECRET_BYTES) if before is None else before.origin,
        session_cookies=encoded(settings.session_cookies),
        ignore_cookies=encoded(settings.ignore_cookies),
        neutral_headers=encoded(settings.neutral_headers),
        ignore_query=settings.ignore_query,
        ignore_host=settings.ignore_host,
        ignore_params=encoded(settings.ignore_params),
        anonymous_fallback=settings.anonymous_fallback,
        never_store=encoded(settings.never_store),
        vary_on=encoded(settings.vary_on),
        rolling_cookies=encoded(settings.rolling_cookies),
        seen=SessionsSeen() if before is None else before.seen,
        known_lineages=None if before is None else before.lineages,
    )


def store_rules(
    settings: Settings, rules: OwnerRules, disk: "DiskShelf | None" = None
) -> StoreRules:
    """Select the store's settings."""
    return StoreRules(
        secret=rules.secret,
        public_secret=b"" if disk is None else disk.site_key,
        bytes_max=settings.store_memory_bytes,
        max_stale_s=settings.max_stale_s,
        policy=StorePolicy(settings.store_policy),
    )


def judges_plain_answers(settings: Settings) -> bool:
    """Return whether a plain response can be a failure or can be barred from the store."""
    return (
        any(status < 400 for status in settings.failure_statuses)
        or settings.store_policy != StorePolicy.ALL
    )


def failure_texts(settings: Settings) -> list[bytes]:
    """Return the texts that mark an error page with a success status."""
    return [text.encode() for text in settings.failure_texts]


def error_page(settings: Settings) -> bytes | None:
    """Read the operator's error page, if there is one.

    Raises:
        ConfigError: The file cannot be read.
    """
    if not settings.error_page:
        return None
    try:
        with open(settings.error_page, "rb") as page:
            return page.read()
    except OSError as error:
        raise ConfigError(f"error_page: {settings.error_page}: {error.strerror}") from None


def configure_compression(compression: Compression, settings: Settings) -> None:
    """Apply the compression settings."""
    excluded = name_matcher(encoded(settings.compress_exclude))
    compression.configure(
        Negotiator(encoded(settings.codings), excluded),
        settings.compress_level,
        settings.compress_min_bytes,
    )


def open_access_log(
    settings: Settings,
    rules: OwnerRules,
    counters: Counters,
    clock: Callable[[], float],
    before: "AccessLog | None",
) -> "AccessLog | None":
    """Open the access log, if the settings name one.

    Args:
        before: The access log that is open already.

    Raises:
        ConfigError: The access log cannot be written.
    """
    if not settings.access_log:
        return None
    from retter.telemetry.access_log import AccessLog

    try:
        return AccessLog(
            settings.access_log,
            rules,
            counters,
            before,
            combined=settings.access_log_format != "json",
            with_lane=settings.access_log_format == "combined-lane",
            share=settings.access_log_sample,
            clock=clock,
        )
    except OSError as error:
        raise ConfigError(f"access_log: {settings.access_log}: {error.strerror}") from None


def pool_options(settings: Settings) -> PoolOptions:
    """Select the pool's settings.

    Raises:
        ConfigError: A file for TLS to the application cannot be read.
    """
    tls = None
    if parse_upstream(settings.upstream).tls:
        from retter.net.certificates import upstream_context

        tls = upstream_context(settings)
    return PoolOptions(
        idle_max=settings.pool_size,
        idle_s=settings.pool_idle_s,
        max_age_s=settings.pool_max_age_s or inf,
        connect_timeout_s=settings.connect_timeout_s,
        tls=tls,
        tls_name=settings.upstream_name,
    )
