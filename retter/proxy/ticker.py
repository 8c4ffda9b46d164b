"""Work on the clock: twenty times a second, and once a second."""

import asyncio
from collections.abc import Callable

from retter.breaker import State
from retter.net.supervision import report
from retter.proxy.holders import end_broken, end_overdue, start_waiting
from retter.proxy.relay import HOLD_S
from retter.proxy.self_probe import SelfProbe
from retter.proxy.services import Services

TICK_S = 0.05  # the breaker's; also how late a time limit of an exchange may be noticed
LATE_S = 0.2  # a tick that comes later than that shows that the process was blocked
SECOND_TICKS = 20  # event streams and tunnels are silent for long: checked once a second
# In one of several workers: how often waiting requests look for a place that became free elsewhere.
LOOK_S = 0.01
EXPIRE_AGAIN_S = 0.005  # until the next few connections are ended (clients.py)


class Ticker:
    """The clock of one process.

    Attributes:
        on_second: Called once a second with the time.
        loop_lag_s: The worst lateness of a tick since somebody set it to zero.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._self_probe = SelfProbe(services)
        self.on_second: list[Callable[[float], None]] = []
        self.loop_lag_s = 0.0
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the clock."""
        self._timer = self._services.loop.call_later(TICK_S, self._on_timer)

    def keep_time(self) -> None:
        """Start the clock again if there was no memory for its next tick."""
        if self._timer is not None and self._timer.when() <= self._services.loop.time():
            self._timer.cancel()  # it may be only late
            self.start()

    def stop(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._expiry is not None:
            self._expiry.cancel()
        if self._look is not None:
            self._look.cancel()

    def _on_timer(self) -> None:
        assert self._timer is not None, "it is what has called us"
        loop = self._services.loop
        now = loop.time()
        late_s = now - self._timer.when()
        self.loop_lag_s = max(self.loop_lag_s, late_s)
        self._services.compression.note_lag(late_s)
        self.start()
        if late_s < LATE_S:
            self._on_tick(now)
        else:
            # The process was blocked for a while, and uvloop looks at the clock before it looks at
            # its sockets. So what has arrived meanwhile is read before time limits are checked.
            loop.call_soon(loop.call_soon, self._after_reading)

    def _after_reading(self) -> None:
        if self._timer is not None:  # else it has been stopped
            self._on_tick(self._services.loop.time())

    def _on_tick(self, now: float) -> None:
        self.tick(now)
        if self._expiry is None and self._services.clients.wheel.behind(now):
            self._expire_again_soon()
        if self._look is None and self._services.place is not None:
            self._look_while_some_wait()

    def _look_while_some_wait(self) -> None:
        """Look for a place again and again until nobody waits."""
        if self._services.breaker.waiting:
            self._look = self._services.loop.call_later(LOOK_S, self._on_look)

    def _on_look(self) -> None:
        self._look = None
        start_waiting(self._services, self._services.loop.time())
        self._look_while_some_wait()

    def _expire_again_soon(self) -> None:
        self._expiry = self._services.loop.call_later(EXPIRE_AGAIN_S, self._go_on_expiring)

    def _go_on_expiring(self) -> None:
        self._expiry = None
        services = self._services
        if services.clients.expire(services.loop.time()):
            self._expire_again_soon()

    def tick(self, now: float) -> None:
        """Do the breaker's work that is due, and check all time limits."""
        services = self._services
        services.write_batch.try_step()
        if services.compression.unflushed:
            services.compression.flush()
        end_overdue(services, now)
        services.clients.tick(now)
        start_waiting(services, now)
        for exchange in list(services.exchanges):
            if now - exchange.started_at < HOLD_S:
                break
            try:
                exchange.sweep(now)
            except Exception as error:  # noqa: BLE001 - the others have time limits as well
                end_broken(services, exchange, error, now)
        services.clients.expire(now)
        self._ticks += 1
        if self._ticks % SECOND_TICKS == 0:
            self._on_second(now)
        if services.breaker.circuit.state is not State.CLOSED:
            self._self_probe.tick(now)
        services.pool.sweep(now)
        services.store.free_some()
        if services.disk is not None:
            services.disk.tick(now)
        if services.far is not None:
            services.far.tick(now)
        if services.sessions is not None:
            services.sessions.tick()
        if services.access_log is not None:
            services.access_log.flush()

    def _on_second(self, now: float) -> None:
        services = self._services
        for stream in list(services.streams):
            try:
                stream.sweep(now)
            except Exception as error:  # noqa: BLE001 - the others have time limits as well
                report(services.loop, "a stream's time limits could not be checked", error)
        services.withdrawals.advance(now, services.breaker.circuit.state)
        if services.bound.clients:
            services.bound.sweep(now)
        if services.learnt is not None:
            services.learnt.tick(now)
        for callback in self.on_second:
            try:
                callback(now)
            except Exception as error:  # noqa: BLE001 - the others, and the rest of the tick, go on
                report(services.loop, "what is due each second could not be done", error)
