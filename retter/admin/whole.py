"""The figures of several workers, added up. Pure.

Counters are added, also those of workers that have ended. Gauges (connections, memory) are added
for the workers that live. Figures that all workers share (the circuit, the store on disk) are not
added.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from retter.admin.history import Sample
from retter.base.counters import Answers

# Gauges of which each worker has a part. Of all others, one worker speaks for all.
ADDED: Final = frozenset((
    "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "retter_buffer_bytes", "retter_connections", "retter_disk_dirty", "retter_held",
    "retter_lane_waiting", "retter_memory_bytes", "retter_queue", "retter_store_bodies",
    "retter_store_bytes", "retter_store_entries", "retter_store_max_bytes", "retter_store_owners",
    "retter_streams", "retter_upstream_connections", "retter_upstream_held",
))  # fmt: skip

# Of these, the largest counts, or the smallest.
LARGEST: Final = frozenset((
    "retter_disk_failed", "retter_disk_set_aside", "retter_loop_lag_seconds",
))  # fmt: skip
SMALLEST: Final = frozenset(("retter_shared_connected",))

# Parts of the document of the state whose numbers are added.
ADDED_PARTS: Final = ("connections", "memory", "queue", "held")

# Numbers in other parts that are added: amounts, of which each worker that lives has a part.
_AMOUNTS: Final = {
    "store": frozenset(("entries", "bytes", "bytes_max")),
    "disk": frozenset(("dirty", "dirty_bytes", "index_bytes")),
    "shared": frozenset(("waiting",)),
}

# And counts, also of workers that have ended.
_COUNTS: Final = {
    "store": frozenset(("hits", "misses", "evictions")),
    "disk": frozenset((
        "commits", "commit_failures", "written", "not_written", "evicted", "damaged", "reads",
        "reads_in_thread", "reads_late", "journal_failures", "stale_readers",
    )),
    "shared": frozenset((
        "reads", "hits", "reads_late", "reads_refused", "written", "bodies_written", "dropped",
        "bytes_sent", "bytes_received", "changes_told", "changes_heard", "changes_lost", "failures",
        "unreadable",
    )),
}  # fmt: skip

Table = Mapping[str, Any]

# A sample of a metric: its name, its labels and its value.
Point = tuple[str, tuple[tuple[str, str], ...], float]


def plus(one: Any, other: Any) -> Any:
    """Add numbers, lists and mappings of them; anything else stays as it is."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return _mappings_plus(cast("Table", one), cast("Table", other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return _lists_plus(cast("Sequence[Any]", one), cast("Sequence[Any]", other))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one + other
    return cast("Any", one)


def _mappings_plus(one: Table, other: Table) -> dict[str, Any]:
    added = {
        name: plus(value, other[name]) if name in other else value for name, value in one.items()
    }
    return added | {name: value for name, value in other.items() if name not in one}


def _lists_plus(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    if not one or not other:
        return list(one or other)
    return [plus(a, b) for a, b in zip(one, other, strict=True)]


def sample_plus(sample: Sample, told: Sequence[Any]) -> Sample:
    """Return a sample and one that was written as JSON, together."""
    other = Sample(*told)
    added: list[Any] = [plus(a, b) for a, b in zip(sample, other, strict=True)]
    both = Sample(*added)
    return both._replace(
        at=sample.at,
        gets=Answers(*both.gets),
        others=Answers(*both.others),
        errors=tuple(both.errors),
        overhead=(both.overhead[0], both.overhead[1]),
        loop_lag_s=max(sample.loop_lag_s, other.loop_lag_s),
    )


def counts_of(parts: Table) -> dict[str, Any]:
    """Return the counts in the parts of a worker's document."""
    return {
        part: {name: parts[part][name] for name in names}
        for part, names in _COUNTS.items()
        if part in parts
    }


def document_plus(document: dict[str, Any], others: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document of the state with the parts of other workers, without their counts."""
    document = dict(document)
    for other in others:
        for name in ADDED_PARTS:
            document[name] = plus(document[name], other[name])
        upstream, its = document["upstream"], other["upstream"]
        document["upstream"] = {
            name: plus(value, its[name]) if name.startswith("connections_") else value
            for name, value in upstream.items()
        }
        document["loop_lag_ms"] = max(document["loop_lag_ms"], other["loop_lag_ms"])
        for part, names in _AMOUNTS.items():
            if part in document and part in other:
                document[part] = _part_plus(document[part], other[part], names)
    return document


def _part_plus(part: Table, other: Table, amounts: frozenset[str]) -> dict[str, Any]:
    added = {
        name: plus(value, other[name]) if name in amounts else value for name, value in part.items()
    }
    if "trouble" in part:
        added["trouble"] = part["trouble"] or other["trouble"]
    for name, of_both in (("connected", min), ("set_aside", max), ("held_s_max", max)):
        if name in part:
            added[name] = of_both(part[name], other[name])
    return added


def points_plus(counted: Iterable[Point], told: Iterable[Sequence[Any]]) -> list[Point]:
    """Return points of counters with those of another worker added."""
    found = {(name, labels): value for name, labels, value in counted}
    for name, labels, value in told:
        key = (str(name), tuple([(str(one), str(text)) for one, text in labels]))
        found[key] = found.get(key, 0.0) + float(value)
    return [(name, labels, value) for (name, labels), value in found.items()]
