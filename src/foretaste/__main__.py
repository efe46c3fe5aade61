"""``python -m foretaste`` is the command ``foretaste``."""

import sys

from foretaste.cli import main

if __name__ == "__main__":
    sys.exit(main())
