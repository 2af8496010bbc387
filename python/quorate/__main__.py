"""``python -m quorate``: the command line."""

import sys

from quorate.cli import main

if __name__ == "__main__":
    sys.exit(main())
