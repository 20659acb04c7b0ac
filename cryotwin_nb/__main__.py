"""Entry point of the `cryotwin` command and of `python -m cryotwin_nb`."""

import signal
import sys

from cryotwin_nb.cli.interruption import end_at_once, handled_by


def run() -> int:
    """Run the command line; a signal ends the process at once, except during the work, which has to clean up."""
    handled_by(end_at_once)
    try:
        from cryotwin_nb.cli.main import main

        status = main()
    except KeyboardInterrupt:  # in the moment before the return
        end_at_once(2)
    handled_by(signal.SIG_IGN)  # the work is complete; Python resets every handler but this one while it ends
    return status


if __name__ == "__main__":
    sys.exit(run())
