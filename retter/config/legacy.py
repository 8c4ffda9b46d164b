"""Variables of the first RETTER, a program in Go, so that its installations still start."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Alias:
    """An old variable: the setting that it sets, if any, and advice for the operator."""

    variable: str
    name: str = ""
    negated: bool = False
    advice: str = ""


ALIASES: Final = (
    Alias("RETTER_SERVER_LISTEN", "listen"),
    Alias("RETTER_BACKEND_BASEURL", "upstream"),
    Alias(
        "RETTER_CACHE_TTL",
        "max_stale",
        advice="It bounds the age of what is served; the default of 24h protects better",
    ),
    Alias("RETTER_CACHE_DETECT_QUERY", "ignore_query", negated=True),
    # "false" once meant one stored page for everybody, no matter who had requested it. This is not
    # supported any more, so nothing is set: each person has stored pages of their own.
    Alias(
        "RETTER_CACHE_DETECT_SESSION",
        advice="Stored pages are always separated by person; "
        "name cookies that identify nobody with --ignore-cookies",
    ),
    Alias("RETTER_BREAKER_FAIL_RATE", "failure_ratio"),
    Alias(
        "RETTER_BREAKER_CONSECUTIVE_FAIL",
        advice="Failures in a row are recognised by themselves; "
        "see --failure-ratio and --failure-volume",
    ),
    Alias("RETTER_SERVER_TIMEOUT_WRITE", "write_timeout"),
    Alias("RETTER_SERVER_TIMEOUT_READ", "head_timeout"),
    Alias("RETTER_SERVER_TIMEOUT_IDLE", "keep_alive"),
    Alias("RETTER_SERVER_TIMEOUT_GRACESHUT", "drain"),
)
