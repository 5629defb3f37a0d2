"""Index: the queries to the database that lists the results of a folder, by their last use.

`recency` orders results by use: each use takes the next number, so no clock is involved. `owner`
and `weight` are those of the tenant that a result was made for.
"""

import sqlite3
from collections.abc import Iterable

from safelight_service.core.shares import Shares
from safelight_service.core.tenant import Tenant

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS results (
        key TEXT PRIMARY KEY, header BLOB NOT NULL, size_bytes INTEGER NOT NULL,
        recency INTEGER NOT NULL, owner TEXT NOT NULL DEFAULT '', weight REAL NOT NULL DEFAULT 1
    );
    CREATE INDEX IF NOT EXISTS results_by_use ON results (recency, size_bytes);
    CREATE INDEX IF NOT EXISTS results_by_owner ON results (owner, recency, size_bytes, weight);
    CREATE TABLE IF NOT EXISTS images (
        key TEXT REFERENCES results ON DELETE CASCADE, position INTEGER, sha256 TEXT NOT NULL,
        PRIMARY KEY (key, position)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS images_by_sha256 ON images (sha256);
"""

_NEXT_RECENCY = "(SELECT coalesce(max(recency), 0) + 1 FROM results)"


def make_tables(index: sqlite3.Connection) -> None:
    """Make the tables, unless they exist; continue those of earlier versions."""
    columns = {row[1] for row in index.execute("PRAGMA table_info(results)")}
    if "used_at_ns" in columns:
        index.execute("ALTER TABLE results RENAME COLUMN used_at_ns TO recency")
    if columns and "owner" not in columns:
        index.execute("ALTER TABLE results ADD COLUMN owner TEXT NOT NULL DEFAULT ''")
        index.execute("ALTER TABLE results ADD COLUMN weight REAL NOT NULL DEFAULT 1")
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
    index: sqlite3.Connection,
    key: str,
    header: bytes,
    size_bytes: int,
    images: Iterable[str],
    owner: Tenant,
) -> None:
    """Add a result, as the one used last, with the SHA-256s of its images."""
    index.execute(
        "INSERT OR REPLACE INTO results (key, header, size_bytes, recency, owner, weight) "
        f"VALUES (?, ?, ?, {_NEXT_RECENCY}, ?, ?)",
        (key, header, size_bytes, owner.name, owner.weight),
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


def find_oldest(index: sqlite3.Connection, owner: str) -> tuple[str, int] | None:
    """Return the key and the bytes of an owner's least recently used result; None without one."""
    row: tuple[str, int] | None = index.execute(
        "SELECT key, size_bytes FROM results WHERE owner = ? ORDER BY recency LIMIT 1", (owner,)
    ).fetchone()
    return row


def count_shares(index: sqlite3.Connection, limit: int) -> Shares:
    """Return the bytes of all owners, as shares of a limit.

    The weight of an owner is that of its result that was used last.
    """
    shares = Shares(limit)
    # SQLite takes the other columns from the row of the maximum.
    rows = index.execute(
        "SELECT owner, weight, sum(size_bytes), max(recency) FROM results GROUP BY owner"
    )
    for owner, weight, size_bytes, _ in rows:
        shares.add(Tenant(owner, weight), size_bytes)
    return shares


def count_bytes(index: sqlite3.Connection) -> int:
    """Return the bytes of all results."""
    [size_bytes] = index.execute("SELECT coalesce(sum(size_bytes), 0) FROM results").fetchone()
    return int(size_bytes)


def is_used(index: sqlite3.Connection, sha256: str) -> bool:
    """Whether any result has this image."""
    row = index.execute("SELECT 1 FROM images WHERE sha256 = ?", (sha256,)).fetchone()
    return row is not None
