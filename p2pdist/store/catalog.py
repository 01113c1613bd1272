"""The catalog: what is known of blobs, tags, pins and sizes, in SQLite. For use in one thread.

Rules:
- It is a cache of the directory as far as blobs go: a row without a file, or a file without a row, is mended when the
  store opens. Tags, pins and learned sizes have their home here.
- It is written ahead (WAL) and not synced at each change: kill -9 loses nothing, a power cut the last moments.
- A damaged catalog is set aside and begun anew; one of a newer version is refused.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from p2pdist.errors import InvalidInputError, StoreError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference, Repository
from p2pdist.store import tags as bounds
from p2pdist.store.index import parse_reference_key, reference_key
from p2pdist.store.layout import RECORD_MODE
from p2pdist.store.port import TagEntry
from p2pdist.store.tags import MAX_HISTORY, MAX_TAGS, TagKey

logger = logging.getLogger(__name__)

MAX_LINKS = 200_000

# Each is applied once, in order; never change one that was released, append another.
MIGRATIONS = (
    """
    CREATE TABLE blobs (
        digest TEXT PRIMARY KEY, size INTEGER NOT NULL, media_type TEXT NOT NULL, committed_at REAL NOT NULL,
        used_at REAL NOT NULL, shared INTEGER NOT NULL, verified INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE tags (
        id INTEGER PRIMARY KEY, repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
        media_type TEXT NOT NULL, size INTEGER NOT NULL, first_seen REAL NOT NULL, resolved_at REAL NOT NULL
    );
    CREATE INDEX tags_by_name ON tags (repository, tag, id);
    CREATE TABLE pins (reference TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (reference, digest)) WITHOUT ROWID;
    CREATE TABLE links (
        id INTEGER PRIMARY KEY, digest TEXT NOT NULL, repository TEXT NOT NULL, size INTEGER,
        UNIQUE (digest, repository)
    );
    """,
)


@dataclass(frozen=True, slots=True)
class BlobRow:
    """What the catalog knows of a blob; sizes are bytes, times wall-clock seconds."""

    digest: Digest
    size: int
    media_type: str
    committed_at: float
    used_at: float
    shared: bool
    verified: bool


class Catalog:
    """See the module's rules. ``fresh`` when it was begun just now. Errors: StoreError, StoreFullError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fresh = not path.exists()
        try:
            self._connection = self._connect()
        except sqlite3.OperationalError as error:
            raise self._translate(error) from error
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            self.fresh = True
            self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        with suppress(OSError):  # SQLite tells what is wrong; it would make a file that everyone can read
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, RECORD_MODE))
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            _migrate(connection, self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: sqlite3.Error) -> None:
        aside = self._path.with_suffix(".damaged")
        logger.warning(
            "the catalog %s is damaged (%s): begun anew, the old one is %s", self._path, error, aside
        )
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._path.replace(aside)

    def _translate(self, error: sqlite3.Error) -> StoreError | StoreFullError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return StoreFullError(f"the disk is full: writing to {self._path} failed; free space there")
        return StoreError(
            f"the catalog {self._path} failed ({error}); check the disk; if it stays so, stop the agent and delete "
            "this file: blobs and tags are found again, pins are not"
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise self._translate(error) from error

    def _query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._translate(error) from error

    # -- blobs --

    def blobs(self) -> list[BlobRow]:
        """Least recently used first."""
        rows = self._query(
            "SELECT digest, size, media_type, committed_at, used_at, shared, verified FROM blobs ORDER BY used_at"
        )
        return [row for item in rows if (row := _blob_row(item)) is not None]

    def put_blobs(self, rows: Iterable[BlobRow]) -> None:
        values = [
            (
                str(row.digest),
                row.size,
                row.media_type,
                row.committed_at,
                row.used_at,
                row.shared,
                row.verified,
            )
            for row in rows
        ]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def remove_blobs(self, digests: Iterable[Digest]) -> None:
        with self._transaction() as connection:
            connection.executemany("DELETE FROM blobs WHERE digest = ?", [(str(item),) for item in digests])

    def used(self, times: Iterable[tuple[Digest, float]]) -> None:
        """Note when blobs were used last."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE blobs SET used_at = ? WHERE digest = ?", [(used, str(item)) for item, used in times]
            )

    # -- tags --

    def newest_tags(self) -> list[TagEntry]:
        """Newest resolution of each tag, oldest first."""
        rows = self._query(
            f"SELECT {_TAG_COLUMNS} FROM tags WHERE id IN (SELECT max(id) FROM tags GROUP BY repository, tag) "  # noqa: S608
            "ORDER BY resolved_at"
        )
        return _tag_entries(rows)

    def tag_history(self, repository: Repository | None) -> list[TagEntry]:
        """All resolutions, newest first, at most 10,000."""
        rows = self._query(
            f"SELECT {_TAG_COLUMNS} FROM tags WHERE ? IS NULL OR repository = ? "  # noqa: S608  (constant columns)
            "ORDER BY resolved_at DESC, id DESC LIMIT ?",
            (None if repository is None else str(repository), str(repository), MAX_TAGS),
        )
        return _tag_entries(rows)

    def history_of_tag(self, repository: Repository, tag: str) -> list[TagEntry]:
        """All that is kept of what a tag pointed at, newest first."""
        rows = self._query(
            f"SELECT {_TAG_COLUMNS} FROM tags WHERE repository = ? AND tag = ? ORDER BY id DESC LIMIT ?",  # noqa: S608
            (str(repository), tag, MAX_HISTORY),
        )
        return _tag_entries(rows)

    def append_tag(self, entry: TagEntry, forgotten: TagKey | None = None) -> None:
        """A tag points at another digest than before; ``forgotten`` is a tag to drop."""
        name = (str(entry.repository), entry.tag)
        values = (*name, str(entry.digest), entry.media_type, entry.size, entry.first_seen, entry.resolved_at)
        with self._transaction() as connection:
            connection.execute(f"INSERT INTO tags ({_TAG_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608
            connection.execute(
                "DELETE FROM tags WHERE repository = ? AND tag = ? AND id NOT IN "
                "(SELECT id FROM tags WHERE repository = ? AND tag = ? ORDER BY id DESC LIMIT ?)",
                (*name, *name, MAX_HISTORY),
            )
            connection.execute(_TRIM_TAGS, (bounds.MAX_RESOLUTIONS,))
            if forgotten is not None:
                connection.execute(
                    "DELETE FROM tags WHERE repository = ? AND tag = ?", (str(forgotten[0]), forgotten[1])
                )

    def refresh_tag(self, entry: TagEntry) -> None:
        """A tag was found to point where it did."""
        name = (str(entry.repository), entry.tag)
        with self._transaction() as connection:
            connection.execute(
                "UPDATE tags SET media_type = ?, size = ?, resolved_at = ? WHERE id = "
                "(SELECT max(id) FROM tags WHERE repository = ? AND tag = ?)",
                (entry.media_type, entry.size, entry.resolved_at, *name),
            )

    # -- pins, and what manifests told --

    def pins(self) -> dict[Reference, list[Digest]]:
        pins: dict[Reference, list[Digest]] = {}
        for key, digest in self._query("SELECT reference, digest FROM pins"):
            try:
                pinned = pins.setdefault(parse_reference_key(str(key)), [])
                if digest:
                    pinned.append(Digest.parse(str(digest)))
            except (ValueError, TypeError):
                logger.warning("the catalog %s has a malformed pin %r: ignored", self._path, key)
        return pins

    def pin(self, reference: Reference, digests: Iterable[Digest]) -> None:
        key = reference_key(reference)
        # The empty digest keeps the reference itself, which may pin nothing yet.
        values = [(key, ""), *((key, str(digest)) for digest in digests)]
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO pins VALUES (?, ?)", values)

    def unpin(self, reference: Reference) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM pins WHERE reference = ?", (reference_key(reference),))

    def link(self, repository: Repository, sizes: dict[Digest, int | None]) -> None:
        """These blobs belong to ``repository``; the 200,000 newest links are kept."""
        values = [(str(digest), str(repository), size) for digest, size in sizes.items()]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO links (digest, repository, size) VALUES (?1, ?2, coalesce(?3, "
                "(SELECT size FROM links WHERE digest = ?1 AND repository = ?2)))",
                values,
            )
            connection.execute("DELETE FROM links WHERE id <= (SELECT max(id) FROM links) - ?", (MAX_LINKS,))

    def known_size(self, digest: Digest) -> int | None:
        rows = self._query(
            "SELECT size FROM links WHERE digest = ? AND size IS NOT NULL ORDER BY id DESC LIMIT 1",
            (str(digest),),
        )
        return int(str(rows[0][0])) if rows else None

    def repositories(self, digest: Digest) -> list[Repository]:
        """Those that the blob is linked to."""
        found = []
        for (name,) in self._query("SELECT repository FROM links WHERE digest = ?", (str(digest),)):
            registry, _, path = str(name).partition("/")
            with suppress(InvalidInputError):
                found.append(Repository.of(registry, path))
        return found

    def close(self) -> None:
        self._connection.close()


_TAG_COLUMNS = "repository, tag, digest, media_type, size, first_seen, resolved_at"
# The oldest resolutions beyond the bound; a tag's newest one is what it points at now, and stays.
_TRIM_TAGS = """
    DELETE FROM tags WHERE id IN (
        SELECT id FROM tags WHERE id NOT IN (SELECT max(id) FROM tags GROUP BY repository, tag)
        ORDER BY id LIMIT max(0, (SELECT count(*) FROM tags) - ?)
    )
"""


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)"
    )
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer p2pdist (version {version}, this one knows {len(MIGRATIONS)}); install "
            "that version again, or delete this file: blobs and tags are found again, pins are not"
        )
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        # One transaction: kill -9 leaves the schema of the version before.
        note = f"INSERT INTO migrations VALUES ({number}, strftime('%s', 'now'))"  # noqa: S608  (a number of ours)
        connection.executescript(f"BEGIN IMMEDIATE; {script}; {note}; COMMIT;")


def _blob_row(row: tuple[object, ...]) -> BlobRow | None:
    digest, size, media_type, committed_at, used_at, shared, verified = row
    try:
        return BlobRow(
            Digest.parse(str(digest)),
            int(str(size)),
            str(media_type),
            float(str(committed_at)),
            float(str(used_at)),
            bool(shared),
            bool(verified),
        )
    except ValueError:
        return None


def _tag_entries(rows: Iterable[tuple[object, ...]]) -> list[TagEntry]:
    entries: list[TagEntry] = []
    for repository, tag, digest, media_type, size, first_seen, resolved_at in rows:
        registry, _, path = str(repository).partition("/")
        try:
            entries.append(
                TagEntry(
                    Repository.of(registry, path),
                    str(tag),
                    Digest.parse(str(digest)),
                    str(media_type),
                    int(str(size)),
                    float(str(first_seen)),
                    float(str(resolved_at)),
                )
            )
        except (InvalidInputError, ValueError):
            logger.warning("the catalog has a malformed tag %r of %r: ignored", tag, repository)
    return entries
