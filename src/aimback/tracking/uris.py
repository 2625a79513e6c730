"""Paths as the URIs that MLflow wants, and back.

MLflow takes every artifact location for quoted, a plain path too, so it is given `Path.as_uri()`; and SQLAlchemy the
path of a SQLite file. What is handed to them differently ends up in another folder.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit


def sqlite_uri(file: Path) -> str:
    """The tracking URI of a SQLite file, given by its absolute path."""
    quoted = str(file).replace("%", "%25").replace("?", "%3F")
    # MLflow makes the folder of what begins with sqlite:///, and does not unquote its name.
    return f"{'sqlite' if quoted == str(file) else 'sqlite+pysqlite'}:///{quoted}"


def sqlite_file(uri: str) -> Path | None:
    """The SQLite file that SQLAlchemy opens for a tracking URI, relative where that is; None for other stores."""
    scheme, separator, place = uri.partition(":///")
    path = unquote(place.partition("?")[0])
    is_file = separator and scheme.partition("+")[0] == "sqlite" and path and not path.startswith((":memory:", "file:"))
    return Path(path) if is_file else None


def local_path(location: str) -> Path | None:
    """The path of an artifact location on this machine, as a URI or as older versions wrote it; None elsewhere."""
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return Path(location) if location.startswith("/") else None
