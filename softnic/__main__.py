"""`python -m softnic`: the same as the command `softnic`."""

import sys

from softnic.cli import main

if __name__ == "__main__":
    sys.exit(main())
