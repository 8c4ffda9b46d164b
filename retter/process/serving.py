"""Set-up of a process that serves, whether it is the only one or one of several workers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from retter.process import memory
from retter.process.access_log_watch import AccessLogWatch
from retter.process.disk_log import DiskLog
from retter.process.far_log import FarLog
from retter.process.hint_log import HintLog
from retter.process.loop_errors import LoopFaults
from retter.process.minute_summary import Digest
from retter.process.running import RunningProxy
from retter.process.situation_log import SituationLog
from retter.process.transition_log import TransitionLog
from retter.process.upstream_watch import Absence, AddressProbe
from retter.process.withdrawal_log import WithdrawalLog
from retter.telemetry.log import flush as flush_log

if TYPE_CHECKING:
    from retter.admin.watch import Watch


def settle(proxy: RunningProxy, loop: asyncio.AbstractEventLoop) -> LoopFaults:
    """Set up the loop and the memory of a process that has started and now serves."""
    faults = LoopFaults(proxy._services, proxy._proxy.ticker)
    loop.set_exception_handler(faults)
    memory.collect_less_often()
    proxy._services.store.look_through = memory.YoungObjects().look_through
    memory.give_back_freed_memory()
    memory.keep_freed_memory()
    return faults


def log_situations(
    proxy: RunningProxy, watch: "Watch | None", transitions: TransitionLog, faults: LoopFaults
) -> None:
    """Log what changes about the application and the circuit.

    Args:
        watch: The watch of the situation; None: another worker logs it.
    """
    proxy.on_second(faults.on_second)
    proxy.on_second(transitions.on_second)
    if watch is not None:
        situations = SituationLog(watch)
        transitions.sentences = situations.sentences
        proxy.on_second(situations.on_second)


def log_each_second(proxy: RunningProxy, probe: AddressProbe) -> None:
    """Call once a second all reporters that write summaries into the log."""
    services = proxy._services
    for reporter in (
        Digest(services),
        Absence(services, probe.again),
        WithdrawalLog(services),
        DiskLog(services),
        FarLog(services),
        HintLog(services),
        AccessLogWatch(services),
    ):
        proxy.on_second(reporter.on_second)
    proxy.on_second(lambda _: flush_log())


def run_on_loop(main: Coroutine[Any, Any, int], event_loop: str) -> int:
    """Run on uvloop. Use asyncio's own loop if `event_loop` says so or uvloop is not installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if event_loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if event_loop == "uvloop":
                raise
        else:
            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
