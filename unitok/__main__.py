"""`python -m unitok` and the command `unitok`."""

from __future__ import annotations

import sys

from unitok.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
