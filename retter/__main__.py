"""`python -m retter`."""

import sys

if __name__ == "__main__":
    # Before anything that an older Python cannot read.
    if sys.version_info < (3, 11):  # noqa: UP036 - who starts it with an older one is told so
        sys.exit("retter: Python 3.11 or later is needed; this is " + sys.version.split()[0])
    from retter.cli import main

    sys.exit(main())
