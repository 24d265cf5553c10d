"""Who may log in: names and hashes of passwords, in SQLite."""

import os
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

from werkzeug.security import check_password_hash, generate_password_hash

# The directory that systemd makes for what a service keeps.
DATABASE = Path(os.environ.get("STATE_DIRECTORY", ""), "chat.sqlite3")


@contextmanager
def database():
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS users (name PRIMARY KEY, password)")
        yield connection


def add(name, password):
    """Add a user; tell whether the name was free."""
    try:
        with database() as connection:
            values = name, generate_password_hash(password)
            connection.execute("INSERT INTO users VALUES (?, ?)", values)
    except sqlite3.IntegrityError:
        return False
    return True


def check(name, password):
    """Tell whether a user has this password."""
    with database() as connection:
        row = connection.execute("SELECT password FROM users WHERE name = ?", [name]).fetchone()
    return row is not None and check_password_hash(row[0], password)
