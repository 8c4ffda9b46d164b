"""docs/api.md and the schemas beside it: the fields of what the admin listener answers, as tables.

A test compares the tables with its answers.
"""

import json
from typing import Any, Final, NamedTuple

HEAD: Final = """\
# The state as a document

`GET /api/state` of the admin listener, and each event `state` of `GET /api/events`, are a document
with these fields, made by `make reference`. [state.schema.json](state.schema.json) has the same as
a JSON Schema (2020-12), and [api.schema.json](api.schema.json) has those of the [other
paths](#the-other-paths). What they are for, and their parameters:
[operating](operating.md#for-programs).

Times of day are seconds since 1970. `?` after a type: it may be null, if there is nothing to say.
A field may be added in a later version; none is removed or gets another meaning before the next
major one.

| field | type | |
|---|---|---|
"""


class Field(NamedTuple):
    """One field of the document."""

    path: str  # a.b: b in the object a; a[].b: b in each object of the list a; a.*: any name in a
    kind: str  # of _TYPES, with ? if it may be null
    about: str
    always: bool = True


_ANSWERS: Final = (
    ("fresh", "from the application"),
    ("stored", "from the store"),
    ("refused", "a 503 of RETTER"),
    ("failed", "another error"),
    ("gave_up", "the client left before an answer"),
)


def _answers(path: str, kind: str, about: str) -> list[Field]:
    return [Field(f"{path}.{name}", kind, f"{about}: {what}") for name, what in _ANSWERS]


STATE: Final[tuple[Field, ...]] = (
    Field("version", "text", "of RETTER"),
    Field("pid", "integer", "of its process"),
    Field("uptime_s", "number", "seconds since the start"),
    Field("state", "text", "of the circuit: CLOSED, LIMITING, OPEN or HALF-OPEN"),
    Field("situation.row", "text", "a word of [situations](situations.md)"),
    Field("situation.tone", "text", "good, off, note, busy, trial or bad"),
    Field("situation.now", "text", "a sentence: what is going on"),
    Field("situation.visitors", "text", "what they get"),
    Field("situation.retter", "text", "what RETTER does"),
    Field("situation.you", "text", "what an operator can do; empty: nothing"),
    Field("situation.also[]", "text", "what else is the case"),
    Field("situation.rows_beside[]", "text", "the words that belong to these sentences"),
    Field("situation.since", "number", "time of day"),
    Field("situation.lasted_s", "number", "seconds since then"),
    Field("forced", "text?", "open, closed or observe, if somebody holds the circuit"),
    Field("forced_remaining_s", "number?", "for so long; null: the configuration does"),
    Field("paused", "truth", "an operator has paused the application"),
    Field("pause_remaining_s", "number?", "for so long"),
    Field("held", "integer", "requests that wait for the end of a pause"),
    Field("draining", "truth", "RETTER is about to end"),
    Field("in_flight", "integer", "requests at the application"),
    Field("limit", "number?", "most of them at once; null: none"),
    Field("queue", "integer", "requests that wait for a place"),
    Field("upstream.address", "text", "of the application"),
    Field("upstream.fault", "text", "why it cannot be reached; empty: it can"),
    Field("upstream.connections_idle", "integer", "open and not in use"),
    Field("upstream.connections_busy", "integer", "in use"),
    Field("connections", "integer", "of clients"),
    *_answers("rates", "number", "a second, of the last ten seconds"),
    *_answers("second", "number", "of the last second"),
    *_answers("minute.gets", "integer", "GETs of the last minute"),
    *_answers("minute.others", "integer", "other methods of the last minute"),
    Field(
        "latency_ms.p50", "number?", "of good answers of the application, until they are complete"
    ),
    Field("latency_ms.p99", "number?", "the same"),
    Field("overhead_us.p50", "number?", "what RETTER itself takes for a request and its answer"),
    Field("overhead_us.p99", "number?", "the same"),
    Field("store.entries", "integer", "stored responses in memory"),
    Field("store.bytes", "integer", "what they take"),
    Field("store.bytes_max", "integer", "`--store-memory`"),
    Field("store.hits", "integer", "look-ups that found something"),
    Field("store.misses", "integer", "look-ups that found nothing"),
    Field("store.evictions", "integer", "responses that were removed for others"),
    Field(
        "shared.connected", "integer", "with `--shared`: 1 while the server is used", always=False
    ),
    Field("shared.boxes", "integer", "boxes in front of the application", always=False),
    Field("shared.reads", "integer", "requests that looked there", always=False),
    Field("shared.hits", "integer", "of them found something", always=False),
    Field("shared.reads_late", "integer", "of them got no answer in 20 ms", always=False),
    Field("shared.reads_refused", "integer", "not looked up: too many waited", always=False),
    Field("shared.written", "integer", "entries written", always=False),
    Field("shared.bodies_written", "integer", "bodies written: equal ones once", always=False),
    Field("shared.dropped", "integer", "entries not written: too many, or evicted", always=False),
    Field("shared.waiting", "integer", "entries to be written", always=False),
    Field("shared.bytes_sent", "integer", "of values", always=False),
    Field("shared.bytes_received", "integer", "of values", always=False),
    Field("shared.changes_told", "integer", "messages to the other boxes", always=False),
    Field("shared.changes_heard", "integer", "messages of the other boxes", always=False),
    Field("shared.changes_lost", "integer", "superseded pages that were not told", always=False),
    Field("shared.failures", "integer", "rounds and reads that failed", always=False),
    Field("shared.unreadable", "integer", "values made with another secret", always=False),
    Field("shared.trouble", "text", "why the server is not used", always=False),
    Field("disk", "object", "the store on disk, with `--store` or several workers", always=False),
    Field(
        "supervisor",
        "integer",
        "with several `--workers`: the process that gets signals",
        always=False,
    ),
    Field("workers[].worker", "integer", "with several `--workers`: its number", always=False),
    Field("workers[].pid", "integer", "its process", always=False),
    Field("workers[].leads", "truth", "it judges for all", always=False),
    Field("workers[].requests_rate", "number", "requests a second, of the last 10 s", always=False),
    Field("workers[].in_flight", "integer", "its requests at the application", always=False),
    Field("workers[].since", "number", "time of day at which it began", always=False),
    Field(
        "workers[].restarts",
        "integer",
        "workers before it with its number, since the supervisor began",
        always=False,
    ),
    Field("workers[].connections", "integer", "its client connections that are open", always=False),
    Field(
        "workers[].loop_lag_ms",
        "number",
        "longest delay of its loop in the last 10 s",
        always=False,
    ),
    Field(
        "workers[].memory.rss_bytes",
        "integer",
        "resident; workers share a part of it",
        always=False,
    ),
    Field("workers[].memory.anonymous_bytes", "integer", "of it, what is no file", always=False),
    Field(
        "workers[].memory.mapped_bytes", "integer", "of it, files and shared memory", always=False
    ),
    Field(
        "incidents[].number", "integer", "counted from the first one; the state has the last ten"
    ),
    Field("incidents[].began", "number", "time of day"),
    Field("incidents[].ended", "number?", "time of day; null: it goes on"),
    Field("incidents[].calm", "truth", "no trouble at present: over unless it comes back in 30 s"),
    Field("incidents[].lasted_s", "number", "so far"),
    Field("incidents[].tone", "text", "the worst"),
    Field("incidents[].cause", "text", "the sentence that belongs to it"),
    Field("incidents[].causes[].row", "text", "what was the case, in the order in which it came"),
    Field("incidents[].causes[].lasted_s", "number", "for so long"),
    Field("incidents[].causes[].now", "text", "its sentence"),
    Field("incidents[].rows[]", "text", "situations, in the order in which they came"),
    Field("incidents[].spared", "integer", "answers that were good only because of RETTER"),
    *_answers("incidents[].gets", "integer", "GETs in it"),
    *_answers("incidents[].others", "integer", "other methods in it"),
    Field("routes[].route", "text", "a part of the site; the slowest ones, asked for lately"),
    Field("routes[].state", "text", "OPEN or CLOSED"),
    Field("routes[].requests", "integer", "lately"),
    Field("routes[].errors", "integer", "lately"),
    Field("routes[].p50_ms", "number?", "its latency"),
    Field("routes[].p99_ms", "number?", "its latency"),
    Field("busiest[].url", "text", "a page, without its query"),
    Field("busiest[].places", "number", "requests for it that are in flight, on average"),
    Field("busiest[].share", "number", "its part of what is in flight, from 0 to 1"),
    Field("turns.mode", "text", "`--fairness`"),
    Field("turns.sorting", "truth", "there is too little for all", always=False),
    Field("turns.clients", "integer", "told apart", always=False),
    Field(
        "turns.fresh_share.visitors",
        "number?",
        "part of their requests that got a place",
        always=False,
    ),
    Field("turns.fresh_share.heavy", "number?", "the same of heavy clients", always=False),
    Field(
        "turns.lanes.*.requests", "integer", "of known, stranger and heavy clients", always=False
    ),
    Field("turns.lanes.*.places", "integer", "of them that got a place", always=False),
    Field("turns.lanes.*.waiting", "integer", "at present", always=False),
    Field(
        "turns.heaviest[].client",
        "text",
        "an address, a session's number or a crawler",
        always=False,
    ),
    Field("turns.heaviest[].kind", "text", "address, session or crawler", always=False),
    Field("turns.heaviest[].demand", "number", "busy workers that it asks for", always=False),
    Field("turns.heaviest[].got", "number", "busy workers that it got", always=False),
    Field("turns.heaviest[].share", "number", "its part of the application's work", always=False),
    Field("turns.heaviest[].lane", "text", "known, stranger or heavy", always=False),
    Field("events[].at", "number", "a change of the circuit: time of day"),
    Field("events[].first_at", "number", "when it came first, if it was repeated within a second"),
    Field("events[].times", "integer", "so often"),
    Field("events[].from", "text", "state"),
    Field("events[].to", "text", "state"),
    Field("events[].cause", "text", "a word"),
    Field("events[].words", "text", "a sentence"),
    Field("hints[]", "text", "advice about the settings"),
    Field(
        "totals.transitions", "integer", "since the start, as all totals: changes of the circuit"
    ),
    Field("totals.requests", "integer", "that came"),
    Field("totals.forwarded", "integer", "that the application answered"),
    Field("totals.stored.*", "integer", "answered from the store, by reason"),
    Field("totals.refused.*", "integer", "refused, by reason"),
    Field("totals.client_errors.*", "integer", "wrong requests, by reason"),
    Field("totals.upstream_errors.*", "integer", "failures of the application, by reason"),
    Field("totals.retries", "integer", "requests that were sent once more"),
    Field("totals.clients_gone", "integer", "clients that left before they had all of the answer"),
    Field("totals.gave_up", "integer", "clients that left before an answer"),
    Field("totals.spared", "integer", "answers that were good only because of RETTER"),
    Field("totals.connections", "integer", "of clients"),
    Field("totals.connections_refused", "integer", "for lack of room"),
    Field("memory.rss_bytes", "integer?", "resident"),
    Field("memory.anonymous_bytes", "integer?", "of it RETTER's own"),
    Field("memory.mapped_bytes", "integer?", "of it files, which the system can drop"),
    Field("loop_lag_ms", "number", "the longest delay of the event loop, of ten seconds"),
)

_INCIDENT: Final = tuple(
    field._replace(path=field.path.removeprefix("incidents[]."))
    for field in STATE
    if field.path.startswith("incidents[].")
)


def _under(path: str, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    return tuple([field._replace(path=f"{path}.{field.path}") for field in fields])


_CHANGE: Final = (
    Field("at", "number", "time of day"),
    Field("first_at", "number", "the first of several that are told as one"),
    Field("times", "integer", "of how many it tells"),
    Field("from", "text", "the state before"),
    Field("to", "text", "the state after"),
    Field("cause", "text", "a word, as in the log"),
    Field("words", "text", "a sentence: what it means, and why"),
    Field("figures", "object", "that moment: those of the log's line"),
    Field(
        "breaker",
        "object",
        "that moment: all figures of the breaker; they may change. With several workers, those of "
        "the worker that judged",
    ),
)

_HISTORY: Final = (
    Field("until", "number", "time of day of the end of the newest step"),
    Field("step_s", "number", "length of a step"),
    *[Field(f"{name}[]", "number?", f"answers a second {what}") for name, what in _ANSWERS],
    Field("p99_ms[]", "number?", "of good answers of the application"),
    Field("state[]", "text?", "the worst state in the step; null: no RETTER ran"),
)

_PAUSE: Final = (
    Field("paused", "truth", "a pause is in force"),
    Field("pause_remaining_s", "number?", "for so long"),
    Field("in_flight", "integer", "requests that are still at the application"),
    Field("held", "integer", "requests that wait for the end of the pause"),
)

OTHERS: Final[dict[str, tuple[Field, ...]]] = {
    "GET /api/history": _HISTORY,
    "GET /api/incidents": _under("incidents[]", _INCIDENT),
    "GET /api/incidents?number=N": (
        *_under("incident", _INCIDENT),
        Field("incident.course[].at", "number", "time of day"),
        Field("incident.course[].row", "text", "a word of [situations](situations.md)"),
        Field("incident.course[].tone", "text", "as in `situation.tone`"),
        Field("incident.course[].now", "text", "a sentence: what was going on"),
        Field("incident.course[].you", "text", "what an operator could do"),
        *_under("changes[]", _CHANGE),
        *_under("history", _HISTORY),
    ),
    "GET /api/stored": (
        Field("entries[].url", "text", "host, path and query"),
        Field("entries[].owner", "text", "everyone or private"),
        Field("entries[].status", "integer", "of the response"),
        Field("entries[].age_s", "number", "since it was stored"),
        Field("entries[].bytes", "integer", "of the bodies of its variants"),
        Field("entries[].variants", "integer", "stored for this URL and owner"),
        Field("entries[].superseded", "truth", "changed since by a POST or the like"),
        Field("entries[].withdrawn", "truth", "taken back by the application, not yet removed"),
        Field("looked_through", "integer", "URLs, so far"),
        Field("of", "integer", "URLs that are stored"),
        Field(
            "next",
            "integer?",
            "`skip` of the next question; null: that was all. With several workers 0 is possible: "
            "not all is looked through yet, ask again",
        ),
        Field(
            "complete",
            "truth",
            "with several workers: each has told all the pages that it alone has; else always true",
        ),
    ),
    "GET /api/trips": _under("trips[]", _CHANGE),
    "POST /api/why": (
        Field("decision", "text", "forward, probe, stored, wait, hold or refuse"),
        Field("reason", "text", "a [reason word](troubleshooting.md)"),
        Field("words", "text", "the decision in a sentence"),
        Field("state", "text", "of the circuit"),
        Field("key.url", "text", "under which it would be stored"),
        Field("key.owner", "text", "for whom: everyone, session, cookies or credential"),
        Field("key.owner_id", "text?", "of a keyed hash: tells owners apart, and names nobody"),
        Field("key.made_of[]", "text", "cookies and fields that make the owner"),
        Field("key.public_may_stand_in", "truth", "if there is no page of its own"),
        Field("advice[]", "text", "what separates visitors in vain"),
        Field("may_come_from_store", "truth", "its method and fields allow it"),
        Field("may_be_stored", "truth", "the same for its response"),
        Field("stored", "object?", "the stored response, and whose it is"),
        Field("route", "text", "the part of the site"),
        Field("turn.fairness", "text", "`--fairness`; off: the rest is missing"),
        Field("turn.lane", "text", "its place in the queue; -: nobody is sorted now", always=False),
        Field("turn.session_is_known", "truth", "set by the application", always=False),
        Field("turn.crawler", "text?", "the word by which it is known as one", always=False),
        Field("turn.demand", "number", "of its client, in places", always=False),
        Field("turn.heavy_above", "number?", "a demand above this is heavy", always=False),
        Field("limits.in_flight", "integer", "requests at the application"),
        Field("limits.limit", "number", "for GETs"),
        Field("limits.queue", "integer", "requests that wait"),
        Field("limits.queue_wait_s", "number", "at most"),
        Field("limits.patience_s", "number", "after so long the stored response is sent"),
        Field("limits.route_open", "truth", "the part of the site fails"),
        Field("limits.upstream_timeout_s", "number", "`--upstream-timeout`"),
    ),
    "POST /api/why, of a request that is none": (
        Field("decision", "text", "error"),
        Field("status", "integer", "that it would get"),
        Field("reason", "text", "a [reason word](troubleshooting.md)"),
        Field("words", "text", "what is wrong with it"),
    ),
    "POST /api/circuit": (
        Field("state", "text", "of the circuit"),
        Field("forced", "text?", "open, closed or observe"),
        Field("forced_remaining_s", "number?", "for so long; null: the configuration does"),
    ),
    "POST /api/purge": (
        Field(
            "purged",
            "integer",
            "stored pages that were dropped: near all workers and on disk, each once; not those of "
            "other boxes (`--shared`)",
        ),
        Field("complete", "truth", "all are counted; if not, there were at least so many"),
    ),
    "POST /api/pause": _PAUSE,
    "POST /api/resume": (*_PAUSE, Field("released", "integer", "requests that had been held")),
    "any error": (Field("error", "text", "a sentence"),),
}
"""What the other paths answer, with their fields."""

_TYPES: Final = {
    "text": "string",
    "integer": "integer",
    "number": "number",
    "truth": "boolean",
    "object": "object",
}


def state_page() -> str:
    """Return docs/api.md."""
    sections = [
        f"\n### {name}\n\n| field | type | |\n|---|---|---|\n{_rows(fields)}"
        for name, fields in OTHERS.items()
    ]
    return f"{HEAD}{_rows(STATE)}\n## The other paths\n{''.join(sections)}"


def _rows(fields: tuple[Field, ...]) -> str:
    rows: list[str] = []
    for one in fields:
        sometimes = "" if one.always else " (not always there)"
        rows.append(f"| `{one.path}` | {one.kind} | {one.about}{sometimes} |\n")
    return "".join(rows)


def _schema_of(fields: tuple[Field, ...]) -> dict[str, Any]:
    schema = _object("")
    for one in fields:
        _add(schema, one.path.split("."), one)
    return schema


def state_schema() -> dict[str, Any]:
    """Return the JSON Schema of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The state of RETTER (GET /api/state)",
        **_schema_of(STATE),
    }


def others_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of the answer of each other path."""
    return {name: _schema_of(fields) for name, fields in OTHERS.items()}


def others_page() -> str:
    """Return docs/api.schema.json."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The answers of RETTER's admin listener, by method and path",
        "$defs": others_schemas(),
    }
    return json.dumps(document, indent=1) + "\n"


def schema_page() -> str:
    """Return docs/state.schema.json."""
    return json.dumps(state_schema(), indent=1) + "\n"


def _object(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {}, "required": []} if name != "*" else {}


def _leaf(field: Field) -> dict[str, Any]:
    kind = _TYPES[field.kind.rstrip("?")]
    return {
        "type": [kind, "null"] if field.kind.endswith("?") else kind,
        "description": field.about,
    }


def _add(schema: dict[str, Any], path: list[str], field: Field) -> None:
    """Add a field to the schema of an object, with the objects and lists on the way to it."""
    name, rest = path[0], path[1:]
    if name == "*":  # any name, each with the same
        if not rest:
            schema["additionalProperties"] = _leaf(field)
            return
        inner = schema.setdefault("additionalProperties", _object(""))
        _add(inner, rest, field)
        return
    name, listed = name.removesuffix("[]"), name.endswith("[]")
    if not rest:
        found = {"type": "array", "items": _leaf(field)} if listed else _leaf(field)
        schema["properties"][name] = found
    elif listed:
        found = schema["properties"].setdefault(name, {"type": "array", "items": _object("")})
        _add(found["items"], rest, field)
    else:
        _add(schema["properties"].setdefault(name, _object("")), rest, field)
    if name not in schema["required"] and (field.always or rest[:1] == ["mode"]):
        schema["required"].append(name)
