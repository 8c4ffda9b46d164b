"""How many descriptors the system grants, and how many connections they allow."""

import contextlib
import sys
from dataclasses import replace

from retter.config.settings import Settings
from retter.net.sockets import BACKLOG
from retter.telemetry.log import get_logger

# A listening socket's queue (backlog) is shorter where descriptors are few: the whole queue may be
# accepted in one round of the loop, and idle connections are closed only in the next round.
BACKLOG_SHARE = 1 / 4
BACKLOG_MIN = 16

# Of the descriptors that the system grants, this share is for clients; the rest is for connections
# to the application, listeners and logs. Clients wait by the thousand, while the breaker keeps what
# is in flight at the application small.
CLIENTS_SHARE = 0.75

# Descriptors for everything else: listeners, the loop's own, logs, resolving names.
DESCRIPTORS_KEPT = 32

log = get_logger()


class TooFewDescriptors(Exception):
    """The system grants too few descriptors to serve anybody; the message says how many."""


def require_descriptors() -> None:
    """Make sure that there are descriptors for what every process opens, before it opens it.

    A process without clients has 17 to 29 of them open.

    Raises:
        TooFewDescriptors: There are not.
    """
    limit = raise_descriptor_limit()
    if limit < DESCRIPTORS_KEPT:
        raise TooFewDescriptors(
            f"{limit} open files are too few, at least {DESCRIPTORS_KEPT} are needed: raise "
            "`ulimit -Hn` (LimitNOFILE= in a systemd unit)"
        )


def descriptor_limit() -> int:
    """Return RLIMIT_NOFILE as it is now."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft >= 0 else sys.maxsize


def accept_backlog(limit: int) -> int:
    """Return the length of a listening socket's queue, for this many descriptors."""
    return min(BACKLOG, max(BACKLOG_MIN, int(limit * BACKLOG_SHARE)))


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE as far as it goes and return it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft >= 0 else sys.maxsize


def fit_descriptors(settings: Settings) -> Settings:
    """Return the settings with no more connections than the descriptors allow; log a change."""
    limit = raise_descriptor_limit()
    connections_max = int(limit * CLIENTS_SHARE)
    if settings.connections_max <= connections_max:
        return settings
    log.warning(
        "fewer-connections",
        connections_max=connections_max,
        descriptors=limit,
        advice="raise `ulimit -Hn` (LimitNOFILE= in a systemd unit)",
    )
    return replace(settings, connections_max=connections_max)
