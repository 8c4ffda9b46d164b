"""docs/settings.md, docs/metrics.md and docs/man/retter.1, from what RETTER itself declares.

`make reference` writes them; a test holds that they are up to date.
"""

import argparse
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from docs.api import others_page, schema_page, state_page
from docs.metrics import metrics_page
from retter.admin.situation import ROWS, Facts
from retter.base.counters import Answers
from retter.config.legacy import ALIASES, Alias
from retter.config.settings import SETTINGS, Group, Setting
from retter.control.commands import COMMANDS
from retter.control.store_command import ACTIONS
from retter.options import CLOSING

ROOT: Final = Path(__file__).parents[1]
COLUMNS: Final = 100
LONG: Final = 40  # characters of a default; a longer one stands below the tables

GROUPS: Final = tuple(dict.fromkeys(setting.group for setting in SETTINGS))


def of_group(group: Group) -> list[Setting]:
    return [setting for setting in SETTINGS if setting.group is group]


def default_of(setting: Setting) -> str:
    """Return the default as it may be given, "" for none."""
    return setting.kind.show(setting.default)


def option_of(setting: Setting) -> str:
    return f"{setting.flag} {setting.kind.metavar}".strip()


# Markdown

SETTINGS_HEAD: Final = """\
# Settings

All of them, made from their one declaration by `make reference`; `retter --help-all` has the same
texts. None is needed but `--upstream`. `retter --check-config` shows what is in force and where it
comes from.

Each can be given in three ways, and the first goes before the second, that before the third:

| | |
|---|---|
| an option | `--max-stale 12h`, `--no-headers` |
| an environment variable | `RETTER_MAX_STALE=12h`, `RETTER_HEADERS=false`; an empty one is none |
| a key of the TOML file named by `--config` | `max_stale = "12h"`, `headers = false` |

Sizes: `64MiB` and `64m` are powers of two, `64MB` is a power of ten, `65536` is bytes. Times:
`1.5s`, `200ms`, `2m`, `24h`, `1h30m`; a plain number is seconds. Lists are separated by commas
(`--listen` is repeated, `RETTER_LISTEN` is separated by spaces), or arrays in the file. A wrong
setting is one line on standard error that says what is allowed, and exit code 2, before any socket
is opened.

A file with some of them:

```toml
listen = [":80", "unix:/run/retter/web.sock"]
upstream = ":8080"
max_stale = "12h"
store_memory = "128MiB"
ignore_params = ["utm_*", "fbclid"]
trusted_proxies = ["127.0.0.1", "unix:"]
headers = false
```

## The most useful ones

| | |
|---|---|
| `--trusted-proxies 10.0.0.0/8` | if nginx, Caddy or a load balancer is in front: the proxies whose `X-Forwarded-*` fields are believed |
| `--pool-idle 1.5s` | must be shorter than the application's own keep-alive (gunicorn: 2 s) |
| `--store-memory 64MiB` | increase it if your site has more pages |
| `--max-stale 24h` | no older response is ever served |
| `--compress off`, `--compress-exclude /account/*` | responses are compressed for clients that ask for it. Turn it off where a page shows a secret together with input of its visitor ([BREACH](compression.md#breach)) |
| `--stream-paths /poll/*` | long polls: forwarded without limit, patience, store and buffering (WebSockets and event streams need no setting; the latter are recognised by `Accept: text/event-stream`) |
| `--buffer-request 256KiB`, `--buffer-answer 1MiB`, `--buffer-memory 16MiB` | request bodies are buffered until they are complete, and responses until their clients have read them, so that a slow client occupies nothing in the application ([docs/limits.md](limits.md#slow-clients)) |
| `--routes /api/*,/search` | parts of the site that fail or slow down together; other paths are grouped by their first segments |
| `--circuit observe` | forward everything; the log and `X-Circuit` say what RETTER would do. Failures are still answered from the store |
"""


def settings_page() -> str:
    """Return docs/settings.md."""
    parts = [SETTINGS_HEAD]
    for group in GROUPS:
        rows = "".join(
            f"| {_code(option_of(one))} | {_shown_default(one)} | {_cell(one.about)} |\n"
            for one in of_group(group)
        )
        head = f"## {group.title}\n\n{_filled(group.about)}\n\n"
        parts.append(f"{head}| option | default | |\n|---|---|---|\n{rows}")
    parts.append("## Long defaults\n")
    for one in SETTINGS:
        if len(default_of(one)) > LONG:
            names = ", ".join(f"`{name}`" for name in default_of(one).split(","))
            parts.append(_filled(f"`{one.flag}`: {names}.") + "\n")
    parts.append(_old_names())
    return "\n".join(parts)


def _old_names() -> str:
    rows = "".join(
        f"| `{alias.variable}` | {_new_name(alias)} | {_cell(alias.advice)} |\n"
        for alias in ALIASES
    )
    return (
        "## Variables of the first RETTER\n\nThey still work, with a notice.\n\n"
        f"| variable | now | |\n|---|---|---|\n{rows}"
    )


def _new_name(alias: Alias) -> str:
    found = [setting.flag for setting in SETTINGS if setting.name == alias.name]
    return ("the opposite of " if alias.negated else "") + (f"`{found[0]}`" if found else "nothing")


def _shown_default(setting: Setting) -> str:
    text = default_of(setting)
    if setting.is_switch:
        return ""
    if len(text) > LONG:
        return "[below](#long-defaults)"
    return f"`{text}`" if text else ""


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _filled(text: str) -> str:
    return textwrap.fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


# The manual page, in the macros of man(7)

MAN_HEAD: Final = r""".\" Made from retter/config/settings.py by `make reference`: change it there.
.TH RETTER 1 2026-11-23
.SH NAME
retter \- a reverse proxy that keeps a web site answering while its application is overloaded
.SH SYNOPSIS
.B retter
.B \-\-listen
.I ADDRESS
.B \-\-upstream
.I ADDRESS
.RI [ OPTION " ...]"
.br
.B retter
.B \-\-config
.I FILE
.br
.B retter
.BR status | top | why | purge | circuit | pause | resume | warm
.RI [ OPTION " ...]"
.br
.B retter store
.BR info | verify | list | export | compact
.RI [ OPTION " ...]"
.br
.B retter
.BR demo | load | config | completion
.RI [ OPTION " ...]"
.SH DESCRIPTION
.B retter
stands in front of one web application.
A healthy application answers every request itself.
While it is slow, overloaded or down, GETs get the last response that was good, and every other
method is always forwarded.
The stored responses of people who are logged in are kept apart by session.
"""

MAN_TAIL: Final = r""".SH ENVIRONMENT
Every option may also be a variable or a key of the TOML file:
.B \-\-max\-stale 12h
is
.B RETTER_MAX_STALE=12h
and
.BR "max_stale = \(dq12h\(dq" ;
.B \-\-no\-headers
is
.B RETTER_HEADERS=false
and
.BR "headers = false" .
An option overrides a variable, and a variable overrides the file.
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Stop accepting, finish the running requests, and end; a second one ends at once.
.TP
.B SIGHUP
Read settings and certificates again, and open the access log anew.
.TP
.B SIGUSR2
Start a new process that takes over the listening sockets; when it serves, drain and end.
.SH EXIT STATUS
.TP
.B 0
Stopped when asked to; done.
.TP
.B 1
Could not run (a busy port), or was refused.
.TP
.B 2
A wrong setting.
.SH EXAMPLES
.TP
.B retter \-\-listen :80 \-\-upstream :8080
Protect what listens on port 8080 of this machine.
.TP
.B retter \-\-config /etc/retter.toml \-\-check\-config
Check the settings, and show those in force and where each comes from.
.TP
.B retter circuit open \-\-for 10m
Answer GETs from the store for ten minutes.
.SH STANDARDS
RFC 9110, RFC 9111, RFC 9112 (HTTP), RFC 9211 (Cache-Status).
"""


def manual_page() -> str:
    """Return docs/man/retter.1."""
    return MAN_HEAD + "".join([*_man_commands(), *_man_options()]) + MAN_TAIL


def _man_commands() -> Iterator[str]:
    yield ".SH COMMANDS\nThese talk to the admin listener of a RETTER that runs.\n"
    where = ", ".join(_bold(f"--{name}") for name in ("admin", "admin-token", "admin-token-file"))
    yield f"All take {_bold('--json')} (print JSON), and the settings by which they find that\n"
    yield f"listener, with the values of the running RETTER: {where}, {_bold('--config')}.\n"
    for word, (about, _, add_options) in COMMANDS.items():
        yield f".TP\n.B {word}\n{_roff(about)}\n"
        yield from _man_arguments(add_options)
    yield ".SS Stored responses on disk\n"
    yield "These read the folder of a store, also while RETTER runs.\n"
    yield f"All take {_bold('--json')}, and {_bold('--store')} or {_bold('--config')} with the value\n"
    yield "of the running RETTER.\n"
    for action, (about, _, add_arguments) in ACTIONS.items():
        yield f".TP\n.B store {action}\n{_roff(about)}\n"
        yield from _man_arguments(add_arguments)
    yield ".SS To try it\n"
    yield ".TP\n.B demo\nRun a small shop with a finite database, to see RETTER work; see\n"
    yield '.BR "retter demo \\-\\-help" .\n'
    yield ".TP\n.B load\nOverload what runs on this machine for some seconds; see\n"
    yield '.BR "retter load \\-\\-help" .\n'
    yield ".TP\n.B config init\nWrite a TOML file with every setting, explained, at its default:\n"
    yield '.BR "retter config init retter.toml" .\n'
    yield ".TP\n.B config schema\nPrint the JSON Schema of that file, for editors.\n"
    yield ".TP\n.BR completion\nPrint a script with which bash, zsh or fish completes options:\n"
    yield '.BR "retter completion bash" .\n'


def _man_arguments(add_options: Callable[[argparse.ArgumentParser], None]) -> Iterator[str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    for action in parser._actions:
        name = action.option_strings[0] if action.option_strings else ""
        value = action.metavar or "|".join(action.choices or ())
        if action.nargs == 0:
            value = ""
        help_text = _roff(action.help or "")
        shown = f"{_bold(name)} \\fI{_roff(str(value))}\\fR".strip()
        yield f".RS\n.TP\n{shown}\n{help_text}\n.RE\n"


def _man_options() -> Iterator[str]:
    yield '.SH OPTIONS\n.TP\n.BR \\-\\-help ", " \\-h\nShow the commands on one screen and stop.\n'
    yield ".TP\n.B \\-\\-help\\-all\nShow all options and stop.\n"
    yield ".TP\n.B \\-\\-version\nShow the version and stop.\n"
    yield ".TP\n.B \\-\\-check\\-config\n"
    yield "Check the settings, show those in force and where each comes from, and stop.\n"
    for group in GROUPS:
        yield f".SS {_roff(group.title)}\n{_roff(group.about)}\n"
        for one in of_group(group):
            metavar = f" \\fI{_roff(one.kind.metavar)}\\fR" if one.kind.metavar else ""
            yield f".TP\n{_bold(one.flag)}{metavar}\n{_roff(one.about)}"
            default = default_of(one)
            if default and not one.is_switch and len(default) <= LONG:
                yield f"\nDefault: {_roff(default)}."
            yield "\n"
    # As in --help: sizes and times.
    yield ".SS Values\n" + _roff(" ".join(CLOSING.partition("\n\n")[0].split())) + "\n"


def _bold(text: str) -> str:
    return f"\\fB{_roff(text)}\\fR" if text else ""


def _roff(text: str) -> str:
    """Return text in which nothing is a request or an escape; each sentence on a line."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    escaped = re.sub(r"(?<=[a-z\d)]\.) (?=[A-Z])", "\n", escaped)
    return re.sub(r"(?m)^([.'])", r"\\&\1", escaped)


# Situations

SITUATIONS_HEAD: Final = """\
# Situations

What the dashboard, `retter status`, `retter top`, the log and systemd say of the situation, made by
`make reference` from the one table that they share. The first row that fits is told; others are
told beside it. `GET /api/state` has the word as `situation.row`, and its tone.

| tone | it means |
|---|---|
| `good` | visitors get what they ask for, from the application |
| `off` | an operator wants it so |
| `note` | something is to be looked at; no visitor notices it yet |
| `busy` | the store answers for the application, or helps it |
| `trial` | the application answers again, and gets more step by step |
| `bad` | visitors get errors, or would without the store |

An incident is a spell of `busy`, `trial` or `bad`. It is over when there was none for 30 seconds.

| word | tone | what is going on (an example) | what RETTER does | what you can do |
|---|---|---|---|---|
"""

EXAMPLE: Final = Facts(
    upstream="127.0.0.1:8080", in_flight=8, waiting=14, held=3, routes_open=("GET /search",),
    forced_s=552, paused_s=20, connections=3, fault="connection refused: nothing listens there",
    oldest_s=14.0, silent_s=14.0, unanswered_s=14.0, well_s=4.0, errors={"upstream-status": 40, "upstream-reset": 2},
    gets=Answers(900, 60, 10, 20, 10), requests=1000, heaviest=("192.0.2.7", 0.8),
    no_descriptors=12, turned_away=5, would_shed=31, store_full=1.0, evicted=7, log_lost=9, log_trouble="no space left on device",
    disk_aside="its head is damaged", disk_trouble="no space left on device", lag_s=0.4,
    shared_trouble="connection refused",
)  # fmt: skip


def situations_page() -> str:
    rows = [
        (f"`{row.name}`", f"`{row.tone}`", row.now(EXAMPLE), row.retter(EXAMPLE), row.you(EXAMPLE))
        for row in ROWS
    ]
    return SITUATIONS_HEAD + "".join([f"| {' | '.join(cells)} |\n" for cells in rows])


PAGES: Final = {
    "docs/api.md": state_page,
    "docs/state.schema.json": schema_page,
    "docs/api.schema.json": others_page,
    "docs/settings.md": settings_page,
    "docs/metrics.md": metrics_page,
    "docs/situations.md": situations_page,
    "docs/man/retter.1": manual_page,
}


def main() -> None:
    for path, page in PAGES.items():
        (ROOT / path).write_text(page())


if __name__ == "__main__":
    main()
