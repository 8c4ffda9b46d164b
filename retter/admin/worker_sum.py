"""The figures of all workers, for the one of them that answers operators."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from retter.admin.history import Sample
from retter.admin.whole import counts_of, document_plus, plus, sample_plus
from retter.admin.worker_figures import Board, Figures
from retter.base.worker_place import WorkerPlace
from retter.proxy.services import Services

# The figures that are shown for each worker.
_SHOWN: Final = ("pid", "connections", "memory", "loop_lag_ms")
_SHOWN_ALONE: Final = ("requests_rate", "in_flight", "since", "restarts")


class Whole:
    """The figures of all workers, for the one that answers operators.

    Attributes:
        tell: Writes the figures of this worker.
        row: Returns the figures of this worker alone.
        leader_place: Returns the place of the worker that judges for all.
    """

    def __init__(self, services: Services, board: Board) -> None:
        self.tell: Callable[[], None] = lambda: None
        self.row: Callable[[], Figures] = dict
        self.leader_place: Callable[[], int] = lambda: 0
        self._services = services
        self._board = board

    def _told(self) -> list[Figures]:
        """Return the figures of all other workers, and of earlier ones at this place."""
        before = self._board.before
        return [*([before] if before else []), *self._board.others().values()]

    def _present(self) -> dict[int, Figures]:
        return self._board.present(self._services.loop.time())

    def add_samples(self, sample: Sample) -> Sample:
        """Return a sample of this worker with those of all others."""
        for figures in self._told():
            sample = sample_plus(sample, figures["sample"])
        return sample

    def add_lanes(self, asked: list[int], got: list[int]) -> tuple[list[int], list[int]]:
        """Return the requests and the places of each lane with those of all others."""
        for figures in self._told():
            asked, got = plus([asked, got], figures["lanes"])
        return asked, got

    def others_lately(self) -> list[Figures]:
        """Return what the other workers that live have told of the last seconds."""
        return [figures["lately"] for figures in self._present().values()]

    def add_document(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document of the state of this worker with the parts of all others."""
        present = self._present()
        own, counts = _shown(document, self.row()), counts_of(document)
        document = document_plus(document, [one["document"] for one in present.values()])
        for figures in self._told():
            document["totals"] = plus(document["totals"], figures["totals"])
            counts = plus(counts, figures["counts"])
        for part, its in counts.items():
            if part in document:
                document[part] = {**document[part], **its}
        document["uptime_s"] = round(self.uptime_s, 1)
        document["supervisor"] = os.getppid()
        leader, own_place = self.leader_place(), self._place
        document["workers"] = [
            {"worker": own_place.index, "leads": own_place.place == leader, **own},
            *[
                {
                    "worker": place % own_place.workers,
                    "leads": place == leader,
                    **_shown({**one["document"], "pid": one["pid"]}, one["worker"]),
                }
                for place, one in present.items()
            ],
        ]
        return document

    @property
    def uptime_s(self) -> float:
        """The time since the first worker of this supervisor began, in seconds."""
        began_at = self._services.started_at
        for figures in self._told():
            if figures["worker"]["supervisor"] == os.getppid():
                began_at = min(began_at, figures["worker"]["began_at"])
        return self._services.loop.time() - began_at

    def others_trips(self) -> list[dict[str, Any]]:
        """Return the last changes of the circuit's state that others have made."""
        return [trip for figures in self._told() for trip in figures["trips"]]

    def take_hints(self) -> None:
        """Give the hints of the other workers as this one's own; also when they have ended."""
        given = self._services.hints.given
        for told in self.others_lately():
            for name, sentence in told["hints"]:
                given.setdefault(name.encode("latin-1"), sentence)

    def add_health(self, figures: Figures) -> Figures:
        """Return the figures of `/health` of this worker with those of all others."""
        for told in self._told():
            figures = plus(figures, {**told["health"], "amounts": {}})
        for told in self._present().values():
            figures = plus(figures, {"amounts": told["health"]["amounts"]})
        return figures

    def held_elsewhere(self) -> int:
        """Return how many requests the other workers hold until the end of a pause."""
        return sum([int(one["document"]["held"]) for one in self._present().values()])

    @property
    def _place(self) -> WorkerPlace:
        place = self._services.place
        assert place is not None, "there are several workers"
        return place

    def counted(self) -> list[Sequence[Any]]:
        """Return the points of counters of all others.

        The caller adds those of this worker, so they are written first. If it is killed now, the
        next process at its place does not begin with smaller counts.
        """
        self.tell()
        return [one for figures in self._told() for one in figures["counted"]]

    def gauges(self) -> list[Sequence[Any]]:
        """Return the points of gauges of the others that live."""
        return [one for figures in self._present().values() for one in figures["gauges"]]

    def each(self) -> Iterator[tuple[int, Figures]]:
        """Yield the other workers that live, by their numbers."""
        for place, figures in self._present().items():
            yield place % self._place.workers, figures["document"]


def _shown(document: dict[str, Any], alone: Figures) -> dict[str, Any]:
    return {name: document[name] for name in _SHOWN} | {name: alone[name] for name in _SHOWN_ALONE}
