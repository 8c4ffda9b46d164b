"""Bar charts as SVG, written by hand: no library draws them, any browser shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

LABEL_PX: Final = 150
BARS_PX: Final = 440
VALUE_PX: Final = 120
ROW_PX: Final = 22
TITLE_PX: Final = 34
GROUP_PX: Final = 26
MARGIN_PX: Final = 10

OURS: Final = "#c2410c"
FLOOR: Final = "#94a3b8"
OTHERS: Final = "#3b6ea5"

# A bar longer than this multiple of the group's base is cut, with its value beside it, so that one
# slow peer does not make all others look alike.
CUT_AT: Final = 4.0


@dataclass(frozen=True, slots=True)
class Length:
    """One bar."""

    label: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that are compared with each other, all drawn to the scale of one of them."""

    title: str
    base: float
    lengths: Sequence[Length]


def _colour(label: str) -> str:
    if label == "retter":
        return OURS
    return FLOOR if label.startswith("floor") else OTHERS


def chart(title: str, groups: Sequence[Group]) -> str:
    """Return an SVG of horizontal bars; in each group the base's value has a line through it."""
    width = 2 * MARGIN_PX + LABEL_PX + BARS_PX + VALUE_PX
    rows = sum(len(group.lengths) for group in groups)
    height = TITLE_PX + len(groups) * (GROUP_PX + 8) + rows * ROW_PX + MARGIN_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="13" fill="#1f2937">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN_PX}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    y = TITLE_PX
    for group in groups:
        parts += _group(group, y)
        y += GROUP_PX + 8 + len(group.lengths) * ROW_PX
    return "\n".join([*parts, "</svg>", ""])


def _group(group: Group, y: int) -> list[str]:
    left = MARGIN_PX + LABEL_PX
    scale = min(CUT_AT * group.base, max(one.value for one in group.lengths)) or 1.0
    top = y + GROUP_PX
    parts = [f'<text x="{MARGIN_PX}" y="{y + 17}" font-weight="bold">{escape(group.title)}</text>']
    for number, one in enumerate(group.lengths):
        row = top + number * ROW_PX
        length = min(one.value / scale, 1.0) * BARS_PX
        cut = "⋯ " if one.value > scale else ""
        parts += [
            f'<text x="{left - 8}" y="{row + 15}" text-anchor="end">{escape(one.label)}</text>',
            f'<rect x="{left}" y="{row + 3}" width="{length:.1f}" height="{ROW_PX - 6}" '
            f'fill="{_colour(one.label)}"/>',
            f'<text x="{left + length + 6:.1f}" y="{row + 15}">{cut}{escape(one.text)}</text>',
        ]
    line = left + group.base / scale * BARS_PX
    bottom = top + len(group.lengths) * ROW_PX
    parts.append(
        f'<line x1="{line:.1f}" x2="{line:.1f}" y1="{top}" y2="{bottom}" '
        'stroke="#111827" stroke-dasharray="3 3"/>'
    )
    return parts
