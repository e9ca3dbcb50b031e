"""Errors of the user, shown as one message without a traceback."""

import sys
import unicodedata
from collections.abc import Callable, Mapping

PROCESSES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # of torchrun, accelerate, MPI
MAX_CHARACTERS = 6000  # of a message: some 24 lines


class UserError(Exception):
    """A mistake that the user can fix. Its text is all that is shown: what is wrong, what is allowed, what to do."""


def printable(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """The text, shortened, with characters that steer a terminal, reorder a line or cannot be seen as escapes."""
    shown = "".join(
        character
        if character == "\n" or unicodedata.category(character)[0] in "LMNPS" or unicodedata.category(character) == "Zs"
        else character.encode("unicode_escape").decode()
        for character in text[:max_characters]
    )
    return shown + (f"... ({len(text):,} characters)" if len(text) > max_characters else "")


def run_main(main: Callable[[], None], environment: Mapping[str, str] | None = None) -> None:
    """Run a command's `main`; print a user's mistake as one message and exit with code 1.

    With an `environment`, one of several processes is refused. Ctrl-C exits with 130, as shells do. Any other exception
    is a defect of this project and keeps its traceback.
    """
    try:
        _require_one_process(environment or {})
        main()
    except UserError as error:
        sys.exit(f"\nerror: {printable(str(error))}")
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


def _require_one_process(environment: Mapping[str, str]) -> None:
    """Raises UserError in a process that a launcher such as torchrun started as one of several."""
    for name in PROCESSES:
        number = environment.get(name, "").strip()
        if number.isdecimal() and int(number[:9]) > 1:
            raise UserError(
                f"A stage must be run by one process, got {number[:9]} (environment variable {name}). Run it without "
                f"torchrun, accelerate launch, mpirun or the like, as `dvc repro` does, or unset {name}."
            )
