"""Which first-party files a file imports, read from the source: nothing is executed."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from aimback.runtime.project import ROOT

PACKAGES = {"aimback": ROOT / "src" / "aimback", "pipelines": ROOT / "pipelines"}


@functools.cache
def imported_modules(file: Path) -> frozenset[str]:
    """Dotted names that are imported anywhere in a file, except for type checkers only.

    `from a import b` gives both "a" and "a.b": b may be a module.
    """
    names: set[str] = set()
    for node in _executed(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def closure(*files: Path) -> set[Path]:
    """The files, and every first-party file that running them imports."""
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            names = imported_modules(current) | {module_name(current)}
            waiting += [path for name in names for path in module_files(name)]
    return found


def module_name(file: Path) -> str:
    """`src/aimback/solve/adam.py` -> "aimback.solve.adam"."""
    for package, folder in PACKAGES.items():
        if file.is_relative_to(folder):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            return ".".join(parts).removesuffix(".__init__")
    raise ValueError(file)


def module_files(name: str) -> Iterator[Path]:
    """The file of a first-party module and the `__init__.py` of every package above it."""
    first, *rest = name.split(".")
    if first not in PACKAGES:
        return
    folder = PACKAGES[first]
    yield folder / "__init__.py"
    for part in rest:
        if (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
        folder = folder / part
        if not folder.is_dir():
            return
        yield folder / "__init__.py"


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _executed(child)
