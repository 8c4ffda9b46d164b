"""`retter top`: the state, once a second, in a terminal; without a terminal, a line per second.

It uses only ANSI sequences (ECMA-48) that every terminal supports. `screen` draws and is a pure
function. The loop below it takes the terminal over and restores it.
"""

import os
import select
import shutil
import signal
import sys
import textwrap
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

from retter.config.output import write
from retter.control import words
from retter.control.client import AdminClient, Unreachable
from retter.control.words import KINDS, Document, number

EVERY_S: Final = 1.0
HISTORY_MAX: Final = 400  # columns of the widest chart
NAMES_COLUMNS: Final = 12
CHART_ROWS: Final = 4
VISITORS_ROWS: Final = 2  # what visitors get; the rest is in `retter status`
ROUTES_MAX: Final = 4
COLUMNS_MIN: Final = 60

# By the tone of the situation, as SGR (ECMA-48 section 8.3.117).
_COLOURS: Final = {"good": 32, "off": 35, "note": 33, "busy": 33, "trial": 36, "bad": 31}
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS: Final = " ..::||##"


def screen(
    state: Document,
    history: Sequence[float],
    now: float,
    *,
    columns: int,
    lines: int,
    colour: bool,
    blocks: str = _BLOCKS,
    trouble: str = "",
) -> list[str]:
    """Return the lines of the screen, none longer than `columns`, at most `lines` of them."""
    wide = max(columns, COLUMNS_MIN)  # the layout needs this many; lines are cut to the real width
    shown = [
        words.headline(state, now),
        *textwrap.wrap(words.sentence(state), wide),
        *textwrap.wrap(state["situation"]["visitors"], wide)[:VISITORS_ROWS],
        "",
        *[f"{label:{NAMES_COLUMNS}}{text}" for label, text in words.rows(state, now)],
        "",
        *_chart(history, wide, blocks),
    ]
    shown += _below(state, now, lines - len(shown) - 1, wide)
    shown = [
        words.printable(line)[:columns] for line in [*shown[: lines - 1], trouble or "q quits"]
    ]
    if colour:
        shown[0] = _painted(shown[0], f"1;{_COLOURS.get(state['situation']['tone'], 0)}")
        shown[-1] = _painted(shown[-1], "1;31" if trouble else "2")
    return shown


def _chart(history: Sequence[float], columns: int, blocks: str) -> list[str]:
    """Return requests per second as columns, the newest at the right."""
    width = columns - NAMES_COLUMNS
    recent = list(history)[-width:]
    top = max([*recent, 1.0])
    eighths = [value / top * CHART_ROWS * 8 for value in recent]
    rows: list[str] = []
    for row in reversed(range(CHART_ROWS)):
        label = {CHART_ROWS - 1: f"{number(top)}/s", 0: "requests"}.get(row, "")
        cells = [blocks[max(0, min(8, round(eighth - 8 * row)))] for eighth in eighths]
        rows.append(f"{label:{NAMES_COLUMNS}}" + "".join(cells).rjust(width))
    return rows


def _below(state: Document, now: float, room: int, columns: int) -> list[str]:
    """Return the slowest routes, then the last changes, as far as there is room."""
    routes = state["routes"][: min(ROUTES_MAX, max(0, room - 2))]
    width = columns - 38
    found: list[str] = []
    if routes:
        found += ["", f"{'slowest routes':{width}}{'typical':>10}{'p99':>10}{'errors':>9}"]
        found += [
            f"{one['route'][: width - 1]:{width}}{words.wait(one['p50_ms']):>10}"
            f"{words.wait(one['p99_ms']):>10}{one['errors']:>9}  {one['state']}"
            for one in routes
        ]
    events = [words.event(one, now) for one in reversed(state["events"])]
    left = room - len(found) - 1
    return found + (["", *events[: left - 1]] if events and left > 1 else [])


def _painted(text: str, sgr: str) -> str:
    return f"\x1b[{sgr}m{text}\x1b[0m"


# The loop


def run(client: AdminClient, *, as_json: bool) -> int:
    """Show the state until the user quits. Returns the exit code.

    Raises ControlError if the first request fails; later ones are repeated.
    """
    state = client.state()
    if as_json or not all(stream and stream.isatty() for stream in (sys.stdout, sys.stdin)):
        return _lines(client, state, as_json)
    colour = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    blocks = _BLOCKS if "utf" in (sys.stdout.encoding or "").lower() else _PLAIN_BLOCKS
    past = client.get("/api/history")
    history = deque(map(sum, zip(*[past[kind] for kind in KINDS], strict=True)), HISTORY_MAX)
    trouble = ""
    with _terminal():
        while True:
            size = shutil.get_terminal_size()
            shown = screen(
                state,
                history,
                time.time(),
                columns=size.columns,
                lines=size.lines,
                colour=colour,
                blocks=blocks,
                trouble=trouble,
            )
            # Each line is cleared after its end, not before, so that nothing flickers.
            write("\x1b[H" + "\x1b[K\r\n".join(shown) + "\x1b[K\x1b[J", flush=True)
            if _key(EVERY_S) in ("q", "Q", "\x03", "\x04"):
                return 0
            try:
                state, trouble = client.state(), ""
                history.append(sum([state["second"][kind] for kind in KINDS]))
            except Unreachable:
                trouble = trouble or f"no answer since {words.clock(time.time(), time.time())}"


def _lines(client: AdminClient, state: Document, as_json: bool) -> int:
    import json

    while True:
        line = f"{json.dumps(state)}\n" if as_json else words.line(state, time.time())
        write(words.printable(line), flush=True)
        time.sleep(EVERY_S)
        state = client.state()


def _key(timeout_s: float) -> str:
    """Return the key that was pressed within that time, or an empty str."""
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return os.read(sys.stdin.fileno(), 1).decode("latin-1") or "\x04" if ready else ""


@contextmanager
def _terminal() -> Generator[None, None, None]:
    """Switch the terminal to single keys, its other screen and no cursor; restore it at the end."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    signal.signal(signal.SIGTERM, _interrupted)
    tty.setcbreak(sys.stdin)
    try:
        write("\x1b[?1049h\x1b[?25l", flush=True)
        yield
    finally:
        write("\x1b[?25h\x1b[?1049l", flush=True)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
