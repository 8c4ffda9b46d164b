"""How much work something is: counted where it is Python, and else the processor's time.

A clock on the wall says nothing on a busy machine. Instructions are the same everywhere and every
time, but those of regular expressions and of the methods of bytes are not seen: for these there is
the CPU time of this thread, of which the least of several is taken.
"""

import gc
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


def instructions_of(call: Callable[[], object]) -> int:
    """Return how many instructions of the interpreter a call takes, in all Python code below it.

    One takes some 30 to 60 ns.
    """
    count = 0

    def in_frame(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return in_frame

    def begin(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return in_frame

    before, was_enabled = sys.gettrace(), gc.isenabled()
    gc.disable()  # what it would call for the garbage of earlier tests is no work of this one
    sys.settrace(begin)
    try:
        call()
    finally:
        sys.settrace(before)
        if was_enabled:
            gc.enable()
    return count


def cpu_s_of(call: Callable[[], object], times: int = 5, enough_s: float = 0.0) -> float:
    """Return the least CPU time of several calls, in seconds.

    Args:
        times: Calls at most.
        enough_s: So little is little enough, and the first call that takes no more is the last.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    least_s = float("inf")
    try:
        for _ in range(times):
            began = time.thread_time()
            call()
            least_s = min(least_s, time.thread_time() - began)
            if least_s <= enough_s:
                break
    finally:
        if was_enabled:
            gc.enable()
    return least_s
