"""The bars, the table, and benchmarks/abuse.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.abuse.attack import Cost
from benchmarks.perf.report import columns, markdown

FILE: Final = Path(__file__).parent.parent / "abuse.md"

CPU_MS_PER_KB_MAX: Final = 0.05
"""A client with 100 Mbit/s sends 12,500 KB a second. At this price it takes 62 % of one core: it
cannot hold the others up, and an ordinary GET costs ten times as much."""
RATIO_MAX: Final = 12.0
"""Small requests cost more than that at any proxy, since most of it is not about octets. There the
bar is nginx. Plain Python takes five times what nginx takes for a head that it has never seen
(the first row); no kind may take much more than twice as much again."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cost of one kind, in all rounds."""

    name: str
    about: str
    retter: list[Cost] = field(default_factory=list)
    nginx: list[Cost] = field(default_factory=list)

    @property
    def retter_ms_per_kb(self) -> float:
        """RETTER's CPU milliseconds for each KB."""
        return median([cost.ms_per_kb for cost in self.retter])

    @property
    def nginx_ms_per_kb(self) -> float:
        """The same for nginx."""
        return median([cost.ms_per_kb for cost in self.nginx])

    @property
    def ratio(self) -> float:
        """RETTER's cost to nginx's."""
        return self.retter_ms_per_kb / self.nginx_ms_per_kb


def met(row: Row, ordinary: Row) -> bool:
    """Tell whether a kind meets one of the bars, beside what ordinary requests cost."""
    cost = row.retter_ms_per_kb
    if cost <= CPU_MS_PER_KB_MAX or row.ratio <= RATIO_MAX:
        return True
    return row is not ordinary and cost <= ordinary.retter_ms_per_kb


def missed(rows: Sequence[Row]) -> list[str]:
    """Return the names of the kinds that miss their bar; the first row is what is ordinary."""
    return [row.name for row in rows if not met(row, rows[0])]


def rows_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table's cells."""
    cells = [["kind", "RETTER ms/KB", "nginx ms/KB", "ratio", "KB sent", ""]]
    for row in rows:
        sent = sum([cost.kb for cost in row.retter])
        cells.append(
            [
                row.name,
                f"{row.retter_ms_per_kb:.4f}",
                f"{row.nginx_ms_per_kb:.4f}",
                f"{row.ratio:.1f}",
                f"{sent:,.0f}",
                "" if met(row, rows[0]) else "MISSED",
            ]
        )
    return cells


def table(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    return columns(rows_of(rows))


def page(rows: Sequence[Row], machine: Mapping[str, str], versions: Sequence[str]) -> str:
    """Return benchmarks/abuse.md."""
    cells = rows_of(rows)
    cells[0][-1] = "what is sent"
    for cell, row in zip(cells[1:], rows, strict=True):
        cell[-1] = row.about + ("" if met(row, rows[0]) else " (**missed**)")
    facts = "".join([f"- {name}: {text}\n" for name, text in machine.items()])
    facts += "".join([f"- {version}\n" for version in versions])
    return f"""\
# What abuse costs

CPU milliseconds of the proxy for each KB that is sent to it, over loopback, RETTER and nginx in
turn; the median of the rounds. Written by `make abuse ARGS=--write`, not by hand.

A kind meets its bar at {CPU_MS_PER_KB_MAX:g} ms for a KB, or at {RATIO_MAX:g} times nginx, or where
it costs no more for a KB than browsers' GETs do, the first row: then it is no better an attack
than these. A client with 100 Mbit/s sends 12,500 KB a second: at the first bar it takes 62 % of one
core. Small requests cost more than that at any proxy, since most of it is not about octets; there
the second counts. Messages are never the same twice, so that nothing is remembered. nginx takes
heads of 64 KiB here, as RETTER does. No single callback takes more than a few milliseconds:
`tests/proxy/test_linear.py` counts that.

{markdown(cells)}
{facts}"""
