"""The place of a Postgres database, read from a URL without connecting: two URLs of one database give the same text for every user."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, unquote

DEV = "postgres:dev"
DEFAULT_SCHEMA = "holdfast"
_PORT = "5432"


def place_of(url: str, schema: str | None = None) -> str:
    """Server, database and schema of a URL as postgres.link.Address takes it; never a user or password, nor any other option.

    Args:
        schema: instead of the URL's.
    """
    bare, _, query = url.partition("?")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    schema = schema or options.get("schema", DEFAULT_SCHEMA)
    if bare == DEV or bare.startswith(f"{DEV}/"):
        folder = unquote(bare.removeprefix(DEV).removeprefix("/"))
        return f"{DEV}/{os.path.abspath(folder) if folder else os.getcwd()}?schema={schema}"
    authority, _, database = bare.partition("://")[2].partition("/")
    host, colon, port = authority.rpartition("@")[2].lower().rpartition(":")
    if not colon or not port.isdigit():
        host, port = authority.rpartition("@")[2].lower().rstrip(":"), ""
    host = host or options.get("host", "") or "localhost"
    return f"postgres://{host}:{port or options.get('port', _PORT)}/{unquote(database) or options.get('dbname', '')}?schema={schema}"
