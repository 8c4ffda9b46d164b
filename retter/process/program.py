"""The whole program: one process that serves until a signal ends it."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from retter._version import VERSION
from retter.config.settings import Settings
from retter.net import systemd
from retter.net.handover import Inheritance
from retter.net.sockets import ListenError
from retter.process import memory
from retter.process.descriptors import fit_descriptors
from retter.process.disk_log import DiskLog
from retter.process.hint_log import HintLog
from retter.process.loop_errors import LoopFaults, end_out_of_memory
from retter.process.minute_summary import Digest
from retter.process.running import RunningProxy, running
from retter.process.signals import Reread, Signals
from retter.process.situation_log import SituationLog
from retter.process.transition_log import TransitionLog
from retter.process.upstream_watch import Absence, AddressProbe
from retter.process.withdrawal_log import WithdrawalLog
from retter.telemetry.build import is_compiled
from retter.telemetry.line_writer import CLOSE_S
from retter.telemetry.log import flush as flush_log
from retter.telemetry.log import get_logger

if TYPE_CHECKING:
    from retter.admin.watch import Watch

log = get_logger()


async def _serve(settings: Settings, reread: Reread) -> int:
    loop = asyncio.get_running_loop()
    inheritance = Inheritance()
    transitions = TransitionLog()
    async with running(
        settings, transitions.on_transition, by_itself=True, inheritance=inheritance
    ) as proxy:
        faults = LoopFaults(proxy._services, proxy._proxy.ticker)
        loop.set_exception_handler(faults)
        memory.collect_less_often()
        memory.give_back_freed_memory()
        memory.keep_freed_memory()
        signals = Signals(proxy, reread)
        if rest := inheritance.close_rest():
            log.warning("unused-sockets", listen=rest, advice="no --listen address matches them")
        _log_serving(proxy, settings.upstream)
        inheritance.serving()
        systemd.notify("READY=1", "STATUS=serving")
        watch = proxy.watch()
        if os.environ.get("NOTIFY_SOCKET"):
            _report_to_systemd(proxy, watch)
        proxy.on_second(faults.on_second)
        situations = SituationLog(watch)
        transitions.sentences = situations.sentences
        proxy.on_second(transitions.on_second)
        proxy.on_second(situations.on_second)
        probe = AddressProbe(proxy._services)
        _log_each_second(proxy, probe)
        await signals.wait_for_stop()
        probe.cancel()
        if signals.pid_after:
            systemd.notify(f"MAINPID={signals.pid_after}")
        else:
            systemd.notify("STOPPING=1", "STATUS=draining")
        log.info("draining", connections=proxy.stats()["connections"]["open"])
        await proxy._drain()
        transitions.flush()
        log.info("stopped", drained=True)
    return 0


def _log_serving(proxy: RunningProxy, upstream: str) -> None:
    # The address of `--listen :80` is printed as http://127.0.0.1:80, as if only this machine could
    # connect. `open_to` says that every interface accepts connections.
    open_to = {"open_to": "every interface"} if proxy.everywhere else {}
    compiled = {"compiled": True} if is_compiled() else {}
    log.info(
        "serving",
        listen=proxy.addresses,
        upstream=upstream,
        version=VERSION,
        pid=os.getpid(),
        admin=proxy.admin_address or "off",
        **compiled,
        **open_to,
    )


def _log_each_second(proxy: RunningProxy, probe: AddressProbe) -> None:
    """Call once a second those that log what has happened since."""
    services = proxy._services
    for reporter in (
        Digest(services),
        Absence(services, probe.again),
        WithdrawalLog(services),
        DiskLog(services),
        HintLog(services),
    ):
        proxy.on_second(reporter.on_second)
    proxy.on_second(lambda _: flush_log())


def _report_to_systemd(proxy: RunningProxy, watch: "Watch") -> None:
    """Tell systemd once a second that the process is alive, and the situation if changed."""
    watchdog = systemd.watchdog_wanted()
    reported = ""

    def on_second(_: float) -> None:
        nonlocal reported
        lines = ["WATCHDOG=1"] if watchdog else []
        if watch.situation.row != reported:
            reported = watch.situation.row
            lines.append(f"STATUS=circuit {proxy.state}: {watch.situation.now}")
        if lines:
            systemd.notify(*lines)

    proxy.on_second(on_second)


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


def run(settings: Settings, reread: Reread | None = None) -> int:
    """Serve until a signal ends it.

    Args:
        reread: Reads the configuration again, for SIGHUP; raises ConfigError if it is wrong.

    Returns:
        The exit code: 0 after draining, 1 if an address cannot be listened on.
    """
    settings = fit_descriptors(settings)
    try:
        return run_on_loop(_serve(settings, reread or (lambda: settings)), settings.event_loop)
    except ListenError as error:
        log.error("cannot-start", error=str(error))
        return 1
    except MemoryError:  # the loop itself cannot go on
        end_out_of_memory()
    finally:
        flush_log(CLOSE_S)
