"""`make conformance`: RFC 9111's rules and other people's programs, with a table at the end.

    python -m tests.conformance [AREA ...]

Exit code 1 if anything does not hold. A program that is not installed is skipped with a line.
"""

import sys
from collections.abc import Callable, Iterator

from tests.conformance.caching import RULES, WAYS, carry_out
from tests.conformance.programs import AREAS, Check, Skipped


def caching() -> Iterator[Check]:
    """`--store-policy rfc9111`, rule by rule, in both uses of the store."""
    for rule in RULES:
        faults = [fault for way in WAYS for fault in carry_out(rule, way)]
        yield Check(f"{rule.section}: {rule.says}", not faults, "; ".join(faults))


def main(wanted: list[str]) -> int:
    areas: dict[str, Callable[[], Iterator[Check]]] = {"caching": caching, **AREAS}
    unknown = [name for name in wanted if name not in areas]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(areas)}")
        return 2
    rows: list[tuple[str, int, int, str]] = []
    for name in wanted or areas:
        print(f"{name} ...", flush=True)
        held, failed, note = 0, 0, ""
        try:
            for check in areas[name]():
                held, failed = held + check.held, failed + (not check.held)
                if not check.held:
                    print(f"  FAILED  {check.name}  {check.note}", flush=True)
        except Skipped as skipped:
            note = f"skipped: {skipped}"
        rows.append((name, held, failed, note))
    print(f"\n{'area':14}{'held':>6}{'failed':>8}")
    for name, held, failed, note in rows:
        print(f"{name:14}{held:6}{failed:8}  {note}".rstrip())
    return 1 if any(failed for _, _, failed, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
