"""A database for what does not fit into memory."""

import sqlite3

CACHE_KB = 16_000  # in memory; the rest is on the disk


def database() -> sqlite3.Connection:
    """An empty database in a temporary file of its own, which goes when it is closed.

    SQLite puts it into SQLITE_TMPDIR or TMPDIR, else /var/tmp or /tmp. It is one transaction without an end, since
    nobody else reads it and nothing of it is to outlive the process.
    """
    base = sqlite3.connect("", isolation_level=None)
    base.execute("PRAGMA journal_mode = OFF")
    base.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    base.execute("BEGIN")
    return base
