"""The circuit's mode, set by an operator."""

from enum import Enum
from typing import Final


class Mode(Enum):
    """The circuit's mode, set by an operator."""

    AUTO = "auto"
    OPEN = "open"  # hold it open: stored responses; GETs without one are forwarded up to the limit
    CLOSED = "closed"  # hold it closed: forward everything
    OBSERVE = "observe"  # decide and count, but forward everything


# Looked up once: they are asked for with every request.
AUTO: Final = Mode.AUTO
HELD_OPEN: Final = Mode.OPEN
HELD_CLOSED: Final = Mode.CLOSED
OBSERVE: Final = Mode.OBSERVE


class FairnessMode(Enum):
    """Whether requests wait in lanes."""

    OFF = "off"  # one queue for all
    ON = "on"
    OBSERVE = "observe"  # find the lanes and count, but keep one queue for all
