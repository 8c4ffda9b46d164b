"""The whole program: one process that serves until a signal ends it, or a supervisor of several."""

import asyncio
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from retter._version import VERSION
from retter.config.settings import ConfigError, Settings
from retter.net import systemd
from retter.net.handover import Inheritance
from retter.net.sockets import ListenError
from retter.process.descriptors import (
    TooFewDescriptors,
    fit_descriptors,
    require_descriptors,
)
from retter.process.loop_errors import end_out_of_memory
from retter.process.running import RunningProxy, running
from retter.process.serving import log_each_second, log_situations, run_on_loop, settle
from retter.process.signals import Reread, Signals
from retter.process.transition_log import TransitionLog
from retter.process.upstream_watch import AddressProbe
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
    if inheritance.workers is not None:
        raise ConfigError("workers: from several to one needs a restart; SIGUSR2 cannot do that")
    transitions = TransitionLog()
    async with running(
        settings, transitions.on_transition, by_itself=True, inheritance=inheritance
    ) as proxy:
        faults = settle(proxy, loop)
        signals = Signals(proxy, reread)
        if rest := inheritance.close_rest():
            log.warning("unused-sockets", listen=rest, advice="no --listen address matches them")
        _log_serving(proxy, settings.upstream)
        proxy.has_taken_over()
        systemd.notify("READY=1", "STATUS=serving")
        watch = proxy.watch()
        if os.environ.get("NOTIFY_SOCKET"):
            _report_to_systemd(proxy, watch)
        log_situations(proxy, watch, transitions, faults)
        probe = AddressProbe(proxy._services)
        log_each_second(proxy, probe)
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


def _alone(reread: Reread) -> Settings:
    return replace(reread(), workers=1)


def run(settings: Settings, reread: Reread | None = None) -> int:
    """Serve until a signal ends it.

    Args:
        reread: Reads the configuration again, for SIGHUP; raises ConfigError if it is wrong.

    Returns:
        The exit code: 0 after draining, 1 if an address cannot be listened on, or the system grants
        too few descriptors.
    """
    reread = reread or (lambda: settings)
    try:
        require_descriptors()
        if settings.workers != 1:
            from retter.process.supervisor import supervise, worker_count

            if worker_count(settings.workers) > 1:
                return supervise(settings, reread)
            # One CPU: `auto` needs no supervisor.
            settings, reread = replace(settings, workers=1), partial(_alone, reread)
        settings = fit_descriptors(settings)
        return run_on_loop(_serve(settings, reread), settings.event_loop)
    except (ListenError, TooFewDescriptors) as error:
        log.error("cannot-start", error=str(error))
        return 1
    except MemoryError:  # the loop itself cannot go on
        end_out_of_memory()
    finally:
        flush_log(CLOSE_S)
