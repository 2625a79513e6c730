"""A public name means one thing in the whole tree, and functions are called by verbs."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from aimback.runtime.project import ROOT

LIBRARY = ROOT / "src" / "aimback"
TREES = {
    file.relative_to(LIBRARY): ast.parse(file.read_text(encoding="utf-8"))
    for file in sorted(LIBRARY.rglob("*.py"))
    if "templates" not in file.parts  # of files that become a user's own
}
# What several modules have on purpose: a claim's measurement, a command's work, a module's own logger, a room's part
# of the schema of conf/.
PROTOCOLS = {"examine", "main", "log", "settings"}
# They end like participles and are none.
VERBS = {"seed", "open", "listen", "flatten", "unflatten", "embed", "need", "speed"}


def public_names(path: Path, tree: ast.Module) -> Iterator[str]:
    """What a module defines at its top, and its own name."""
    if path.stem != "__init__":
        yield path.stem
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def is_property(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(one).endswith("property") for one in function.decorator_list)


def test_a_public_name_means_one_thing() -> None:
    homes = defaultdict(set)
    for path, tree in TREES.items():
        for name in public_names(path, tree):
            if not name.startswith("_"):
                homes[name].add(path.as_posix())
    twice = {name: sorted(files) for name, files in homes.items() if len(files) > 1 and name not in PROTOCOLS}
    assert twice == {}


def test_functions_are_no_participles() -> None:
    found = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not is_property(node):
                first = node.name.removeprefix("_").partition("_")[0]
                if first.endswith(("ed", "en")) and first not in VERBS:
                    found.add(f"{path.as_posix()}: {node.name}")
    assert sorted(found) == []
