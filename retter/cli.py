"""The command line: arguments to settings, a server that runs, and an exit code.

Exit codes: 0 all was well, 1 it could not run (a busy port), 2 it was asked wrongly (a bad
setting). A mistake of the operator's is one line on standard error, never a traceback.
"""

import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING

from retter._version import VERSION
from retter.config.files import PAGE_BYTES_MAX, check_file
from retter.config.likeness import nearest, nearest_flag
from retter.config.load import Effective, load, named_as_given
from retter.config.output import OutputLost, put
from retter.config.settings import SETTINGS, ConfigError, Settings
from retter.config.units import overlap, parse_listen, parse_upstream, reaches

if TYPE_CHECKING:
    import argparse

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

BRIEF = """\
usage: retter --listen ADDRESS --upstream ADDRESS [OPTION ...]
RETTER stands in front of one web application and keeps its site answering
while the application is slow, overloaded or down.

  retter --listen :80 --upstream :8080     protect the application on port 8080
  retter --config /etc/retter.toml         the same, with settings from a file
  retter config init                       such a file, with every setting
  retter demo --with-proxy :8089           try it with a shop that can be broken
  retter load http://127.0.0.1:8089        send more than the shop can answer
  retter completion bash                   completes options in a shell

For a RETTER that runs:
  retter status                   what is going on, and what to do
  retter top                      the same, live
  retter why URL                  what a visitor of a page would get, and why
  retter purge URL                drop the stored pages of a URL
  retter warm URL                 request the pages of a site, to store them
  retter circuit open             hold the circuit: open, closed, observe, auto
  retter pause, retter resume     hold requests while you deploy
  retter store info               look at a store on disk

retter COMMAND --help explains a command.  retter --help-all has all options.
"""

# What structlog imports for functions that RETTER does not call: module -> the names it takes.
_NOT_CALLED: dict[str, dict[str, object]] = {
    "uuid": {},
    "pickle": {"PicklingError": Exception},
    "structlog.stdlib": {},
    "structlog.threadlocal": {},
}

# Packages that a start needs. Without one of them RETTER has only been unpacked.
_NEEDED = ("h11", "structlog")

# What other programs have commands for.
_STARTS = "RETTER starts without a command: retter --listen :80 --upstream :8080"
_PID = "retter status shows the PID"
_INSTEAD = {
    "run": _STARTS,
    "serve": _STARTS,
    "start": _STARTS,
    "check": "retter --config FILE --check-config checks settings",
    "stop": f"kill -TERM PID stops RETTER; {_PID}",
    "reload": f"kill -HUP PID reads settings and certificates again; {_PID}",
    "restart": f"kill -USR2 PID starts a new process that takes over; {_PID}",
}

# Options of other programs, and ours that does the same.
_OTHER_NAMES = {
    "--port": "--listen",
    "-p": "--listen",
    "--host": "--listen",
    "--bind": "--listen",
    "-b": "--listen",
    "--backend": "--upstream",
    "--target": "--upstream",
    "-c": "--config",
    "-v": "--log-level",
    "--verbose": "--log-level",
    "--debug": "--log-level",
    "-V": "--version",
}

# Words that talk to a RETTER that runs.
CONTROL_WORDS = ("status", "top", "why", "purge", "circuit", "pause", "resume", "warm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _command(arguments)
    except ConfigError as error:
        _tell_mistake(str(error))
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        _complain(
            f"the Python package {error.name} is missing: RETTER is not installed for this Python. "
            f"In the folder of its source: make run; or {sys.executable} -m pip install ."
        )
        return EXIT_FAILED
    except OutputLost as error:
        _complain(str(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _command(arguments: list[str]) -> int:
    for argument in arguments:
        flag, _, text = argument.partition("=")
        if text == "--" and flag.startswith("--"):  # argparse would make an empty list of it
            raise ConfigError(f"{flag}: needs a value: '--' is none")
    word = arguments[0] if arguments else ""
    if word in COMMANDS:
        return COMMANDS[word](arguments[1:])
    if word in CONTROL_WORDS:
        from retter.control.commands import main as control

        return control(word, arguments[1:])
    return _proxy(arguments)


def _proxy(arguments: list[str]) -> int:
    texts, check_config = _usual(arguments), False
    if texts is None:
        from retter import options as all_options

        options = _parse(arguments)
        if options.help:
            _print(BRIEF)
            return EXIT_OK
        if options.help_all:
            _print(all_options.help_text())
            return EXIT_OK
        if options.version:
            from retter.telemetry.build import is_compiled

            _print(f"retter {VERSION}{', compiled' if is_compiled() else ''}\n")
            return EXIT_OK
        texts, check_config = all_options.texts_of(options), options.check_config
    given = texts
    effective = load(given, os.environ)
    if check_config:
        _print(table(effective))
        for notice in effective.notices:
            _complain(f"note: {notice}")
    with named_as_given(effective):
        _check_complete(effective)
        if check_config:
            _check_start(effective.settings)
    if check_config:
        return EXIT_OK

    def reread() -> Settings:
        again = load(given, os.environ, pipe=False)
        _check_complete(again)
        return again.settings

    with named_as_given(effective):
        return _run(effective, reread)


def _run(effective: Effective, reread: Callable[[], Settings]) -> int:
    settings = effective.settings
    log = _configured_log(settings.log_format, settings.log_level)
    for notice in effective.notices:
        log.get_logger().warning("configuration", notice=notice)
    from retter.process.program import run

    return run(settings, reread)


def _configured_log(log_format: str, level: str) -> ModuleType:
    with (
        _without("rich", "better_exceptions", "greenlet", "twisted"),
        _standing_in(**_NOT_CALLED),
    ):
        from retter.telemetry import log
    log.configure(log_format, level)
    return log


def _tell_mistake(text: str) -> None:
    """Say what the operator has to change: in JSON where a successor's log is to be JSON."""
    from retter.net.handover import predecessors_log_format
    from retter.telemetry.line_writer import CLOSE_S

    if predecessors_log_format() != "json":
        _complain(text)
        return
    log = _configured_log("json", "error")
    log.get_logger().error("cannot-start", error=text)
    log.flush(CLOSE_S)


@contextmanager
def _without(*modules: str) -> Generator[None, None, None]:
    """Hide installed modules from imports.

    structlog imports these for the sake of colours and integrations that a server does not use;
    together they cost 6 MB of the 32 that the whole process may have. This process is ours: a
    program that embeds RETTER imports what it likes.
    """
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not importable
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _standing_in(**modules: dict[str, object]) -> Generator[None, None, None]:
    """Put empty modules, with these names only, in the place of modules not yet imported.

    structlog imports them for functions that RETTER does not call: contexts of threads, loggers
    that are pickled, and the standard library's loggers. They cost 0.9 MB. A later import gets the
    real ones.
    """
    absent = {name: names for name, names in modules.items() if name not in sys.modules}
    for name, names in absent.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(names)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _demo(arguments: list[str]) -> int:
    from retter.demo.cli import main as demo

    return demo(arguments)


def _load(arguments: list[str]) -> int:
    from retter.demo.load import main as load_test

    return load_test(arguments)


def _store(arguments: list[str]) -> int:
    from retter.control.store_command import main_guarded as store

    return store(arguments)


def _config(arguments: list[str]) -> int:
    from retter.control.config_command import main as config

    return config(arguments)


def _completion(arguments: list[str]) -> int:
    from retter.control import commands, completion, config_command, store_command, words
    from retter.demo import cli as demo
    from retter.demo import load as load_test
    from retter.options import parser

    parsers: dict[str, argparse.ArgumentParser] = {
        "": parser(),
        **{word: commands.parser(word) for word in CONTROL_WORDS},
        "config": config_command.parser(),
        "completion": completion.parser(),
        "demo": demo.parser(),
        "load": load_test.parser(),
        "store": store_command.flat_parser(),
    }
    return completion.main(arguments, completion.commands(parsers, {"MODE": tuple(words.MODES)}))


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "config": _config,
    "completion": _completion,
    "demo": _demo,
    "load": _load,
    "store": _store,
}


def _check_complete(effective: Effective) -> None:
    """Find what would stop a start, before any socket opens. Raises ConfigError."""
    settings = effective.settings
    if not settings.upstream:
        raise ConfigError(
            "no application to protect: add --upstream, for example --upstream :8080 "
            "(or RETTER_UPSTREAM=:8080); 'retter demo' brings one to try"
        )
    _check_apart(effective)
    if settings.admin_token_file:
        from retter.admin.auth import read_token

        read_token(settings)
    if settings.shared:
        from retter.proxy.sharing import far_keys

        far_keys(settings)
    if settings.error_page:
        # Each worker reads it, and a pipe can be read only once.
        pipe = settings.workers == 1
        check_file(effective.origins["error_page"], settings.error_page, PAGE_BYTES_MAX, pipe=pipe)
    if settings.uses_tls:
        from retter.net import certificates  # with ssl, which others do without

        certificates.check(settings)


def _check_start(settings: Settings) -> None:
    """Find what only the start itself would find, as far as nothing is opened for that.

    Raises:
        ConfigError: A start would be refused.
    """
    from retter.proxy.part_settings import check_access_log

    if settings.workers != 1:
        from retter.process.supervisor import worker_count
        from retter.process.worker_settings import share_of

        if (workers := worker_count(settings.workers)) > 1:
            share_of(settings, workers, index=0)
    if settings.store:
        from retter.disk.folder import check_place

        check_place(settings.store)
    check_access_log(settings)


def _check_apart(effective: Effective) -> None:
    """Refuse to be in front of oneself: each request would come back until one is refused."""
    settings = effective.settings
    upstream = parse_upstream(settings.upstream)
    for text in settings.listen:
        if reaches(upstream, parse_listen(text)):
            raise ConfigError(
                f"{effective.origins['upstream']} {settings.upstream} is where RETTER itself is to "
                f"listen ({text}): give the application's own address, or listen elsewhere"
            )
    _check_listeners(effective)


def _check_listeners(effective: Effective) -> None:
    """Refuse two listeners at one address: the second would only hear that it is in use."""
    settings, origins = effective.settings, effective.origins
    named = [(origins["listen"], text, parse_listen(text)) for text in settings.listen]
    if settings.admin not in ("auto", "off", ""):
        admin = parse_listen(settings.admin)
        if reaches(parse_upstream(settings.upstream), admin):
            raise ConfigError(
                f"{origins['upstream']} {settings.upstream} is the address of the admin listener "
                f"({settings.admin}): give the application's own address, or another --admin"
            )
        named.append((origins["admin"], settings.admin, admin))
    for place, (origin, text, address) in enumerate(named):
        for _, before, other in named[:place]:
            if overlap(other, address):
                raise ConfigError(
                    f"{origin}: {text} is the same place as {before}; give each address once"
                )


# Arguments


def _usual(arguments: list[str]) -> dict[str, list[str]] | None:
    """Return the texts of the settings, or None if anything but settings with values is given.

    Then argparse reads the arguments, as it does when help is wanted or something is wrong. It
    knows all forms, but with what it imports 0.4 MB would stay in a process that serves.
    """
    switches = {
        setting.flag_for(text): (setting.name, text)
        for setting in SETTINGS
        if setting.is_switch
        for text in ("true", "false")
    }
    names = {setting.flag: setting.name for setting in SETTINGS if not setting.is_switch}
    texts: dict[str, list[str]] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, equals, text = argument.partition("=")
        if flag in names:
            name = names[flag]
            if not equals and (text := next(rest, "")).startswith("-"):
                return None
        elif argument in switches:
            name, text = switches[argument]
        else:
            return None
        if not text or text == "--":  # which argparse drops: it is no value
            return None
        texts.setdefault(name, []).append(text)
    # In the order of their declaration: the first one that is wrong is named.
    return {setting.name: texts[setting.name] for setting in SETTINGS if setting.name in texts}


def _parse(arguments: list[str]) -> "argparse.Namespace":
    from retter.options import parser

    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        raise ConfigError(_about_unknown(unknown))
    return options


def _about_unknown(unknown: Sequence[str]) -> str:
    argument, *more = unknown
    if argument == "help" and more and more[0] in (*COMMANDS, *CONTROL_WORDS):
        return f"unexpected 'help'; did you mean retter {more[0]} --help?"
    if argument in _INSTEAD:
        return f"unexpected '{argument}': {_INSTEAD[argument]}"
    if not argument.startswith("-"):
        words = [*COMMANDS, *CONTROL_WORDS, "--help", "--version"]
        command = nearest(argument, words, likeness=0.65)
        if command is not None:
            return f"unexpected '{argument}'; did you mean retter {command}?"
        return f"unexpected '{argument}': options start with --, as in --upstream :8080"
    flags = [setting.flag for setting in SETTINGS] + [
        "--help",
        "--help-all",
        "--version",
        "--check-config",
    ]
    flag = argument.partition("=")[0]
    guess = _OTHER_NAMES.get(flag) or nearest_flag(flag, flags)
    hint = f"did you mean {guess}?" if guess else "see retter --help-all"
    return f"{flag}: no such option; {hint}"


# Output


def table(effective: Effective) -> str:
    """Return the settings in force, one a line: name, origin, and the value as it may be given."""
    rows = [("SETTING", "FROM", "VALUE")] + [
        (
            setting.name,
            effective.origins[setting.field],
            setting.kind.show(getattr(effective.settings, setting.field)) or "-",
        )
        for setting in SETTINGS
    ]
    names = max(len(name) for name, _, _ in rows)
    origins = max(len(origin) for _, origin, _ in rows)
    lines = [f"{name:{names}}  {origin:{origins}}  {value}\n" for name, origin, value in rows]
    return "".join(lines)


def _print(text: str) -> None:
    put(text)


def _complain(text: str) -> None:
    # A name of a file may have line ends, or what a terminal takes for commands. Lists of RETTER's
    # own have indented lines.
    text = "\n  ".join(
        [
            "".join([one if one.isprintable() else ascii(one)[1:-1] for one in line])
            for line in text.split("\n  ")
        ]
    )
    if sys.stderr is not None:  # it was started without one
        with suppress(OSError):  # the exit code tells as well
            sys.stderr.write(f"retter: {text}\n")
