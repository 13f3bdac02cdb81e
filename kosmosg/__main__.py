"""``python -m kosmosg``."""

import sys

from kosmosg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
