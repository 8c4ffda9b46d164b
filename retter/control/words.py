"""Documents of the admin listener as text for people: figures with units, and sentences.

Only text is processed: `now` (seconds since 1970) is an argument, and nothing is printed here.
"""

import textwrap
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from retter.admin import incidents
from retter.admin.situation import count
from retter.admin.situation import length as length

Document = Mapping[str, Any]

COLUMNS_MAX: Final = 80
EVENTS_SHOWN: Final = 3  # of the changes of state; `--json` has the last 20

KINDS: Final = ("fresh", "stored", "refused", "failed", "gave_up")

MODES: Final = {
    "auto": "RETTER decides",
    "open": "a GET gets its stored page; all else is forwarded within the limit",
    "closed": "everything is forwarded, however the application is",
    "observe": "everything is forwarded, and RETTER says what auto would do",
}
"""The modes of the circuit, and what they mean."""

_FORCED: Final = {
    "open": "held open",
    "closed": "held closed",
    "observe": "observe mode",
}


def number(value: float | None) -> str:
    """`1,584`, `0.7`; `-` if it is not known."""
    if value is None:
        return "-"
    if 0 < value < 0.05:
        return "<0.1"
    return f"{value:.1f}" if value < 10 and value % 1 else f"{value:,.0f}"


def printable(text: str) -> str:
    """Replace characters that control a terminal: strangers choose the names of routes."""
    return "".join([c if c.isprintable() or c == "\n" else "?" for c in text])


def wait(milliseconds: float | None) -> str:
    """`0.4 ms`, `23 ms`, `1.2 s`; `-` if it is not known."""
    if milliseconds is None:
        return "-"
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def size(octets: float | None) -> str:
    """`8.9 MiB`; `-` if it is not known."""
    if octets is None:
        return "-"
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if octets >= factor:
            return f"{octets / factor:.1f} {unit}"
    return f"{octets:.0f} B"


def pages(n: int) -> str:
    """`1 page`, `511 pages`. A page is a URL for one owner, with all variants of its response."""
    return f"{number(n)} page{'' if n == 1 else 's'}"


def responses(n: int) -> str:
    """`1 response`, `511 responses`: each variant of a page is one."""
    return f"{number(n)} response{'' if n == 1 else 's'}"


def modes() -> str:
    """The modes of the circuit, a line each."""
    return table(MODES.items())


def purged(found: Document, url: str, state: Document) -> str:
    """Return how many pages were dropped, with a hint if there were none."""
    n, complete = found["purged"], found.get("complete", True)
    text = f"{'' if complete else 'at least '}{pages(n)} dropped from the store"
    if not complete:
        text += "; all are dropped, but to count them took too long"
    if "shared" in state:
        text += "; those at the other boxes are dropped too, and not counted"
    if not n and url and not url.startswith("/"):
        text += "; were they requested with another host? /path matches any host"
    return f"{textwrap.fill(text, COLUMNS_MAX)}\n"


def clock(at: float, now: float) -> str:
    """A moment in local time: the time of day, and the date if it is not today."""
    moment = time.localtime(at)
    same_day = moment[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", moment)


def in_force(state: Document, now: float) -> str:
    """Return the mode, and its end: `automatic`, `held open until 03:42:10 (9 min 12 s
    more)`.
    """
    parts = [_FORCED.get(state["forced"], "automatic")]
    if state["forced"]:
        parts[0] += _until(state["forced_remaining_s"], now)
    if state["paused"]:
        parts.append("paused" + _until(state["pause_remaining_s"], now))
    if state["draining"]:
        parts.append("shutting down")
    return ", ".join(parts)


def _until(remaining_s: float | None, now: float) -> str:
    if remaining_s is None:
        return " by the configuration"
    return f" until {clock(now + remaining_s, now)} ({length(remaining_s)} more)"


def headline(state: Document, now: float) -> str:
    """Return the situation in a word, since when it is so, and the circuit's state."""
    situation = state["situation"]
    at = situation["since"]
    word = situation["row"].upper()
    times = f"since {clock(at, now)}, for {length(now - at)}"
    return f"{word}  {times}; the circuit is {state['state']}"


def sentence(state: Document) -> str:
    """Return what is going on, in a sentence."""
    return str(state["situation"]["now"])


def _situation(state: Document) -> list[tuple[str, str]]:
    """Return the other sentences of the situation, with what they are about."""
    situation = state["situation"]
    found = [("visitors", situation["visitors"]), ("RETTER does", situation["retter"])]
    if situation["you"]:
        found.append(("you can", situation["you"]))
    return found + [("also", text) for text in situation["also"]]


def incident(one: Document, now: float) -> str:
    """Return an incident in a sentence: what it was, and what RETTER was good for."""
    return f"{clock(one['began'], now)}  {incidents.time_of(one)}  {incidents.words(one)}"


def served(state: Document) -> str:
    """The rates of answers, by kind."""
    rates = state["rates"]
    return ", ".join(f"{number(rates[kind])} {kind.replace('_', ' ')}" for kind in KINDS)


def got_a_page(state: Document) -> str:
    """Return the share of the last minute's requests that got a good answer, by method."""
    minute = state["minute"]
    return f"GETs {_share(minute['gets'])}; others {_share(minute['others'])}"


def _share(answers: Mapping[str, int]) -> str:
    total = sum(answers.values())
    if not total:
        return "-"
    good = answers["fresh"] + answers["stored"]
    # Rounded towards the bad news: 99.96 % is not all.
    percent = "100" if good == total else f"{1000 * good // total / 10:.1f}"
    return f"{percent} % of {number(total)}"


def rows(state: Document, now: float) -> list[tuple[str, str]]:
    """Return the figures as pairs of a name and words."""
    store, upstream, latency = state["store"], state["upstream"], state["latency_ms"]
    overhead = state["overhead_us"]["p50"]
    asked = store["hits"] + store["misses"]
    fault = f"; {upstream['fault']}" if upstream.get("fault") else ""
    hits = f", {100 * store['hits'] / asked:.0f} % hits" if asked else ""
    added = f"{number(overhead)} us"
    return [
        ("in force", in_force(state, now)),
        *_turn_rows(state),
        ("got a page", f"{got_a_page(state)} in the last minute"),
        ("answers/s", served(state)),
        ("its latency", f"{wait(latency['p50'])} typical, {wait(latency['p99'])} slowest 1 %"),
        ("in flight", f"{_in_flight(state)}, {number(state['queue'])} in the queue"),
        ("store", f"{responses(store['entries'])}, {size(store['bytes'])} of "
                  f"{size(store['bytes_max'])}{hits}"),
        *([("on disk", on_disk(state["disk"]))] if "disk" in state else []),
        *([("shared", with_others(state["shared"]))] if "shared" in state else []),
        ("application", f"{upstream['address']}, "
                        f"{count(upstream['connections_busy'], 'connection')} busy, "
                        f"{upstream['connections_idle']} idle{fault}"),
        ("RETTER", f"{state['version']}, process {state.get('supervisor', state['pid'])}, "
                   f"up {length(state['uptime_s'])}, "
                   f"{count(state['connections'], 'client')} connected"),
        ("its cost", f"{size(state['memory']['rss_bytes'])}{_mapped(state)}, {added} a request, "
                      f"event loop lag {wait(state['loop_lag_ms'])}"),
        *([("workers", _workers(state["workers"]))] if "workers" in state else []),
    ]  # fmt: skip


def _in_flight(state: Document) -> str:
    """Requests at the application: there may be more than the limit, which is for GETs."""
    now, limit = state["in_flight"], state["limit"]
    if limit is not None and now > limit:
        return f"{number(now)} (GETs are limited to {number(limit)}, other methods are not)"
    return f"{number(now)} of {number(limit)}"


def _workers(workers: list[Document]) -> str:
    """Return how many workers serve, and how the worst of them fares."""
    slowest = max(workers, key=lambda one: one["loop_lag_ms"])
    largest = max([one["memory"]["rss_bytes"] for one in workers])
    clients = [one["connections"] for one in workers]
    return (
        f"{len(workers)}, each with {_from_to(min(clients), max(clients))} clients and up to "
        f"{size(largest)}; slowest event loop {wait(slowest['loop_lag_ms'])} "
        f"(worker {slowest['worker']}, process {slowest['pid']})"
    )


def _from_to(least: int, most: int) -> str:
    return number(least) if least == most else f"{number(least)} to {number(most)}"


def _turn_rows(state: Document) -> list[tuple[str, str]]:
    """Return the rows of the queue, if any: its lanes, and the clients with most demand."""
    turns = cast("Document", state.get("turns", {}))
    if not turns.get("sorting"):
        return []
    lanes = cast("dict[str, Document]", turns["lanes"])
    waiting = [f"{number(one['waiting'])} {lane}" for lane, one in lanes.items()]
    rows = (
        [("queue", f"{', '.join(waiting)} wait")]
        if any(one["waiting"] for one in lanes.values())
        else []
    )
    if shares := _visitors(turns["fresh_share"]):
        rows.append(("fresh share", shares))
    heaviest = cast("list[Document]", turns["heaviest"])
    named = [
        f"{one['client'] or one['kind']} ({100 * one['share']:.0f} %)"
        for one in heaviest
        if one["lane"] == "heavy"
    ]
    if named:
        rows.append(("most demand", ", ".join(named[:3])))
    return rows


def _visitors(shares: dict[str, float | None]) -> str:
    """Return the shares of requests that got a place at the application, while they are sorted."""
    words = [
        f"{100 * share:.0f} % {what}"
        for share, what in (
            (shares["visitors"], "of visitors' requests"),
            (shares["heavy"], "of heavy clients' requests"),
        )
        if share is not None
    ]
    return ", ".join(words)


def with_others(shared: Document) -> str:
    """Return a line about the boxes that share a server, and whether it can be used."""
    boxes = f"{number(shared['boxes'])} {'box' if shared['boxes'] == 1 else 'boxes'}"
    if not shared["connected"]:
        return f"{boxes}; the server is away: {shared['trouble'] or 'no answer'}"
    return (
        f"{boxes}, {pages(shared['written'])} written, {number(shared['hits'])} of "
        f"{number(shared['reads'])} reads found"
    )


def on_disk(disk: Document) -> str:
    """The stored responses on disk, and whether the disk can be written."""
    if disk["trouble"]:
        return f"not used: {disk['trouble']}"
    words = f"{pages(disk['entries'])}, {size(disk['bytes_used'])} of {size(disk['bytes_max'])}"
    if disk["dirty"]:
        words += f", {number(disk['dirty'])} to be written"
    return words + (", a broken one set aside" if disk["set_aside"] else "")


def _mapped(state: Document) -> str:
    """The part of the memory that is mapped files, if the store on disk is one of them."""
    return f" ({size(state['memory']['mapped_bytes'])} mapped)" if "disk" in state else ""


def event(one: Document, now: float) -> str:
    """A change of state as a line."""
    times = one.get("times", 1)
    often = f" ({number(times)} times since {clock(one['first_at'], now)})" if times > 1 else ""
    return f"{clock(one['at'], now)}  {one['to']:9}  {one['words']}{often}"


def table(pairs: Iterable[tuple[str, str]]) -> str:
    """Lay pairs out in two columns; what is too long goes on in the second."""
    known = list(pairs)
    width = max((len(name) for name, _ in known), default=0)
    return "".join([_row(name, words, width) for name, words in known])


def _row(name: str, words: str, width: int) -> str:
    indent = " " * (width + 4)
    columns = max(COLUMNS_MAX, width + 44)
    text = textwrap.fill(
        words,
        columns,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return f"  {name:{width}}  {text[len(indent) :]}\n"


def status(state: Document, now: float) -> str:
    """The whole state, for `retter status`."""
    lines = [headline(state, now) + "\n", textwrap.fill(sentence(state), COLUMNS_MAX) + "\n\n"]
    lines += [table(_situation(state)), "\n", table(rows(state, now))]
    if state["incidents"]:
        lines.append("\nlast incidents\n")
        recent = state["incidents"][-EVENTS_SHOWN:]
        lines += [_wrapped(f"  {incident(one, now)}") for one in reversed(recent)]
    if state["events"]:
        lines.append("\nlast changes of the circuit\n")
        lines += [_wrapped(f"  {event(one, now)}") for one in state["events"][-EVENTS_SHOWN:]]
    if state.get("hints"):
        lines.append("\nadvice\n")
        lines += [
            textwrap.fill(f"  {one}", COLUMNS_MAX, subsequent_indent="  ") + "\n"
            for one in state["hints"]
        ]
    return "".join(lines)


def others(neighbours: Iterable[tuple[str, str]]) -> str:
    """Return the other RETTERs on this machine, and how to ask them; "" for none."""
    lines = [
        f"  {address}  in front of {upstream}: retter status --admin {address}\n"
        for address, upstream in neighbours
    ]
    return "".join(["\nother RETTERs on this machine\n", *lines]) if lines else ""


_ASKED_AS: Final = {
    "browser": "a browser; --plain asks as a program such as curl, --header as any other client",
    "program": "a program such as curl, that accepts anything",
}


def why(found: Document, asked_as: str) -> str:
    """Return in a sentence what would happen to a request; then each figure on its own line."""
    rest = {name: value for name, value in found.items() if name != "words"}
    asked = ("asked as", _ASKED_AS[asked_as])
    sentences = textwrap.fill(found["words"], COLUMNS_MAX)
    return f"{sentences}\n\n{table([asked, *_pairs(rest, '')])}"


def _pairs(found: Document, under: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in found.items():
        in_seconds = name.endswith("_s")
        label = f"{under}{name.removesuffix('_s').replace('_', ' ')}"
        if isinstance(value, dict):
            pairs += _pairs(cast("Document", value), f"{label}: ")
        elif isinstance(value, list):
            members = [str(one) for one in cast("list[object]", value)]
            pairs.append((label, ", ".join(members) or "-"))
        else:
            unit = " s" if in_seconds and value is not None else ""
            pairs.append((label, f"{_plain(value)}{unit}"))
    return pairs


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _wrapped(text: str) -> str:
    """Break a long line, and indent the rest to the column of its words."""
    column = text.rindex("  ") + 2
    return textwrap.fill(text, COLUMNS_MAX, subsequent_indent=" " * column) + "\n"


def line(state: Document, now: float) -> str:
    """The state in one line, for `retter top` without a terminal."""
    latency = state["latency_ms"]
    return (
        f"{clock(now, now)} {state['state']:9} {served(state)}/s; in flight "
        f"{number(state['in_flight'])}/{number(state['limit'])}; p50 {wait(latency['p50'])} "
        f"p99 {wait(latency['p99'])}; {sentence(state)}\n"
    )
