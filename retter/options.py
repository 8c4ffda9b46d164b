"""All options of the command line, as argparse knows them: for help, mistakes and unusual forms.

A start with usual arguments does not import this: `cli.py` reads them itself.
"""

import argparse
import textwrap
from typing import NoReturn

from retter.config.settings import SETTINGS, ConfigError, Setting

# The columns of --help: readable, and narrow enough for a terminal beside an editor.
HELP_COLUMNS_MIN, HELP_COLUMNS_MAX = 60, 96
LONG_DEFAULT = 40  # characters; a list that long is described in the text of its option

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
      check the settings, show each and where it comes from, then exit
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


class Parser(argparse.ArgumentParser):
    """Tells mistakes as this program does."""

    def error(self, message: str) -> NoReturn:
        flag, _, why = message.removeprefix("argument ").partition(": ")
        if why.startswith("ignored explicit argument"):
            why = "takes no value"
        if why == "expected one argument":
            why = f"needs a value: {flag}=VALUE"  # also for one that begins with -
        raise ConfigError(f"{flag}: {why}" if why else flag)


def parser(columns: int = HELP_COLUMNS_MAX) -> Parser:
    """Return a parser of all options, whose help is so many columns wide."""
    found = Parser(
        prog="retter",
        usage=INTRODUCTION.replace("%", "%%"),
        epilog=CLOSING,
        add_help=False,
        allow_abbrev=False,  # an abbreviation would change its meaning with the next new option
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=32, width=columns
        ),
    )
    information = found.add_argument_group("Information")
    information.add_argument(
        "--help", "-h", action="store_true", help="show the commands on one screen and exit"
    )
    information.add_argument("--help-all", action="store_true", help="show this text and exit")
    information.add_argument("--version", action="store_true", help="show the version and exit")
    information.add_argument(
        "--check-config",
        action="store_true",
        help="check the settings, show each and where it comes from, then exit",
    )
    for group in dict.fromkeys(setting.group for setting in SETTINGS):
        about = textwrap.fill(group.about, columns - 2)  # the formatter indents it by two
        section = found.add_argument_group(group.title, about)
        for setting in SETTINGS:
            if setting.group is group:
                _add(section, setting)
    return found


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


def texts_of(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the settings' names, and the texts given for each."""
    given = {setting.name: getattr(options, setting.name) for setting in SETTINGS}
    return {name: texts for name, texts in given.items() if texts}


def help_text(columns: int | None = None) -> str:
    """Return the text of --help-all, `columns` wide; by default as wide as the terminal."""
    import shutil  # which loads every compressor

    wanted = shutil.get_terminal_size().columns - 2 if columns is None else columns
    return parser(max(HELP_COLUMNS_MIN, min(wanted, HELP_COLUMNS_MAX))).format_help()
