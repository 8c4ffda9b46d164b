"""The circuit's mode, set by an operator."""

from enum import Enum


class Mode(Enum):
    """The circuit's mode, set by an operator."""

    AUTO = "auto"
    OPEN = "open"  # hold it open: stored responses; GETs without one are forwarded up to the limit
    CLOSED = "closed"  # hold it closed: forward everything
    OBSERVE = "observe"  # decide and count, but forward everything


class FairnessMode(Enum):
    """Whether requests wait in lanes."""

    OFF = "off"  # one queue for all
    ON = "on"
    OBSERVE = "observe"  # find the lanes and count, but keep one queue for all
