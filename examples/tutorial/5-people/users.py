"""Who may log in: names and hashes of passwords, in SQLite."""

import sqlite3
from contextlib import closing, contextmanager

from werkzeug.security import check_password_hash, generate_password_hash


@contextmanager
def database():
    with closing(sqlite3.connect("chat.sqlite3")) as connection, connection:
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
