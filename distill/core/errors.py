"""One clear message for the user's mistakes: what is wrong, what was given, what to do next."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can mend. Its text is the whole message; no traceback is shown."""


def run(main: Callable[[], None]) -> None:
    """Calls a stage's `main` and turns what the user can mend into one message and exit code 1.

    Ctrl-C ends with the shell's usual 130. Anything else is a defect of ours and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on from here", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno is None:
            raise
        where = f": {error.filename}" if error.filename else ""
        sys.exit(
            f"\nerror: the system refused to read or write{where}: {error.strerror}. Nothing is half written; "
            "mend it (free space? permissions?) and run the same command again."
        )
