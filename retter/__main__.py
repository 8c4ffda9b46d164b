"""`python -m retter`, and the command `retter`."""

import os
import sys


def _occupy_standard_descriptors() -> None:
    """Have something at 0, 1 and 2, as a program may be started without these.

    Otherwise the event loop or a client's connection would get such a number, and what a library
    writes to standard error would be sent to that client.
    """
    try:
        number = 0
        while number <= 2:
            number = os.open(os.devnull, os.O_RDWR)
        os.close(number)
    except OSError:
        return  # there is no /dev/null
    if sys.stderr is None:  # commands write to it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it is for the whole life of the process


def main() -> int:
    """Run the command line and return the exit code."""
    # Before anything that an older Python cannot read.
    if sys.version_info < (3, 11):  # noqa: UP036 - who starts it with an older one is told so
        sys.exit("retter: Python 3.11 or later is needed; this is " + sys.version.split()[0])
    _occupy_standard_descriptors()
    if not sys.argv[1:] or sys.argv[1].startswith("-"):  # it is to serve: no command's word
        from retter.process.early_signals import hold

        hold()
    from retter.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
