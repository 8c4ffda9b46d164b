"""`python -m retter`, and the command `retter`."""

import sys


def main() -> int:
    """Run the command line and return the exit code."""
    # Before anything that an older Python cannot read.
    if sys.version_info < (3, 11):  # noqa: UP036 - who starts it with an older one is told so
        sys.exit("retter: Python 3.11 or later is needed; this is " + sys.version.split()[0])
    if not sys.argv[1:] or sys.argv[1].startswith("-"):  # it is to serve: no command's word
        from retter.process.early_signals import hold

        hold()
    from retter.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
