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
    "process_open_fds", "process_resident_memory_bytes", "process_virtual_memory_bytes",
    "retter_buffer_bytes", "retter_connections", "retter_disk_dirty", "retter_held",
    "retter_lane_waiting", "retter_memory_bytes", "retter_queue", "retter_store_bodies",
    "retter_store_bytes", "retter_store_entries", "retter_store_max_bytes", "retter_store_owners",
    "retter_streams", "retter_upstream_connections", "retter_upstream_held",
))  # fmt: skip

# Of these, the largest counts.
LARGEST: Final = frozenset(("retter_loop_lag_seconds",))

# Parts of the document of the state whose numbers are added.
ADDED_PARTS: Final = ("connections", "store", "memory", "queue", "held")

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


def document_plus(document: dict[str, Any], others: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document of the state with the parts of other workers."""
    document = dict(document)
    for other in others:
        for name in ADDED_PARTS:
            document[name] = plus(document[name], other[name])
        upstream, its = document["upstream"], other["upstream"]
        document["upstream"] = {
            name: plus(value, its[name]) if name.startswith("connections_") else value
            for name, value in upstream.items()
        }
        if "shared" in document and "shared" in other:
            document["shared"] = _shared_plus(document["shared"], other["shared"])
    return document


def _shared_plus(shared: Table, other: Table) -> dict[str, Any]:
    """Add what two workers of one box have asked the server of `--shared`."""
    return {
        **plus(shared, other),
        "connected": min(shared["connected"], other["connected"]),
        "boxes": shared["boxes"],
        "trouble": shared["trouble"] or other["trouble"],
    }


def points_plus(counted: Iterable[Point], told: Iterable[Sequence[Any]]) -> list[Point]:
    """Return points of counters with those of another worker added."""
    found = {(name, labels): value for name, labels, value in counted}
    for name, labels, value in told:
        key = (str(name), tuple([(str(one), str(text)) for one, text in labels]))
        found[key] = found.get(key, 0.0) + float(value)
    return [(name, labels, value) for (name, labels), value in found.items()]
