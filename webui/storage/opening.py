"""Opening the chats' file: refused where it is not ours, salvaged where it is damaged."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from webui.storage.database import Unsound, check_file, connect, damaged, unwritable
from webui.storage.salvage import salvage
from webui.storage.servers import Servers

log = logging.getLogger(__name__)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file and bring its schema up to :data:`webui.schema.VERSION`.

    Of a damaged file what can be read goes to a new one in its place; it is kept aside.

    Raises:
        InstructBlipError: ``store_unwritable``, ``store_damaged`` or ``store_newer``.
    """
    check_file(path)
    try:
        try:
            return connect(path)
        except sqlite3.DatabaseError as error:
            if not _malformed(error):
                raise
            if Servers(path.parent).others():
                raise damaged(
                    path, f"{error}; another server is using it, stop that first"
                ) from error
            kept = salvage(path)
            log.warning("%s was damaged (%s): %s", path, error, kept)
            return connect(path)
    except (OSError, sqlite3.OperationalError) as error:
        raise unwritable(path, error) from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error


def _malformed(error: sqlite3.DatabaseError) -> bool:
    """Damaged, and not just somebody else's database or no database at all."""
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, Unsound) or code & 0xFF == sqlite3.SQLITE_CORRUPT
