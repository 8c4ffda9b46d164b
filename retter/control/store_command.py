"""`retter store`: the content of the folder of `--store`, with or without a running RETTER.

Exit codes: 0 done, 1 damaged (the output says what to do), or an output that cannot be written, 2
wrong arguments, or a folder that cannot be used.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from retter.admin.message import AdminError
from retter.admin.url import split_url
from retter.config import units
from retter.config.load import load
from retter.config.output import OutputLost, write
from retter.config.settings import SETTINGS, ConfigError, Settings
from retter.control import words
from retter.control.parser import Parser

EXIT_OK: Final = 0
EXIT_DAMAGED: Final = 1
EXIT_LOST: Final = 1

_WHERE: Final = ("store", "config")  # settings by which the folder is found
_SHOWN_MAX: Final = 10  # damaged pages; `--json` has all

ABOUT: Final = "Show the stored responses on disk. A RETTER that uses them is not disturbed."

_OWNERS: Final = {"everyone": False, "private": True}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code.

    Raises:
        ConfigError: An argument is wrong, or the folder cannot be used.
        OutputLost: Standard output takes nothing.
    """
    options = parser().parse_args(arguments)
    try:
        from retter.disk.environment import Damaged
    except ImportError:
        raise ConfigError(
            "store: needs the lmdb package, which is not installed; pip install 'retter[store]'"
        ) from None
    settings = _settings(options)
    try:
        code = ACTIONS[options.action][1](settings, options)
        write(flush=True)
    except Damaged as error:
        return _tell_damage(settings.store, str(error))
    except BrokenPipeError:  # the reader has closed the pipe: `retter store list | head`
        return EXIT_OK
    return code


def main_guarded(arguments: Sequence[str]) -> int:
    """Run the command in a process of its own, because a broken file may kill it.

    Reading a page beyond the end of a mapped file, or one that the disk cannot read, raises a
    signal instead of an exception.
    """
    child = os.fork()
    if not child:
        code = 2
        try:
            code = main(arguments)
        except ConfigError as error:
            sys.stderr.write(words.printable(f"retter: {error}\n"))
        except OutputLost as error:
            sys.stderr.write(f"retter: {error}\n")
            code = EXIT_LOST
        except SystemExit as end:  # --help
            code = end.code if isinstance(end.code, int) else 0
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:  # noqa: BLE001 - nothing of the parent's may run here
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return code
    if -code in (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT):
        return _tell_damage("", f"reading it ended with {signal.Signals(-code).name}")
    return 128 - code


def _tell_damage(path: str, what: str) -> int:
    where = f": {path}" if path else ""
    sys.stderr.write(
        words.printable(
            f"retter: store{where}: the database is damaged: {what}; stop RETTER and move "
            "data.mdb away, then it begins a new one\n"
        )
    )
    return EXIT_DAMAGED


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = Parser(prog="retter store", description=ABOUT, allow_abbrev=False)
    actions = made.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (about, _, add_options) in ACTIONS.items():
        action = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        add_options(action)
        _common_options(action)
    return made


def flat_parser() -> argparse.ArgumentParser:
    """Return one parser with the options of all actions, for the completion of a shell."""
    made = Parser(prog="retter store", description=ABOUT, conflict_handler="resolve")
    made.add_argument("action", choices=list(ACTIONS))
    for _, _, add_options in ACTIONS.values():
        add_options(made)
    _common_options(made)
    return made


def _common_options(action: argparse.ArgumentParser) -> None:
    for setting in SETTINGS:
        if setting.name in _WHERE:
            action.add_argument(
                setting.flag,
                dest=setting.name,
                metavar=setting.kind.metavar,
                help=f"the value that the running RETTER has (also {setting.variable})",
            )
    action.add_argument("--json", action="store_true", help="print JSON, for programs")


def _settings(options: argparse.Namespace) -> Settings:
    given = {name: [text] for name in _WHERE if (text := getattr(options, name)) is not None}
    settings = load(given, os.environ).settings
    if not settings.store:
        raise ConfigError(
            "store: which one? Add --store FOLDER (or RETTER_STORE=FOLDER, or --config FILE), as "
            "the running RETTER has it"
        )
    return settings


def _show(document: dict[str, Any], options: argparse.Namespace, text: str) -> None:
    write(json.dumps(document, indent=2) + "\n" if options.json else text)


def _rows(rows: list[tuple[str, str]]) -> str:
    wide = max([len(name) for name, _ in rows])
    return "".join([f"{name:{wide}}  {words.printable(text)}\n" for name, text in rows])


@contextmanager
def _progress() -> Generator[Callable[[str], None], None, None]:
    """Show the progress on a terminal."""
    shown = sys.stderr.isatty()

    def tell(text: str) -> None:
        if shown:
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        tell("")
        if shown:
            sys.stderr.write("\r")


# -- info


def _info(settings: Settings, options: argparse.Namespace) -> int:
    from retter.disk import inspection
    from retter.disk.environment import MAP_SPARE_BYTES

    path = settings.store
    with inspection.opened(path) as database:
        everyones = database.count_everyones()
        document: dict[str, Any] = {
            "store": os.path.abspath(path),
            "process": inspection.used_by(path),
            "urls": database.entries,
            "everyones": everyones,
            "private": database.entries - everyones,
            "bodies": database.bodies,
            "bytes": database.bytes_used,
            "bytes_max": max(0, database.map_size - MAP_SPARE_BYTES) // 2,
            "file_bytes": database.file_bytes,
            "free_bytes": database.free_bytes,
            "learnt_age_s": _age_of(os.path.join(path, "learnt")),
            "set_aside": [
                {"path": where, "bytes": size} for where, size in inspection.set_aside(path)
            ],
        }
    _show(document, options, _info_text(document))
    return EXIT_OK


def _age_of(path: str) -> float | None:
    try:
        return round(max(0.0, time.time() - os.stat(path).st_mtime), 1)
    except OSError:
        return None


def _info_text(said: dict[str, Any]) -> str:
    process, age_s = said["process"], said["learnt_age_s"]
    rows = [
        ("store", said["store"]),
        ("used by", f"process {process}" if process > 0 else "no process" if not process else "?"),
        ("pages", f"{words.number(said['urls'])}: {words.number(said['everyones'])} everyone's, "
                 f"{words.number(said['private'])} private"),
        ("bodies", words.number(said["bodies"])),
        ("size", f"{words.size(said['bytes'])} of {words.size(said['bytes_max'])}"),
        ("file", f"{words.size(said['file_bytes'])}, {words.size(said['free_bytes'])} of it free"),
        ("learnt", "nothing yet" if age_s is None else f"written {words.length(age_s)} ago"),
        *[("set aside", f"{one['path']}, {words.size(one['bytes'])}; remove it, or keep it for "
                        "an analysis") for one in said["set_aside"]],
    ]  # fmt: skip
    return _rows(rows)


def _no_options(_: argparse.ArgumentParser) -> None:
    pass


# -- verify


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    from retter.disk import inspection

    path = settings.store
    alone = inspection.used_by(path) == 0
    with inspection.opened(path) as database, _progress() as tell:
        faults = inspection.Faults(0, [], 0, miscounted=False)
        for faults in inspection.verified(database, inspection.time_of(database), alone=alone):
            tell(f"{faults.responses} of {database.entries}")
    whole = not (faults.damaged or faults.orphans or faults.miscounted)
    document = {"store": os.path.abspath(path), "whole": whole, **faults._asdict()}
    _show(document, options, _verify_text(faults, alone=alone))
    return EXIT_OK if whole else EXIT_DAMAGED


def _verify_text(faults: Any, *, alone: bool) -> str:
    lines = [f"{words.number(faults.responses)} responses read"]
    damaged = faults.damaged
    shown = [url or "one whose URL cannot be read" for url in damaged[:_SHOWN_MAX]]
    lines += [f"damaged: {url}" for url in shown]
    if len(damaged) > _SHOWN_MAX:
        lines.append(f"damaged: {len(damaged) - _SHOWN_MAX} more")
    if faults.orphans:
        lines.append(f"{words.number(faults.orphans)} bodies that no response refers to")
    if faults.miscounted:
        lines.append("the counts do not agree with the content")
    if len(lines) > 1:
        lines.append("RETTER never serves damaged pages. To remove them, stop RETTER and run")
        lines.append("retter store compact")
    else:
        lines.append("no damage was found")
    if not alone:
        lines.append("a RETTER uses the store: stop it to check the references too")
    return words.printable("\n".join(lines) + "\n")


# -- list


def _filter(options: argparse.Namespace) -> Any:
    from retter.disk.inspection import Filter

    prefix: bytes | None = None
    if options.prefix is not None:
        try:
            _, host, target = split_url(options.prefix)
        except AdminError as error:
            raise ConfigError(f"store list: --prefix: {error}") from None
        prefix = host.lower() + target
    return Filter(
        prefix,
        _OWNERS.get(options.owner),
        options.older,
        options.younger,
        options.larger,
        options.smaller,
    )


def _list(settings: Settings, options: argparse.Namespace) -> int:
    from retter.disk import inspection

    wanted = _filter(options)
    with inspection.opened(settings.store) as database:
        found = inspection.listed(database, wanted, inspection.time_of(database))
        if options.sort:
            found = iter(sorted(found, key=_SORTED[options.sort]))
        if options.json:
            _print_json(found)
        else:
            _print_table(found)
    return EXIT_OK


_SORTED: Final[dict[str, Callable[[Any], Any]]] = {
    "url": lambda one: (one.url, one.private),
    "age": lambda one: one.age_s,
    "size": lambda one: -one.size,
}


def _print_json(found: Iterator[Any]) -> None:
    before = "["
    for one in found:
        response = one.response
        document = {
            "url": one.url.decode("latin-1"),
            "owner": "private" if one.private else "everyone",
            "status": response.status,
            "age_s": round(one.age_s, 1),
            "bytes": one.size,
            "coding": response.content_coding.decode("latin-1"),
            "vary": [name.decode("latin-1") for name in response.vary_names],
            "superseded": response.superseded,
        }
        write(f"{before}\n  {json.dumps(document)}")
        before = ","
    write("[]\n" if before == "[" else "\n]\n")


def _print_table(found: Iterator[Any]) -> None:
    terminal = sys.stdout is not None and sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if terminal else sys.maxsize
    count = 0
    for one in found:
        if not count:
            write(f"{'':3}  {'AGE':>11}  {'SIZE':>9}  {'OWNER':8}  URL\n")
        owner = "private" if one.private else "everyone"
        old = "  (superseded)" if one.response.superseded else ""
        line = (
            f"{one.response.status:3}  {words.length(one.age_s):>11}  {words.size(one.size):>9}  "
            f"{owner:8}  {words.printable(one.url.decode('latin-1'))}{old}"
        )
        write(f"{line if len(line) <= columns else line[: columns - 3] + '...'}\n")
        count += 1
    if not count:
        sys.stderr.write("retter: no stored response matches\n")


def _duration(text: str) -> float:
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    try:
        return units.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _list_options(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--prefix",
        metavar="URL",
        help="only URLs that begin with this; /path matches every host",
    )
    action.add_argument(
        "--owner", choices=list(_OWNERS), help="only public ones, or only personal ones"
    )
    for name, about in (("older", "only older responses"), ("younger", "only younger responses")):
        default = 0.0 if name == "older" else float("inf")
        action.add_argument(
            f"--{name}", metavar="TIME", type=_duration, default=default, help=f"{about}: 10m, 1h"
        )
    for name, about in (
        ("larger", "bodies of at least this size"),
        ("smaller", "bodies of at most this size"),
    ):
        size = 0 if name == "larger" else float("inf")
        action.add_argument(
            f"--{name}", metavar="SIZE", type=_size, default=size, help=f"{about}: 100KiB"
        )
    action.add_argument(
        "--sort",
        choices=list(_SORTED),
        help="by URL, youngest first or largest first; without it, in the order on the disk",
    )


# -- export


def _export(settings: Settings, options: argparse.Namespace) -> int:
    from retter.disk import inspection
    from retter.disk.export import Exported, Left, export

    folder: str = options.folder
    exported: list[Exported] = []
    left: list[Left] = []
    with inspection.opened(settings.store) as database, _progress() as tell:
        try:
            os.makedirs(folder, exist_ok=True)
            if os.listdir(folder):
                raise ConfigError(f"store export: {folder} is not empty; name a new folder")
            for one in export(database, folder, inspection.time_of(database)):
                (exported if isinstance(one, Exported) else left).append(one)  # type: ignore[arg-type]
                if len(exported) % 500 == 0:
                    tell(f"{len(exported)} of {database.entries}")
            with open(os.path.join(folder, "manifest.json"), "x", encoding="utf-8") as file:
                json.dump([one._asdict() for one in exported], file, indent=1)
        except OSError as error:
            raise ConfigError(f"store export: {folder}: {error.strerror}") from None
    document = {"folder": os.path.abspath(folder), "pages": len(exported),
                "left_out": [one._asdict() for one in left]}  # fmt: skip
    _show(document, options, _export_text(folder, len(exported), left))
    return EXIT_OK


def _export_text(folder: str, pages: int, left: Sequence[Any]) -> str:
    reasons: dict[str, int] = {}
    for one in left:
        reasons[one.why] = reasons.get(one.why, 0) + 1
    lines = [f"{words.pages(pages)} in {folder}; manifest.json there lists the file of each URL"]
    lines += [f"left out: {words.pages(count)}: {why}" for why, count in reasons.items()]
    return words.printable("\n".join(lines) + "\n")


def _export_options(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "folder", metavar="FOLDER", help="the folder to write; it must be empty or not exist"
    )


# -- compact


def _compact(settings: Settings, options: argparse.Namespace) -> int:
    from retter.disk import inspection
    from retter.disk.compaction import compact

    path = settings.store
    with inspection.opened(path) as database:  # it says what is wrong, and changes nothing
        wall = inspection.time_of(database)
    if (process := inspection.used_by(path)) != 0:
        who = f" (process {process})" if process > 0 else ""
        raise ConfigError(f"store compact: a RETTER uses {path}{who}; stop it first")
    with _progress() as tell:
        done = compact(
            path,
            settings.store_disk_bytes,
            wall,
            settings.max_stale_s,
            lambda octets: tell(words.size(octets)),
        )
    gone = done.entries_before - done.entries_after
    text = (
        f"{words.size(done.bytes_before)} before, {words.size(done.bytes_after)} now\n"
        f"{words.number(done.entries_after)} pages kept, {words.number(gone)} removed that were "
        "too old or damaged\n"
    )
    _show(done._asdict(), options, text)
    return EXIT_OK


Action = tuple[
    str,
    Callable[[Settings, argparse.Namespace], int],
    Callable[[argparse.ArgumentParser], None],
]

ACTIONS: Final[dict[str, Action]] = {
    "info": ("Show how much is stored, and which process uses it.", _info, _no_options),
    "verify": ("Read everything, and report what is damaged.", _verify, _no_options),
    "list": ("List the stored responses.", _list, _list_options),
    "export": (
        "Write the public pages as files for any web server.", _export, _export_options,
    ),
    "compact": (
        "Write the file anew, without free space and without old or damaged pages; stop RETTER "
        "first.", _compact, _no_options,
    ),
}  # fmt: skip
