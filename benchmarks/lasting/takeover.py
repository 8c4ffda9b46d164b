"""How long a takeover holds the event loop of the old process, in CPU time of its slices.

By the clock, a slice takes as long as other programs let it wait.
"""

import asyncio
import time
from typing import Any

from benchmarks.lasting.requests import PAGE_BYTES
from tests.proxy.test_handover import Pair, fetch, old

PAGES = 4000


def slices_s() -> list[float]:
    """Hand 4,000 pages and 4,096 sessions over; return the CPU time of each slice in seconds."""
    found: list[float] = []

    async def main() -> None:
        before = old(store_memory_bytes=64 << 20)
        for number in range(PAGES):
            fetch(before, f"/{number}", f"{number:012}" * (PAGE_BYTES // 12))
        known = before.services.owner_rules.seen.known
        for number in range(4096):
            known.know(number, "kept", before.loop.now)
        pair = Pair(before)
        giver: Any = pair.giver
        one_slice = giver._slice

        def measured() -> None:
            begun = time.thread_time()
            one_slice()
            found.append(time.thread_time() - begun)

        giver._slice = measured
        await pair.load()
        assert pair.taker.entries == PAGES
        pair.close()

    asyncio.run(main())
    return found
