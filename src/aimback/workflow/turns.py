"""The stages that DVC makes of dvc.yaml: one for each combination of what its matrix lists; and what each took."""

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from aimback.core.duration import duration

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


def remember_seconds(turn: str, meters: Path) -> float | None:
    """What the work of a stage took when it was last done; None where it never was.

    Args:
        turn: the stage, as DVC names it: "train@cannon_drag-surrogate".
        meters: the folder of meters.
    """
    stage, _, rest = turn.partition("@")
    task, _, route = rest.partition("-")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        meter = json.loads((meters / task / f"{stage}{route and f'-{route}'}.json").read_text(encoding="utf-8"))
        return float(meter["seconds"])
    return None


def say_seconds(seconds: float) -> str:
    """In whole seconds, at least one."""
    return duration(float(max(round(seconds), 1)))


def announce(turn: str, turns: Sequence[str], meters: Path) -> str:
    """Which of all stages is at work, in the order in which `dvc repro` runs them, and about how long it takes;
    "" where it is none of them."""
    if turn not in turns:
        return ""
    expected = remember_seconds(turn, meters)
    about = "" if expected is None else f", about {say_seconds(expected)}"
    return f"stage {turns.index(turn) + 1} of {len(turns)}{about}"


def _find_list(tree: Any, named: Any) -> list[str]:
    if isinstance(named, str):
        for part in named.removeprefix("${").removesuffix("}").split("."):
            tree = tree[part]
        named = tree
    return [str(value) for value in named]
