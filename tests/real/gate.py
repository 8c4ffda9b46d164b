"""A gate of tests/real/application.py, which keeps what is behind it waiting until it is opened."""

from itertools import count

from tests.real.processes import ApplicationProgram
from tests.real.wire import fetch

_numbers = count(1)


class Gate:
    """A gate that was never open before: no other test of this process has one of its name.

    The application is shared, and a gate stays open. A port is no name for one: the kernel gives
    the same port again.
    """

    def __init__(self, application: ApplicationProgram, what: str) -> None:
        self._port = application.port
        self.name = f"{what}-{next(_numbers)}"

    def open(self) -> None:
        open_gate(self._port, self.name)

    def open_event(self, number: int) -> None:
        """Open the gate of one event of `/events?name=`, counted from 0."""
        open_gate(self._port, f"{self.name}-{number}")

    def waiting(self, number: int | None = None) -> int:
        """Return how many wait here, or for that event."""
        name = self.name if number is None else f"{self.name}-{number}"
        waiting: dict[str, int] = fetch(self._port, "GET", "/figures").json["waiting"]
        return waiting.get(name, 0)


def open_gate(port: int, name: str) -> None:
    assert fetch(port, "POST", f"/open/{name}").status == 200
