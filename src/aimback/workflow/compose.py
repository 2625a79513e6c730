"""Compose params.yaml from conf/, unless DVC has just composed it with overrides, and check it.

`dvc exp run -S ...` writes params.yaml itself (hydra.enabled) and names the experiment in the
environment; a plain `dvc repro` must notice edits of conf/. So the first line of params.yaml tells
which conf/ it was composed from, and is written only once everything in it was found to be right.
"""

import hashlib
import os
from typing import TYPE_CHECKING, Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aimback.core.errors import UserError
from aimback.core.files import sha256, write_text
from aimback.runtime.exits import report_errors
from aimback.runtime.project import CONF, CONFS, locate_untracked, name_below_root
from aimback.settings.foreign import check_trust, forget_stale, reuse_findings
from aimback.workflow.entry import explain_composing
from aimback.workflow.params import ANEW, PARAMS, check_conf, read_mapping

if TYPE_CHECKING:
    from aimback.settings.tree import Settings
    from aimback.tasks.base import Task

HEADER = "# Composed from conf/ (edit there, or override), which had the hash "


def hash_conf() -> str:
    """What conf/ holds, and where that is a user's own, what aimback's does, in one hash."""
    digest = hashlib.sha256()
    for folder in CONFS:
        for file in sorted(folder.rglob("*.yaml")):
            digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def write_params(cfg: DictConfig) -> bool:
    """Check everything that is configured; then write it, under the line that tells from where. -> whether it is new.

    Raises:
        UserError: something is wrong, and params.yaml is as it was.
    """
    # The bytes of a user's targets file are a parameter: DVC cannot depend on a file that may be none.
    targets = locate_untracked(cfg.targets) if isinstance(cfg.get("targets"), str) else None
    if targets is not None and not targets.is_file():
        raise UserError(f"targets: there is no file {str(targets)!r}")
    text, tree = None, None
    try:
        tree = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
        if targets is not None:
            tree["targets"] = name_below_root(tree["targets"])
        tree["targets_sha256"] = targets and sha256(targets)
        text = _write_out(tree := fill_in_known(tree))
    except (OmegaConfBaseException, RecursionError):
        pass  # the settings do not resolve, of which `read_settings` says more
    if text is not None and PARAMS.is_file() and PARAMS.read_bytes() == text.encode():
        return False  # it was checked before it was written
    from aimback.data.targets import read_targets  # PyTorch takes seconds to import
    from aimback.settings.limits import check_limits
    from aimback.settings.memory import check_memory
    from aimback.settings.tree import read_settings

    settings = read_settings(cfg if tree is None else tree)
    if settings.only.task or settings.only.route:
        raise UserError("only: is told to stages one by one; what a run shall do is chosen by task=[...]")
    check_memory(settings)
    check_limits(settings, settings.tasks)
    if targets is not None:
        for task in settings.tasks.values():
            read_targets(targets, task)
    text = _write_out({**settings.tree, "jacobians": list(filter(settings.learns_jacobians, settings.tasks))})
    if PARAMS.is_file() and PARAMS.read_bytes() == text.encode():
        return False
    write_text(PARAMS, text)
    return True


def fill_in_known(tree: dict[str, Any]) -> dict[str, Any]:
    """What is configured, with what an earlier run has found out about the same simulators."""
    if not isinstance(tree["task"], dict):
        return tree
    return {**tree, "task": reuse_findings(tree["task"], _read_tasks(), check_trust(tree))}


def _read_tasks() -> dict[str, Any]:
    """The tasks of the params.yaml that is there, if they can be read."""
    try:
        tasks = read_mapping(PARAMS, ANEW)["task"]
    except (UserError, KeyError):
        return {}
    return tasks if isinstance(tasks, dict) else {}


def _write_out(tree: dict[Any, Any]) -> str:
    return f"{HEADER}{hash_conf()}\n{OmegaConf.to_yaml(OmegaConf.create(tree))}"


def compose_settings(*overrides: str) -> "Settings":
    """The settings of conf/, as it is but for what is overridden."""
    from aimback.settings.tree import read_settings

    return read_settings(compose_conf(*overrides))


def compose_tasks() -> "dict[str, Task]":
    """The tasks of conf/ as it is, by name."""
    return dict(compose_settings().tasks)


def _find_lists(tree: Any) -> Any:
    """The lists of which DVC makes its stages."""
    return [tree.get("tasks"), tree.get("routes"), tree.get("examined")]


def _compose() -> DictConfig:
    """params.yaml if it is still right, else conf/ composed anew."""
    text = PARAMS.read_bytes() if PARAMS.is_file() else b""
    # DVC composes without our first line, and only for an experiment.
    by_dvc = text and not text.startswith(HEADER.encode()) and "DVC_EXP_NAME" in os.environ
    if by_dvc or text.startswith((HEADER + hash_conf()).encode()):
        known = read_mapping(PARAMS, ANEW)
        return OmegaConf.create(known if by_dvc else forget_stale(known))
    return compose_conf()


def compose_conf(*overrides: str) -> DictConfig:
    """What conf/ says, but for what is overridden.

    Raises:
        UserError: it cannot be composed.
    """
    check_conf()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra.compose("config", list(overrides))
        except Exception as error:  # whatever fails there is what stands in conf/
            raise UserError(explain_composing(error)) from error


def main() -> None:
    with report_errors("compose", lambda error: str(error) if isinstance(error, OmegaConfBaseException) else None):
        cfg = _compose()
        try:
            before = _find_lists(read_mapping(PARAMS, ANEW))
        except UserError:
            before = None
        write_params(cfg)
        # DVC made its stages of the list that was there when it started.
        if "DVC_STAGE" in os.environ and before != _find_lists(OmegaConf.to_container(cfg, resolve=True)):
            raise UserError("conf/ lists other tasks or routes than params.yaml did, which has them now; run it again")


if __name__ == "__main__":
    main()
