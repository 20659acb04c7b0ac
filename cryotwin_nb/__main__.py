"""`python -m cryotwin_nb`, the same as `cryotwin`."""

import sys

from cryotwin_nb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
