"""Settings that may change while RETTER runs (SIGHUP), and settings that wait for a restart.

A setting that is not listed here keeps its value from the start: sockets, the event loop,
connections to the application or the rules of the store depend on it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from retter.config.settings import SETTINGS, Setting, Settings

CHANGEABLE: Final = frozenset({
    # life
    "drain_s",
    # TLS
    "https_redirect", "tls_cert", "tls_key",
    # the application
    "connect_hold_s", "connect_timeout_s", "pool_idle_s", "pool_max_age_s",
    "pool_size", "upstream_body_min_rate_bytes", "upstream_body_timeout_s",
    "upstream_ca", "upstream_insecure", "upstream_name", "upstream_timeout_s",
    "upstream_timeout_unsafe_s",
    # client limits
    "body_idle_timeout_s", "body_min_rate_bytes", "buffer_answer_bytes", "buffer_memory_bytes",
    "buffer_request_bytes", "connections_max", "connections_per_address_max", "head_bytes_max",
    "head_fields_max", "head_timeout_s", "keep_alive_s", "pipeline_max", "request_body_bytes_max",
    "requests_per_connection_max", "target_bytes_max", "write_buffer_bytes_max", "write_timeout_s",
    # the store
    "anonymous_fallback", "ignore_cookies", "ignore_host", "ignore_params", "ignore_query",
    "max_stale_s", "neutral_headers", "never_store", "rolling_cookies",
    "session_cookies", "store_memory_bytes",
    "store_object_bytes_max", "vary_on",
    # compression
    "compress", "compress_exclude", "compress_level", "compress_min_bytes", "compress_types",
    # the circuit breaker
    "circuit", "crawlers", "failure_ratio", "failure_statuses", "failure_text", "failure_volume",
    "fresh_for_s", "limit_head", "max_in_flight", "open_max_s", "open_min_s", "patience_closed_s",
    "patience_max_s", "patience_min_s", "queue_wait_s", "retry_after_s", "routes", "stream_paths",
    # trust and output
    "access_log", "access_log_format", "access_log_sample", "error_page", "headers", "log_format",
    "log_level", "trusted_proxies",
})  # fmt: skip


class Reload(NamedTuple):
    """The result of comparing a new configuration with the present one."""

    settings: Settings  # the present ones, with the changes that are possible now
    changed: dict[str, str]  # by name: the new values, as text
    restart: dict[str, str]  # by flag: the new values that need a restart


def reloaded(present: Settings, wanted: Settings) -> Reload:
    """Return which of the wanted settings can change now."""
    differing = [
        setting
        for setting in SETTINGS
        if getattr(present, setting.field) != getattr(wanted, setting.field)
    ]
    now = [setting for setting in differing if setting.field in CHANGEABLE]
    later = [setting for setting in differing if setting.field not in CHANGEABLE]
    values: dict[str, Any] = {setting.field: getattr(wanted, setting.field) for setting in now}
    return Reload(replace(present, **values), _shown(now, wanted), _shown(later, wanted))


def _shown(settings: Iterable[Setting], wanted: Settings) -> dict[str, str]:
    return {
        setting.flag: setting.kind.show(getattr(wanted, setting.field)) or "none"
        for setting in settings
    }
