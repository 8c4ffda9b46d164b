"""The applications behind the peers: the demonstration shop, and the interface of all.

A trial asks an application for a port, for the requests a second it can make, and for its own
count of what reached it. All run in processes of their own, with their files in one folder.
"""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.overload.peers import Process, ask, cores
from benchmarks.overload.scenarios import Scenario
from retter.demo.database import capacity_rps
from retter.demo.knobs import Knobs


class Application(ABC):
    """One that was started for a trial and is ended by `stop`."""

    port: int
    page: str = "/product/"  # and a number from 1 on
    post_target: str = "/cart/add"
    post_body: str = "product=7"

    @property
    @abstractmethod
    def capacity(self) -> float:
        """The requests a second that it can make."""

    @abstractmethod
    def start(self) -> None:
        """Start it; `port` answers from then on. Raises StartFailed."""

    @abstractmethod
    def stop(self) -> None:
        """End all that was started."""

    @abstractmethod
    def turn(self, knobs: Mapping[str, Any]) -> None:
        """Turn its knobs, where it has such."""

    @abstractmethod
    def count_anew(self) -> None:
        """Let its figures count from here."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Return its own figures."""

    @abstractmethod
    def cpu_s(self) -> float:
        """Return the processor seconds it has used."""


class DemoShop(Application):
    """The demonstration shop, whose capacity is known from its knobs."""

    def __init__(self, scenario: Scenario, folder: Path, *, seed: int) -> None:
        self.port = 0
        self._scenario = scenario
        self._log = folder / "application.log"
        self._seed = seed
        self._process: Process | None = None
        self._control = ""

    @property
    def capacity(self) -> float:
        """The requests a second that it can make."""
        return capacity_of(self._scenario)

    def start(self) -> None:
        """Start it. Raises StartFailed."""
        command = (
            sys.executable, "-m", "retter.demo", "--listen", "127.0.0.1:0",
            "--control", "127.0.0.1:0", "--connections", str(self._scenario.connections),
            "--service-ms", str(self._scenario.service_ms), "--model", self._scenario.model,
            "--seed", str(self._seed),
        )  # fmt: skip
        self._process = Process(command, core=cores()[1], log=self._log)
        shop, knobs = self._process.wait_for_lines(2)
        self.port = int(shop.rpartition(":")[2])
        self._control = knobs.rpartition(" ")[2].removesuffix("/knobs")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()

    def turn(self, knobs: Mapping[str, Any]) -> None:
        """Turn its knobs."""
        ask(self._control + "/knobs.json", json.dumps(dict(knobs)).encode())

    def count_anew(self) -> None:
        """Let its figures count from here."""
        ask(self._control + "/stats.json", b"")

    def stats(self) -> dict[str, Any]:
        """Return its figures."""
        stats: dict[str, Any] = json.loads(ask(self._control + "/stats.json"))
        return stats

    def cpu_s(self) -> float:
        """Return the processor seconds it has used."""
        return self._process.cpu_s() if self._process is not None else 0.0


def capacity_of(scenario: Scenario) -> float:
    """Return the requests a second that the scenario's application can make by its settings."""
    knobs = {
        "connections": scenario.connections,
        "service_ms": scenario.service_ms,
        "model": scenario.model,
    }
    return capacity_rps(Knobs().changed(knobs))
