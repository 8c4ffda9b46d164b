"""Orders of an operator: a forced circuit or a pause. Each one ends by itself."""

from retter.breaker import Mode
from retter.proxy.services import Services

# Long enough to examine the problem, and it cannot be forgotten over night.
FORCED_S_DEFAULT = 10 * 60.0
FORCED_S_MAX = 24 * 3600.0  # for longer there is a setting: --circuit
PAUSE_S_DEFAULT = 30.0  # a restart takes some seconds
PAUSE_S_MAX = 300.0  # no visitor waits longer


class Controls:
    """Forces the circuit for an operator, and releases it when the time is over."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def force(self, mode: Mode, seconds: float, now: float) -> None:
        """Force the circuit into this mode for this long; AUTO releases it at once."""
        circuit = self._services.breaker.circuit
        circuit.forced_until = None if mode is Mode.AUTO else now + seconds
        circuit.set_mode(now, mode)

    def forced(self, now: float) -> tuple[str | None, int | None]:
        """Return the mode if it is not AUTO, and the whole seconds left if they are limited."""
        circuit = self._services.breaker.circuit
        if circuit.mode is Mode.AUTO:
            return None, None
        until = circuit.forced_until
        return circuit.mode.value, None if until is None else max(0, round(until - now))

    def paused(self, now: float) -> tuple[bool, int | None]:
        """Return whether there is a pause, and the whole seconds left of it."""
        until = self._services.breaker.circuit.paused_until
        return until is not None, None if until is None else max(0, round(until - now))

    def sweep(self, now: float) -> None:
        """Release the circuit when the time is over. Called once a second."""
        circuit = self._services.breaker.circuit
        if circuit.forced_until is not None and now >= circuit.forced_until:
            circuit.forced_until = None
            circuit.set_mode(now, Mode(self._services.settings.circuit))
