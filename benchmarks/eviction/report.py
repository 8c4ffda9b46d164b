"""The bars, the table, and benchmarks/eviction.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.eviction.caches import Played
from benchmarks.eviction.traces import Scenario
from benchmarks.perf.report import columns, markdown

FILE: Final = Path(__file__).parent.parent / "eviction.md"


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a scenario: that of the seed that is worst for RETTER."""

    scenario: Scenario
    store: Played
    lru: Played
    best: float  # hits


def worst(scenario: Scenario, rows: Sequence[Row]) -> Row:
    """Return the row of the seed in which the store is the least ahead of LRU, or keeps least."""
    if scenario.kept_min is not None:
        return min(rows, key=lambda row: row.store.kept)
    return min(rows, key=lambda row: row.store.hits - row.lru.hits)


def met(row: Row) -> bool:
    """Tell whether a scenario meets its bar: hits not below LRU's, and what has to be kept."""
    kept_min = row.scenario.kept_min
    if kept_min is not None and row.store.kept < kept_min:
        return False
    return row.store.hits >= row.lru.hits


def missed(rows: Sequence[Row]) -> list[str]:
    """Return the names of the scenarios that miss their bar."""
    return [row.scenario.name for row in rows if not met(row)]


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["trace", "hits", "LRU", "best", "kept", "LRU keeps", ""]]
    for row in rows:
        hits = (row.store.hits, row.lru.hits, row.best, row.store.kept, row.lru.kept)
        verdict = "" if met(row) else "MISSED"
        cells.append([row.scenario.name, *[f"{share:.1%}" for share in hits], verdict])
    return cells


def table(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    return columns(_cells(rows))


def page(rows: Sequence[Row], seeds: int) -> str:
    """Return benchmarks/eviction.md."""
    cells = _cells(rows)
    cells[0][-1] = "what it is"
    for cell, row in zip(cells[1:], rows, strict=True):
        cell[-1] = row.scenario.about + ("" if met(row) else " (**missed**)")
    return f"""\
# What stays in a full store

Traces of requests, played to the store's own class (`retter/store/s3fifo.py`), to one that drops
the least recently used page (LRU), and to one that knows the future (best, Belady's rule). Written
by `make eviction ARGS=--write`, not by hand; the worst of {seeds} seeds. No clock is in it.

*Hits* are those of the visitors' requests, without the first fifth of a trace; *kept* is how many
of the pages that they have asked for are stored at the end. The bars: hits not below LRU's in any
trace, and 99 % of the visited pages kept beside the crawler. A page has 4 KB. The site is ten times
as large as the store, except in the last two rows; the crawl has a store of 16 MiB.

{markdown(cells)}"""
