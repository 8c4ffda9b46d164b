"""What is measured: every scenario, and the heads that it sends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from benchmarks.perf import visitors

# Bytes of the bodies that the application serves, by the name in their path.
HTML_PAGE: Final = "html"  # the only one that compresses as pages do
PAGES: Final = {
    "100b": 100, "1k": 1024, "16k": 16 * 1024, "1m": 1024 * 1024, HTML_PAGE: 16 * 1024,
}  # fmt: skip
POST_BODY_BYTES: Final = 10 * 1024
HOST: Final = visitors.HOST

# Stands in the head's template for a number of NUMBER_DIGITS digits, so that all heads have the
# same length.
PLACE: Final = "{n}"
NUMBER_DIGITS: Final = 9


class Mode(Enum):
    """Where the answers come from."""

    FORWARD = "forward"  # the application is asked each time
    STORE = "store"  # the application is dead, all was fetched once before


class Heads(Enum):
    """How often a request head comes again."""

    REPEATED = "repeated"  # the same bytes each time
    BY_CONNECTION = "by connection"  # each connection repeats its own
    UNSEEN = "unseen"  # never the same bytes twice
    MIXED = "mixed"  # of 2,000 visitors with forty kinds of programs: visitors.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way to load a proxy."""

    name: str
    about: str
    mode: Mode
    connections: int = 64
    page: str = "1k"
    heads: Heads = Heads.REPEATED
    method: str = "GET"
    close: bool = False  # a new connection for each request
    idle: int = 0  # idle connections held beside
    accepts: str = "gzip, deflate, br"  # Accept-Encoding
    gzip: bool = False  # measured with peers that compress, else with those that do not
    retter_options: tuple[str, ...] = ()
    watched: bool = False  # a dashboard is open, and metrics are scraped every second
    waits_s: float = 0.0  # from when all was fetched until the application dies
    burners: int = 0  # processes that only calculate, beside it: a busy machine
    retter_only: bool = False  # an option of RETTER is measured: no peer has it
    main: bool = False  # belongs to --quick

    @property
    def body_bytes(self) -> int:
        """Bytes of the request's body."""
        return POST_BODY_BYTES if self.method == "POST" else 0


_forward = partial(Scenario, mode=Mode.FORWARD)
_store = partial(Scenario, mode=Mode.STORE)

# Everywhere else RETTER is told not to: its peers do not compress either, unless they are asked.
COMPRESSING: Final = ("--compress", "gzip")

WORKERS: Final = ("--workers", "2")
# What one worker has stored, the others find when it is written: after 5 s.
WRITTEN_S: Final = 6.0

SCENARIOS: Final[Sequence[Scenario]] = (
    _forward(name="forward-64", about="the same head each time", main=True),
    _forward(name="forward-64-by-connection", about="each connection repeats its own head",
             heads=Heads.BY_CONNECTION),
    _forward(name="forward-64-unseen",
             about="path, query, session, cookie and Referer differ each time",
             heads=Heads.UNSEEN, main=True),
    _forward(name="forward-64-mix", about="forty kinds of heads, 2,000 sessions, 500 pages by Zipf",
             heads=Heads.MIXED, main=True),
    _forward(name="forward-busy", burners=2,
             about="the same head each time, beside two processes that only calculate"),
    _forward(name="forward-1", about="one connection: added latency", connections=1, main=True),
    _forward(name="forward-512", about="512 connections", connections=512),
    _forward(name="forward-100b", about="100 B body", page="100b"),
    _forward(name="forward-16k", about="16 KiB body", page="16k"),
    _forward(name="forward-1m", about="1 MiB body", page="1m", main=True),
    _forward(name="forward-post", about="POST with 10 KiB, 100 B back",
             page="100b", method="POST", main=True),
    _forward(name="forward-close", about="a new connection for each request", close=True),
    _forward(name="forward-idle-1k", about="1,000 idle connections beside", idle=1_000),
    _forward(name="forward-idle-10k", about="10,000 idle connections beside", idle=10_000),
    _forward(name="forward-access-log", about="an access log is written", retter_only=True,
             retter_options=("--access-log", "/dev/null")),
    _forward(name="forward-gzip", about="16 KiB of HTML, compressed at level 1", page=HTML_PAGE,
             gzip=True, retter_options=COMPRESSING),
    _forward(name="forward-gzip-unasked", about="compression on, for clients that do not ask",
             accepts="identity", retter_only=True, retter_options=COMPRESSING),
    _forward(name="forward-gzip-unfit", about="compression on, for an answer of another type",
             retter_only=True, retter_options=(*COMPRESSING, "--compress-types", "image/*")),
    _forward(name="forward-admin", retter_only=True, watched=True,
             about="a dashboard is open, metrics are scraped every second"),
    _forward(name="forward-64-workers", about="two workers on the one core: what sharing costs",
             retter_only=True, retter_options=WORKERS),
    _store(name="store-64", about="the same head each time", main=True),
    _store(name="store-64-by-connection",
           about="each connection repeats its own head; one page, one session",
           heads=Heads.BY_CONNECTION),
    _store(name="store-64-unseen",
           about="cookie, Referer and User-Agent differ each time; one page, one session",
           heads=Heads.UNSEEN, main=True),
    _store(name="store-64-mix", about="forty kinds of heads, 2,000 visitors, 100 pages by Zipf",
           heads=Heads.MIXED, main=True),
    _store(name="store-1", about="one connection", connections=1),
    _store(name="store-512", about="512 connections", connections=512),
    _store(name="store-100b", about="100 B body", page="100b"),
    _store(name="store-16k", about="16 KiB body", page="16k"),
    _store(name="store-1m", about="1 MiB body", page="1m"),
    _store(name="store-html", about="16 KiB of HTML, compression on, not asked for",
           page=HTML_PAGE, accepts="identity", retter_only=True, retter_options=COMPRESSING),
    _store(name="store-gzip", about="16 KiB of HTML, compressed", page=HTML_PAGE,
           retter_only=True, retter_options=COMPRESSING),
    _store(name="store-64-workers", about="two workers on the one core: what sharing costs",
           retter_only=True, retter_options=WORKERS, waits_s=WRITTEN_S),
    _store(name="store-close", about="a new connection for each request", close=True),
)  # fmt: skip

SMOKE: Final = (
    "forward-64", "forward-64-unseen", "forward-1m", "forward-post", "forward-close",
    "store-64", "store-64-unseen",
)  # fmt: skip


def chosen(names: str | None, *, quick: bool, smoke: bool) -> list[Scenario]:
    """Return the scenarios that were asked for, in their order.

    Raises:
        ValueError: A name is unknown.
    """
    if names:
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        known = {scenario.name: scenario for scenario in SCENARIOS}
        if unknown := [name for name in wanted if name not in known]:
            raise ValueError(f"no scenario {', '.join(unknown)}; there are: {', '.join(known)}")
        return [known[name] for name in wanted]
    if smoke:
        return [scenario for scenario in SCENARIOS if scenario.name in SMOKE]
    return [scenario for scenario in SCENARIOS if scenario.main or not quick]


def head_template(scenario: Scenario) -> str:
    """Return a head as a browser sends it, with PLACE where heads differ.

    From the store only what does not change the answer's identity may differ: with another path,
    query or session it would be another page, and with the application dead there would be none.
    """
    varied = PLACE if scenario.heads is not Heads.REPEATED else "1".zfill(NUMBER_DIGITS)
    visitor = varied if scenario.mode is Mode.FORWARD else "1".zfill(NUMBER_DIGITS)
    path = "post" if scenario.method == "POST" else scenario.page
    lines = [
        f"{scenario.method} /{path}/articles/{visitor}/autumn-coats?page=2&sort=price&v={visitor} "
        "HTTP/1.1",
        f"Host: {HOST}",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
        + (f" b{varied}" if scenario.mode is Mode.STORE else ""),
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
        "*/*;q=0.8",
        "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
        f"Accept-Encoding: {scenario.accepts}",
        f"Referer: https://{HOST}/articles/{varied}/?page=1&sort=price",
        f"Cookie: PHPSESSID=5f2b1c9a7e4d3f6b8a{visitor}; _ga=GA1.2.{varied}.1731500000; theme=dark",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: same-origin",
        "Upgrade-Insecure-Requests: 1",
    ]
    if scenario.body_bytes:
        lines += [
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {scenario.body_bytes}",
        ]
    lines.append("Connection: close" if scenario.close else "Connection: keep-alive")
    return "\r\n".join(lines) + "\r\n\r\n"


def mixed_heads(scenario: Scenario) -> tuple[Sequence[str], int]:
    """Return the heads of a MIXED scenario, and how many pages there are."""
    forwards = scenario.mode is Mode.FORWARD
    pages = visitors.PAGES if forwards else visitors.STORED_PAGES
    return visitors.heads(sessions=forwards), pages


def warming_requests(scenario: Scenario) -> Iterator[bytes]:
    """Return what has to be stored before the application dies; at least one request."""
    if scenario.heads is not Heads.MIXED or scenario.mode is not Mode.STORE:
        yield request_bytes(scenario, 0)
        return
    heads, pages = mixed_heads(scenario)
    for page in range(pages):
        path = visitors.page_path(scenario.page, page)
        for number, head in enumerate(heads):
            yield visitors.filled(head, path, path, number)


def request_bytes(scenario: Scenario, number: int) -> bytes:
    """Return the whole request with a number in its head."""
    if scenario.heads is Heads.MIXED:
        heads, pages = mixed_heads(scenario)
        path = visitors.page_path(scenario.page, number % pages)
        return visitors.filled(heads[number % len(heads)], path, path, number % visitors.VISITORS)
    head = head_template(scenario).replace(PLACE, str(number).zfill(NUMBER_DIGITS))
    return head.encode() + b"x" * scenario.body_bytes
