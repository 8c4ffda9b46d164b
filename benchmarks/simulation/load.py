"""The load on the simulated proxy, and its times: visitors, crawlers and disturbances."""

from dataclasses import dataclass

ROUTES = (b"GET /", b"GET /list", b"GET /item", b"GET /search", b"GET /report")
POST_ROUTES = tuple(route.replace(b"GET", b"OTHER") for route in ROUTES)


@dataclass(frozen=True, kw_only=True)
class Nuisance:
    """One client, or a few, whose requests get a status of their own, whatever the load."""

    begin: float
    end: float
    rate: float  # requests a second
    status: int
    routes: tuple[bytes, ...]  # in turn
    took_s: float = 0.005  # without a worker: a plugin or a library answers
    at_once: int = 1  # so many come together
    clients: int = 1


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A worker ends in the middle of its work, and another process follows it."""

    at: float
    worker: int  # 0 leads
    back_after_s: float
    noticed: bool = True  # by its parent, at once


@dataclass(frozen=True, kw_only=True)
class Crawl:
    """A crawler: so many requests a second, from so many addresses in no order."""

    begin: float
    end: float
    rate: float
    addresses: int = 20
    word: str = ""  # by which it says what it is
    stored_pages: bool = False  # else pages that nobody has asked for before
    sessions: bool = False  # a new one with each request, made up
    ticket: str = ""  # "forged"; "replayed": one that it was given, by all of its addresses


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Visitors, as shares of `Load.visitors`, and crawlers."""

    crawls: tuple[Crawl, ...] = ()
    known_share: float = 0.0  # carry a session that the application has set
    office: int = 0  # of them are behind one address
    come_again: bool = False  # who is told to wait comes again, with the ticket
    parts: int = 1  # GETs that a visitor sends at once: a page is made of them


@dataclass(frozen=True, kw_only=True)
class Load:
    """Open-loop Poisson arrivals: `phases` are (until, requests a second)."""

    phases: tuple[tuple[float, float], ...]
    post_share: float = 0.1
    coverage: float = 1.0  # of the keys that have a stored response
    cold_store: bool = False  # nothing is stored at first
    # Shares of the routes, from a moment on; equal where nothing is said.
    mixes: tuple[tuple[float, tuple[float, ...]], ...] = ((0.0, (1, 1, 1, 1, 1)),)
    hot_key_share: float = 0.0  # of the GETs are for one page
    restart_at: float | None = None  # the controller loses its memory, the store does not
    stored_after_restart: bool = True
    learnt_before_restart_s: float | None = None  # what was learnt was written so long before
    bursts: tuple[tuple[float, int], ...] = ()  # at a moment, so many GETs at once
    visitors: int = 0  # are told apart; 0: nobody knows who asks
    nuisances: tuple[Nuisance, ...] = ()
    kills: tuple[Kill, ...] = ()  # with several workers
    crowd: Crowd | None = None  # who the visitors are, and who else comes
