"""RETTER with a window into its memory: on SIGUSR1 it writes what it holds as one line of JSON.

    python -m benchmarks.perf.allocations FILE [--trace] -- RETTER'S OPTIONS

With --trace also the lines of code that hold most are written; tracing makes it several times
slower, so CPU figures must not be taken from it.
"""

import gc
import json
import signal
import sys
import time
import tracemalloc
from pathlib import Path
from types import FrameType

from retter.cli import main as retter_main


def reading(*, trace: bool) -> dict[str, object]:
    """Return what is allocated now, and how long a full garbage collection takes."""
    collections = [generation["collections"] for generation in gc.get_stats()]
    began = time.perf_counter()
    gc.collect()
    collection_ms = 1000 * (time.perf_counter() - began)
    held: dict[str, int] = {}
    if trace:
        for one in tracemalloc.take_snapshot().statistics("lineno"):
            frame = one.traceback[0]
            held[f"{frame.filename}:{frame.lineno}"] = one.size
    return {
        "blocks": sys.getallocatedblocks(),
        "collections": collections,
        "collection_ms": collection_ms,
        "objects": len(gc.get_objects()),
        "held_bytes": held,
    }


def main() -> int:
    """Run RETTER; answer SIGUSR1."""
    split = sys.argv.index("--")
    file, trace = Path(sys.argv[1]), "--trace" in sys.argv[2:split]

    def write(number: int, frame: FrameType | None) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(reading(trace=trace)))
        part.rename(file)  # whoever waits for the file sees it whole

    signal.signal(signal.SIGUSR1, write)
    if trace:
        tracemalloc.start(1)
    return retter_main(sys.argv[split + 1 :])


if __name__ == "__main__":
    sys.exit(main())
