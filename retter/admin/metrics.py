"""`GET /metrics`: the figures for Prometheus, written by its own client library.

Imported at the first scrape (the library takes 2 MB). Nothing is registered and nothing is counted
twice: a collector reads RETTER's own counters when it is asked. Every label has a handful of values
that are known beforehand: reasons, states, classes of status; never a path, a host or a client.
"""

import operator
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

from retter._version import VERSION
from retter.admin import process_figures
from retter.admin.turns import clients_told_apart
from retter.admin.whole import ADDED, LARGEST, SMALLEST
from retter.base.counters import Histogram, cells, spared
from retter.breaker import Mode, State
from retter.breaker.fairness import LANE_WORDS
from retter.proxy.figures import memo_lookups
from retter.proxy.services import Services
from retter.telemetry.log import lines_dropped

if TYPE_CHECKING:
    from retter.admin.history import History
    from retter.admin.transitions import TransitionHistory
    from retter.admin.worker_sum import Whole

_STATUS: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


def _counter(name: str, about: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, about, value=value)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _counters(
    name: str, about: str, label: str, values: Iterable[tuple[str, float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, about, labels=[label])
    for text, value in values:
        family.add_metric([text], value)
    return family


def _gauges(
    name: str, about: str, label: str, values: Iterable[tuple[str, float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=[label])
    for text, value in values:
        family.add_metric([text], value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    below, buckets = 0, list[tuple[str, float]]()
    bounds = [repr(bound) for bound in histogram.bounds]
    for bound, count in zip([*bounds, "+Inf"], histogram.counts, strict=True):
        below += count
        buckets.append((bound, below))
    return buckets


class ProxyCollector(Collector):
    """Reads the counters of one proxy, for all scrapes."""

    def __init__(
        self, services: Services, history: "History", transitions: "TransitionHistory"
    ) -> None:
        self._services = services
        self._history = history
        self._transitions = transitions
        self._sums: dict[str, float] = {}  # of histograms, as exported last

    def _histogram(self, name: str, about: str, histogram: Histogram) -> HistogramMetricFamily:
        # A sum of many parts may be rounded to less than before. A counter that falls looks like a
        # restart, and would be counted twice.
        total = self._sums[name] = max(histogram.total, self._sums.get(name, 0.0))
        return HistogramMetricFamily(name, about, buckets=_buckets(histogram), sum_value=total)

    def clients_told_apart(self) -> int:
        """Return how many clients all workers tell apart."""
        return clients_told_apart(self._services, self._history)

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._process()
        yield from self._requests()
        yield from self._times()
        yield from self._circuit()
        yield from self._store()
        yield from self._connections()

    def _process(self) -> Iterator[Metric]:
        services = self._services
        yield InfoMetricFamily("retter_build", "The version that runs.", value={"version": VERSION})
        yield _gauge(
            "retter_uptime_seconds",
            "Time since the start.",
            services.loop.time() - services.started_at,
        )
        yield _gauge(
            "retter_draining",
            "1 while RETTER drains: it finishes running requests before it stops.",
            services.draining,
        )
        yield _gauge(
            "retter_loop_lag_seconds",
            "Longest delay of the event loop in the last ten seconds.",
            self._history.loop_lag_s,
        )
        yield _counters(
            "retter_log_lines_dropped",
            "Dropped log lines: the reader hangs, or the disk is full.",
            "log",
            [("access", services.counters.access_lines_dropped), ("own", lines_dropped())],
        )
        yield _counter(
            "retter_out_of_memory",
            "Times that memory ran out and the store was emptied.",
            services.counters.memory_errors,
        )
        yield _counter(
            "retter_faults",
            "Faults of RETTER itself; the log describes them.",
            services.counters.faults,
        )
        yield from self._operating_system()

    @staticmethod
    def _operating_system() -> Iterator[Metric]:
        """Yield the process figures that all Prometheus client libraries export."""
        yield _gauge(
            "process_resident_memory_bytes", "Resident memory.", process_figures.rss_bytes()
        )
        yield _gauges(
            "retter_memory_bytes",
            "Resident memory: anonymous, and mapped files, which the system can drop.",
            "kind",
            [
                ("anonymous", process_figures.anonymous_bytes()),
                ("mapped", process_figures.mapped_bytes()),
            ],
        )
        yield _gauge(
            "process_virtual_memory_bytes", "Virtual memory.", process_figures.virtual_bytes()
        )
        yield _counter("process_cpu_seconds", "CPU time, user and system.", time.process_time())
        if (open_fds := process_figures.open_fds()) is not None:
            yield _gauge("process_open_fds", "Open file descriptors.", open_fds)
        yield _gauge(
            "process_max_fds",
            "Limit of open file descriptors.",
            process_figures.max_fds(),
        )
        if (start_time_s := process_figures.start_time_s()) is not None:
            yield _gauge(
                "process_start_time_seconds",
                "Start time of the process, in seconds since 1970.",
                start_time_s,
            )

    def _requests(self) -> Iterator[Metric]:
        counters = self._services.counters
        family = CounterMetricFamily(
            "retter_requests",
            "Answered requests, by method (other: all but GET; unread: not readable), source of "
            "the response, class of status, and reason.",
            labels=["method", "source", "status", "reason"],
        )
        for method, source, counts in (
            ("GET", "backend", counters.forwarded_get),
            ("other", "backend", counters.forwarded_other),
            ("GET", "cache", counters.stored),
            ("GET", "retter", counters.own_get),
            ("other", "retter", counters.own_other),
            ("unread", "retter", counters.own_unread),
        ):
            for reason, status_class, count in cells(counts):
                family.add_metric([method, source, _STATUS[status_class], reason.value], count)
        yield family
        yield _counters(
            "retter_upstream_errors",
            "Failed requests at the application, also if the client got a stored response.",
            "reason",
            [(reason.value, n) for reason, n in counters.upstream_errors.items() if n],
        )
        yield _counter(
            "retter_retries", "Requests that were sent again on a new connection.", counters.retries
        )
        yield _counter(
            "retter_clients_gone",
            "Clients that left before their response was complete.",
            counters.clients_gone,
        )
        yield _counters(
            "retter_gave_up",
            "Clients that left before they got anything of their response, streams aside.",
            "method",
            [("GET", counters.gave_up_get), ("other", counters.gave_up_other)],
        )
        yield _counter(
            "retter_spared",
            "Responses that were good only because of RETTER: from the store, when the "
            "application did not answer or had no place.",
            spared(counters),
        )

    def _times(self) -> Iterator[Metric]:
        breaker, counters = self._services.breaker, self._services.counters
        yield self._histogram(
            "retter_upstream_first_byte_seconds",
            "Time from a request's start at the application to the first byte of its response.",
            breaker.first_byte_latency(),
        )
        yield self._histogram(
            "retter_upstream_response_seconds",
            "Time from a request's start at the application to the end of a good response.",
            breaker.latency(),
        )
        family = HistogramMetricFamily(
            "retter_overhead_seconds",
            "RETTER's own time for a request until it is forwarded or answered, and for the first "
            "piece of its response; without what the kernel takes to write them, and measured on "
            "one connection of sixteen.",
            labels=["part"],
        )
        for part, histogram in (
            ("request", counters.overhead_request),
            ("answer", counters.overhead_answer),
        ):
            family.add_metric([part], _buckets(histogram), histogram.total)
        yield family

    def _circuit(self) -> Iterator[Metric]:
        services = self._services
        breaker = services.breaker
        now = breaker.snapshot(services.loop.time())
        yield _gauges(
            "retter_state",
            "1 for the circuit's present state.",
            "state",
            [(state.value, state is now.state) for state in State],
        )
        yield _gauges(
            "retter_mode",
            "1 for the mode that an operator has set.",
            "mode",
            [(mode.value, mode is now.mode) for mode in Mode],
        )
        family = CounterMetricFamily(
            "retter_transitions",
            "Changes of the circuit's state, by the new one and the cause.",
            labels=["state", "cause"],
        )
        for (state, cause), count in self._transitions.by_cause.items():
            family.add_metric([state.value, cause.value], count)
        yield family
        yield _gauge("retter_in_flight", "Requests at the application.", now.in_flight)
        yield _gauge(
            "retter_limit", "Requests that the application can work on at once.", now.limit
        )
        yield _gauge("retter_work_rate", "Busy workers of the application.", now.work_rate)
        yield _gauge("retter_queue", "GETs in the queue.", now.waiting)
        yield _gauge("retter_streams", "Event streams and tunnels.", len(services.streams))
        yield _gauge("retter_buffer_bytes", "Memory of buffered bodies.", services.buffers.used)
        yield _gauge("retter_routes_open", "Routes whose breaker is open.", len(now.routes_open))
        yield _gauge("retter_paused", "1 during a pause.", breaker.circuit.paused_until is not None)
        yield _gauge("retter_held", "Requests that wait for the end of a pause.", now.held)
        yield _counter("retter_queued", "GETs that had to wait in the queue.", now.queued)
        fairness = breaker.circuit.fairness
        if fairness is not None:
            lanes = list(zip(LANE_WORDS, fairness.asked, fairness.got, strict=True))
            yield _counters(
                "retter_lane_requests",
                "Requests that were sorted into a lane, because not all could be forwarded.",
                "lane",
                [(lane, asked) for lane, asked, _ in lanes],
            )
            yield _counters(
                "retter_lane_places",
                "Requests of a lane that went to the application.",
                "lane",
                [(lane, got) for lane, _, got in lanes],
            )
            room = breaker.circuit.room
            yield _gauges(
                "retter_lane_waiting",
                "Requests that wait, by lane.",
                "lane",
                [(word, room.waiting_in(lane)) for lane, word in enumerate(LANE_WORDS)],
            )
            yield _gauge(
                "retter_clients_told_apart",
                "Clients whose demand is counted at present.",
                len(fairness.demand),
            )
        yield _counter(
            "retter_probes",
            "Requests forwarded to find out whether the application has recovered.",
            now.probes,
        )

    def _store(self) -> Iterator[Metric]:
        store = self._services.store.stats()
        yield _gauge("retter_store_bytes", "Memory used by the store.", store["bytes_used"])
        yield _gauge("retter_store_max_bytes", "Memory that the store may use.", store["bytes_max"])
        yield _gauge("retter_store_entries", "Stored responses.", store["entries"])
        yield _gauge("retter_store_bodies", "Distinct bodies of stored responses.", store["bodies"])
        yield _gauge(
            "retter_store_owners", "Owners of stored responses, besides everyone.", store["owners"]
        )
        yield _counters(
            "retter_store_hits",
            "Look-ups that found a response: the owner's own, or everyone's.",
            "kind",
            [("own", store["found_own"]), ("public", store["found_public"])],
        )
        yield _counter(
            "retter_store_misses", "Look-ups that found no response.", store["not_found"]
        )
        yield _counters(
            "retter_store_writes",
            "Good responses, by what the store did with them.",
            "result",
            [(name, store[name]) for name in ("stored", "unchanged", "refreshed", "refused")],
        )
        yield _counters(
            "retter_store_evictions",
            "Responses evicted for lack of room: in the store, an owner's share, a URL's variants.",
            "kind",
            [(n, store[f"evicted_{n}"]) for n in ("budget", "share", "variants")],
        )
        yield _counters(
            "retter_store_removals",
            "Stored responses that were dropped for other reasons.",
            "kind",
            [(n, store[n]) for n in ("expired", "dropped_session", "purged", "withdrawn")],
        )
        yield _counter(
            "retter_store_restored",
            "Withdrawn responses that were restored, because the application refused too many "
            "pages.",
            store["restored"],
        )
        yield _counter(
            "retter_store_superseded",
            "Stored responses that an unsafe method has changed.",
            store["superseded"],
        )
        if self._services.disk is not None:
            yield from self._disk(self._services.disk.stats())
            yield self._histogram(
                "retter_disk_read_seconds",
                "Time that a read from disk held the event loop.",
                self._services.disk.figures.held,
            )
        if self._services.far is not None:
            yield from self._shared(self._services.far.stats())
        coding = self._services.compression.stats()
        yield _counters(
            "retter_compressions",
            "Responses compressed while forwarded, or not for lack of time, and stored bodies.",
            "kind",
            [(name, coding[name]) for name in ("forwarded", "refrained", "stored_forms")],
        )

    def _shared(self, shared: dict[str, Any]) -> Iterator[Metric]:
        yield _gauge(
            "retter_shared_connected",
            "1 while the server that boxes share is used.",
            shared["connected"],
        )
        yield _gauge("retter_shared_boxes", "Boxes in front of the application.", shared["boxes"])
        yield _counters(
            "retter_shared_reads",
            "Requests that looked for what other boxes have stored.",
            "result",
            [
                ("hit", shared["hits"]),
                ("miss", shared["reads"] - shared["hits"] - shared["reads_late"]),
                ("late", shared["reads_late"]),
            ],
        )
        yield _counters(
            "retter_shared_writes",
            "Entries written for other boxes, or dropped.",
            "result",
            [("written", shared["written"]), ("dropped", shared["dropped"])],
        )
        yield _counters(
            "retter_shared_bytes",
            "Octets of values to and from the server.",
            "direction",
            [("sent", shared["bytes_sent"]), ("received", shared["bytes_received"])],
        )
        yield _counters(
            "retter_shared_changes",
            "Messages about changes, to and from other boxes, and changes that could not be told.",
            "direction",
            [(name, shared[f"changes_{name}"]) for name in ("told", "heard", "lost")],
        )
        yield _counter(
            "retter_shared_failures", "Times that the server could not be used.", shared["failures"]
        )

    def _disk(self, disk: dict[str, Any]) -> Iterator[Metric]:
        yield _gauge("retter_disk_entries", "Keys with stored responses on disk.", disk["entries"])
        yield _gauge("retter_disk_bytes", "Size of stored responses on disk.", disk["bytes_used"])
        yield _gauge("retter_disk_max_bytes", "Their size limit on disk.", disk["bytes_max"])
        yield _gauge("retter_disk_file_bytes", "Size of the database file.", disk["file_bytes"])
        yield _gauge("retter_disk_dirty", "Keys whose change is not on disk yet.", disk["dirty"])
        yield _gauge("retter_disk_failed", "1 while it is out of use.", bool(disk["trouble"]))
        yield _gauge(
            "retter_disk_set_aside", "1 if a broken database was set aside.", disk["set_aside"]
        )
        yield _counter("retter_disk_commits", "Commits to the disk.", disk["commits"])
        yield _counter(
            "retter_disk_commit_failures", "Commits that failed.", disk["commit_failures"]
        )
        yield _counters(
            "retter_disk_writes",
            "Changes of stored responses: written, or not written for lack of room or time.",
            "result",
            [("written", disk["written"]), ("dropped", disk["not_written"])],
        )
        yield _counters(
            "retter_disk_removals",
            "Stored responses removed from disk to make room, or because they were damaged.",
            "kind",
            [(name, disk[name]) for name in ("evicted", "damaged")],
        )
        yield _counters(
            "retter_disk_reads",
            "Look-ups on disk: at once, in the thread, and too late for their request.",
            "kind",
            [
                ("at_once", disk["reads"]),
                ("thread", disk["reads_in_thread"]),
                ("late", disk["reads_late"]),
            ],
        )

    def _connections(self) -> Iterator[Metric]:
        services = self._services
        counters, pool = services.counters, services.pool
        yield _gauge("retter_connections", "Client connections.", len(services.clients.connections))
        yield _counter(
            "retter_connections_accepted",
            "Client connections since the start.",
            counters.connections,
        )
        yield _counter(
            "retter_connections_refused",
            "Client connections that were refused because there were too many.",
            counters.connections_refused,
        )
        yield _counter(
            "retter_connections_evicted",
            "Client connections that were closed to make room for others.",
            counters.connections_evicted,
        )
        yield _counter(
            "retter_tls_failed",
            "TLS handshakes of clients that failed.",
            counters.tls_failed,
        )
        yield _counters(
            "retter_client_bytes",
            "Bytes from and to clients, without TLS.",
            "direction",
            [("received", counters.received), ("sent", counters.sent)],
        )
        yield _gauges(
            "retter_upstream_connections",
            "Connections to the application.",
            "state",
            [("idle", pool.idle), ("busy", pool.open - pool.idle), ("dialling", pool.dialling)],
        )
        yield _gauge(
            "retter_upstream_held",
            "Requests held while the application refuses connections.",
            pool.held,
        )
        yield _counter("retter_upstream_dials", "Connection attempts.", pool.dials)
        yield _counter(
            "retter_upstream_dials_failed", "Connection attempts that failed.", pool.dials_failed
        )
        yield _counter(
            "retter_upstream_resolver_failures",
            "Lookups of the application's name that failed.",
            pool.resolver.failures,
        )
        lookups = memo_lookups(services)
        yield _counters(
            "retter_memo_hits",
            "Heads that had been parsed before.",
            "kind",
            [(kind, hits) for kind, (hits, _) in lookups.items()],
        )
        yield _counters(
            "retter_memo_misses",
            "Heads that had to be parsed.",
            "kind",
            [(kind, misses) for kind, (_, misses) in lookups.items()],
        )


# A version that the library can compare: it accepts any text, and fails if it contains letters.
_VERSION: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){1,2}")

# Scrapers name about five formats. Later ones are ignored.
ACCEPTED_MAX: Final = 16


def _comparable(member: str) -> bool:
    """Return whether every version in a member of Accept is a valid number."""
    for parameter in member.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "version" and not _VERSION.fullmatch(value.strip()):
            return False
    return True


class WholeCollector(Collector):
    """The figures of all workers: those of this one, with those that the others report."""

    def __init__(self, own: ProxyCollector, whole: "Whole") -> None:
        self._own = own
        self._whole = whole

    def collect(self) -> Iterator[Metric]:
        """Yield every family, and some for each worker."""
        counted, gauges = _by_name(self._whole.counted()), _by_name(self._whole.gauges())
        own: dict[str, float] = {}
        for family in self._own.collect():
            own.update({one.name: one.value for one in family.samples if not one.labels})
            if family.type in ("counter", "histogram"):
                _add(family, counted, operator.add)
            elif family.name in ADDED:
                _add(family, gauges, operator.add)
            elif family.name in LARGEST:
                _add(family, gauges, max)
            elif family.name in SMALLEST:
                _add(family, gauges, min)
            self._take_whole(family)
            yield family
        yield from self._each(own)

    def _take_whole(self, family: Metric) -> None:
        """Replace a figure that is neither a sum nor one of the workers'."""
        value: float | None = None
        if family.name == "retter_uptime_seconds":
            value = self._whole.uptime_s
        elif family.name == "process_start_time_seconds":
            value = process_figures.start_time_s(os.getppid())  # of the supervisor
        elif family.name == "retter_clients_told_apart":
            value = self._own.clients_told_apart()
        if value is not None:
            family.samples = [one._replace(value=value) for one in family.samples]

    def _each(self, own: dict[str, float]) -> Iterator[Metric]:
        others = sorted(self._whole.each())
        yield _gauge("retter_workers", "Workers that serve.", 1 + len(others))
        lag = [(str(number), one["loop_lag_ms"] / 1000) for number, one in others]
        memory = [(str(number), float(one["memory"]["rss_bytes"])) for number, one in others]
        yield _gauges(
            "retter_worker_loop_lag_seconds",
            "Longest delay of the event loop of each worker in the last ten seconds.",
            "worker",
            [("0", own["retter_loop_lag_seconds"]), *lag],
        )
        yield _gauges(
            "retter_worker_resident_memory_bytes",
            "Resident memory of each worker. Workers share a part of it.",
            "worker",
            [("0", own["process_resident_memory_bytes"]), *memory],
        )


# Of the names of samples, after the name of their family.
_SUFFIXES: Final = ("", "_total", "_bucket", "_count", "_sum")

Told = dict[str, dict[tuple[tuple[str, str], ...], list[float]]]


def _by_name(points: Iterable[Sequence[Any]]) -> Told:
    found: Told = {}
    for name, labels, value in points:
        key = tuple([(str(one), str(text)) for one, text in labels])
        found.setdefault(name, {}).setdefault(key, []).append(value)
    return found


def _add(family: Metric, told: Told, add: Callable[[float, float], float]) -> None:
    """Add the samples of other workers to a family, also those that only others have."""
    samples: list[Sample] = []
    for one in family.samples:
        its = told.get(one.name, {}).pop(tuple(sorted(one.labels.items())), [])
        samples.append(one._replace(value=reduce(add, its, one.value)))
    for name in [family.name + suffix for suffix in _SUFFIXES]:
        for labels, values in told.get(name, {}).items():
            samples.append(Sample(name, dict(labels), reduce(add, values)))
    family.samples = samples


def exposition(
    collector: ProxyCollector, accept: str, whole: "Whole | None" = None
) -> tuple[bytes, str]:
    """Return the text and its media type: OpenMetrics if it is accepted, else that of Prometheus.

    A format with an invalid version is ignored, so the next one counts.

    Args:
        whole: The figures of other workers.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector if whole is None else WholeCollector(collector, whole))
    named = accept.replace('"', "").split(",")[:ACCEPTED_MAX]
    members = [one for one in named if _comparable(one)]
    encode, content_type = choose_encoder(",".join(members))
    return encode(registry), content_type
