"""Errors of the user, shown as one message without a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can fix. Its text is all that is shown: what is wrong, what is allowed, what to do."""


def run_main(main: Callable[[], None]) -> None:
    """Run a command's `main`; print a user's mistake as one message and exit with code 1.

    Ctrl-C exits with 130, as shells do. Any other exception is a defect of this project and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno is None:
            raise
        name = f" {error.filename}" if error.filename else ""
        sys.exit(
            f"\nerror: cannot read or write{name}: {error.strerror}. No file is half-written. "
            "Free space or fix permissions, then run the same command again."
        )
