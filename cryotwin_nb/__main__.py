"""Entry point of `python -m cryotwin_nb`, equivalent to the `cryotwin` command."""

import sys

from cryotwin_nb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
