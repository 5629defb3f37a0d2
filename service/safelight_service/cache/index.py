"""Index: the queries to the database that lists the results of a folder, by their last use.

`recency` orders results by use: each use takes the next number, so no clock is involved.
"""

import sqlite3
from collections.abc import Iterable

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS results (
        key TEXT PRIMARY KEY, header BLOB NOT NULL, size_bytes INTEGER NOT NULL,
        recency INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS results_by_use ON results (recency, size_bytes);
    CREATE TABLE IF NOT EXISTS images (
        key TEXT REFERENCES results ON DELETE CASCADE, position INTEGER, sha256 TEXT NOT NULL,
        PRIMARY KEY (key, position)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS images_by_sha256 ON images (sha256);
"""

_NEXT_RECENCY = "(SELECT coalesce(max(recency), 0) + 1 FROM results)"


def make_tables(index: sqlite3.Connection) -> None:
    """Make the tables, unless they exist; continue those that are ordered by the time of use."""
    columns = {row[1] for row in index.execute("PRAGMA table_info(results)")}
    if "used_at_ns" in columns:
        index.execute("ALTER TABLE results RENAME COLUMN used_at_ns TO recency")
    index.executescript(_SCHEMA)


def find_header(index: sqlite3.Connection, key: str) -> bytes | None:
    """Return the header of a result, or None."""
    try:
        row = index.execute("SELECT header FROM results WHERE key = ?", (key,)).fetchone()
    except sqlite3.OperationalError as error:
        if (
            getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
        ):  # the tables are being made
            return None
        raise
    return None if row is None else bytes(row[0])


def list_images(index: sqlite3.Connection, key: str) -> list[str]:
    """Return the SHA-256s of the images of a result."""
    rows = index.execute("SELECT DISTINCT sha256 FROM images WHERE key = ?", (key,))
    return [sha256 for (sha256,) in rows]


def add(
    index: sqlite3.Connection, key: str, header: bytes, size_bytes: int, images: Iterable[str]
) -> None:
    """Add a result, as the one used last, with the SHA-256s of its images."""
    index.execute(
        f"INSERT OR REPLACE INTO results VALUES (?, ?, ?, {_NEXT_RECENCY})",
        (key, header, size_bytes),
    )
    rows = [(key, position, sha256) for position, sha256 in enumerate(images)]
    index.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)


def forget(index: sqlite3.Connection, key: str) -> list[str]:
    """Remove a result; return the SHA-256s of images that no other result has."""
    images = list_images(index, key)
    index.execute("DELETE FROM results WHERE key = ?", (key,))
    return [sha256 for sha256 in images if not is_used(index, sha256)]


def note_uses(index: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Make these results the ones used last, in this order."""
    index.executemany(
        f"UPDATE results SET recency = {_NEXT_RECENCY} WHERE key = ?", [(key,) for key in keys]
    )


def find_oldest(index: sqlite3.Connection) -> tuple[str, int] | None:
    """Return the key and the bytes of the least recently used result; None if there is none."""
    row: tuple[str, int] | None = index.execute(
        "SELECT key, size_bytes FROM results ORDER BY recency LIMIT 1"
    ).fetchone()
    return row


def count_bytes(index: sqlite3.Connection) -> int:
    """Return the bytes of all results."""
    [size_bytes] = index.execute("SELECT coalesce(sum(size_bytes), 0) FROM results").fetchone()
    return int(size_bytes)


def is_used(index: sqlite3.Connection, sha256: str) -> bool:
    """Whether any result has this image."""
    row = index.execute("SELECT 1 FROM images WHERE sha256 = ?", (sha256,)).fetchone()
    return row is not None
