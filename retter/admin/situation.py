"""The situation in words: one table that the dashboard, the commands and the log share.

`derive` takes the figures of one moment (`Facts`) and says what is going on, what visitors get,
what RETTER does and what an operator can do. The first row of `ROWS` that fits is the situation;
other rows that fit and say something of their own stand in `also`.

A row is a name, a tone, a condition and three sentences. The tone orders them: a worse one is shown
at once, a better one when it has lasted (watch.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from retter.base.counters import NO_ANSWERS, Answers

LATELY_S: Final = 10  # the counts of `Facts` are those of this many seconds
HUNG_S: Final = 3.0  # without an answer for this long, and with several waiting, it hangs
HUNG_CLOSED_S: Final = 10.0  # the same while CLOSED: three long reports are not a hang
UNANSWERED_S: Final = 60.0  # a last request without an answer that is older says nothing any more
HUNG_MIN: Final = 3  # requests: one or two may be long on purpose
DOWN_S: Final = 1.0  # without an answer for this long, all connections fail, and not only one
IDLE_S: Final = 10.0  # without a request for this long, RETTER is idle
FAILING_SHARE: Final = 0.01  # of the answers: less is usual on any site
FAILING_MIN: Final = 3  # errors: one or two are no situation
BUSY_SHARE: Final = 0.7  # of the places
HEAVY_SHARE: Final = 0.5  # of the application's work, for one client
WELL_S: Final = 3.0  # without a failure for this long, the trouble is over
LAG_S: Final = 0.25  # visitors notice a delay this long


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The figures of one moment. Counts are of the last ten seconds, times are in seconds."""

    upstream: str = "the application"
    # the circuit
    state: str = "CLOSED"
    in_flight: int = 0
    limit: float = 8.0
    waiting: int = 0  # for a place
    held: int = 0  # for the end of a pause
    routes_open: tuple[str, ...] = ()
    # operators
    forced: str | None = None  # the mode, if it is not automatic
    forced_s: int | None = None  # left; None: by the configuration
    paused_s: int | None = None  # left; None: no pause
    draining: bool = False
    successor: bool = False  # another process has taken over
    connections: int = 0  # of clients
    # the application
    fault: str = ""  # why no connection can be made
    met: bool = True  # a connection was made at least once
    oldest_s: float = 0.0  # the longest that a request waits there
    silent_s: float = 0.0  # since its last answer
    unanswered_s: float = 0.0  # the same, but not before somebody waited for one
    timed_out: bool = False  # no answer has come since a request took too long
    errors: Mapping[str, int] = field(default_factory=dict[str, int])  # by reason
    well_s: float = 0.0  # since the last error, refusal, or client that gave up
    # visitors
    gets: Answers = NO_ANSWERS
    others: Answers = NO_ANSWERS
    requests: int = 0  # since the start
    idle_s: float = 0.0  # since the last request
    heaviest: tuple[str, float] | None = None  # who asks for too much, and its share of the work
    would_shed: int = 0  # in observe mode: requests that would not have been forwarded
    # RETTER itself
    store_full: float = 0.0  # share of the memory for responses in use
    evicted: int = 0  # responses, for lack of room
    no_descriptors: int = 0  # connections that failed or were closed for lack of descriptors
    turned_away: int = 0  # client connections that were refused, or closed for others
    log_lost: int = 0  # lines of the logs
    log_trouble: str = ""  # why the access log cannot be written
    disk_aside: str = ""  # why the store on disk was set aside
    disk_trouble: str = ""  # why it is not used, or cannot be written
    shared_trouble: str = ""  # why the server that boxes share is not used
    out_of_memory: int = 0  # times
    lag_s: float = 0.0  # of the event loop

    @property
    def all(self) -> Answers:
        """The answers to all methods."""
        return self.gets.plus(self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The situation, in sentences."""

    row: str  # a word for programs, titles and icons
    tone: str  # one of TONES
    now: str  # what is going on
    visitors: str  # what they get
    retter: str  # what RETTER does
    you: str  # what an operator can do; "" for nothing
    also: tuple[str, ...] = ()  # further situations at the same time
    rows_beside: tuple[str, ...] = ()  # the rows of those sentences


TONES: Final = ("good", "off", "note", "busy", "trial", "bad")
"""From the best to the worst. `off` is what an operator wanted; `note` concerns no visitor yet."""


Words = Callable[[Facts], str]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    tone: str
    fits: Callable[[Facts], bool]
    now: Words
    retter: Words
    you: Words
    beside: bool = False  # says something of its own beside a row above it
    hides: bool = False  # the application's own state says nothing meanwhile


# -- figures in words -----------------------------------------------------------------------------


def length(seconds: float) -> str:
    """Return a duration in words: `42 s`, `9 min 12 s`, `2 h 13 min`, `4 d 3 h`."""
    s = max(0, round(seconds))
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min" + (f" {s % 60} s" if s < 600 and s % 60 else "")
    if s < 86400:
        return f"{s // 3600} h {s % 3600 // 60} min"
    return f"{s // 86400} d {s % 86400 // 3600} h"


def count(n: float, one: str, many: str = "") -> str:
    """`1 page`, `511 pages`, `1,024 queries`."""
    return f"{n:,.0f} {one if n == 1 else many or one + 's'}"


def visitors(facts: Facts) -> str:
    """Return what visitors have got lately: GETs and other methods apart."""
    gets, others = facts.gets, facts.others
    parts = [text for text in (_gets(gets), _others(others), _waiters(facts)) if text]
    if not gets.all and not others.all:
        if facts.in_flight or facts.waiting or facts.held:
            held = f"{facts.held:,} wait for the end of the pause" if facts.held else "some wait"
            return f"Nobody has got an answer in the last 10 s; {(parts or [held])[-1]}."
        if not facts.requests:
            return "No visitor has come yet."
        return f"Nobody asks at present. The last request came {length(facts.idle_s)} ago."
    return "In the last 10 s, " + "; ".join(parts) + "."


def _gets(gets: Answers) -> str:
    if not gets.all:
        return ""
    stored = f", {gets.stored:,} of them from the store" if gets.stored else ""
    if gets.stored and gets.stored == gets.good:
        stored = ", from the store" if gets.good == 1 else ", all of them from the store"
    if gets.good == gets.all:
        page = "the one GET got a page" if gets.all == 1 else f"all {gets.all:,} GETs got a page"
        return page + stored
    return f"{gets.good:,} of {count(gets.all, 'GET')} got a page{stored}{_bad(gets)}"


def _others(others: Answers) -> str:
    if not others.all:
        return ""
    if others.good == others.all:
        return (
            f"all {count(others.all, 'other request')} were answered"
            if others.all > 1
            else ("the one other request was answered")
        )
    return f"{others.good:,} of {count(others.all, 'other request')} answered{_bad(others)}"


def _bad(answers: Answers) -> str:
    parts = [
        f"{n:,} {words}"
        for n, words in (
            (answers.refused, "got a 503"),
            (answers.failed, "got an error"),
            (answers.gave_up, "gave up"),
        )
        if n
    ]
    return "".join([f", {part}" for part in parts])


def _waiters(facts: Facts) -> str:
    if facts.oldest_s < HUNG_S or not facts.in_flight:
        return ""
    return (
        f"{count(facts.in_flight, 'request')} at the application, the oldest for "
        f"{length(facts.oldest_s)}"
    )


def _names(routes: tuple[str, ...]) -> str:
    shown = ", ".join(routes[:3])
    return shown + (f" and {len(routes) - 3} more" if len(routes) > 3 else "")


def _ordered(facts: Facts, what: str) -> str:
    """Return who has ordered it, and for how long."""
    if facts.forced_s is None:
        return f"The configuration {what}"
    return f"An operator {what}, for {length(facts.forced_s)} more"


def _causes(errors: Mapping[str, int]) -> str:
    """The most frequent reasons, with their counts."""
    ranked = sorted(errors.items(), key=lambda one: -one[1])
    return ", ".join([f"{n:,} {_CAUSES.get(reason, reason)}" for reason, n in ranked[:2]])


def _with_hidden(facts: Facts) -> str:
    """The causes of errors; there are more of them than errors if the store hid some."""
    if not facts.errors:
        return ""
    hidden = sum(facts.errors.values()) > 2 * facts.all.failed
    return f": {_causes(facts.errors)}" + (", most of them hidden" if hidden else "")


_CAUSES: Final = {
    "connect-refused": "refused connections",
    "connect-timeout": "connections timed out",
    "upstream-tls": "failed TLS handshakes",
    "no-descriptors": "without a descriptor",
    "upstream-reset": "broken connections",
    "upstream-timeout": "without an answer in time",
    "upstream-malformed": "malformed answers",
    "upstream-status": "answers with a 5xx status",
    "failure-text": "error pages with a good status",
}


# -- conditions -----------------------------------------------------------------------------------


def _is_hung(facts: Facts) -> bool:
    if facts.unanswered_s < HUNG_S or facts.fault:
        return False
    # On a quiet site few wait at once: the last request took too long, or the store hides one.
    is_late = facts.state == "CLOSED" and facts.gets.stored > 0 and facts.oldest_s >= HUNG_S
    if (facts.timed_out and facts.well_s < UNANSWERED_S) or is_late:
        return True
    wait_s = HUNG_CLOSED_S if facts.state == "CLOSED" else HUNG_S
    return facts.in_flight >= HUNG_MIN and facts.oldest_s >= wait_s


def _is_over(facts: Facts) -> bool:
    """Whether all that went wrong lately is some seconds ago."""
    answers = facts.all
    bad = sum(facts.errors.values()) + answers.failed + answers.refused + answers.gave_up
    return bad >= FAILING_MIN and facts.well_s >= WELL_S and answers.good > 0


def _is_failing(facts: Facts) -> bool:
    bad = facts.all.failed
    return facts.well_s < WELL_S and bad >= FAILING_MIN and bad > FAILING_SHARE * facts.all.all


def _is_refusing(facts: Facts) -> bool:
    bad = facts.all.refused
    return facts.well_s < WELL_S and bad >= FAILING_MIN and bad > FAILING_SHARE * facts.all.all


def _gives_up(facts: Facts) -> bool:
    gone = facts.all.gave_up
    return facts.well_s < WELL_S and gone >= FAILING_MIN and gone > FAILING_SHARE * facts.all.all


def _errors_hidden(facts: Facts) -> bool:
    errors = sum(facts.errors.values())
    return (
        facts.well_s < WELL_S and errors >= FAILING_MIN and errors > FAILING_SHARE * facts.all.all
    )


def _is_heavy(facts: Facts) -> bool:
    return (
        facts.state == "LIMITING"
        and facts.heaviest is not None
        and facts.heaviest[1] >= HEAVY_SHARE
    )


def _is_limiting_nobody(facts: Facts) -> bool:
    few = facts.in_flight < BUSY_SHARE * facts.limit and not facts.all.stored
    idle = not facts.in_flight or few
    return facts.state == "LIMITING" and idle and not facts.waiting


def _is_busy(facts: Facts) -> bool:
    return facts.waiting > 0 or facts.in_flight >= max(2.0, BUSY_SHARE * facts.limit)


def _nothing(_: Facts) -> str:
    return ""


def _say(text: str) -> Words:
    return lambda _: text


_KEEPS_TRYING = (
    "RETTER answers GETs from the store where it has the page, and asks the application again and "
    "again, less and less often."
)
_LOOK: Final = "Look at the application's log and at what it depends on (database, disk, memory)."


def _log_lost(facts: Facts) -> str:
    lost = f"{count(facts.log_lost, 'log line')} could not be written"
    if not facts.log_trouble:
        return f"{lost}."
    more = f"; {count(facts.log_lost, 'line')} dropped in the last 10 s" if facts.log_lost else ""
    return f"The access log is not written: {facts.log_trouble}{more}."


def _heavy_name(facts: Facts) -> str:
    assert facts.heaviest is not None, "the condition says so"
    name, share = facts.heaviest
    return f"{name or 'a client'}, {100 * share:.0f} % of the work"


# -- the table ------------------------------------------------------------------------------------

ROWS: Final[tuple[Row, ...]] = (
    # The process ends, or has no means.
    Row("taking over", "off", lambda f: f.draining and f.successor,
        lambda f: f"Another RETTER has taken over. This one finishes "
                  f"{count(f.connections, 'connection')}.",
        _say("New connections go to the new process. This one answers what has begun, and ends."),
        _say("Wait, then look at the new process: it answers here in a moment."), hides=True),
    Row("draining", "off", lambda f: f.draining,
        lambda f: f"RETTER is shutting down. It finishes {count(f.connections, 'connection')}.",
        _say("It answers what has begun, accepts nothing new, and ends."),
        _say("Wait. A second signal ends it at once."), hides=True),
    Row("no memory", "bad", lambda f: f.out_of_memory > 0,
        _say("RETTER has run out of memory."),
        _say("It has emptied its store and keeps less from now on."),
        _say("Lower `--store-memory`, or raise the memory limit of the process or the machine."),
        beside=True),
    Row("no descriptors", "bad", lambda f: f.no_descriptors > 0,
        lambda f: f"RETTER has no descriptors left: {count(f.no_descriptors, 'connection')} "
                  "failed or were closed.",
        _say("It closes idle connections to make room. New clients may be refused."),
        _say("Raise the limit of open files: `ulimit -n`, or `LimitNOFILE=` in a systemd unit."),
        beside=True),
    Row("no room", "bad", lambda f: f.turned_away > 0,
        lambda f: "RETTER has no room for more clients: "
                  f"{count(f.turned_away, 'connection')} closed or refused in the last 10 s.",
        _say("For each new client it closes the connection that has been idle longest."),
        _say("Raise `--connections-max` and the limit of open files, or look who opens so "
             "many."),
        beside=True),
    # An operator's word.
    Row("paused", "off", lambda f: f.paused_s is not None,
        lambda f: f"An operator has paused the application, for {length(f.paused_s or 0)} more.",
        lambda f: "RETTER sends it nothing. GETs get their stored page. GETs without one, and all "
                  f"other methods, are held for up to 50 s ({f.held} at present), then get 503.",
        _say("`retter resume` ends the pause; it ends by itself when the time is over."),
        hides=True),
    Row("held open", "off", lambda f: f.forced == "open",
        lambda f: f"{_ordered(f, 'holds the circuit open')}.",
        _say("GETs get their stored page. GETs without one, and all other methods, still go to "
             "the application, within its limit."),
        _say("`retter circuit auto` lets RETTER decide again.")),
    Row("held closed", "off", lambda f: f.forced == "closed",
        lambda f: f"{_ordered(f, 'holds the circuit closed')}.",
        _say("Everything goes to the application, however many come. Only a GET that fails, or "
             "is late, gets its stored page."),
        _say("`retter circuit auto` lets RETTER protect the application again.")),
    Row("observing", "off", lambda f: f.forced == "observe",
        lambda f: f"{_ordered(f, 'has RETTER observe only')}." + (
            f" It would have spared the application {count(f.would_shed, 'request')} lately."
            if f.would_shed else ""),
        lambda f: "Everything is forwarded. In automatic mode the circuit would be "
                  f"{f.state} now.",
        _say("`retter circuit auto` switches protection on.")),
    # Not there, hung, failing.
    Row("nothing there", "bad", lambda f: bool(f.fault) and not f.met,
        lambda f: f"Nothing answers at {f.upstream}: {f.fault}.",
        _say("RETTER tries again every few seconds. Until then visitors get an error, or what "
             "the store has."),
        _say("Start the application, or correct `--upstream`.")),
    Row("down", "bad", lambda f: bool(f.fault) and f.silent_s >= DOWN_S,
        lambda f: f"The application cannot be reached: {f.fault}.",
        _say("RETTER answers GETs from the store where it has the page, and tries the address "
             "again every few seconds."),
        _say("Start the application again; its own log says why it ended.")),
    Row("hung", "bad", _is_hung,
        lambda f: f"The application hangs: no answer for {length(f.unanswered_s)}.",
        lambda f: ("Each request is still forwarded; a GET that waits too long gets its stored "
                   "page. The circuit opens when more fail.") if f.state == "CLOSED" else
                  ("GETs get their stored page. A few requests are sent to see whether it "
                   "answers; other methods are forwarded, and wait."),
        _say("Look what its workers wait for (database, lock, other service). A restart frees "
             "them; `retter pause` spares visitors meanwhile.")),
    Row("failing", "bad", lambda f: f.state == "OPEN" and f.forced != "open",
        lambda f: "The application fails" + (
            f": {_causes(f.errors)} in the last 10 s." if f.errors else "."),
        _say(_KEEPS_TRYING), _say(_LOOK)),
    Row("recovering", "trial", lambda f: f.state == "HALF-OPEN",
        lambda f: "The application answers again." if f.all.all
                  else "The application answers again; nobody asks at present.",
        _say("With every good answer RETTER forwards more; the rest comes from the store."),
        _say("Wait. RETTER ends this by itself.")),
    # More than there is room for.
    Row("one client", "busy", _is_heavy,
        lambda f: f"One client asks for more than its share: {_heavy_name(f)}.",
        _say("RETTER serves all others first; that client gets stored pages, or waits."),
        _say("Leave it, if it is welcome. Else block it in front of RETTER, or ask it to slow "
             "down.")),
    Row("caught up", "busy", _is_limiting_nobody,
        _say("The application has caught up."),
        _say("RETTER keeps the limit for a moment, then forwards everything again."), _nothing),
    Row("limiting", "busy", lambda f: f.state == "LIMITING",
        lambda f: f"More requests come than the application can answer: it works on "
                  f"{f.in_flight:,}, and {f.waiting:,} wait." if f.waiting
                  else "The application works at its limit: "
                       f"{count(f.in_flight, 'request')} at once.",
        _say("RETTER keeps the application at its best load. GETs beyond that get their stored "
             "page, and what has none waits its turn."),
        _say("Wait. If this lasts, the application needs more capacity, or faster "
             "pages: see the slowest parts of the site.")),
    # Parts.
    Row("one route, unasked", "note", lambda f: bool(f.routes_open) and not f.all.all,
        lambda f: "A part of the site failed when it was last asked for: "
                  f"{_names(f.routes_open)}.",
        _say("RETTER tries it with the next request for it."), _nothing),
    Row("one route", "bad", lambda f: bool(f.routes_open) and f.all.all > 0,
        lambda f: "A part of the site fails: " + _names(f.routes_open) + ".",
        _say("GETs of that part come from the store, and RETTER tries it now and then. All else "
             "goes to the application."),
        _say("Look at that part of the application."), beside=True),
    Row("recovered", "good", _is_over,
        lambda f: f"The application has answered well for {length(f.well_s)} again.",
        _say("RETTER forwards every request."), _nothing),
    Row("some fail", "bad", _is_failing,
        lambda f: f"{100 * f.all.failed / f.all.all:.0f} % of the requests got an error in the "
                  f"last 10 s{_with_hidden(f)}.",
        _say("RETTER hides what it can from the store; these had no stored page, or were no "
             "GETs. The circuit opens when more fail."),
        _say(_LOOK), beside=True),
    Row("refusing", "bad", _is_refusing,
        lambda f: f"{100 * f.all.refused / f.all.all:.0f} % of the requests get a 503.",
        _say("There is no stored page for them and no room at the application. The page that "
             "they get tries again by itself."),
        _say("Wait. If this lasts, the application needs more capacity."), beside=True),
    Row("gave up", "bad", _gives_up,
        lambda f: f"{100 * f.all.gave_up / f.all.all:.0f} % of the requests were given up before "
                  "an answer came.",
        _say("RETTER forwarded them; the application took too long."),
        _say("Look at the slowest parts of the site."), beside=True),
    Row("hidden failures", "busy", _errors_hidden,
        lambda f: f"The application fails some requests ({_causes(f.errors)}); the store hides "
                  "most of that.",
        _say("Where a request fails, its visitor gets the stored page."), _say(_LOOK)),
    # RETTER's own house.
    Row("disk not used", "note", lambda f: bool(f.disk_trouble),
        lambda f: f"The store on disk is not written: {f.disk_trouble}.",
        _say("RETTER serves from memory. What is stored now is lost with the next start."),
        _say("Make room on the disk, or correct the rights of the folder of `--store`."),
        beside=True),
    Row("disk set aside", "note", lambda f: bool(f.disk_aside),
        lambda f: f"The store on disk was broken and was set aside: {f.disk_aside}.",
        _say("RETTER began a new one; it fills up with the next good answers."),
        _say("Delete the folder named `.broken` when nobody needs it."), beside=True),
    Row("shared store away", "note", lambda f: bool(f.shared_trouble),
        lambda f: f"The server that boxes share cannot be used: {f.shared_trouble}.",
        _say("RETTER goes on by itself: it serves what it has stored, and shares again when the "
             "server is back."),
        _say("Look at that Redis or Valkey, its memory and the rights of RETTER's user there."),
        beside=True),
    Row("log lost", "note", lambda f: f.log_lost > 0 or bool(f.log_trouble), _log_lost,
        _say("It goes on: no visitor waits for a log."),
        _say("Look at the disk of the access log, or at who reads standard error."), beside=True),
    Row("store full", "note", lambda f: f.evicted > 0 and f.store_full >= 0.95,
        lambda f: f"The store is full: {count(f.evicted, 'response')} removed in the last 10 s.",
        _say("RETTER keeps the pages that are requested most. The others are missing if the "
             "application fails."),
        _say("Raise `--store-memory`."), beside=True),
    Row("late", "note", lambda f: f.lag_s >= LAG_S,
        lambda f: f"RETTER itself is slow: it was held up for {f.lag_s * 1000:.0f} ms.",
        _say("While it is held up, it answers nobody."),
        _say("Give it more processor time, and look whether the machine swaps."), beside=True),
    # All is well.
    Row("first contact", "good", lambda f: not f.met,
        lambda f: f"RETTER has just started and waits for the first contact with {f.upstream}.",
        _say("It forwards the first request that comes."), _nothing),
    Row("no visitor", "good", lambda f: not (f.requests or f.in_flight or f.waiting),
        _say("The application is there. No visitor has come yet."),
        _say("RETTER forwards everything, and stores what may be shown again."),
        _say("Let your visitors come to RETTER instead of the application.")),
    Row("unanswered", "note", lambda f: f.timed_out,
        _say("The last request had no answer in time. Nobody has asked since."),
        _say("The next visitor shows whether the application works."),
        _say("Open a page of the site to see whether it answers.")),
    Row("idle", "good", lambda f: not f.all.all and not f.in_flight and f.idle_s >= IDLE_S,
        _say("All is quiet: nobody asks at present."),
        _say("RETTER waits for visitors."), _nothing),
    Row("working", "good", lambda f: f.in_flight > 0 and f.oldest_s >= HUNG_S and not f.all.all,
        lambda f: f"The application works on {count(f.in_flight, 'request')}; the oldest has "
                  f"waited for {length(f.oldest_s)}.",
        _say("RETTER waits for the answers, and forwards new requests."),
        _say("Wait, if such pages take long. Else look what they wait for.")),
    Row("busy", "good", _is_busy,
        _say("The application is busy and keeps up."),
        _say("RETTER forwards everything. A request without a free place waits for a moment."),
        _nothing),
    Row("well", "good", lambda f: True,
        _say("All is well: the application answers."),
        _say("RETTER forwards every request and keeps the good pages."), _nothing),
)  # fmt: skip
"""All situations. The first one that fits is shown."""


def derive(facts: Facts) -> Situation:
    """Return the situation that the figures show."""
    main, *others = [row for row in ROWS if row.fits(facts)]
    beside = _beside(main, others)
    return Situation(
        row=main.name,
        tone=max([main.tone, *[row.tone for row in beside if not main.hides]], key=TONES.index),
        now=main.now(facts),
        visitors=visitors(facts),
        retter=main.retter(facts),
        you=main.you(facts),
        also=tuple([row.now(facts) for row in beside]),
        rows_beside=tuple([row.name for row in beside]),
    )


def _beside(main: Row, others: list[Row]) -> list[Row]:
    """Choose the rows that are shown beside the main row.

    An operator's order hides nothing of the application: its worst row is shown too.
    """
    own = [row for row in others if row.beside and not (main.hides and row.name in _OF_VISITORS)]
    if main.tone != "off" or main.hides:
        return own
    states = [row for row in others if row.tone in ("bad", "trial", "busy") and not row.beside]
    return states[:1] + own


_OF_VISITORS: Final = ("one route", "some fail", "refusing", "gave up")


_PLACES: Final = {row.name: place for place, row in enumerate(ROWS)}


def gravity(situation: Situation) -> tuple[int, int]:
    """Return the key that sorts situations: the tone, then the place in the table."""
    return TONES.index(situation.tone), -_PLACES[situation.row]
