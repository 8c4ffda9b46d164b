"""The shared half of a process: it is made, gets new settings, is drained and closed.

One Proxy stands for one application. It binds nothing and listens to nothing; process/running.py
does that.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from retter.breaker import Mode, Transition
from retter.config.settings import Settings
from retter.net.supervision import report
from retter.proxy import part_settings
from retter.proxy.build import build_services
from retter.proxy.figures import stats
from retter.proxy.holders import queued_holder_of
from retter.proxy.lasting import keep_rules
from retter.proxy.pool import ConnectionPool
from retter.proxy.secrets import Secrets
from retter.proxy.ticker import Ticker
from retter.store.owner import tells_more_apart
from retter.store.policy import StorePolicy
from retter.telemetry.line_writer import CLOSE_S

if TYPE_CHECKING:
    from retter.base.worker_place import WorkerPlace
    from retter.disk.shelf import DiskShelf
    from retter.far.shelf import FarShelf
    from retter.proxy.sharing import Sharing

DRAIN_IDLE_S = 1.0  # no request for so long: none is on its way


class Proxy:
    """The shared half of a running RETTER.

    Args:
        on_transition: Called with every change of the circuit's state.
        pool_class: Makes the upstream connections.
        clock: Seconds for the access log: the same as the loop's, but finer.
        disk: The store on disk behind the one in memory; it is closed with the proxy.
        secrets: The secrets of the process that this one takes over from.
        place: The place of this process among several workers.
        far: The server that several boxes share; it is closed with the proxy.

    Attributes:
        services: The parts that connections and exchanges share.
        ticker: The clock.
    """

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        on_transition: Callable[[Transition], None] | None = None,
        pool_class: type[ConnectionPool] = ConnectionPool,
        clock: Callable[[], float] = time.monotonic,
        disk: "DiskShelf | None" = None,
        secrets: Secrets | None = None,
        place: "WorkerPlace | None" = None,
        far: "FarShelf | None" = None,
    ) -> None:
        self._clock = clock
        self.on_transition = [on_transition] if on_transition is not None else []
        self.services = build_services(
            settings, loop, self._tell, pool_class, clock, disk, secrets, place, far
        )
        self.ticker = Ticker(self.services)
        self._sharing: Sharing | None = None
        if far is not None:
            from retter.proxy import sharing

            self._sharing = sharing.Sharing(self.services, far)
            self.ticker.on_second.append(self._sharing.on_second)

    def _tell(self, transition: Transition) -> None:
        for callback in self.on_transition:
            try:
                callback(transition)
            except Exception as error:  # noqa: BLE001 - whoever changes the state has more to do
                report(self.services.loop, "a change of state could not be told", error)

    def apply(self, settings: Settings) -> None:
        """Take over new settings (those that reload.py allows to change), and open files again.

        Requests that have begun keep the earlier settings; new requests and connections get these.

        Raises:
            ConfigError: A file cannot be read or written; then nothing has changed.
        """
        services = self.services
        now, before, rules_before = services.loop.time(), services.settings, services.owner_rules
        rules = part_settings.owner_rules(settings, rules_before, services.secrets)
        # These may fail, so they come first.
        error_page = part_settings.error_page(settings, pipe=False)
        pool_options = part_settings.pool_options(settings)
        access_log = part_settings.open_access_log(
            settings, rules, services.counters, self._clock, services.access_log
        )
        services.use(settings)
        services.answers.configure(headers=settings.headers, error_page=error_page)
        services.owner_rules = rules
        services.failure_statuses = frozenset(settings.failure_statuses)
        services.store_policy = StorePolicy(settings.store_policy)
        services.judges_plain_answers = part_settings.judges_plain_answers(settings)
        services.goodness.configure(part_settings.failure_texts(settings))
        services.peers.configure(settings)
        services.clients.configure(settings)
        if tells_more_apart(rules, rules_before):
            # A response that is stored for everyone may be private by the new rules.
            services.store.invalidation.empty(now)
            for permit in services.breaker.all_waiting():
                queued_holder_of(permit).keep_from_store()
        services.keeper.configure(rules)
        services.turns.configure(settings.crawler_words, rules)
        services.heads.configure(settings, rules)
        breaker_settings = part_settings.breaker_settings(settings)
        if self._sharing is not None:
            breaker_settings = self._sharing.part_of(breaker_settings)
            self._sharing.follow_rules(rules, settings)
        services.breaker.circuit.reconfigure(breaker_settings)
        if settings.circuit != before.circuit:
            services.breaker.circuit.set_mode(now, Mode(settings.circuit))
        services.store.reconfigure(part_settings.store_rules(settings, rules, services.secrets))
        if services.disk is not None:
            services.disk.max_stale_s = settings.max_stale_s
            keep_rules(services.disk, rules, settings.store_policy)
        part_settings.configure_compression(services.compression, settings)
        services.buffers.bytes_max = settings.buffer_memory_bytes
        services.pool.reconfigure(**pool_options)
        if services.access_log is not None:
            services.access_log.close(access_log)
        services.access_log = access_log

    # -- the end, and looking in ----------------------------------------------------------------

    def drain(self, now: float, idle_s: float = DRAIN_IDLE_S) -> None:
        """Close idle connections; all others close after their next answer.

        A client that has just got its answer may be about to send the next request, and one that
        has just connected is: if it was closed now, it would get nothing. Call it until all are
        gone.

        Args:
            now: All that has arrived until then must have been read. Otherwise a process that was
                blocked would close connections whose requests wait in its sockets.
            idle_s: Idle for this long; infinity: each may send one more request.
        """
        self.services.draining = True  # from now on at the latest
        before = now - idle_s
        for connection in list(self.services.clients.connections):
            if connection.idle and connection.waits_since() <= before:
                connection.close()

    def close(self) -> None:
        """Close everything at once."""
        services = self.services
        self.ticker.stop()
        services.compression.close()
        now = services.loop.time()
        services.pool.close()
        for connection in list(services.clients.connections):
            connection.disconnect(now)
        for open_still in [*services.exchanges, *services.streams]:
            open_still.abort_request(now)
        if self._sharing is not None:
            self._sharing.close()
        if services.disk is not None:
            if services.learnt is not None:
                services.learnt.save(now)
            services.disk.close()
        if services.access_log is not None:
            services.access_log.close(wait_s=CLOSE_S)

    def stats(self) -> dict[str, Any]:
        """Return all figures, for people and programs."""
        return stats(self.services)
