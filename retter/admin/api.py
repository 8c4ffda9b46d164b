"""Requests to the admin listener: paths, methods and their handlers.

Every handler reads existing figures and answers at once, except that a purge waits for a thread to
count what it has dropped, `why` for one to read what is stored, and a list of what several workers
have stored for one to look through it. A new path belongs into the table of `Api.__init__`: GET if
it changes nothing, POST if it does.
"""

from math import isfinite
from typing import TYPE_CHECKING, Any

from retter.admin.chart import SPANS, Chart
from retter.admin.controls import (
    FORCED_S_DEFAULT,
    FORCED_S_MAX,
    PAUSE_S_DEFAULT,
    PAUSE_S_MAX,
    Controls,
)
from retter.admin.legacy_health import health_document
from retter.admin.message import (
    AdminAnswer,
    AdminError,
    AdminRequest,
    EventStream,
    Handler,
    LaterAnswer,
    Parameters,
    Routes,
    json_answer,
    one,
)
from retter.admin.state import state_document
from retter.admin.transitions import TransitionHistory
from retter.admin.watch import Watch
from retter.breaker import Mode
from retter.config.units import format_duration
from retter.proxy.holders import resume
from retter.proxy.services import Services

if TYPE_CHECKING:
    from retter.admin.metrics import ProxyCollector
    from retter.admin.worker_sum import Whole

NUMBER_DIGITS_MAX = 9  # of an incident; Python refuses to read thousands of digits
AROUND_S = 60.0  # of the history, shown before and after an incident


def _seconds(parameters: Parameters, default: float, maximum: float) -> float:
    text = one(parameters, "seconds")
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not isfinite(seconds) or not 1 <= seconds <= maximum:
        longest = format_duration(maximum)
        raise AdminError(400, f"seconds must be a number from 1 to {maximum:g} ({longest})")
    return seconds


class Api:
    """The handlers of one proxy's admin listener."""

    def __init__(
        self,
        services: Services,
        watch: Watch,
        chart: Chart,
        transitions: TransitionHistory,
        controls: Controls,
    ) -> None:
        self._services = services
        self._watch = watch
        self._chart = chart
        self._transitions = transitions
        self._controls = controls
        self._collector: ProxyCollector | None = None  # made for the first scrape
        self.whole: Whole | None = None  # beside other workers
        self._routes: Routes = {
            "/": {"GET": self._page},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics},
            "/api/state": {"GET": self._state},
            "/api/history": {"GET": self._minutes},
            "/api/events": {"GET": self._events},
            "/api/incidents": {"GET": self._incidents},
            "/api/stored": {"GET": self._stored},
            "/api/trips": {"GET": self._changes_of_state},
            "/api/why": {"GET": self._why, "POST": self._why},
            "/api/circuit": {"POST": self._circuit},
            "/api/purge": {"POST": self._purge},
            "/api/pause": {"POST": self._pause},
            "/api/resume": {"POST": self._resume},
        }

    def handler(self, request: AdminRequest) -> Handler:
        """Return the handler of a path and method.

        Raises:
            AdminError: 404 or 405.
        """
        methods = self._routes.get(request.path)
        if methods is None:
            raise AdminError(404, "there is nothing at this path")
        method = "GET" if request.method == "HEAD" else request.method
        found = methods.get(method)
        if found is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            raise AdminError(405, f"only {allowed} is allowed here", ("Allow", allowed))
        return found

    def state_document(self) -> dict[str, Any]:
        """Return the present state."""
        document = state_document(self._services, self._watch, self._transitions, self._controls)
        if self.whole is None:
            return document
        document = self.whole.add_document(document)
        facts = self._watch.all_facts(self._services.loop.time())
        document["upstream"] = {**document["upstream"], "fault": facts.fault}
        return document

    # -- looking ----------------------------------------------------------------------------------

    def _health(self, _: AdminRequest) -> AdminAnswer:
        return json_answer(health_document(self._services, self.whole))

    def _ready(self, _: AdminRequest) -> AdminAnswer:
        if self._services.draining:
            return json_answer({"status": "draining"}, 503)
        return json_answer({"status": "ready"})

    def _page(self, _: AdminRequest) -> AdminAnswer:
        from retter.admin import dashboard  # it imports hashlib, which only the page needs

        page = dashboard.build()
        policy = ("Content-Security-Policy", page.content_security_policy)
        return AdminAnswer(200, page.html, "text/html; charset=utf-8", (policy,))

    def _state(self, _: AdminRequest) -> AdminAnswer:
        return json_answer(self.state_document())

    def _minutes(self, request: AdminRequest) -> AdminAnswer:
        span = one(request.parameters(), "span") or SPANS[0]
        if span not in SPANS:
            raise AdminError(400, f"span must be one of {', '.join(SPANS)}")
        return json_answer(self._chart.document(span, self._watch.clock.now()))

    def _events(self, _: AdminRequest) -> EventStream:
        return EventStream()

    def _changes_of_state(self, _: AdminRequest) -> AdminAnswer:
        return json_answer({"trips": self._transitions.all()})

    def _incidents(self, request: AdminRequest) -> AdminAnswer:
        text = one(request.parameters(), "number")
        if not text:
            return json_answer({"incidents": self._watch.incidents.all()})
        is_number = text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX
        found = self._watch.incidents.one(int(text)) if is_number else None
        if found is None:
            raise AdminError(404, f"no incident has the number {text!r}, or it is too long ago")
        wall = self._watch.clock.now()
        begin = found["began"] - AROUND_S
        end = wall if found["ended"] is None else found["ended"] + AROUND_S
        changes = [one for one in self._transitions.all() if begin <= one["at"] <= end]
        history = self._chart.between(begin, end, wall)
        return json_answer({"incident": found, "changes": changes, "history": history})

    def _stored(self, request: AdminRequest) -> AdminAnswer | LaterAnswer:
        from retter.admin.stored import stored_soon

        later = LaterAnswer()
        stored_soon(
            self._services, request.parameters(), lambda found: later.give(json_answer(found))
        )
        return later.answer or later

    def _metrics(self, request: AdminRequest) -> AdminAnswer:
        try:
            from retter.admin.metrics import ProxyCollector, exposition
        except ImportError:
            raise AdminError(501, "metrics need a package: pip install prometheus_client") from None
        if self._collector is None:
            self._collector = ProxyCollector(self._services, self._watch.history, self._transitions)
        text, content_type = exposition(self._collector, request.first(b"accept"), self.whole)
        return AdminAnswer(200, text, content_type)

    def _why(self, request: AdminRequest) -> AdminAnswer | LaterAnswer:
        from retter.admin.explain import explain_soon

        later = LaterAnswer()
        explain_soon(
            self._services, request.parameters(), lambda found: later.give(json_answer(found))
        )
        return later.answer or later

    # -- orders -----------------------------------------------------------------------------------

    def _circuit(self, request: AdminRequest) -> AdminAnswer:
        parameters = request.parameters()
        word = one(parameters, "mode")
        try:
            mode = Mode(word)
        except ValueError:
            words = ", ".join([mode.value for mode in Mode])
            raise AdminError(400, f"mode must be one of {words}") from None
        seconds = _seconds(parameters, FORCED_S_DEFAULT, FORCED_S_MAX)
        now = self._services.loop.time()
        self._controls.force(mode, seconds, now)
        if self._services.far is not None:
            from retter.proxy.sharing import tell_circuit

            tell_circuit(self._services, mode, seconds)
        forced, remaining_s = self._controls.forced(now)
        return json_answer(
            {
                "state": self._services.breaker.circuit.state.value,
                "forced": forced,
                "forced_remaining_s": remaining_s,
            }
        )

    def _purge(self, request: AdminRequest) -> AdminAnswer | LaterAnswer:
        from retter.admin.purge import purge

        later = LaterAnswer()
        purge(
            self._services,
            request.parameters(),
            lambda pages, complete: later.give(
                json_answer({"purged": pages, "complete": complete})
            ),
        )
        return later.answer or later

    def _pause(self, request: AdminRequest) -> AdminAnswer:
        seconds = _seconds(request.parameters(), PAUSE_S_DEFAULT, PAUSE_S_MAX)
        now = self._services.loop.time()
        self._services.breaker.circuit.pause(now, now + seconds)
        if self._services.far is not None:
            from retter.proxy.sharing import tell_pause

            tell_pause(self._services, seconds)
        return json_answer(self._paused(now))

    def _resume(self, _: AdminRequest) -> AdminAnswer:
        now = self._services.loop.time()
        released = resume(self._services, now) + self._held_elsewhere()
        if self._services.far is not None:
            from retter.proxy.sharing import tell_resume

            tell_resume(self._services)
        return json_answer({**self._paused(now), "released": released})

    def _paused(self, now: float) -> dict[str, Any]:
        paused, remaining_s = self._controls.paused(now)
        snapshot = self._services.breaker.snapshot(now)
        return {
            "paused": paused,
            "pause_remaining_s": remaining_s,
            "in_flight": snapshot.in_flight,
            # The other workers let theirs go, too.
            "held": snapshot.held + (self._held_elsewhere() if paused else 0),
        }

    def _held_elsewhere(self) -> int:
        return 0 if self.whole is None else self.whole.held_elsewhere()
