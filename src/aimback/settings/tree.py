"""The schema of conf/: one tree of models, of which every wrong value is one line that names its key.

Sections that name their class by `_target_` (tasks, solvers) are objects: the keywords of their constructors are the
schema, and the constructors check the ranges.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from aimback.core.checks import MOST_ROWS, quote
from aimback.core.errors import UserError
from aimback.core.hardware import Hardware
from aimback.core.section import Section
from aimback.data.dataset import LEAST_EXAMPLES
from aimback.data.targets import PART
from aimback.runtime.project import locate, locate_untracked
from aimback.settings.build import build, explain
from aimback.settings.claims import DiagnoseSettings
from aimback.settings.foreign import check_trust, find_out
from aimback.settings.learning import HybridSettings, NetworkSettings, TrainingSettings, check_together
from aimback.simulators.executor import Executor
from aimback.solve.smoothing_settings import Smoothing
from aimback.solve.solver import Solver
from aimback.solve.starts import Starts
from aimback.tasks.base import Task

_TARGETS, _LEAST_TARGETS = 1000, 32


def _build_as(kind: type) -> PlainValidator:
    return PlainValidator(lambda node: build(node, kind))


class DataSettings(Section):
    """How much is simulated; see conf/data.

    Attributes:
        targets: None for as many as suit the task, see `count_targets`.
    """

    examples: Annotated[int, Field(ge=LEAST_EXAMPLES, le=MOST_ROWS)]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    targets: Annotated[int | None, Field(ge=1, le=MOST_ROWS)]

    def count_targets(self, task: Task) -> int:
        """How many are drawn of a task."""
        return self.targets or task.scale_down(_TARGETS, _LEAST_TARGETS)


class Budget(Section):
    """What may be spent.

    Attributes:
        simulations: of each route on a task, its data set included, and of each stage that looks at the results; what
            does not fit is left out and named. None for no bound.
    """

    simulations: Annotated[int, Field(ge=100, le=10**15)] | None


class TrackingSettings(Section):
    """What MLflow gets; see conf/tracking."""

    enabled: bool
    experiment: str
    live: bool


class Only(Section):
    """The part of the work that a stage of dvc.yaml does; all of it where it is not told."""

    task: str | None
    route: str | None


class Objective(Section):
    """What a job of a sweep returns to a sweeper: a metric of a task's route, the mean of all where one is null."""

    metric: str
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
        rounds: in which its answers are simulated, the network learns from them, and what it missed is solved anew, see
            `Revision`; 0 for none.
        exploration: of which answers those rounds simulate, see `Revision`; 0 for those that are believed best.
        calibration: further targets that tell by how much its believed hits miss, see `Calibration`; 0 for none.
    """

    network: str
    starts: Starts
    margin: Annotated[float, Field(ge=0, lt=0.5)]
    rounds: Annotated[int, Field(ge=0, le=1000)]
    exploration: Annotated[float, Field(ge=0, le=1000)]
    calibration: Annotated[int, Field(ge=0, le=PART)]


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

    def stop_where(self, refine: str, task: Task) -> "Refinement":
        """The same with the precision that `HybridSettings.refine` asks for."""
        if refine == "always":
            return self
        # A start this close is done: the look at the proposal itself, step 0, is then all that it costs.
        solver = dataclasses.replace(self.solver, precision=task.distance.share)
        return self.model_copy(update={"solver": solver})


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
        trust: what conf/config.yaml allows to be run beside aimback: packages; commands, files, addresses as a whole.
        tasks: the simulators by name; under `only.task`, that one.
        targets_sha256: of the file of targets, as it was when the pipeline was composed.
        jacobians: the tasks that `learns_jacobians` tells of, as it was then: so DVC knows, whichever route it is.
    """

    trust: list[str]
    only: Only
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    task_names: list[str] = Field(alias="tasks")
    tasks: dict[str, Task] = Field(alias="task")
    data: DataSettings
    budget: Budget
    surrogate: NetworkSettings
    training: TrainingSettings
    hybrid: HybridSettings
    solver: Annotated[Solver, _build_as(Solver)]
    starts: Starts
    smoothing: Smoothing
    examined: list[str]
    diagnose: DiagnoseSettings
    hardware: Hardware
    executor: Annotated[Executor, _build_as(Executor)]
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
    jacobians: list[str]
    objective: Objective
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
        trusted = before.data.get("trust", ())
        return {name: build(node, Task, name, trusted) for name, node in chosen.items()}  # type: ignore[type-abstract]

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
            raise UserError(f"train.{route}.by_task.{task}.{explain(error, NetworkSection)}") from None
        check_together(whole.network, whole.training)
        return whole.network, whole.training

    def learns_jacobians(self, task: str) -> bool:
        """Whether a network learns from Jacobians of the simulator, which the data set of the task then has."""
        return any(self.network_of(route, task)[1].learns_jacobians for route in self.train)

    def price_example(self, task: str) -> int:
        """The simulations that an example of a data set takes."""
        return self.tasks[task].price_example(jacobian=self.learns_jacobians(task))

    def count_examples(self, task: str) -> int:
        """How many examples a data set has: as many as are asked for, unless the budget has not so many."""
        budget = self.budget.simulations
        return self.data.examples if budget is None else min(self.data.examples, budget // self.price_example(task))

    def price_examples(self, task: str) -> int:
        """The simulations that all of them take."""
        return self.count_examples(task) * self.price_example(task)

    def replicas_of(self, network: str, task: str) -> int:
        """How many further networks are trained beside a route's own: the claims are about the first one."""
        if network != next(iter(self.train)):
            return 0
        budget = self.budget.simulations
        affordable = self.diagnose.replicas if budget is None else budget // self.price_examples(task) - 1
        return min(self.diagnose.replicas, affordable)

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
    if isinstance(plain["task"], Mapping):
        plain["task"] = find_out(plain["task"], check_trust(plain))
    try:
        settings = Settings.model_validate(plain)
    except ValidationError as error:
        raise UserError(explain(error, Settings)) from None
    if plain["tasks"] != list(plain["task"]):
        raise UserError(f"tasks: follows from task; choose by task=[{','.join(plain['tasks'])}]")
    settings._tree = plain
    _check_routes(settings)
    chosen = settings.objective
    if chosen.task not in (None, *settings.task_names) or chosen.route not in (None, *settings.routes):
        allowed = f"a task of {', '.join(settings.task_names)}, a route of {', '.join(settings.routes)}, or null"
        raise UserError(f"objective: choose {allowed}")
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
