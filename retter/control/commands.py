"""The commands for a running RETTER, and their options.

Exit codes: 0 done, 1 refused or not reachable (the line on standard error says what to do), 2 wrong
arguments.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import urlsplit

from retter.admin.auth import read_token
from retter.config import units
from retter.config.kinds import count
from retter.config.load import load, named_as_given
from retter.config.output import put
from retter.config.settings import ADMIN_DEFAULT, SETTINGS, ConfigError
from retter.control import site, words
from retter.control.client import AdminClient, ControlError, Mistaken, Unreachable
from retter.control.parser import Parser

EXIT_OK = 0
EXIT_FAILED = 1

# The default duration of an order, and the longest. They equal the admin listener's: a test
# compares them, because its module is too large to import for a command.
CIRCUIT_S: Final = 600.0
CIRCUIT_S_MAX: Final = 24 * 3600.0
PAUSE_S: Final = 30.0
PAUSE_S_MAX: Final = 300.0

# The default limits of `warm`: enough for a small site.
WARM_PAGES: Final = 1000
WARM_S: Final = 600.0
WARM_S_MAX: Final = 30 * 86_400.0  # who waits longer for a busy application has another problem

# The arguments that only the running RETTER can judge.
_ASKED: Final = ("url", "prefix", "session")

# The settings with the address of the admin listener, as the proxy reads them.
_WHERE: Final = ("admin", "admin_token", "admin_token_file", "config")


def main(word: str, arguments: Sequence[str]) -> int:
    """Run a command and return the exit code. Raises ConfigError."""
    options = parser(word).parse_args(arguments)
    try:
        return COMMANDS[word][1](_client(options), options)
    except Mistaken as error:
        given = [text for name in _ASKED if (text := getattr(options, name, None)) is not None]
        about = "".join([f"{units.shown(text)}: " for text in given])
        # Another program may have said it.
        said = words.printable(str(error).replace("\n", " "))
        raise ConfigError(f"{word}: {about}{said}") from None
    except ControlError as error:
        said = words.printable(str(error).replace("\n", " "))
        sys.stderr.write(f"retter: {said}\n")
        if isinstance(error, Unreachable) and error.neighbours:
            sys.stderr.write(words.printable(words.others(error.neighbours)))
        return EXIT_FAILED
    except BrokenPipeError:  # the reader has closed the pipe: `retter top | head`
        return EXIT_OK


def parser(word: str) -> argparse.ArgumentParser:
    """Return the parser of one of COMMANDS."""
    about, _, add_options = COMMANDS[word]
    found = Parser(prog=f"retter {word}", description=about, allow_abbrev=False)
    add_options(found)
    for setting in SETTINGS:
        if setting.name in _WHERE:
            found.add_argument(
                setting.flag,
                dest=setting.name,
                metavar=setting.kind.metavar,
                help=f"the value that the running RETTER has (also {setting.variable})",
            )
    found.add_argument("--json", action="store_true", help="print JSON, for programs")
    return found


def _client(options: argparse.Namespace) -> AdminClient:
    given = {name: [text] for name in _WHERE if (text := getattr(options, name)) is not None}
    effective = load(given, os.environ)
    settings = effective.settings
    if settings.admin in ("off", ""):
        raise ConfigError(
            f"{effective.origins['admin']}: there is no admin listener; start RETTER with "
            f"--admin {ADMIN_DEFAULT}, and give the same here"
        )
    where = ADMIN_DEFAULT if settings.admin == "auto" else settings.admin
    by_default = settings.admin == "auto"
    with named_as_given(effective):
        token = read_token(settings, pipe=True)
    return AdminClient(units.parse_listen(where), token, by_default=by_default)


def _show(document: dict[str, Any], options: argparse.Namespace, text: str) -> int:
    shown = json.dumps(document, indent=2) + "\n" if options.json else words.printable(text)
    put(shown)
    return EXIT_OK


def _duration(low_s: float, high_s: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            seconds = units.parse_duration(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not low_s <= seconds <= high_s:
            low, high = units.format_duration(low_s), units.format_duration(high_s)
            raise argparse.ArgumentTypeError(f"{units.shown(text)} is not from {low} to {high}")
        return seconds

    return read


def _pair(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{units.shown(text)} is not NAME=VALUE")
    return text


def _field(text: str) -> str:
    name, colon, _ = text.partition(":")
    if not (name and colon):
        raise argparse.ArgumentTypeError(f"{units.shown(text)} is not NAME: VALUE")
    return text


def _address(text: str) -> str:
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{units.shown(text)} is not an IP address; write 192.0.2.7 or 2001:db8::7"
        ) from None
    return text


# Looking


def _status(client: AdminClient, options: argparse.Namespace) -> int:
    state = client.state()
    text = "" if options.json else words.status(state, time.time())
    if client.by_default and not options.json:
        text += words.others(client.neighbours())
    return _show(state, options, text)


def _top(client: AdminClient, options: argparse.Namespace) -> int:
    from retter.control import top

    return top.run(client, as_json=options.json)


def _why(client: AdminClient, options: argparse.Namespace) -> int:
    client_kind = "program" if options.plain else "browser"
    body: dict[str, Any] = {"url": options.url, "header": options.header, "as": client_kind}
    if options.cookie:
        body["cookie"] = "; ".join(options.cookie)
    if options.client:
        body["client"] = options.client
    found = client.post("/api/why", body, "words")  # a POST, so that no URL contains a cookie
    return _show(found, options, words.why(found, client_kind))


def _why_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", metavar="URL", help="as a visitor requests it: http://example.org/a?b=c"
    )
    parser.add_argument(
        "--cookie",
        action="append",
        type=_pair,
        metavar="NAME=VALUE",
        help="a cookie of the request; may be repeated",
    )
    parser.add_argument(
        "--client",
        metavar="ADDRESS",
        type=_address,
        help="address of the client that sends it; its place in the queue depends on it",
    )
    parser.add_argument(
        "--header",
        action="append",
        type=_field,
        default=[],
        metavar="'NAME: VALUE'",
        help="a header field of the request; may be repeated",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="ask as a program that accepts anything (curl, a monitor), not as a browser",
    )


# Filling the store


def _warm(client: AdminClient, options: argparse.Namespace) -> int:
    from retter.control import warm

    through = options.through or _listener_of(options.url)
    visitor = warm.Visitor(through)
    before = client.state()["store"]
    progress = warm.Progress(sys.stderr)
    warmer = warm.Warmer(visitor.fetch, client.state, progress.show)
    try:
        result = warmer.run(options.url, options.pages, options.seconds)
    finally:
        progress.end()
        visitor.close()
    store = warm.state_at_the_end(client.state, time.sleep)["store"]
    document = {**dataclasses.asdict(result), "entries": store["entries"], "bytes": store["bytes"]}
    _show(document, options, warm.report(result, before, store))
    return EXIT_FAILED if result.reason or not result.good else EXIT_OK


def _listener_of(url: str) -> units.ListenAddress:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return units.ListenAddress(
        "tcp", parts.hostname or "", parts.port or (443 if tls else 80), tls=tls
    )


def _site_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(
            f"{units.shown(text)} is not a URL; write http://example.org/ or its sitemap.xml"
        )
    return text


def _listener(text: str) -> units.ListenAddress:
    try:
        return units.parse_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _page_count(text: str) -> int:
    try:
        return cast("int", count(1, site.KNOWN_MAX).parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _warm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url",
        metavar="URL",
        type=_site_url,
        help="a page, whose links are followed, or a sitemap: http://example.org/sitemap.xml",
    )
    parser.add_argument(
        "--through",
        metavar="ADDRESS",
        type=_listener,
        help="address of RETTER, if the host of the URL is another server: 127.0.0.1:80, "
        "127.0.0.1:443,tls or unix:PATH",
    )
    parser.add_argument(
        "--pages",
        metavar="N",
        type=_page_count,
        default=WARM_PAGES,
        help=f"most pages that are requested (default {WARM_PAGES})",
    )
    _add_time(parser, WARM_S, WARM_S_MAX, "then it ends, whatever is left")


# Steering


def _purge(client: AdminClient, options: argparse.Namespace) -> int:
    if options.all:
        body: dict[str, Any] = {"all": True}
    elif options.session is not None:
        body = {"session": options.session}
    elif options.prefix is not None:
        body = {"prefix": options.prefix}
    else:
        body = {"url": options.url}
    if (
        len([one for one in (options.url, options.prefix, options.session) if one is not None])
        + (options.all)
        != 1
    ):
        raise ConfigError("purge: give exactly one of a URL, --prefix, --session and --all")
    found = client.post("/api/purge", body, "purged")
    state: dict[str, Any] = {}
    with suppress(ControlError):  # it is done, whatever the next answer is
        state = client.state()
    text = words.purged(found, options.url or options.prefix or "", state)
    return _show(found, options, text)


def _purge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        help="the stored pages of this URL, for everybody: http://example.org/a, example.org/a, "
        "or /a for any host",
    )
    parser.add_argument(
        "--prefix",
        metavar="URL",
        help="the stored pages of all URLs that begin with this, in the same forms",
    )
    parser.add_argument(
        "--session",
        metavar="NAME=VALUE",
        type=_pair,
        help="the stored pages of one session, which its cookie identifies: PHPSESSID=...",
    )
    parser.add_argument("--all", action="store_true", help="all stored pages")


def _circuit(client: AdminClient, options: argparse.Namespace) -> int:
    seconds = options.seconds
    if options.mode is None:
        if seconds is not None:
            raise ConfigError(f"circuit: --for needs a mode:\n{words.modes()}".rstrip())
        return _in_force(client, options, f"\nretter circuit MODE:\n{words.modes()}")
    body: dict[str, Any] = {"mode": options.mode}
    if options.mode != "auto":
        body["seconds"] = CIRCUIT_S if seconds is None else seconds
    elif seconds is not None:
        raise ConfigError(
            "circuit: --for does not go with auto, which releases the circuit at once; give it "
            "with open, closed or observe"
        )
    client.post("/api/circuit", body)
    return _in_force(client, options)


def _mode(text: str) -> str:
    if text not in words.MODES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of these:\n{words.modes()}".rstrip())
    return text


def _circuit_options(parser: argparse.ArgumentParser) -> None:
    about = ". ".join([f"{mode}: {meaning}" for mode, meaning in words.MODES.items()])
    parser.add_argument(
        "mode",
        nargs="?",
        metavar="MODE",
        type=_mode,
        help=f"{about}. Without a mode: show what is in force",
    )
    _add_time(parser, CIRCUIT_S, CIRCUIT_S_MAX, "then as configured")
    parser.set_defaults(seconds=None)  # to tell whether it was given


def _pause(client: AdminClient, options: argparse.Namespace) -> int:
    client.post("/api/pause", {"seconds": options.seconds})
    return _in_force(client, options)


def _pause_options(parser: argparse.ArgumentParser) -> None:
    _add_time(parser, PAUSE_S, PAUSE_S_MAX, "resume ends the pause earlier")


def _resume(client: AdminClient, options: argparse.Namespace) -> int:
    client.post("/api/resume", {})
    return _in_force(client, options)


def _in_force(client: AdminClient, options: argparse.Namespace, more: str = "") -> int:
    """Print what is in force now as RETTER reports it, not what was requested."""
    state = client.state()
    names = ("state", "forced", "forced_remaining_s", "paused", "pause_remaining_s")
    situation = words.sentence(state)
    words_in_force = (
        f"in force: {words.in_force(state, time.time())}\nstate: {state['state']}\n{situation}\n"
    )
    return _show({name: state[name] for name in names}, options, words_in_force + more)


def _add_time(parser: argparse.ArgumentParser, seconds: float, most_s: float, then: str) -> None:
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=_duration(1, most_s),
        default=seconds,
        help=f"how long: 30s, 10m or 1h; {then} (default {units.format_duration(seconds)})",
    )


def _no_options(parser: argparse.ArgumentParser) -> None:
    pass


Command = tuple[
    str,
    Callable[[AdminClient, argparse.Namespace], int],
    Callable[[argparse.ArgumentParser], None],
]

COMMANDS: Final[dict[str, Command]] = {
    "status": ("Show the state of the running RETTER.", _status, _no_options),
    "top": ("Show the state live; q quits.", _top, _no_options),
    "why": ("Show what would happen to a GET of this URL now, and why.", _why, _why_options),
    "purge": ("Drop stored pages.", _purge, _purge_options),
    "circuit": ("Force the circuit for a time, or release it.", _circuit, _circuit_options),
    "pause": (
        "Send the application nothing while you deploy. A GET gets its stored page. GETs without "
        "one, and all other methods, are held until the pause ends: 256 requests at most, 50 s "
        "each, then 503. Requests that the application has already are not touched.",
        _pause,
        _pause_options,
    ),
    "resume": ("End a pause.", _resume, _no_options),
    "warm": (
        "Request the pages of the site one after another, so that they are stored before they "
        "are needed. It waits while the application is busy.",
        _warm,
        _warm_options,
    ),
}
