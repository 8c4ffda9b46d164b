"""The command line: arguments to settings, a server that runs, and an exit code.

Exit codes: 0 all was well, 1 it could not run (a busy port), 2 it was asked wrongly (a bad
setting). A mistake of the operator's is one line on standard error, never a traceback.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

from retter._version import VERSION
from retter.config.files import PAGE_BYTES_MAX, check_file
from retter.config.load import Effective, load, named_as_given, nearest
from retter.config.settings import SETTINGS, ConfigError, Setting, Settings
from retter.config.units import parse_listen, parse_upstream, reaches

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# The columns of --help: readable, and narrow enough for a terminal beside an editor.
HELP_COLUMNS_MIN, HELP_COLUMNS_MAX = 60, 96
LONG_DEFAULT = 40  # characters; a list that long is described in the text of its option

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
  retter purge URL, retter warm   drop stored pages; store pages beforehand
  retter circuit open             hold the circuit: open, closed, observe, auto
  retter pause, retter resume     hold requests while you deploy
  retter store info               look at a store on disk

retter COMMAND --help explains a command.  retter --help-all has all options.
"""

INTRODUCTION = """\
retter --listen ADDRESS --upstream ADDRESS [OPTION ...]
       retter --config FILE
       retter demo|load|config|completion [--help]
       retter status|top|why|purge|circuit|pause|resume|warm [--help]
       retter store info|verify|list|export|compact [--help]

RETTER stands in front of one web application and keeps its site answering
while the application is slow, overloaded or down. GETs then get the last good
response; all other methods are forwarded. A healthy application answers every
request itself.

examples:
  retter --listen :80 --upstream :8080
      protect the application on port 8080 of this machine
  retter --listen 127.0.0.1:8089 --upstream :8000 --trusted-proxies 127.0.0.1
      behind nginx or Caddy on this machine, in front of an application on 8000
  retter --config /etc/retter.toml --check-config
      show the settings in force and where each comes from, then exit
  retter status; retter circuit open --for 10m
      inspect and control the running RETTER (through its --admin listener)
"""

CLOSING = """\
Sizes: 64MiB and 64m are powers of two, 64MB is a power of ten, 65536 is bytes.
Times: 1.5s, 200ms, 2m, 24h, 1h30m; a plain number is seconds.

Every option is also an environment variable and a key of the TOML file:
--max-stale 12h is RETTER_MAX_STALE=12h and max_stale = "12h"; --no-headers is
RETTER_HEADERS=false and headers = false. An option overrides a variable, and a
variable overrides the file. Lists are separated by commas (in RETTER_LISTEN by
spaces), or are arrays in the file.

Signals: TERM and INT drain and stop (a second one stops at once), HUP reloads
settings and certificates, USR2 starts a new process that takes over.

Exit codes: 0 stopped as requested, 1 could not run (port in use) or was
refused, 2 wrong setting.
"""

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
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _command(arguments: list[str]) -> int:
    word = arguments[0] if arguments else ""
    if word in COMMANDS:
        return COMMANDS[word](arguments[1:])
    if word in CONTROL_WORDS:
        from retter.control.commands import main as control

        return control(word, arguments[1:])
    return _proxy(arguments)


def _proxy(arguments: list[str]) -> int:
    options = _parse(arguments)
    if options.help:
        _print(BRIEF)
        return EXIT_OK
    if options.help_all:
        _print(help_text())
        return EXIT_OK
    if options.version:
        from retter.telemetry.build import is_compiled

        _print(f"retter {VERSION}{', compiled' if is_compiled() else ''}\n")
        return EXIT_OK
    effective = load(_texts(options), os.environ)
    if options.check_config:
        _print(table(effective))
        for notice in effective.notices:
            _complain(f"note: {notice}")
    with named_as_given(effective):
        _check_complete(effective)
        if options.check_config:
            _check_start(effective.settings)
    if options.check_config:
        return EXIT_OK

    def reread() -> Settings:
        again = load(_texts(options), os.environ, pipe=False)
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
        _standing_in(uuid={}, pickle={"PicklingError": Exception}),
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

    structlog imports them for functions that RETTER does not call: contexts of threads, and loggers
    that are pickled. They cost 0.7 MB. A later import gets the real ones.
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

    parsers: dict[str, argparse.ArgumentParser] = {
        "": _parser(HELP_COLUMNS_MIN),
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


# Arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flag, _, why = message.removeprefix("argument ").partition(": ")
        if why.startswith("ignored explicit argument"):
            why = "takes no value"
        if why == "expected one argument":
            why = f"needs a value: {flag}=VALUE"  # also for one that begins with -
        raise ConfigError(f"{flag}: {why}" if why else flag)


def _parse(arguments: list[str]) -> argparse.Namespace:
    options, unknown = _parser(HELP_COLUMNS_MAX).parse_known_args(arguments)
    if unknown:
        raise ConfigError(_about_unknown(unknown[0]))
    return options


def _about_unknown(argument: str) -> str:
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
    guess = nearest(flag, flags)
    hint = f"did you mean {guess}?" if guess else "see retter --help-all"
    return f"{flag}: no such option; {hint}"


def _texts(options: argparse.Namespace) -> dict[str, list[str]]:
    given = {setting.name: getattr(options, setting.name) for setting in SETTINGS}
    return {name: texts for name, texts in given.items() if texts}


def _parser(columns: int) -> _Parser:
    parser = _Parser(
        prog="retter",
        usage=INTRODUCTION.replace("%", "%%"),
        epilog=CLOSING,
        add_help=False,
        allow_abbrev=False,  # an abbreviation would change its meaning with the next new option
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=32, width=columns
        ),
    )
    information = parser.add_argument_group("Information")
    information.add_argument(
        "--help", "-h", action="store_true", help="show the commands on one screen and exit"
    )
    information.add_argument("--help-all", action="store_true", help="show this text and exit")
    information.add_argument("--version", action="store_true", help="show the version and exit")
    information.add_argument(
        "--check-config",
        action="store_true",
        help="show the settings in force and where each comes from, then exit",
    )
    for group in dict.fromkeys(setting.group for setting in SETTINGS):
        about = textwrap.fill(group.about, columns - 2)  # the formatter indents it by two
        section = parser.add_argument_group(group.title, about)
        for setting in SETTINGS:
            if setting.group is group:
                _add(section, setting)
    return parser


def _add(section: "argparse._ArgumentGroup", setting: Setting) -> None:
    about = _help_of(setting).replace("%", "%%")
    if not setting.is_switch:
        section.add_argument(
            setting.flag,
            dest=setting.name,
            action="append",
            help=about,
            metavar=setting.kind.metavar,
        )
        return
    for text in ("true", "false"):
        flag = setting.flag_for(text)
        section.add_argument(
            flag,
            dest=setting.name,
            action="append_const",
            const=text,
            help=about if flag == setting.flag else argparse.SUPPRESS,
        )


def _help_of(setting: Setting) -> str:
    default = "" if setting.is_switch else setting.kind.show(setting.default)
    if not default or len(default) > LONG_DEFAULT:
        return setting.about
    return f"{setting.about} (default {default})"


# Output


def help_text(columns: int | None = None) -> str:
    """Return the text of --help-all, `columns` wide; by default as wide as the terminal."""
    import shutil  # which loads every compressor

    wanted = shutil.get_terminal_size().columns - 2 if columns is None else columns
    parser = _parser(max(HELP_COLUMNS_MIN, min(wanted, HELP_COLUMNS_MAX)))
    return parser.format_help()


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
    sys.stdout.write(text)


def _complain(text: str) -> None:
    sys.stderr.write(f"retter: {text}\n")
