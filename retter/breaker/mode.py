"""The circuit's mode, set by an operator."""

from enum import Enum


class Mode(Enum):
    """The circuit's mode, set by an operator."""

    AUTO = "auto"
    OPEN = "open"  # hold it open: stored responses, and a trickle for what has none
    CLOSED = "closed"  # hold it closed: forward everything
    OBSERVE = "observe"  # decide and count, but forward everything


class FairnessMode(Enum):
    """Whether those who wait are told apart."""

    OFF = "off"  # one line for all
    ON = "on"
    OBSERVE = "observe"  # find the lanes and count, but keep one line for all
