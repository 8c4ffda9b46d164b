"""Counters of the breaker, for operators only: no decision reads them."""

from retter.base.counters import LATENCY_BOUNDS_S, Histogram


class Counts:
    """Numbers of events since the start, and two latencies."""

    def __init__(self) -> None:
        self.answered_late = self.queue_timeouts = self.queued = 0
        self.probes = self.transitions = self.trials = 0
        self.would_answer_late = self.would_queue = self.would_reject = self.would_shed = 0
        # Latencies of answers that came in pieces; the routes hold those of all good answers.
        self.first_bytes = Histogram(LATENCY_BOUNDS_S)
        self.in_pieces = Histogram(LATENCY_BOUNDS_S)  # until complete
