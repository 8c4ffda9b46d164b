"""Every setting, declared once: the class `Settings` below.

A field with its metadata gives the command line flag, the environment variable, the key of the
TOML file, the help text and the check of the value. They are merged in this order: flag, variable,
file, default. `cli.py` turns arguments into texts and prints; nothing here writes anything, and
only load.py reads anything (the file named by --config).

`Settings(...)` made in Python is checked in the same way and takes natural values: seconds and
octets as numbers, tuples of str.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Final

from retter.base.client_id import CLIENT_PREFIX
from retter.compression import compressors
from retter.config import kinds, units
from retter.http.known_names import CRAWLER_WORDS, DEFAULT_SESSION_COOKIES, FAILURE_TEXTS

ENVIRONMENT_PREFIX: Final = "RETTER_"

# Types that shrink. Images, video and archives are compressed already, and so are WOFF fonts.
COMPRESSED_TYPES: Final = (
    "text/*", "application/json", "application/*+json", "application/javascript",
    "application/x-javascript", "application/ecmascript", "application/xml", "application/*+xml",
    "image/svg+xml", "application/wasm", "font/ttf", "font/otf", "font/collection",
    "application/x-font-ttf", "application/x-font-otf", "application/vnd.ms-fontobject",
    "image/x-icon", "image/vnd.microsoft.icon", "image/bmp",
)  # fmt: skip

SESSION_COOKIES: Final = tuple([name.decode() for name in DEFAULT_SESSION_COOKIES])

_MILLISECOND_S: Final = 0.001  # the clock of the event loop is no finer


class ConfigError(ValueError):
    """A setting is wrong. The message is one line that says which, why, and where it came from."""


# More processes than the largest machines that one application is run behind have cores for.
WORKERS_MAX: Final = 64

ADMIN_DEFAULT: Final = "127.0.0.1:9090"


@dataclass(frozen=True, slots=True)
class Group:
    """Settings with a common heading."""

    title: str
    about: str


LISTENING: Final = Group("Listening and life", "Where clients connect, and how RETTER stops.")
TLS: Final = Group(
    "TLS",
    "For listeners with ,tls: versions 1.2 and 1.3, HTTP/1.1, a certificate for each name. SIGHUP "
    "reads the files again.",
)
APPLICATION: Final = Group(
    "The application",
    "Its address, and how long to wait for it. These times end a request that has failed for good; "
    "the patience (below) answers a waiting GET long before that.",
)
CLIENTS: Final = Group(
    "Client limits",
    "Limits for one client. No browser reaches the defaults; they stop attackers.",
)
STORE: Final = Group(
    "The store",
    "What is kept of good answers, for how long, and who may see it. Isolation beats availability: "
    "what might identify somebody separates what is stored.",
)
BREAKER: Final = Group(
    "The circuit breaker",
    "When GETs are answered from the store. It learns the application's capacity by itself; "
    "change these only for a reason that you have seen.",
)
ADMIN: Final = Group(
    "The admin listener",
    "For operators: figures, the dashboard, `retter status` and the like.",
)
COMPRESSION: Final = Group(
    "Compression",
    "For clients that ask for it, where the application has not compressed itself.",
)
OUTPUT: Final = Group("Trust and output", "Trusted proxies, response fields, and the logs.")


def _setting(
    default: object,
    group: Group,
    kind: kinds.Kind,
    about: str,
    name: str | None = None,
    *,
    secret: bool = False,
) -> Any:  # as dataclasses.field does: the annotation gives the field's type
    return field(
        default=default,
        repr=not secret,
        metadata={"kind": kind, "group": group, "about": about, "name": name},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. Times are seconds (`_s`), sizes are octets (`_bytes`).

    The name of a flag, variable or key is the field's without its unit: `drain_s` is `--drain`,
    `RETTER_DRAIN` and `drain`. Lists may be given as tuples, lists or one str. Raises ConfigError,
    a ValueError, that names the field.
    """

    # Listening and life
    listen: tuple[str, ...] = _setting(
        (":8089",),
        LISTENING,
        kinds.list_of("ADDRESS", kinds.listen_item, separator=None),
        "Where clients connect: :80 (every interface, IPv4 and IPv6), 127.0.0.1:0 (a free "
        "port, which is printed), [::1]:80 or unix:PATH. With ,proxy at the end (:80,proxy) a "
        "load balancer in front sends the PROXY protocol, version 1 or 2, and is believed. "
        "With ,tls clients speak TLS. May be repeated.",
    )
    config: str = _setting(
        "",
        LISTENING,
        kinds.text("FILE"),
        'A TOML file with settings, one on each line: drain = "30s".',
    )
    drain_s: float = _setting(
        15.0,
        LISTENING,
        kinds.duration(),
        "How long running requests may take to finish when RETTER is asked to stop, and how long "
        "it waits for its clients' next requests when a new process has taken over. Increase it "
        "if downloads are slow.",
    )
    event_loop: str = _setting(
        "auto",
        LISTENING,
        kinds.word("auto", "uvloop", "asyncio"),
        "auto uses uvloop if it is installed. Use asyncio to rule out uvloop.",
        name="loop",
    )

    workers: int = _setting(
        1,
        LISTENING,
        kinds.processes(WORKERS_MAX),
        "Processes that serve, for machines with several cores; auto starts one for each CPU that "
        "RETTER may use. With more than one they share what is stored, for which they need "
        "the lmdb package: pip install 'retter[store]'.",
    )

    # TLS
    tls_cert: tuple[str, ...] = _setting(
        (),
        TLS,
        kinds.list_of("FILE", kinds.file_item),
        "A certificate with its chain, in PEM. May be repeated: the name that the client asks "
        "for selects the certificate; the first one serves all other names.",
    )
    tls_key: tuple[str, ...] = _setting(
        (),
        TLS,
        kinds.list_of("FILE", kinds.file_item),
        "The private key of the certificate at the same position. Not needed if each "
        "certificate file holds its key.",
    )
    https_redirect: int = _setting(
        0,
        TLS,
        kinds.count(0, 65535),
        "Redirect clients of listeners without TLS to https on this port, usually 443. "
        "Requests for /.well-known/acme-challenge/ are forwarded. 0 redirects nobody.",
    )

    # The application
    upstream: str = _setting(
        "",
        APPLICATION,
        kinds.text("ADDRESS", units.parse_upstream),
        "The application to protect: :8080 (this machine), app:8080, https://app, [::1]:8080 "
        "or unix:PATH. Required.",
    )
    upstream_ca: str = _setting(
        "",
        APPLICATION,
        kinds.text("FILE"),
        "For https: the certificate authorities to trust, in PEM, instead of the system's.",
    )
    upstream_name: str = _setting(
        "",
        APPLICATION,
        kinds.text("NAME"),
        "For https: the name in the application's certificate, if --upstream is an address.",
    )
    upstream_insecure: bool = _setting(
        False,
        APPLICATION,
        kinds.switch(),
        "For https: accept any certificate. Anybody on the network path can then read and "
        "change everything.",
    )
    connect_timeout_s: float = _setting(
        3.0,
        APPLICATION,
        kinds.duration(_MILLISECOND_S),
        "How long the application may take to accept a connection before the client gets a "
        "504. Increase it for slow networks.",
    )
    connect_hold_s: float = _setting(
        2.0,
        APPLICATION,
        kinds.duration(),
        "While the application refuses connections, hold requests and retry the connection "
        "for this long before a 502. Set it to the time that a restart takes; 0 holds nothing.",
    )
    upstream_timeout_s: float = _setting(
        15.0,
        APPLICATION,
        kinds.duration(_MILLISECOND_S),
        "How long the application may take to the first byte of its response before the "
        "client gets a 504. Increase it for slow reports.",
    )
    upstream_timeout_unsafe_s: float = _setting(
        60.0,
        APPLICATION,
        kinds.duration(),
        "The same for methods that change something (all but GET, HEAD and OPTIONS), if it is "
        "longer. No stored response can replace theirs, and a client that gets an error may "
        "send them again.",
    )
    upstream_body_timeout_s: float = _setting(
        60.0,
        APPLICATION,
        kinds.duration(_MILLISECOND_S),
        "Longest silence within a response. Increase it for streams that rarely send anything.",
    )
    upstream_body_min_rate_bytes: int = _setting(
        10,
        APPLICATION,
        kinds.size(),
        "A response that delivers fewer bytes per second hangs. The client gets the stored "
        "response instead if nothing has been sent to it yet; otherwise, if there is a stored "
        "response, this one is cut after --upstream-body-timeout. 0 is no limit; "
        "--stream-paths and event streams have none.",
    )
    pool_idle_s: float = _setting(
        1.5,
        APPLICATION,
        kinds.duration(),
        "How long an idle connection to the application is kept. Must be shorter than the "
        "application's own keep-alive (gunicorn: 2s). A longer time saves connection attempts.",
    )
    pool_max_age_s: float = _setting(
        60.0,
        APPLICATION,
        kinds.duration(),
        "A connection to the application that is older gets no more requests, so that a "
        "changed address of its name takes effect. 0 is no limit.",
    )
    pool_size: int = _setting(
        64,
        APPLICATION,
        kinds.count(),
        "Most idle connections to the application that are kept. For a quarter of a second "
        "after a burst there may be more. 0 opens a new connection for each request.",
    )

    # Client limits
    head_bytes_max: int = _setting(
        64 << 10,
        CLIENTS,
        kinds.size(1 << 10),
        "Size of the request line and the fields together; a larger head gets a 431. The "
        "default has room for 32 KiB of cookies.",
    )
    head_fields_max: int = _setting(
        128,
        CLIENTS,
        kinds.count(8),
        "Number of fields in a request (more: 431) or in a response (more: 502).",
    )
    target_bytes_max: int = _setting(
        16 << 10,
        CLIENTS,
        kinds.size(128),
        "Size of path and query; a longer target gets a 414. Browsers and crawlers stay below "
        "8 KiB.",
    )
    request_body_bytes_max: int = _setting(
        0,
        CLIENTS,
        kinds.size(),
        "Size of a request body; a larger body gets a 413. 0 is no limit: the application has "
        "its own.",
    )
    head_timeout_s: float = _setting(
        10.0,
        CLIENTS,
        kinds.duration(_MILLISECOND_S),
        "Time from the first byte of a head to its last, then 408. This stops slowloris attacks.",
    )
    body_idle_timeout_s: float = _setting(
        30.0,
        CLIENTS,
        kinds.duration(_MILLISECOND_S),
        "Longest silence within a request body, then 408. Increase it for uploads over bad "
        "networks.",
    )
    body_min_rate_bytes: int = _setting(
        500,
        CLIENTS,
        kinds.size(),
        "Lowest rate of a request body in bytes per second, on average over "
        "--body-idle-timeout, then 408. So nobody occupies the application byte by byte. "
        "Modems send ten times as much. 0 is no limit, and --stream-paths have none.",
    )
    keep_alive_s: float = _setting(
        75.0,
        CLIENTS,
        kinds.duration(_MILLISECOND_S),
        "How long an idle client connection is kept. A shorter time saves memory, about 2 KB "
        "for each.",
    )
    write_timeout_s: float = _setting(
        60.0,
        CLIENTS,
        kinds.duration(_MILLISECOND_S),
        "A client that reads no byte of its response for this long is disconnected.",
    )
    write_buffer_bytes_max: int = _setting(
        64 << 10,
        CLIENTS,
        kinds.size(1 << 10),
        "Bytes of a response that any connection may have unsent. More is buffered as far as "
        "--buffer-answer allows it; beyond that the application is not read.",
    )
    buffer_request_bytes: int = _setting(
        256 << 10,
        CLIENTS,
        kinds.size(),
        "A request goes to the application when its body has arrived, or this much of it, so "
        "that a slow client occupies nothing there. 0 forwards bodies as they arrive, as for "
        "--stream-paths.",
    )
    buffer_answer_bytes: int = _setting(
        1 << 20,
        CLIENTS,
        kinds.size(),
        "Bytes of a response that are buffered for a client that does not read them yet, in "
        "addition to --write-buffer-max. The application is free as soon as it has written "
        "them. 0 makes it wait for the client.",
    )
    buffer_memory_bytes: int = _setting(
        16 << 20,
        CLIENTS,
        kinds.size(),
        "Memory for all buffered bodies together. One body takes at most a quarter of what is "
        "free, one client half of all; more is forwarded as it arrives. 0 buffers nothing.",
    )
    pipeline_max: int = _setting(
        32,
        CLIENTS,
        kinds.count(1),
        "Requests that a client may send before it has the responses (browsers never do). "
        "More are not read until then. This many are answered before other clients have their "
        "turn.",
    )
    connections_max: int = _setting(
        12_000,
        CLIENTS,
        kinds.count(1),
        "Client connections in total, or as many as the limit of open files allows.",
    )
    connections_per_address_max: int = _setting(
        0,
        CLIENTS,
        kinds.count(),
        "Client connections from one address; all addresses of an IPv6 network of 64 bits "
        "(--client-prefix) are one. 0 is no limit: a whole office may share one address.",
    )
    requests_per_connection_max: int = _setting(
        0,
        CLIENTS,
        kinds.count(),
        "Requests after which a client connection is closed. 0 is no limit.",
    )

    # The store
    store_memory_bytes: int = _setting(
        64 << 20,
        STORE,
        kinds.size(),
        "Memory for stored responses and everything that belongs to them. Responses that were "
        "requested only once are evicted first. Increase it if pages are missing when the "
        "application fails; 0 stores nothing.",
    )
    store: str = _setting(
        "",
        STORE,
        kinds.text("FOLDER"),
        "Keep stored responses on disk too, in this folder, so that they survive a restart, a "
        "crash and a reboot. Needs the lmdb package: pip install 'retter[store]'.",
    )
    store_disk_bytes: int = _setting(
        1 << 30,
        STORE,
        kinds.size(1 << 20),
        "Size of the responses on disk; the least recently used are evicted first. The file "
        "may become twice as large.",
    )
    store_private: str = _setting(
        "on",
        STORE,
        kinds.word("on", "off"),
        "off keeps responses to visitors with sessions, other cookies or credentials only in "
        "memory, never on disk.",
    )
    shared: str = _setting(
        "",
        STORE,
        kinds.server_url(),
        "Share stored responses, logouts, purges and an operator's orders with other RETTERs in "
        "front of the same application, through Redis or Valkey (6.2 or later): "
        "redis://[USER:PASSWORD@]HOST[:PORT][/N], rediss://... with TLS, or unix://PATH. Needs "
        "--shared-secret and the redis package: pip install 'retter[shared]'. Prefer the variable "
        "or a file if there is a password.",
        secret=True,
    )
    shared_secret: str = _setting(
        "",
        STORE,
        kinds.text("FILE"),
        "A file with a secret of at least 32 characters, the same on all boxes of one "
        "application (openssl rand -hex 32). Without it nobody can read or forge what is shared.",
    )
    store_object_bytes_max: int = _setting(
        1 << 20,
        STORE,
        kinds.size(),
        "A response with a larger body is forwarded but not stored.",
    )
    store_policy: str = _setting(
        "all",
        STORE,
        kinds.word("all", "rfc9111"),
        "all stores every good response, separately for each person. rfc9111 obeys "
        "Cache-Control as a shared cache must, so it has fewer responses when the application "
        "fails.",
    )
    max_stale_s: float = _setting(
        24 * 3600.0,
        STORE,
        kinds.duration(_MILLISECOND_S),
        "A response older than this is never served. Decrease it if an old page does more harm "
        "than an error.",
    )
    ignore_query: bool = _setting(
        False,
        STORE,
        kinds.switch(),
        "Store one response per path, whatever the query. Only if queries never change a page.",
    )
    ignore_host: bool = _setting(
        False,
        STORE,
        kinds.switch(),
        "Store one response for all host names. Only if they show the same site.",
    )
    ignore_params: tuple[str, ...] = _setting(
        (),
        STORE,
        kinds.list_of("NAMES", kinds.parameter_pattern),
        "Query parameters that never change a page: utm_*,fbclid.",
    )
    never_store: tuple[str, ...] = _setting(
        (),
        STORE,
        kinds.list_of("PATHS", kinds.target_pattern),
        "Paths whose GET changes something, with * as wildcard; after a ? the parameter that "
        "does it: /checkout/*,/*?add-to-cart=*. Only the application answers them. Two kinds "
        "are known without this: logouts (logout, logout-all, logoff, signout or abmelden as a "
        "segment of the path, as a parameter or at its end) and URLs with a token that works once "
        "(_wpnonce, _token).",
    )
    session_cookies: tuple[str, ...] = _setting(
        SESSION_COOKIES,
        STORE,
        kinds.list_of("NAMES", kinds.cookie_pattern),
        "Cookies that each identify one person, with * as wildcard. They replace the default "
        "list (PHP, Django, Rails, Laravel, Express, Flask, ASP.NET, WordPress, Spring, "
        "Symfony and others: see --check-config). A request is separated by all its cookies "
        "together if it has none of these, if the value is too short for a secret (16 "
        "characters, or 24 where only a * matches), or if the application has not yet been "
        "seen to set the cookie. Cookies that you name here count as sessions from the start.",
    )
    rolling_cookies: tuple[str, ...] = _setting(
        (),
        STORE,
        kinds.list_of("NAMES", kinds.cookie_pattern),
        "Session cookies that the application encrypts again with each response, as Laravel "
        "and Rails do: laravel_session,_app_session, with * as wildcard. A new value in a "
        "page continues the session of the old one. Signed cookies (Flask, Django) need no "
        "setting. Read docs/security.md first.",
    )
    ignore_cookies: tuple[str, ...] = _setting(
        (),
        STORE,
        kinds.list_of("NAMES", kinds.ignored_cookie_pattern),
        "More cookies that identify nobody and change no page, with * as wildcard. Those of "
        "common analytics and consent tools are known.",
    )
    neutral_headers: tuple[str, ...] = _setting(
        (),
        STORE,
        kinds.list_of("NAMES", kinds.neutral_field),
        "More request fields that identify nobody. Responses to requests with an unknown "
        "field are separated by its value.",
    )
    vary_on: tuple[str, ...] = _setting(
        (),
        STORE,
        kinds.list_of("NAMES", kinds.neutral_field),
        "Request fields that identify nobody and change the response although its Vary does "
        "not say so. Each value has its own stored response. Known without this: Accept, "
        "prefetches, fragments for scripts and others (docs/stored.md).",
    )
    anonymous_fallback: bool = _setting(
        True,
        STORE,
        kinds.switch(),
        "Do not show the public response (fetched without any cookie or credential) to "
        "somebody with cookies who has no stored response of their own.",
    )

    # The circuit breaker
    circuit: str = _setting(
        "auto",
        BREAKER,
        kinds.word("auto", "open", "closed", "observe"),
        "open answers from the store whatever is stored there. closed forwards everything. "
        "observe forwards everything too; X-Circuit and the log say what auto would do. In "
        "all modes a stored response hides a failure.",
    )
    max_in_flight: int = _setting(
        0,
        BREAKER,
        kinds.count(),
        "Most requests at the application at once, whatever RETTER measures. 0 is no limit.",
    )
    limit_start: int = _setting(
        8,
        BREAKER,
        kinds.count(1),
        "How many requests the application can work on at once: a hint for the first second only.",
    )
    limit_head: bool = _setting(
        False,
        BREAKER,
        kinds.switch(),
        "Treat HEAD like GET: limit it, and answer it from the store to spare the application "
        "work.",
    )
    patience_min_s: float = _setting(
        0.5,
        BREAKER,
        kinds.duration(_MILLISECOND_S),
        "Shortest time that a GET with a stored response waits for the first byte before it "
        "gets the stored one. The time is measured for each route and kept between this and "
        "--patience-max.",
    )
    patience_max_s: float = _setting(
        5.0,
        BREAKER,
        kinds.duration(_MILLISECOND_S),
        "Longest such time, for slow routes.",
    )
    patience_closed_s: float = _setting(
        5.0,
        BREAKER,
        kinds.duration(_MILLISECOND_S),
        "The same while the circuit is closed and nothing indicates a problem.",
    )
    queue_wait_s: float = _setting(
        2.0,
        BREAKER,
        kinds.duration(),
        "How long a GET without a stored response waits for a place at the application, then 503.",
    )
    queue_max: int = _setting(
        10_000,
        BREAKER,
        kinds.count(),
        "How many requests may wait for a place, 2 KB each. With 0 none waits.",
    )
    write_wait_s: float = _setting(
        2.0,
        BREAKER,
        kinds.duration(),
        "Longest time that a request with another method than GET waits while the application "
        "is known to fail if it gets more requests at once. Then it is forwarded.",
    )
    retry_after_s: float = _setting(
        2.0,
        BREAKER,
        kinds.duration(),
        "Retry-After of a 503 from RETTER, varied so that not everybody comes back at once.",
    )
    failure_ratio: float = _setting(
        0.5,
        BREAKER,
        kinds.share(),
        "Share of failures in the last 2s that opens the circuit. Increase it for an "
        "application that often fails anyway.",
    )
    failure_volume: int = _setting(
        10,
        BREAKER,
        kinds.count(1),
        "With fewer responses in the last 2s, the share of failures opens nothing.",
    )
    open_min_s: float = _setting(
        1.0,
        BREAKER,
        kinds.duration(_MILLISECOND_S),
        "How long an open circuit waits before the first probe.",
    )
    open_max_s: float = _setting(
        5.0,
        BREAKER,
        kinds.duration(_MILLISECOND_S),
        "Longest wait between two probes. Decrease it to notice a recovery sooner.",
    )
    fresh_for_s: float = _setting(
        0.0,
        BREAKER,
        kinds.duration(),
        "While the application is overloaded, answer with stored responses that are younger "
        "than this without asking it. 1s leaves its capacity to more pages.",
    )
    failure_statuses: tuple[int, ...] = _setting(
        (),
        BREAKER,
        kinds.list_of("CODES", kinds.failure_status),
        "More statuses that count as failures, besides 5xx without 501 and 505.",
    )
    failure_text: tuple[str, ...] = _setting(
        ("auto",),
        BREAKER,
        kinds.failure_texts(),
        "Texts of error pages that come with status 200. Such a page is a failure if it is "
        "smaller than 16 KiB and smaller than half of the stored response. auto stands for "
        "the texts of common databases, WordPress, PHP and shops; add your own: auto,Our shop "
        "is down. off looks for none.",
    )
    routes: tuple[str, ...] = _setting(
        (),
        BREAKER,
        kinds.list_of("PATHS", kinds.path_pattern),
        "Paths that each are one route for the route breakers: /api/*,/search. The first "
        "match counts. Other paths are grouped by their first segments.",
    )
    stream_paths: tuple[str, ...] = _setting(
        (),
        BREAKER,
        kinds.list_of("PATHS", kinds.path_pattern),
        "Paths of long polls and other responses that take long on purpose: /poll/*. They are "
        "forwarded without limit and patience, and never stored. WebSockets and event streams "
        "are recognised without this.",
    )

    fairness: str = _setting(
        "on",
        BREAKER,
        kinds.word("on", "off", "observe"),
        "Order of the queue while the application is overloaded: a client that uses more than "
        "its fair share waits behind all others, and a visitor who has to wait gets a page "
        "that reloads by itself. off: one queue for all. observe: only count.",
    )
    client_prefix: tuple[int, int] = _setting(
        CLIENT_PREFIX,
        BREAKER,
        kinds.client_prefix(),
        "How many bits of an IPv4 and of an IPv6 address identify a client.",
    )
    crawlers: tuple[str, ...] = _setting(
        ("auto",),
        BREAKER,
        kinds.crawler_words(),
        "Words in User-Agent that identify crawlers, which wait behind all others. auto is a "
        "list of known ones; add your own: auto,mybot. off: no crawler is recognised by its "
        "User-Agent.",
    )

    # The admin listener
    admin: str = _setting(
        "auto",
        ADMIN,
        kinds.text("ADDRESS", kinds.check_admin_address),
        f"Where the dashboard, the commands and /metrics are served: {ADMIN_DEFAULT}, unix:PATH "
        f"or off. auto is {ADMIN_DEFAULT} if that is free; inside another program it is off.",
    )
    admin_token: str = _setting(
        "",
        ADMIN,
        kinds.secret(),
        "What a client must send as Authorization: Bearer. Required if programs of other "
        "machines can connect. Prefer RETTER_ADMIN_TOKEN or a file: all users of a machine "
        "see the options of its programs.",
        secret=True,
    )
    admin_token_file: str = _setting(
        "",
        ADMIN,
        kinds.text("FILE"),
        "A file with the token in its first line.",
    )

    # Compression
    compress: tuple[str, ...] = _setting(
        ("auto",),
        COMPRESSION,
        kinds.codings(),
        "off, or codings in order of preference: gzip,br. auto is zstd,gzip,br as far as they "
        "are installed (pip install zstandard brotli). Turn it off, or exclude paths, where a "
        "page shows a secret together with input of its visitor (BREACH).",
    )
    compress_types: tuple[str, ...] = _setting(
        COMPRESSED_TYPES,
        COMPRESSION,
        kinds.list_of("TYPES", kinds.media_type_pattern),
        "Media types that are compressed, with * as wildcard. Event streams are never compressed.",
    )
    compress_exclude: tuple[str, ...] = _setting(
        (),
        COMPRESSION,
        kinds.list_of("PATHS", kinds.path_pattern),
        "Paths whose responses are not compressed: /account/*.",
    )
    compress_min_bytes: int = _setting(
        300,
        COMPRESSION,
        kinds.size(),
        "Smaller bodies are not compressed: that would not save a packet.",
    )
    compress_level: int = _setting(
        1,
        COMPRESSION,
        kinds.count(1, 9),
        "gzip level for forwarded bodies. Above 3, each level takes 50 % more time and "
        "saves a percent or two. Stored bodies are compressed once, with a high level.",
    )

    # Trust and output
    trusted_proxies: tuple[kinds.TrustedProxy, ...] = _setting(
        (),
        OUTPUT,
        kinds.list_of("NETWORKS", kinds.trusted_proxy),
        "Proxies in front of RETTER whose X-Forwarded-* fields are believed: 10.0.0.0/8,unix:",
    )
    headers: bool = _setting(
        True,
        OUTPUT,
        kinds.switch(),
        "Do not send X-Retter, X-Circuit and Cache-Status.",
    )
    error_page: str = _setting(
        "",
        OUTPUT,
        kinds.text("FILE"),
        "An HTML file for RETTER's own 502, 503 and 504 responses.",
    )
    access_log: str = _setting(
        "",
        OUTPUT,
        kinds.text("FILE"),
        "Write one line per request to FILE, or to the standard output with -.",
    )
    access_log_format: str = _setting(
        "json",
        OUTPUT,
        kinds.word("json", "combined", "combined-lane"),
        "combined is the format of Apache and nginx, which many tools read; json has more. "
        "combined-lane has the lane of the queue as one more field.",
    )
    access_log_sample: float = _setting(
        1.0,
        OUTPUT,
        kinds.share(),
        "Write lines for this share of the good responses: 0.01. Errors are always written.",
    )
    log_level: str = _setting(
        "info",
        OUTPUT,
        kinds.word("debug", "info", "warning", "error"),
        "The least important level that is logged.",
    )
    log_format: str = _setting(
        "auto",
        OUTPUT,
        kinds.word("auto", "console", "json"),
        "auto is console on a terminal and JSON lines elsewhere.",
    )

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            try:
                accepted = setting.kind.accept(getattr(self, setting.field))
            except ValueError as error:
                raise ConfigError(f"{setting.field}: {error}") from None
            object.__setattr__(self, setting.field, accepted)
        self._check_admin()
        if not self.listen:
            raise ConfigError(f"listen: no address given; write {units.LISTEN_FORMS}")
        for smaller, larger in _ORDERED:
            limit = getattr(self, larger)
            if limit and getattr(self, smaller) > limit:
                raise Contradiction(smaller, "may not be larger than", larger)

    @property
    def uses_tls(self) -> bool:
        """Whether a listener or the connections to the application use TLS, or a file is for it."""
        return (
            bool(self.tls_cert)
            or units.parse_upstream(self.upstream).tls
            or any(units.parse_listen(text).tls for text in self.listen)
        )

    @property
    def codings(self) -> tuple[str, ...]:
        """Return the codings that `compress` stands for, in order of preference."""
        if self.compress != ("auto",):
            return self.compress
        return tuple([name for name in kinds.CODING_NAMES if compressors.available(name.encode())])

    @property
    def crawler_words(self) -> tuple[str, ...]:
        """Return the words that `crawlers` stands for."""
        own = tuple([word for word in self.crawlers if word != "auto"])
        return (*CRAWLER_WORDS, *own) if "auto" in self.crawlers else own

    @property
    def failure_texts(self) -> tuple[str, ...]:
        """Return the texts that `failure_text` stands for."""
        own = tuple([text for text in self.failure_text if text != "auto"])
        return (*FAILURE_TEXTS, *own) if "auto" in self.failure_text else own

    def _check_admin(self) -> None:
        if self.admin_token and self.admin_token_file:
            raise Contradiction("admin_token", "cannot be combined with", "admin_token_file")
        if self.admin in ("auto", "off", "") or self.admin_token or self.admin_token_file:
            return
        address = units.parse_listen(self.admin)
        if address.kind == "tcp" and not units.is_loopback(address.host):
            raise Contradiction(
                "admin",
                "is open to other machines and therefore needs a token:",
                "admin_token_file",  # users of the machine see a token on the command line
            )


# The first may not be larger than the second, unless the second is switched off.
_ORDERED: Final = (
    ("store_object_bytes_max", "store_memory_bytes"),
    ("patience_min_s", "patience_max_s"),
    ("patience_min_s", "patience_closed_s"),
    ("open_min_s", "open_max_s"),
    ("fresh_for_s", "max_stale_s"),
)


class Contradiction(ConfigError):
    """Two settings that are valid by themselves contradict each other."""

    def __init__(self, first: str, relation: str, second: str) -> None:
        super().__init__(f"{first} {relation} {second}")
        self.first, self.relation, self.second = first, relation, second


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting, as the command line and the file see it."""

    field: str  # of Settings: drain_s
    name: str  # the key in the file, and with dashes the flag: drain
    kind: kinds.Kind
    group: Group
    about: str  # the effect of its flag, and when to change it
    default: object

    @property
    def flag(self) -> str:
        """Return the flag that changes the default: `--drain`, `--ignore-query`, `--no-headers`."""
        return self.flag_for("false" if self.default is True else "")

    @property
    def is_switch(self) -> bool:
        return isinstance(self.default, bool)

    def flag_for(self, text: str) -> str:
        """Return the flag that gives this text: a switch has one for each of its values."""
        negative = self.is_switch and text == "false"
        return f"--{'no-' if negative else ''}{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


def _declared() -> tuple[Setting, ...]:
    return tuple(
        [
            Setting(
                one.name,
                one.metadata["name"] or one.name.removesuffix("_s").replace("_bytes", ""),
                one.metadata["kind"],
                one.metadata["group"],
                one.metadata["about"],
                one.default,
            )
            for one in fields(Settings)
        ]
    )


SETTINGS: Final[tuple[Setting, ...]] = _declared()
SETTING_OF: Final = {setting.name: setting for setting in SETTINGS}
