"""The rim where configuration ends: checked values become objects, and nothing else is called.

Type hints and range checks of the constructors are the schema; there is no second copy of it.
"""

import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

import aimback
from aimback.core.checks import MOST_ROWS, check_whole, show
from aimback.core.errors import UserError
from aimback.core.hardware import Hardware
from aimback.core.section import Section
from aimback.data.dataset import LEAST_EXAMPLES
from aimback.diagnose.settings import DiagnoseSettings
from aimback.learn.proposer_settings import HybridSettings
from aimback.learn.surrogate_settings import SurrogateSettings, TrainingSettings
from aimback.runtime.project import locate, locate_untracked
from aimback.solve.smoothing_settings import Smoothing
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts
from aimback.tasks.base import Task

T = TypeVar("T")
_PACKAGE = Path(aimback.__file__).parent
_FAMILIES = (Solver,)


@dataclass(frozen=True)
class DataSettings:
    """How much is simulated.

    Args:
        examples: of the data set that the surrogate learns from.
        validation_fraction: share of them set apart, in (0, 1).
        targets: how many are drawn where no file of targets is given.
    """

    examples: int
    validation_fraction: float
    targets: int

    def __post_init__(self) -> None:
        check_whole(LEAST_EXAMPLES, MOST_ROWS, examples=self.examples)
        check_whole(1, MOST_ROWS, targets=self.targets)
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"validation_fraction: between 0 and 1, got {self.validation_fraction:g}")


@dataclass(frozen=True)
class Training:
    """A network on the data set, and its training.

    Args:
        by_task: what differs on a task: {task: {network: {...}, training: {...}}}.
    """

    network: SurrogateSettings
    training: TrainingSettings
    by_task: dict[str, tuple[SurrogateSettings, TrainingSettings]]

    def of(self, task: str) -> tuple[SurrogateSettings, TrainingSettings]:
        return self.by_task.get(task, (self.network, self.training))


@dataclass(frozen=True)
class Descent:
    """How a route searches: a row of the sections invert, optimise, refine.

    Args:
        solver: how it steps.
        dtype: float32 or float64, that it computes in.
        starts: where it begins; of `refine`, the proposals.
        margin: of `invert`: what it leaves free at each wall, a share of the box's width in [0, 0.5).
        network: whose network it descends through, or takes proposals from; None for the simulator.
        smoothing: of `optimise`: the easier maps before the simulator itself.
    """

    solver: Solver
    dtype: Literal["float32", "float64"]
    starts: Starts
    margin: float = 0.0
    network: str = ""
    smoothing: Smoothing | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == "float32" else torch.float64


@dataclass(frozen=True)
class TrackingSettings:
    """What MLflow gets.

    Args:
        enabled: whether runs are published at all.
        experiment: the experiment's name.
        live: whether a training can be watched while it runs.
    """

    enabled: bool
    experiment: str
    live: bool


class Settings:
    """One composed configuration; each part is checked and built when it is asked for.

    Args:
        cfg: as Hydra composed it.

    Raises:
        UserError: on asking, names the key and what is allowed.
    """

    def __init__(self, cfg: DictConfig) -> None:
        if not cfg.get("task"):
            raise UserError("task: choose at least one, e.g. task=cannon_drag")
        try:
            tree = OmegaConf.to_container(cfg, resolve=True)
        except (OmegaConfBaseException, RecursionError) as error:  # an unknown name in ${...}, or a circle
            key = getattr(error, "full_key", None) or "config"
            raise UserError(f"{key}: {str(error).partition(chr(10))[0]}") from error
        assert isinstance(tree, dict)
        self.tree: dict[str, Any] = {str(name): value for name, value in tree.items()}
        _known("", self.tree, (*_ROOT, "tasks", "only"))

    def check(self) -> "Settings":
        """Build every part."""
        for name in _ROOT:
            getattr(self, "tasks" if name == "task" else name)
        return self

    def _part(self, name: str, kind: type[T]) -> T:
        return build(self.tree.get(name), kind, name)

    def _plain(self, name: str, hint: Any) -> Any:
        return _value(name, hint, self.tree.get(name))

    @cached_property
    def seed(self) -> int:
        seed: int = self._plain("seed", int)
        check_whole(0, 2**63 - 1, seed=seed)
        return seed

    @cached_property
    def targets(self) -> Path | None:
        path = self._plain("targets", str | None)
        return locate_untracked(path) if path else None

    @cached_property
    def targets_sha256(self) -> str | None:
        """Of the file of targets, as it was when the pipeline was composed."""
        digest: str | None = self._plain("targets_sha256", str | None)
        return digest

    @cached_property
    def inputs(self) -> tuple[Path, ...]:
        folders = self._plain("inputs", list[str])
        return tuple(locate(folder) for folder in folders)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name; under `only`, that one."""
        parts = self.tree.get("task")
        if not isinstance(parts, dict):
            raise UserError(f"task: expected settings of tasks by name, got {show(parts)}")
        if self.tree.get("tasks", list(parts)) != list(parts):
            raise UserError(f"tasks: follows from task; choose by task=[{','.join(map(str, self.tree['tasks']))}]")
        if (only := self._only("task")) is not None:
            if only not in parts:
                raise UserError(f"only.task: no task '{only}' here; there is {', '.join(parts)}")
            parts = {only: parts[only]}
        if wrong := [name for name in parts if not str(name).isidentifier()]:  # it names a folder
            raise UserError(f"task.{wrong[0]}: a task's name is of letters, digits and _")
        return {name: build(part, Task, f"task.{name}") for name, part in parts.items()}  # type: ignore[type-abstract]

    @cached_property
    def data(self) -> DataSettings:
        return self._part("data", DataSettings)

    @cached_property
    def surrogate(self) -> SurrogateSettings:
        return self._part("surrogate", SurrogateSettings)

    @cached_property
    def training(self) -> TrainingSettings:
        return self._part("training", TrainingSettings)

    @cached_property
    def starts(self) -> Starts:
        return self._part("starts", Starts)

    @cached_property
    def solver(self) -> Solver:
        return self._part("solver", Solver)

    @cached_property
    def smoothing(self) -> Smoothing:
        return self._part("smoothing", Smoothing)

    @cached_property
    def hybrid(self) -> HybridSettings:
        return self._part("hybrid", HybridSettings)

    @cached_property
    def train(self) -> dict[str, Training]:
        """The networks that stand in for the simulator, by route."""
        return {name: _training(node, f"train.{name}") for name, node in self._rows("train").items()}

    @cached_property
    def amortise(self) -> dict[str, HybridSettings]:
        """The networks that propose controls, by route."""
        return {name: build(node, HybridSettings, f"amortise.{name}") for name, node in self._rows("amortise").items()}

    @cached_property
    def invert(self) -> dict[str, Descent]:
        found = self._descents("invert", ("network", "margin", "starts"))
        for name, route in found.items():
            _known(f"invert.{name}.network: ", [route.network], self.train)
            if not 0 <= route.margin < 0.5:
                raise UserError(f"invert.{name}.margin: in [0, 0.5), got {route.margin:g}")
        return found

    @cached_property
    def optimise(self) -> dict[str, Descent]:
        return self._descents("optimise", ("smoothing", "starts"))

    @cached_property
    def refine(self) -> dict[str, Descent]:
        found = self._descents("refine", ("network",))
        for name, route in found.items():
            _known(f"refine.{name}.network: ", [route.network], self.amortise)
        return found

    @cached_property
    def routes(self) -> dict[str, str]:
        """The stage that solves for each route, by the route's name."""
        found: dict[str, str] = {}
        for stage in ("invert", "optimise", "refine"):
            for name in getattr(self, stage):
                if name in found or name == "networks" or not name.isidentifier():  # it names a folder
                    raise UserError(f"{stage}.{name}: a route's name is its own, of letters, digits and _")
                found[name] = stage
        if not found:
            raise UserError("routes: choose at least one, e.g. routes=[direct]")
        return found

    @cached_property
    def compared(self) -> dict[str, str]:
        """The routes that claims and figures of the two maps are about: the first of each kind."""
        kinds = {"surrogate": self.invert, "direct": self.optimise, "hybrid": self.refine}
        return {kind: next(iter(found)) for kind, found in kinds.items() if found}

    def routes_of(self, stage: str) -> list[str]:
        """The routes that a stage works for, one or all of them."""
        names = list(getattr(self, stage))
        only = self._only("route")
        if only is not None:
            _known("only.route: ", [only], names)
        return names if only is None else [only]

    def replicas_of(self, route: str, task: str) -> int:
        """How many further networks the claims about a route's network ask for."""
        asked = task in self.diagnose.tasks and "direct" in self.compared and "surrogate" in self.compared
        return self.diagnose.replicas if asked and self.invert[self.compared["surrogate"]].network == route else 0

    def find_maker(self, file: str) -> str:
        """The stage that makes a file of a task."""
        first, *rest = Path(file).parts
        if first != "routes":
            return {"data": "generate"}.get(first, first if rest[0] != "claims" else "diagnose")
        if rest[0] == "networks":
            return "train" if rest[1] in self.train else "amortise"
        return self.routes.get(rest[0], "optimise")

    def _rows(self, stage: str) -> dict[str, Any]:
        rows: dict[str, Any] = self._plain(stage, dict[str, dict[str, Any]])
        listed = self.tree.get("routes", {}).get(stage, list(rows))
        if listed != list(rows):
            raise UserError(f"routes.{stage}: follows from the routes; choose by routes=[...]")
        return rows

    def _descents(self, stage: str, own: Iterable[str]) -> dict[str, Descent]:
        return {name: _descent(node, f"{stage}.{name}", own) for name, node in self._rows(stage).items()}

    def _only(self, what: str) -> str | None:
        only: str | None = self._plain("only", dict[str, str | None]).get(what)
        return only

    @cached_property
    def published(self) -> str | None:
        """The paper whose rows stand beside those of the run."""
        name: str | None = self._plain("published", Literal["neural_adjoint"] | None)
        return name

    @cached_property
    def hardware(self) -> Hardware:
        return self._part("hardware", Hardware)

    @cached_property
    def diagnose(self) -> DiagnoseSettings:
        return self._part("diagnose", DiagnoseSettings)

    @cached_property
    def tracking(self) -> TrackingSettings:
        return self._part("tracking", TrackingSettings)


_ROOT = (
    *("task", "data", "surrogate", "training", "hybrid", "solver", "starts", "smoothing", "diagnose", "hardware"),
    *("tracking", "seed", "targets", "targets_sha256", "inputs", "published"),
    *("train", "invert", "optimise", "amortise", "refine", "routes"),
)


def _training(node: Mapping[str, Any], path: str) -> Training:
    _known(f"{path}.", node, ("network", "training", "by_task"))

    def parts(tree: Mapping[str, Any], path: str) -> tuple[SurrogateSettings, TrainingSettings]:
        return (
            build(tree.get("network"), SurrogateSettings, f"{path}.network"),
            build(tree.get("training"), TrainingSettings, f"{path}.training"),
        )

    own: Mapping[str, Mapping[str, Any]] = _value(
        f"{path}.by_task", dict[str, dict[str, dict[str, Any]]], node.get("by_task")
    )
    by_task = {}
    for task, differing in own.items():
        _known(f"{path}.by_task.{task}.", differing, ("network", "training"))
        merged = {part: {**node[part], **differing.get(part, {})} for part in ("network", "training")}
        by_task[task] = parts(merged, f"{path}.by_task.{task}")
    return Training(*parts(node, path), by_task)


def _descent(node: Mapping[str, Any], path: str, own: Iterable[str]) -> Descent:
    allowed = ("solver", "dtype", *own)
    _known(f"{path}.", node, allowed)
    if missing := [name for name in allowed if name not in node]:
        raise UserError(f"{path}.{missing[0]}: is missing")
    given = {
        name: _value(f"{path}.{name}", hint, node[name])
        for name, hint in {"dtype": Literal["float32", "float64"], "margin": float, "network": str}.items()
        if name in node
    }
    if "smoothing" in node:
        given["smoothing"] = build(node["smoothing"], Smoothing, f"{path}.smoothing")
    starts = node.get("starts", {"number": 1, "drawn_from": "prior"})
    return Descent(
        build(node["solver"], Solver, f"{path}.solver"),
        starts=build(starts, Starts, f"{path}.starts"),
        **given,
    )


def build(node: Any, kind: type[T], path: str) -> T:
    """Make the object that a config node describes.

    Args:
        node: a mapping of constructor keywords; `_target_` names the class where `kind` leaves a choice.
        kind: the class, or a protocol that the class must implement, or the base of a family of classes.
        path: where the node stands in the config, for messages.

    Raises:
        UserError: a target that is no class of this kind inside aimback, an unknown or missing key,
            a value of another type, out of range, or not finite.
    """
    if not isinstance(node, Mapping):
        raise UserError(f"{path}: expected a group of settings, got {show(node)}")
    values = {str(name): value for name, value in node.items()}
    if issubclass(kind, Section):
        return _section(values, kind, path)
    target = values.pop("_target_", None)
    has_choice = getattr(kind, "_is_protocol", False) or kind in _FAMILIES
    if target is not None and not has_choice:
        raise UserError(f"{path}._target_: there is no choice here; leave it out")
    made = _class(target, kind, path) if has_choice else kind
    signature = inspect.signature(made)
    _known(f"{path}.", values, signature.parameters)
    for name, parameter in signature.parameters.items():
        if parameter.default is parameter.empty and name not in values:
            raise UserError(f"{path}.{name}: is missing")
    hints = get_type_hints(made.__init__)
    checked = {name: _value(f"{path}.{name}", hints.get(name, Any), value) for name, value in values.items()}
    try:
        return made(**checked)
    except ValueError as error:
        raise UserError(_placed(path, str(error), signature.parameters)) from error


def _section(values: Mapping[str, Any], kind: type[T], path: str) -> T:
    assert issubclass(kind, Section)
    _known(f"{path}.", values, kind.model_fields)
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].replace("Input should be", "must be").replace("Field required", "is missing")
        key = ".".join(map(str, (path, *first["loc"])))
        raise UserError(f"{key}: {reason}, got {shown(first['input'])}") from None


def _placed(path: str, message: str, keys: Iterable[str]) -> str:
    """The message of a constructor, headed by the place in the config that it speaks of."""
    if message.startswith(f"{path}."):
        return message
    return f"{path}.{message}" if message.partition(":")[0] in keys else f"{path}: {message}"


def _class(target: Any, kind: type[T], path: str) -> type[T]:
    """The class that `target` names, once it is known to be one of ours: importing and calling run code."""
    wanted = f"{path}._target_: must name a {kind.__name__} of aimback, got {show(target)}"
    if not isinstance(target, str) or re.fullmatch(r"aimback(\.[A-Za-z]\w*)+", target) is None:
        raise UserError(wanted)
    module_name, _, name = target.rpartition(".")
    file = _PACKAGE.joinpath(*module_name.split(".")[1:])
    if not (file.with_suffix(".py").is_file() or file.joinpath("__init__.py").is_file()):
        raise UserError(wanted)
    found = getattr(importlib.import_module(module_name), name, None)
    if not isinstance(found, type) or found.__module__ != module_name or not _implements(found, kind):
        raise UserError(wanted)
    return found


def _implements(made: type, kind: type) -> bool:
    if kind in _FAMILIES:
        return issubclass(made, kind) and made is not kind
    if inspect.isabstract(made) or getattr(made, "_is_protocol", False):
        return False
    # A protocol with attributes cannot answer issubclass(); its methods tell.
    methods = [name for name, member in vars(kind).items() if inspect.isfunction(member)]
    wanted = [name for name in methods if not name.startswith("_") or name == "__call__"]
    return all(callable(getattr(made, name, None)) for name in wanted)


def _known(prefix: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, 1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known are {', '.join(allowed)}"
            raise UserError(f"{prefix}{name}: unknown key; {hint}")


def _value(path: str, hint: Any, value: Any) -> Any:
    """The value, if it is of the type that the hint asks for; no text is read as a number, no NaN passes."""
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
    try:
        # As JSON, where a list may stand for a tuple and yet nothing else is converted.
        return adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].replace("Input should be", "must be").replace("Input", "it")
        raise UserError(f"{path}: {reason}, got {show(value)}") from None
    except (TypeError, ValueError, RecursionError):  # bytes, thousands of digits, a list in a list in a list
        raise UserError(f"{path}: cannot be a value of a config, got {show(value)}") from None
