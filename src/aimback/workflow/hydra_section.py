"""What config may say under `hydra:`: folders, sweeps, launchers and words, and nothing that runs code.

Hydra itself would set environment variables from there, import and call what its logging and its plugins name, and
write wherever it is told to. It does so before the work begins, so the section is checked as soon as it is composed,
each time: for a run, for each job of a sweep, and for what is only shown.
"""

import copy
import functools
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import hydra.conf
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.config_source import ConfigLoadError
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from aimback.core.errors import UserError
from aimback.runtime.project import ROOT

# Keys that name, count or show something, or that a function below looks at.
_FREE = {"mode", "verbose", "help", "hydra_help", "overrides", "runtime", "searchpath"}
_FREE |= {"run", "sweep", "output_subdir", "launcher", "sweeper", "hydra_logging", "job_logging", "job"}
_FREE_OF_A_JOB = {"name", "chdir", "override_dirname", "id", "num", "config_name", "config"}
# The one callback there is: what a sweep begins and ends with, see conf/base.yaml.
_CALLBACKS = {"study": {"_target_": "aimback.workflow.study.Study"}}
_LOGGING = ("default", "none", "disabled", "stdout")
# To look for config in a package is to import it. The last one is aimback's own.
_PACKAGES = re.compile(r"pkg://((hydra|hydra_plugins|pipelines)([./].*)?|aimback\.conf)")
_ASKED_OF_A_QUEUE = ("account", "constraint", "exclude", "gres", "mem_per_cpu", "mem_per_gpu", "partition", "qos")
_TYPED = "hydra.searchpath in command-line"  # as Hydra calls it
_NOT_OUTPUTS = (".ci", ".dvc", ".git", ".venv", "conf", "docs", "pipelines", "src", "tests")


def guard() -> None:
    """Make Hydra refuse in this process what is not allowed here.

    Hydra offers no place between composing and acting, so its composer is wrapped.
    """
    compose, open_sources = ConfigLoaderImpl.load_configuration, ConfigRepository.initialize_sources
    extend = ConfigLoaderImpl._process_config_searchpath

    @functools.wraps(compose)
    def compose_checked(loader: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        composed = compose(loader, *args, **kwargs)
        check(composed)
        return composed

    @functools.wraps(open_sources)
    def open_checked(repository: ConfigRepository, config_search_path: ConfigSearchPath) -> None:
        for place in config_search_path.get_path():
            if place.provider == _TYPED:
                _refuse("hydra.searchpath", "stands in conf/config.yaml alone; --config-dir FOLDER adds a folder")
            if str(place.path).startswith("pkg://") and not _PACKAGES.fullmatch(str(place.path)):
                raise UserError(f"{place.path}: config is looked for in folders, and in no package: that would run it")
        open_sources(repository, config_search_path)

    @functools.wraps(extend)
    def extend_always(loader: ConfigLoaderImpl, config_name: str | None, *args: Any) -> None:
        extend(loader, config_name or "config", *args)  # for help and completion Hydra names none, and forgets groups

    ConfigLoaderImpl._process_config_searchpath = extend_always  # type: ignore[method-assign, assignment]
    ConfigLoaderImpl.load_configuration = compose_checked  # type: ignore[method-assign, assignment]
    ConfigRepository.initialize_sources = open_checked  # type: ignore[method-assign, assignment]
    sys.modules["hydra.main"]._get_rerun_conf = _refuse_rerun  # type: ignore[attr-defined]


def check(composed: DictConfig) -> None:
    """Check the section that Hydra has composed for itself.

    Raises:
        UserError: names the key that is not allowed.
    """
    section = OmegaConf.to_container(composed.hydra, resolve=False)
    if not isinstance(section, dict) or not isinstance(section["job"], dict):
        _refuse("hydra", "must be a group of settings")
    stock: Any = OmegaConf.to_container(OmegaConf.structured(hydra.conf.HydraConf), resolve=False)
    if section["callbacks"] == _CALLBACKS:
        section["callbacks"] = {}
    _check_stock("hydra", section, stock, _FREE)
    _check_stock("hydra.job", section["job"], stock["job"], _FREE_OF_A_JOB)
    choices = composed.hydra.runtime.choices
    for name in ("hydra_logging", "job_logging", "launcher", "sweeper"):
        node = section[name]
        if name == "sweeper" and isinstance(node, dict) and _is_flat(node.get("params")):
            node = {**node, "params": None}  # these become overrides, and are checked as such
        brought = _load_stock(name, choices.get(f"hydra/{name}"))
        if sampler := choices.get("hydra/sweeper/sampler") if name == "sweeper" else None:
            brought = {**brought, "sampler": _load_stock("sweeper/sampler", sampler)}
        _check_texts(f"hydra.{name}", node, brought)
    _check_folders(composed)


def _check_stock(path: str, node: Mapping[Any, Any], stock: Mapping[Any, Any], free: set[str]) -> None:
    for name, value in stock.items():
        if name in node and name not in free and node[name] != value:
            _refuse(f"{path}.{name}", "may not be set here, because Hydra would run or obey what it says")


def _load_stock(name: str, choice: Any) -> Any:
    """What Hydra, or an installed plugin of it, brings under this name; a file of anybody else's is refused."""
    if name.endswith("logging"):
        file = resources.files(hydra.conf) / "hydra" / name / f"{choice}.yaml"
        if choice in _LOGGING and file.is_file():
            return yaml.safe_load(file.read_bytes())
        _refuse(f"hydra.{name}", f"choose one by hydra/{name}={'|'.join(_LOGGING)}")
    # A file of conf/, which is checked as what it inherits.
    brought = "launcher/submitit_slurm" if (name, choice) == ("launcher", "slurm") else f"{name}/{choice}"
    try:
        return OmegaConf.to_container(ConfigStore.instance().load(f"hydra/{brought}.yaml").node, resolve=False)
    except ConfigLoadError:
        _refuse(f"hydra.{name}", f"choose one that is installed, by hydra/{name}=NAME")


def _is_flat(node: Any) -> bool:
    return isinstance(node, dict) and all(isinstance(value, str | int | float) for value in node.values())


def _check_texts(path: str, node: Any, stock: Any) -> None:
    """Texts are as they come: among others may be commands, or names of classes that are imported and called."""
    if isinstance(node, dict) and isinstance(stock, dict | None):
        for name, value in node.items():
            _check_texts(f"{path}.{name}", value, (stock or {}).get(name))
    elif not isinstance(node, bool | int | float | None) and node != stock and not _is_word(path, node):
        _refuse(path, "takes numbers, true, false and null; a text could be a command")


def _is_word(path: str, node: Any) -> bool:
    """Whether a text only names something: a level of logging, a direction, or what a queue is asked for."""
    above, _, key = path.rpartition(".")
    pattern = r"[A-Z]+" if key == "level" else r"(min|max)imize" if path == "hydra.sweeper.direction" else None
    if above == "hydra.launcher" and key in _ASKED_OF_A_QUEUE:
        pattern = r"[\w.,:;=+@%/&|*()\[\]-]+"
    return pattern is not None and re.fullmatch(pattern, str(node)) is not None


def _check_folders(composed: DictConfig) -> None:
    """All that Hydra makes lies in the project, and none of it among code or conf."""
    composed = copy.deepcopy(composed)
    with open_dict(composed):
        if OmegaConf.is_missing(composed.hydra.job, "num"):  # the launcher of a sweep counts its jobs later
            composed.hydra.job.num, composed.hydra.job.id = 0, "0"
    run, sweep, job = (Path(_text(composed, f"hydra.{key}")) for key in ("run.dir", "sweep.dir", "sweep.subdir"))
    _check_folder("hydra.run.dir", run, ROOT)
    _check_folder("hydra.sweep.dir", sweep, ROOT)
    _check_folder("hydra.sweep.subdir", sweep / job, sweep)
    if composed.hydra.output_subdir is not None:
        for folder in (run, sweep / job):
            _check_folder("hydra.output_subdir", folder / _text(composed, "hydra.output_subdir"), folder)
    if not re.fullmatch(r"\w[\w.-]*", _text(composed, "hydra.job.name")):
        _refuse("hydra.job.name", "its log is called so: letters, digits, '_', '.' and '-'")


def _text(composed: DictConfig, key: str) -> str:
    try:
        return str(OmegaConf.select(composed, key, throw_on_missing=True))
    except OmegaConfBaseException as error:
        _refuse(key, str(error).partition("\n")[0])


def _check_folder(key: str, place: Path, within: Path) -> None:
    try:
        if not _lies_in(place, within):
            _refuse(key, f"must lie in {within}, got {str(place)!r}")
        if any(_lies_in(place, ROOT / name) for name in _NOT_OUTPUTS):
            _refuse(key, f"no run writes to {str(place)!r}; choose a folder in outputs")
    except (OSError, RuntimeError) as error:  # no path at all, or links in a circle
        _refuse(key, f"{str(place)!r} cannot be a folder ({error})")


def _lies_in(place: Path, folder: Path) -> bool:
    # A link in the project may well lead to another disk; ".." may not.
    as_written = ".." not in place.parts and (Path.cwd() / place).is_relative_to(Path.cwd() / folder)
    return as_written or place.resolve().is_relative_to(folder.resolve())


def _refuse_rerun(*_: Any) -> NoReturn:
    _refuse("--experimental-rerun", "reads a pickle, which could run code; give the overrides again instead")


def _refuse(key: str, reason: str) -> NoReturn:
    raise UserError(f"{key}: {reason}")
