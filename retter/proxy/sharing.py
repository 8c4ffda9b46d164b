"""Connects the server that boxes share to the store, the circuit and the operator's orders.

`Sharing` passes the changes of the store on to the server behind it (retter/far), applies what
other boxes tell, and gives the breaker its part of the application: with k boxes, each one uses
h/k of `--max-in-flight` and L0/k of `--limit-start`. What a breaker measures is not shared: one
sick box would make all of them limit.
"""

import json
from dataclasses import replace
from hashlib import blake2b
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from retter.breaker import BreakerSettings, Mode
from retter.config.files import PEM_BYTES_MAX, SECRET_BYTES_MAX, check_file, read_file
from retter.config.settings import WORKERS_MAX, ConfigError
from retter.config.units import server_files
from retter.proxy.follower import Follower
from retter.proxy.holders import resume
from retter.proxy.lasting import written_rules
from retter.proxy.part_settings import breaker_settings
from retter.proxy.services import Services
from retter.store.owner import OwnerRules
from retter.store.packed_removals import packed_removals, unpacked_removals
from retter.store.store import ResponseStore

if TYPE_CHECKING:
    import asyncio

    from retter.base.worker_place import WorkerPlace
    from retter.config.settings import Settings
    from retter.disk.shelf import DiskShelf
    from retter.far.changes import Message
    from retter.far.keys import Keys
    from retter.far.shelf import FarShelf
    from retter.store.write_behind import Removals, Slot

PACKAGE: Final = "needs the redis package, which is not installed; pip install 'retter[shared]'"

# Beside a disk: the last change that the responses there take into account.
PLACE: Final = "shared-place"
PLACE_EVERY_S: Final = 10.0
# Removals that could not be told before the end; `-1` and so on are those of further workers.
UNTOLD: Final = "shared-untold"
UNTOLD_BYTES_MAX: Final = 16 * 1024 * 1024

DAY_S: Final = 24 * 3600.0


def far_keys(settings: "Settings") -> "Keys":
    """Return the keys that follow from `--shared-secret`.

    Raises:
        ConfigError: The secret or a file for TLS cannot be read, or the package is not installed.
    """
    if find_spec("redis") is None:
        raise ConfigError(f"shared: {PACKAGE}")
    from retter.far.keys import SECRET_TEXT_BYTES_MIN, Keys

    for option, file in server_files(settings.shared):
        check_file(f"shared: {option}", file, PEM_BYTES_MAX)
    path = settings.shared_secret
    if not path:
        raise ConfigError(
            "shared needs --shared-secret FILE, a file with the same secret on all boxes: "
            "openssl rand -hex 32"
        )
    secret = read_file("shared_secret", path, SECRET_BYTES_MAX).strip()
    if len(secret) < SECRET_TEXT_BYTES_MIN:
        raise ConfigError(
            f"shared_secret: {path}: {len(secret)} characters are too few for a secret; at least "
            f"{SECRET_TEXT_BYTES_MIN}, the same on all boxes: openssl rand -hex 32"
        )
    return Keys(secret)


def open_far(settings: "Settings", loop: "asyncio.AbstractEventLoop") -> "FarShelf":
    """Make the client of the server of `--shared`. Nothing waits for the server here.

    Raises:
        ConfigError: The URL or the secret cannot be used, or the package is not installed.
    """
    keys = far_keys(settings)
    import time

    from retter.base.steady_clock import since_boot
    from retter.far.server import RedisServer
    from retter.far.shelf import (
        ANSWER_S,
        ANSWERS_BYTES_MAX,
        READ_ANSWER_S,
        READ_ANSWERS_BYTES_MAX,
        FarShelf,
    )
    from retter.far.thread import Daemon

    try:
        server = RedisServer(settings.shared, ANSWER_S, ANSWERS_BYTES_MAX)
        reading_server = RedisServer(settings.shared, READ_ANSWER_S, READ_ANSWERS_BYTES_MAX)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"shared: {error}") from None
    begun_at = time.time() - since_boot()
    return FarShelf(
        keys,
        server,
        reading_server,
        Daemon(loop, "shared-read"),
        Daemon(loop, "shared-write"),
        loop.time,
        # This machine's clock, as the server's is compared with it. If it is set, nothing changes.
        lambda: begun_at + since_boot(),
        loop.call_later,
        settings.max_stale_s,
        personal=settings.store_private == "on",
    )


def part_of(settings: BreakerSettings, boxes: int) -> BreakerSettings:
    """Return the breaker's settings for one of several boxes in front of one application."""
    if boxes <= 1:
        return settings
    h = settings.max_in_flight
    return replace(
        settings,
        max_in_flight=h and max(1, h // boxes),
        is_part=True,
        limit_start=max(1, settings.limit_start // boxes),
    )


# -- orders of an operator, for all boxes ----------------------------------------------------------


def tell_circuit(services: Services, mode: Mode, seconds: float) -> None:
    """Tell the other boxes that an operator has forced the circuit."""
    # A box that begins later receives the last order of a day.
    _tell(services, "circuit", DAY_S if mode is Mode.AUTO else seconds, mode=mode.value)


def tell_pause(services: Services, seconds: float) -> None:
    """Tell the other boxes that an operator pauses the application."""
    _tell(services, "pause", seconds)


def tell_resume(services: Services) -> None:
    """Tell the other boxes that an operator has ended the pause."""
    _tell(services, "resume", DAY_S)


def _tell(services: Services, order: str, seconds: float, **more: str) -> None:
    shared = services.far
    if shared is not None:
        shared.tell_order({"order": order, "until": round(shared.wall() + seconds, 3), **more})


class Sharing:
    """The link between one proxy and the server of `--shared`."""

    def __init__(self, services: Services, shelf: "FarShelf") -> None:
        self._services = services
        self._names_known = 0
        self._place_due_at = 0.0
        self._place_written = b""
        worker = services.place
        self._untold_name = _untold_name(0 if worker is None else worker.index)
        self._untold_noted = 0
        self._is_untold_written = False
        self.shelf = shelf
        # All workers of this RETTER, and the process before this one, have the same secret.
        shelf.count_as(blake2b(b"box", key=services.secrets.clients, digest_size=8).digest())
        shelf.writes.slot_of = self._slot_of
        shelf.on_message = self._take
        shelf.on_boxes = self._share_application
        if services.place is not None:
            _join(services.store, services.place, shelf)
        self.follow_rules(services.owner_rules, services.settings)
        store = services.store
        follower = Follower(store.behind)
        follower.listeners.append(shelf)
        store.put_behind(follower)
        if services.disk is not None:
            self._go_on(services.disk)

    @property
    def _is_first(self) -> bool:
        """Whether this process does the work that only one worker of a box does."""
        return self._services.place is None or self._services.place.leads

    def _go_on(self, disk: "DiskShelf") -> None:
        """Continue with the changes that an earlier process had received or had not told yet."""
        shelf, worker = self.shelf, self._services.place
        place = disk.read_file(PLACE, 64)
        # The changes that the other workers have are newer.
        if len(place) == len(shelf.heard.place) and shelf.heard.place == bytes(len(place)):
            shelf.heard.place = place
        index, workers = (0, 1) if worker is None else (worker.index, worker.workers)
        names = [self._untold_name]
        if index == 0:  # there may have been more workers
            names += map(_untold_name, range(workers, WORKERS_MAX))
        found = {name: disk.read_file(name, UNTOLD_BYTES_MAX) for name in names}
        for untold in filter(None, found.values()):
            shelf.removed(unpacked_removals(untold))
        # It stays beside the disk until the server has it.
        self._is_untold_written = bool(found.pop(self._untold_name))
        if any(found.values()):
            self._write_untold(disk)
            for name in found:
                disk.write_soon(name, b"")

    def _slot_of(self, key: bytes) -> "tuple[Slot, tuple[int, ...]]":
        shelves = self._services.store.shelves
        return shelves.slots.get(key, ()), shelves.marks_of(key)

    def follow_rules(self, rules: OwnerRules, settings: "Settings") -> None:
        """Share responses only with boxes that tell requests apart by the same rules."""
        written = json.dumps(written_rules(rules, settings.store_policy), sort_keys=True)
        self.shelf.keys.follow(written.encode())
        self.shelf.set_max_stale(settings.max_stale_s)

    def part_of(self, settings: BreakerSettings) -> BreakerSettings:
        """Return the settings of the breaker for this box's part of the application."""
        return part_of(settings, self.shelf.boxes)

    # -- changes of other boxes

    def _take(self, message: "Message") -> None:
        services = self._services
        now = services.loop.time()
        if message.removals:
            services.store.invalidation.take_back(message.removals, now)
        for order in message.orders if self._is_first else ():
            self._obey(order, now)  # the other workers follow the first one
        seen = services.owner_rules.seen
        if [name for name in message.names if seen.learn_name(name)]:
            services.heads.forget_requests()

    def _obey(self, order: dict[str, Any], now: float) -> None:
        services, circuit = self._services, self._services.breaker.circuit
        try:
            left_s = float(order["until"]) - self.shelf.wall()
            kind, mode = str(order["order"]), Mode(order.get("mode", Mode.AUTO))
        except (KeyError, TypeError, ValueError):
            return  # of a later version
        if left_s <= 0:
            return
        if kind == "resume":
            if circuit.paused_until is not None:
                resume(services, now)
        elif kind == "pause":
            circuit.pause(now, now + left_s)
        elif kind == "circuit":
            circuit.forced_until = None if mode is Mode.AUTO else now + left_s
            circuit.set_mode(now, mode)

    def _share_application(self, _: int) -> None:
        services = self._services
        settings = self.part_of(breaker_settings(services.settings))
        services.breaker.circuit.reconfigure(settings)

    # -- the clock

    def on_second(self, now: float) -> None:
        """Tell new names of session cookies, and note beside the disk which changes are known."""
        names = self._services.owner_rules.seen.names
        if len(names) != self._names_known:
            self._names_known = len(names)
            self.shelf.outbox.names(names)
        siblings = self.shelf.siblings
        if now >= self._place_due_at or (siblings is not None and siblings.is_to_be_noted):
            self._place_due_at = now + PLACE_EVERY_S
            disk, place = self._services.disk, self.shelf.heard.place
            if disk is None:
                return
            if self._is_first and place != self._place_written:
                self._place_written = place
                disk.write_soon(PLACE, place)
            self._write_untold(disk)

    def _write_untold(self, disk: "DiskShelf") -> None:
        """Note beside the disk what the server does not know yet, in case of a sudden end."""
        outbox = self.shelf.outbox
        if outbox.noted == self._untold_noted:
            return
        self._untold_noted = outbox.noted
        untold, siblings = outbox.untold, self.shelf.siblings
        position = siblings.position if siblings is not None else 0

        def written() -> None:
            if siblings is not None:
                siblings.noted(position)

        if untold or self._is_untold_written:
            self._is_untold_written = bool(untold)
            data = packed_removals(untold) if untold else b""
            disk.write_soon(self._untold_name, data, written)

    def close(self) -> None:
        """Tell the untold changes, and close the connections."""
        self.shelf.close()
        disk = self._services.disk
        if disk is not None:
            if self._is_first:
                disk.write_now(PLACE, self.shelf.heard.place)
            untold = self.shelf.outbox.untold
            disk.write_now(self._untold_name, packed_removals(untold) if untold else b"")


def _untold_name(index: int) -> str:
    return f"{UNTOLD}-{index}" if index else UNTOLD


def _join(store: ResponseStore, place: "WorkerPlace", shelf: "FarShelf") -> None:
    """Connect a worker to the removals of the other workers of its box."""
    from retter.disk.news import News
    from retter.far.siblings import Siblings
    from retter.store.shared_store import SharedStore

    assert isinstance(store, SharedStore), "a worker has one"
    news = store.news
    assert isinstance(news, News), "build.py makes it"
    apply = news.on_removals

    def apply_here(removals: "Removals", now: float) -> None:
        with shelf.applying():
            apply(removals, now)

    news.on_removals = apply_here
    shelf.join(Siblings(place, news))
