"""The schema of conf/: one tree of models, of which every wrong value is one line that names its key.

Sections that name their class by `_target_` (tasks, solvers) are objects: the keywords of their constructors are the
schema, and the constructors check the ranges.
"""

import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

import aimback
from aimback.core.checks import MOST_ROWS, quote
from aimback.core.errors import UserError
from aimback.core.hardware import Hardware
from aimback.core.section import Section
from aimback.data.dataset import LEAST_EXAMPLES
from aimback.diagnose.settings import DiagnoseSettings
from aimback.learn.settings import HybridSettings, NetworkSettings, TrainingSettings, check_together
from aimback.runtime.project import locate, locate_untracked
from aimback.solve.smoothing_settings import Smoothing
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts
from aimback.tasks.base import Task

T = TypeVar("T")
_PACKAGE = Path(aimback.__file__).parent
_FAMILIES = (Solver,)
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _build_as(kind: type) -> PlainValidator:
    return PlainValidator(lambda node: build(node, kind))


class DataSettings(Section):
    """How much is simulated; see conf/data."""

    examples: Annotated[int, Field(ge=LEAST_EXAMPLES, le=MOST_ROWS)]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    targets: Annotated[int, Field(ge=1, le=MOST_ROWS)]


class TrackingSettings(Section):
    """What MLflow gets; see conf/tracking."""

    enabled: bool
    experiment: str
    live: bool


class Only(Section):
    """The part of the work that a stage of dvc.yaml does; all of it where it is not told."""

    task: str | None
    route: str | None


class NetworkSection(Section):
    """A network that stands in for the simulator, and its training; see conf/routes.

    Attributes:
        by_task: what differs on a task: {task: {network: {...}, training: {...}}}.
    """

    network: NetworkSettings
    training: TrainingSettings
    by_task: dict[str, dict[Literal["network", "training"], dict[str, Any]]]


class Search(Section):
    """How a route searches.

    Attributes:
        dtype: that it computes in.
    """

    solver: Annotated[Solver, _build_as(Solver)]
    dtype: Literal["float32", "float64"]

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == "float32" else torch.float64


class Inversion(Search):
    """A route through a network.

    Attributes:
        network: the route whose network it is.
        margin: what is left free at each wall of the box, a share of its width.
    """

    network: str
    starts: Starts
    margin: Annotated[float, Field(ge=0, lt=0.5)]


class Optimisation(Search):
    """A route through the simulator itself."""

    starts: Starts
    smoothing: Smoothing


class Refinement(Search):
    """A route through the simulator from where a network proposes.

    Attributes:
        network: the route whose network it is.
    """

    network: str


class RouteLists(Section):
    """The routes that each stage has a turn for."""

    train: list[str]
    invert: list[str]
    optimise: list[str]
    amortise: list[str]
    refine: list[str]


class Settings(Section):
    """All that is configured, see conf/config.yaml.

    Attributes:
        tasks: the simulators by name; under `only.task`, that one.
        targets_sha256: of the file of targets, as it was when the pipeline was composed.
    """

    only: Only
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    task_names: list[str] = Field(alias="tasks")
    tasks: dict[str, Task] = Field(alias="task")
    data: DataSettings
    surrogate: NetworkSettings
    training: TrainingSettings
    hybrid: HybridSettings
    solver: Annotated[Solver, _build_as(Solver)]
    starts: Starts
    smoothing: Smoothing
    examined: list[str]
    diagnose: DiagnoseSettings
    hardware: Hardware
    tracking: TrackingSettings
    train: dict[str, NetworkSection]
    invert: dict[str, Inversion]
    optimise: dict[str, Optimisation]
    amortise: dict[str, HybridSettings]
    refine: dict[str, Refinement]
    route_lists: RouteLists = Field(alias="routes")
    # A path is a text in the config, so it is read less strictly.
    targets: Annotated[Path, Field(strict=False), AfterValidator(locate_untracked)] | None
    targets_sha256: str | None
    published: Literal["neural_adjoint"] | None
    inputs: list[Annotated[Path, Field(strict=False), AfterValidator(locate)]]
    _tree: dict[str, Any]

    @field_validator("tasks", mode="plain")
    @classmethod
    def _build_tasks(cls, nodes: Any, before: ValidationInfo) -> dict[str, Task]:
        if not isinstance(nodes, Mapping):
            raise UserError(f"must be groups of settings by name, got {quote(nodes)}")
        if wrong := [name for name in nodes if not str(name).isidentifier()]:  # it names a folder
            raise UserError(f"{wrong[0]}: a task's name is of letters, digits and _")
        only = before.data["only"].task if "only" in before.data else None
        if only not in (None, *nodes):
            raise UserError(f"there is no {only!r}, which only.task asks for; there is {', '.join(map(str, nodes))}")
        chosen = nodes if only is None else {only: nodes[only]}
        return {name: build(node, Task, name) for name, node in chosen.items()}  # type: ignore[type-abstract]

    @property
    def routes(self) -> dict[str, str]:
        """The stage that solves for each route, by the route's name, in the order to be shown."""
        return {name: stage for stage in ("invert", "optimise", "refine") for name in getattr(self, stage)}

    @property
    def compared(self) -> dict[str, str]:
        """The routes that claims and figures of the two maps are about: the first of each kind."""
        kinds: dict[str, Mapping[str, Search]] = {
            "surrogate": self.invert,
            "direct": self.optimise,
            "hybrid": self.refine,
        }
        return {kind: next(iter(found)) for kind, found in kinds.items() if found}

    def network_of(self, route: str, task: str) -> tuple[NetworkSettings, TrainingSettings]:
        """A route's network and its training on a task."""
        section = self.train[route]
        differing = section.by_task.get(task, {})
        merged = {
            "network": {**section.network.model_dump(), **differing.get("network", {})},
            "training": {**section.training.model_dump(), **differing.get("training", {})},
        }
        try:
            whole = NetworkSection.model_validate({**merged, "by_task": {}})
        except ValidationError as error:
            raise UserError(f"train.{route}.by_task.{task}.{_explain(error, NetworkSection)}") from None
        check_together(whole.network, whole.training)
        return whole.network, whole.training

    def replicas_of(self, network: str) -> int:
        """How many further networks are trained beside a route's own: the claims are about the first one."""
        return self.diagnose.replicas if network == next(iter(self.train)) else 0

    def turns_of(self, stage: str) -> list[str]:
        """The routes that a stage has a turn for: under `only.route`, that one."""
        return [name for name in getattr(self, stage) if self.only.route in (None, name)]

    def find_maker(self, file: str) -> str:
        """The stage that makes a file of a task."""
        first, *rest = Path(file).parts
        if first != "routes":
            return "generate" if first == "data" else "diagnose" if rest[0] == "claims" else first
        return {"networks": "train", "proposers": "amortise"}.get(rest[0]) or self.routes[rest[0]]

    @property
    def tree(self) -> dict[str, Any]:
        """What was configured, as plain values."""
        return self._tree


def read_settings(tree: Mapping[str, Any]) -> Settings:
    """Check what Hydra has composed, and build it.

    Raises:
        UserError: names the key and what is allowed.
    """
    if not tree.get("task"):
        raise UserError("task: choose at least one, e.g. task=cannon_drag")
    try:
        plain: Any = OmegaConf.to_container(tree, resolve=True) if isinstance(tree, DictConfig) else dict(tree)
    except (OmegaConfBaseException, RecursionError) as error:  # an unknown name in ${...}, or a circle
        key = getattr(error, "full_key", None) or "config"
        raise UserError(f"{key}: {str(error).partition(chr(10))[0]}") from error
    try:
        settings = Settings.model_validate(plain)
    except ValidationError as error:
        raise UserError(_explain(error, Settings)) from None
    if plain["tasks"] != list(plain["task"]):
        raise UserError(f"tasks: follows from task; choose by task=[{','.join(plain['tasks'])}]")
    settings._tree = plain
    _check_routes(settings)
    return settings


def _check_routes(settings: Settings) -> None:
    names = [name for stage in ("invert", "optimise", "refine") for name in getattr(settings, stage)]
    if not names:
        raise UserError("routes: choose at least one, e.g. routes=[direct]")
    for name in names:
        if names.count(name) > 1 or name in ("networks", "proposers") or not name.isidentifier():  # it names a folder
            raise UserError(f"routes: {name!r} cannot be one: each has its own name, of letters, digits and _")
    for stage, listed in settings.route_lists:
        if listed != list(getattr(settings, stage)):
            raise UserError(f"routes.{stage}: follows from the routes; choose by routes=[{','.join(names)}]")
    if settings.examined != (list(settings.tree["tasks"]) if settings.diagnose.enabled else []):
        raise UserError("examined: follows from tasks; without claims it is diagnose=none")
    for stage, maker in (("invert", "train"), ("refine", "amortise")):
        for name, route in getattr(settings, stage).items():
            if route.network not in getattr(settings, maker):
                raise UserError(f"{stage}.{name}.network: is that of the route {route.network}; choose it beside")
    if settings.only.route is not None and settings.only.route not in {*names, *settings.train, *settings.amortise}:
        raise UserError(f"only.route: no route {settings.only.route!r} here; there is {', '.join(names)}")
    for route in settings.train:
        for task in settings.tasks:
            settings.network_of(route, task)


def build(node: Any, kind: type[T], path: str = "") -> T:
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
        raise UserError(_place(path, f"must be a group of settings, got {quote(node)}"))
    values = {str(name): value for name, value in node.items()}
    has_choice = getattr(kind, "_is_protocol", False) or kind in _FAMILIES
    made = _find_class(values.pop("_target_", None), kind, path) if has_choice else kind
    schema = _describe(made)  # type: ignore[arg-type]
    try:
        checked = schema.model_validate(values)
        return made(**{name: getattr(checked, name) for name in values})
    except ValidationError as error:
        raise UserError(_place(path, _explain(error, schema))) from None
    except ValueError as error:
        raise UserError(_place(path, str(error))) from error


@functools.cache
def _describe(made: type) -> type[Section]:
    """The keywords of a constructor, as a model."""
    hints, parameters = get_type_hints(made.__init__), inspect.signature(made).parameters  # type: ignore[misc]
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
    }
    return create_model(made.__name__, __base__=Section, **fields)


def _find_class(target: Any, kind: type[T], path: str) -> type[T]:
    """The class that `target` names, once it is known to be one of ours: importing and calling run code."""
    wanted = _place(path, f"_target_: must name a {kind.__name__} of aimback, got {quote(target)}")
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


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong; an unknown key before the missing one that it may have been meant for."""
    found = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    kind, place = found["type"], found["loc"]
    key = ".".join(map(str, place))
    if (inner := found.get("ctx", {}).get("error")) is not None:
        return _place(key, str(inner))
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "extra_forbidden":
        known = [str(name) for name in _fields(_descend(model, place[:-1])[0])]
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        return f"{key}: unknown key; " + (f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}")
    reason = found["msg"].replace("Input should be", "must be").replace("Value should", "must")
    if kind in ("model_type", "dict_type"):
        reason = "must be a group of settings"
    elif kind == "path_type":
        reason = "must be the path of a file or a folder"
    elif kind.startswith(("greater_than", "less_than")):
        limits = [
            f"{word} {getattr(bound, name):,}"
            for bound in _descend(model, place)[1]
            for name, word in _BOUNDS.items()
            if hasattr(bound, name)
        ]
        reason = f"must be {' and '.join(limits)}" if limits else reason
    return f"{key}: {reason}, got {quote(found['input'])}"


def _place(path: str, message: str) -> str:
    """A message about `path`, or about the key below it that the message begins with."""
    joint = "." if re.match(r"[\w.]+: ", message) else ": "
    return f"{path}{joint}{message}" if path else message


def _fields(model: Any) -> dict[Any, Any]:
    """The fields of a model by the keys of the config."""
    fields = getattr(model, "model_fields", {})
    return {field.alias or name: field for name, field in fields.items()}


def _descend(hint: Any, place: tuple[int | str, ...]) -> tuple[Any, list[Any]]:
    """The type that a model has at a place, and the bounds of its values."""
    bounds: list[Any] = []
    for name in place:
        if field := _fields(hint).get(name):
            hint, bounds = field.annotation, field.metadata
        else:  # what a mapping or a list holds
            hint = (get_args(hint) or (Any,))[-1]
            hint, bounds = getattr(hint, "__origin__", hint), list(getattr(hint, "__metadata__", ()))
            bounds = [bound for part in bounds for bound in getattr(part, "metadata", [part])]
    return hint, bounds
