"""Temporary database for what does not fit into memory."""

import sqlite3

CACHE_KB = 16_000  # in memory; the rest is on the disk


def temporary_database() -> sqlite3.Connection:
    """An empty database in a temporary file, which SQLite deletes on close.

    The file is in SQLITE_TMPDIR or TMPDIR, else /var/tmp or /tmp. One transaction stays open: nobody else reads the
    database, and nothing of it outlives the process.
    """
    database = sqlite3.connect("", isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    database.execute("BEGIN")
    return database
