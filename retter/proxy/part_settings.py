"""The settings for each part of the proxy, at the start and after a reload."""

import os
import stat
from collections.abc import Callable
from errno import EISDIR, ENOTDIR
from math import inf
from ssl import SSLContext
from typing import TYPE_CHECKING, TypedDict

from retter.base.counters import Counters
from retter.base.wildcard import name_matcher
from retter.breaker import BreakerSettings, FairnessMode, Mode
from retter.compression.pipeline import Compression
from retter.config.files import PAGE_BYTES_MAX, read_file
from retter.config.settings import ConfigError, Settings
from retter.config.units import parse_upstream
from retter.http.content_coding import Negotiator
from retter.proxy.head_reader import encoded
from retter.proxy.secrets import SECRET_BYTES, Secrets
from retter.store.owner import OwnerRules
from retter.store.policy import StorePolicy
from retter.store.sessions import SessionsSeen
from retter.store.store import StoreRules

if TYPE_CHECKING:
    from retter.telemetry.access_log import AccessLog


class PoolOptions(TypedDict):
    """The arguments of `ConnectionPool.reconfigure`."""

    idle_max: int
    idle_s: float
    max_age_s: float
    connect_timeout_s: float
    tls: SSLContext | None
    tls_name: str


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


def store_rules(settings: Settings, rules: OwnerRules, secrets: Secrets) -> StoreRules:
    """Select the store's settings."""
    return StoreRules(
        secret=rules.secret,
        public_secret=secrets.public,
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


def error_page(settings: Settings, *, pipe: bool) -> bytes | None:
    """Read the operator's error page, if there is one.

    Args:
        pipe: It may be a pipe, which can be read only once.

    Raises:
        ConfigError: The file cannot be read, or is too large.
    """
    if not settings.error_page:
        return None
    return read_file("error_page", settings.error_page, PAGE_BYTES_MAX, pipe=pipe)


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


def check_access_log(settings: Settings) -> None:
    """Check that there is a place for the access log, without making it.

    Whether this user may write there is not checked: RETTER may run as another one.

    Raises:
        ConfigError: There is none.
    """
    path = settings.access_log
    if path in ("", "-"):
        return
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if not os.path.lexists(path):
            folder = os.path.dirname(path) or "."
            if not stat.S_ISDIR(os.stat(folder).st_mode):
                raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
    except PermissionError:
        pass
    except OSError as error:
        raise ConfigError(f"access_log: {path}: {error.strerror}") from None


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
