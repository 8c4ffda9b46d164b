"""`python -m retter.demo`."""

import sys

from retter.demo.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
