"""The stages that DVC makes of dvc.yaml: one for each combination of what its matrix lists."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def list_turns(folder: Path, tree: Mapping[str, Any]) -> list[str]:
    """Their names, such as "publish" and "train@cannon_drag-surrogate".

    Args:
        folder: that of the dvc.yaml.
        tree: what its params.yaml holds, where the lists stand that a matrix names, such as "${routes.train}".

    Raises:
        KeyError: a list is not there.
    """
    stages = yaml.load((folder / "dvc.yaml").read_bytes(), _LOADER)["stages"]
    names = []
    for name, stage in stages.items():
        lists = [_find_list(tree, of) for of in stage.get("matrix", {}).values()]
        names += [f"{name}@{'-'.join(turn)}" if turn else name for turn in itertools.product(*lists)]
    return names


def _find_list(tree: Any, named: Any) -> list[str]:
    if isinstance(named, str):
        for part in named.removeprefix("${").removesuffix("}").split("."):
            tree = tree[part]
        named = tree
    return [str(value) for value in named]
