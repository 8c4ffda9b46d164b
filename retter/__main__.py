"""`python -m retter`."""

import sys

from retter.cli import main

if __name__ == "__main__":
    sys.exit(main())
