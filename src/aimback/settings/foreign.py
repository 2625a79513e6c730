"""Simulators that config names: which may be run at all, of which code they are, and what is found out about them."""

import copy
import functools
import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from omegaconf import OmegaConf

from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.runtime.project import CONF, ROOT, locate_untracked
from aimback.simulators.apart import run_apart
from aimback.simulators.description import NAMED_BY
from aimback.simulators.source import CODE, FOUND, hash_files, hash_package, hash_place


def read_trust() -> list[str]:
    """What conf/config.yaml itself trusts; no preset and no override has a say in it."""
    file = CONF / "config.yaml"
    listed: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file.is_file() else {}
    return [str(entry) for entry in listed.get("trust") or []]


def check_trust(tree: Mapping[str, Any]) -> list[str]:
    """Compare the trust that was composed with that of conf/config.yaml.

    Raises:
        UserError: something has been added, or taken away.
    """
    trusted = read_trust()
    if list(tree.get("trust") or []) != trusted:
        raise UserError(f"trust: is what conf/config.yaml lists there, {quote(trusted)}; edit that file")
    return trusted


def _name_trust(kind: str, target: str) -> str:
    """What must be listed for a target to be run: the package of a function; a command, file or address as a whole."""
    return target.partition(":")[0].partition(".")[0] if kind in ("call", "_target_") else target


def _find_target(node: Mapping[str, Any]) -> tuple[str, str] | None:
    """By what a task names code that is not ours, and that name; None where it names none."""
    if "_target_" in node:
        target = str(node["_target_"])
        return None if target.partition(".")[0] == "aimback" else ("_target_", target)
    simulator = node.get("simulator")
    if not isinstance(simulator, Mapping):
        return None
    return next(((kind, str(simulator[kind])) for kind in NAMED_BY if simulator.get(kind) is not None), None)


def hash_code(node: Mapping[str, Any], place: str, trusted: list[str]) -> str | None:
    """The hash of the code, or of the data, that a task names; None where it is code of ours.

    Args:
        place: where the task stands in the config, for messages.

    Raises:
        UserError: it is not trusted, or not there.
    """
    if _is_measured(node):
        return _hash_data(node["data"], f"{place}.data")
    found = _find_target(node)
    if found is None:
        return None
    kind, target = found
    where = f"{place}.{kind}" if kind == "_target_" else f"{place}.simulator.{kind}"
    code = _hash_target(node, kind, target, where, trusted)
    preference = node.get("preference")
    if not isinstance(preference, Mapping) or preference.get("cost") is None:
        return code
    cost = _hash_target(node, "call", str(preference["cost"]), f"{place}.preference.cost", trusted)
    return hashlib.sha256(f"{code} {cost}".encode()).hexdigest()


def _hash_target(node: Mapping[str, Any], kind: str, target: str, where: str, trusted: list[str]) -> str:
    """The hash of what a task names by `kind`."""
    if (wanted := _name_trust(kind, target)) not in trusted:
        raise UserError(
            f"{where}: {quote(target)} is not trusted; list it in conf/config.yaml, trust: [{quote(wanted)}]"
        )
    try:
        if kind in ("call", "_target_"):
            module = target.partition(":")[0] if kind == "call" else target.rpartition(".")[0]
            return hash_package(module)
        if kind == "umbridge":
            return ""
        if kind == "command":
            words = [ROOT / word for word in shlex.split(target)]
            template = node["simulator"].get("template")
            files = [word for word in [*words, *([ROOT / template] if template else [])] if word.is_file()]
            return hash_files(sorted(files), ROOT)
        return hash_place(ROOT / target)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def forget_stale(tree: dict[str, Any]) -> dict[str, Any]:
    """A composition without what was found out about simulators that are of other code by now."""
    tasks = tree.get("task")
    if not isinstance(tasks, dict):
        return tree  # who reads it says what is wrong
    trusted = read_trust()
    return {**tree, "task": {name: _forget_stale(name, node, trusted) for name, node in tasks.items()}}


def _forget_stale(name: str, node: Any, trusted: list[str]) -> Any:
    if not isinstance(node, Mapping) or hash_code(node, f"task.{name}", trusted) == node.get(CODE):
        return node
    kept = copy.deepcopy({key: value for key, value in node.items() if key not in (CODE, FOUND)})
    for place in node.get(FOUND, ()):
        *above, key = place.split(".")
        _descend(kept, above).pop(key, None)
    return kept


def _descend(section: Any, names: Iterable[str]) -> Any:
    return functools.reduce(lambda inner, name: inner[name], names, section)


def _is_measured(node: Mapping[str, Any]) -> bool:
    """Whether a task has data in the place of a simulator."""
    return "data" in node and "_target_" not in node and "simulator" not in node


def _hash_data(path: Any, place: str) -> str:
    # Data run no code, so that no trust is needed; but a project stays what it is wherever it is copied to.
    if not isinstance(path, str) or not path or PurePath(path).is_absolute() or ".." in PurePath(path).parts:
        raise UserError(f"{place}: must be the path of a table below the project's root, got {quote(path)}")
    if not (file := locate_untracked(path)).is_file():
        raise UserError(f"{place}: there is no file {quote(path)}")
    return hash_place(file)


def reuse_findings(tasks: Mapping[str, Any], known: Mapping[str, Any], trusted: list[str]) -> dict[str, Any]:
    """Write the hash of its code beside each task, and what was found out about the same simulator before into it.

    Args:
        tasks: the sections as configured, by name.
        known: those of an earlier composition.
    """
    return {name: _reuse(name, node, known.get(name) or {}, trusted) for name, node in tasks.items()}


def _reuse(name: str, node: Mapping[str, Any], known: Mapping[str, Any], trusted: list[str]) -> Any:
    code = hash_code(node, f"task.{name}", trusted) if isinstance(node, Mapping) else None
    if code is None:
        return node
    marked = {**node, CODE: code}
    if "_target_" in node or FOUND in node or known.get(CODE) != code:
        return marked
    filled = copy.deepcopy({**marked, FOUND: known.get(FOUND, [])})
    try:
        for place in filled[FOUND]:
            *above, key = place.split(".")
            _descend(filled, above)[key] = _descend(known, above)[key]
    except (KeyError, TypeError, AttributeError):
        return marked  # other outcomes than before
    return filled if filled == known else marked


def find_out(tasks: Mapping[str, Any], trusted: list[str]) -> dict[str, Any]:
    """Fill in what the sections of described simulators leave open, by calling these.

    Raises:
        UserError: names the task and what is wrong.
    """
    return {name: _find_out(name, node, trusted) for name, node in tasks.items()}


def _find_out(name: str, node: Any, trusted: list[str]) -> Any:
    code = hash_code(node, f"task.{name}", trusted) if isinstance(node, Mapping) else None
    if code is None:
        return node
    if node.get(CODE, code) != code:
        edited = "data were" if _is_measured(node) else "code was"
        raise UserError(f"task.{name}: its {edited} edited after params.yaml was composed; run it again")
    marked = {**node, CODE: code}
    if _is_measured(node):
        return _find_ranges(name, node, marked)
    if "_target_" in node or _is_known(node):
        return marked
    try:
        found, said = run_apart(_probe, marked, who=f"task.{name}")
    except UserError as error:
        raise UserError(_say_where(name, node, str(error))) from None
    print(f"{name}: {said}", flush=True)
    return found


def _say_where(name: str, node: Mapping[str, Any], said: str) -> str:
    """A message about a task with its place in the config before it, which some begin with themselves."""
    if said.startswith("task."):
        return said
    inside = re.split(r"[.:\[]", said)[0] in node
    return f"task.{name}{'.' if inside else ': '}{said}"


def _find_ranges(name: str, node: Mapping[str, Any], marked: dict[str, Any]) -> dict[str, Any]:
    """A section of a task with data, with the ranges of its outcomes; of one that was checked before, as it is."""
    outcomes = node.get("outcomes")
    if CODE in node and isinstance(outcomes, Mapping) and all("range" in one for one in outcomes.values()):
        return marked
    from aimback.data.measurements import read_measurements  # imports PyTorch
    from aimback.settings.build import build
    from aimback.tasks.base import Task
    from aimback.tasks.described import fill_ranges
    from aimback.tasks.measured import MeasuredTask

    place = f"task.{name}"
    task = build(node, Task, place)  # type: ignore[type-abstract]
    assert isinstance(task, MeasuredTask)
    try:
        measured = read_measurements(task)
        outcomes, names = fill_ranges(node["outcomes"], measured.ranges, f"all rows of {task.data}")
        return {**marked, "outcomes": outcomes, FOUND: names}
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _is_known(node: Mapping[str, Any]) -> bool:
    simulator, outcomes = node.get("simulator"), node.get("outcomes")
    if not isinstance(simulator, Mapping) or not isinstance(outcomes, Mapping):
        return True  # who builds the task says what is wrong
    has_ranges = all(isinstance(one, Mapping) and one.get("range") is not None for one in outcomes.values())
    return has_ranges and all(simulator.get(key, "auto") != "auto" for key in ("arrays", "cases", "derivatives"))


def _probe(node: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The section filled in, and a sentence about it."""
    from aimback.settings.build import build  # imports PyTorch
    from aimback.tasks.base import Task
    from aimback.tasks.described import DescribedTask, complete

    task = build(node, Task)  # type: ignore[type-abstract]
    assert isinstance(task, DescribedTask)
    found = task.probe()
    return complete(node, found), found.tell()
