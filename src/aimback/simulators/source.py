"""The code that a simulator consists of, in one hash: what was made with other code is made anew."""

import hashlib
import importlib.util
from collections.abc import Iterator
from modulefinder import ModuleFinder
from pathlib import Path

from aimback.core.errors import UserError

# What a hash is written under beside the settings of a task; every stage of the task takes notice of it.
CODE = "_code_"
# What the names of the settings that were found out by calling the simulator stand under; other code, and they go.
FOUND = "_found_"
_NOT_CODE = {".pyc", ".pyo"}


def hash_package(module: str) -> str:
    """Hash a module, what it imports from its own package, and the files that lie in that package and are no modules.

    A module that is imported under a name that is only known at run time is not found.

    Raises:
        UserError: there is no such module, or it cannot be read.
    """
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"{module}: there is no such module here; is it in src/, or installed?")
    origin = Path(spec.origin)
    files = {origin}
    if spec.submodule_search_locations:
        folder = origin.parent
        file = folder.joinpath(*module.split(".")[1:])
        start = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        if not start.is_file():
            raise UserError(f"{module}: there is no such module; {folder} has no {start.name}")
        files = set(_list_imported(start, module, package, folder.parent)) | {
            data for data in folder.rglob("*") if data.is_file() and data.suffix not in {".py", *_NOT_CODE}
        }
    return hash_files(sorted(files), origin.parent)


def _list_imported(start: Path, module: str, package: str, folder: Path) -> Iterator[Path]:
    finder = ModuleFinder(path=[str(folder)])
    try:
        finder.import_hook(package)
        finder.import_hook(module)
    except (SyntaxError, UnicodeDecodeError) as error:
        place = getattr(error, "filename", None) or start
        raise UserError(f"{place}: line {getattr(error, 'lineno', '?')}: {getattr(error, 'msg', error)}") from error
    for name, found in finder.modules.items():
        file = getattr(found, "__file__", None)
        if name.partition(".")[0] == package and file:
            yield Path(file)


def hash_files(files: list[Path], root: Path) -> str:
    """Hash files by their names below `root` and what they hold."""
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        digest.update(f"{name}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def hash_place(place: Path) -> str:
    """Hash a file, or all files of a folder but compiled ones.

    Raises:
        UserError: there is neither.
    """
    if not place.exists():
        raise UserError(f"{place}: there is no such file")
    inside = place.rglob("*") if place.is_dir() else [place]
    return hash_files(sorted(file for file in inside if file.is_file() and file.suffix not in _NOT_CODE), place.parent)
