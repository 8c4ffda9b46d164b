"""`make fuzz`: let atheris look for bytes that break what must hold (world.py).

    python -m tests.fuzz --seconds 60      look for so long
    python -m tests.fuzz INPUT ...         say what happens in these inputs

What it finds is kept in .fuzz/ (crash-..., timeout-...), and with it what it has learned, from
which the next run goes on.
"""

import argparse
import importlib.util
import os
import random
import re
import subprocess
import sys
import traceback
from pathlib import Path

FOLDER = Path(".fuzz")
FINDINGS = ("crash-*", "timeout-*", "oom-*")
# An input takes some milliseconds; one that takes this long does not end.
HANG_S = 20
INPUT_BYTES_MAX = 16 * 1024
MEMORY_MB_MAX = 1024

# libFuzzer says much that is of use to its own authors alone.
_CHATTER = re.compile(r'#\d+\s+(?:NEW|REDUCE|RELOAD)|"|#####|INFO: Instrumenting')
_EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def show(paths: list[str]) -> int:
    """Carry inputs out step by step."""
    from tests.fuzz.steps import OPERATION_NAMES, decode, do, operation_of
    from tests.fuzz.world import World

    failed = 0
    for path in paths:
        configuration, steps = decode(Path(path).read_bytes())
        world = World(configuration)
        print(f"{path}: configuration {configuration}")
        try:
            for step in steps:
                print(" ", OPERATION_NAMES[operation_of(step)], step)
                do(world, step)
            world.end()
        except Exception:  # noqa: BLE001 - whatever it is, it is shown
            failed += 1
            traceback.print_exc(file=sys.stdout)
    return 1 if failed else 0


def write_seeds(folder: Path) -> None:
    from tests.fuzz.steps import encode, seeds

    folder.mkdir(parents=True, exist_ok=True)
    for number, (_, configuration, steps) in enumerate(seeds()):
        (folder / f"seed-{number:04}").write_bytes(encode(configuration, steps))


def drive(seconds: int) -> None:
    """Hand over to libFuzzer, which ends this process when it is done."""
    import atheris

    # RETTER is what is looked at: neither the standard library nor the corpus.
    with atheris.instrument_imports(include=["retter", "h11"]):
        import tests.fuzz.steps as steps
        from tests.fuzz.world import without_chance

    def one(data: bytes) -> None:
        with without_chance():
            steps.carry_out(*steps.decode(data))

    def mutated(data: bytes, bytes_max: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.2:
            return atheris.Mutate(data, bytes_max)  # type: ignore[no-any-return]
        for _ in range(chance.randrange(1, 4)):
            data = steps.mutated(data, chance, lambda piece: atheris.Mutate(piece, len(piece) + 16))
        return data[:bytes_max]

    write_seeds(FOLDER / "seeds")
    (FOLDER / "learned").mkdir(exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            str(FOLDER / "learned"),
            str(FOLDER / "seeds"),
            f"-max_total_time={seconds}",
            f"-max_len={INPUT_BYTES_MAX}",
            f"-timeout={HANG_S}",
            f"-rss_limit_mb={MEMORY_MB_MAX}",
            f"-artifact_prefix={FOLDER}{os.sep}",
            "-print_final_stats=1",
        ],
        one,
        custom_mutator=mutated,
    )
    atheris.Fuzz()


def fuzz(seconds: int) -> int:
    """Drive in a process of its own, and say what has come of it."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install 'retter[fuzz]'")
        return 1
    before = {path for pattern in FINDINGS for path in FOLDER.glob(pattern)}
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz", "--drive", "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
    )
    executions = "?"
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := _EXECUTIONS.match(line):
            executions = found[1]
        if not _CHATTER.match(line):
            print(line, end="", flush=True)
    code = driver.wait()
    findings = sorted({path for pattern in FINDINGS for path in FOLDER.glob(pattern)} - before)
    print(f"{executions} executions, {len(findings)} findings", *findings)
    return 1 if findings or code else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("inputs", nargs="*")
    arguments = parser.parse_args()
    if arguments.inputs:
        return show(arguments.inputs)
    if arguments.drive:
        drive(arguments.seconds)
        return 0
    return fuzz(arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
