"""aimback without a project: answers that are true, and every case that a function was asked for on the ledger."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aimback
from aimback.compile.compiler import Compiler
from aimback.compile.cpu import Cpu
from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.core.problem import InverseProblem, Status
from aimback.data.targets import Targets
from aimback.evaluate.judge import believe
from aimback.library.answer import Answer
from aimback.runtime.project import ROOT
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.step import NotCompilable
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum

NO_COMPILER = shutil.which("g++") is None and shutil.which("clang++") is None
needs_compiler = pytest.mark.skipif(NO_COMPILER, reason="there is no C++ compiler")
G = 9.81
CONTROLS = {"v": (1, 10), "t": (0.1, 1.4)}
SMALL = ["data.examples=400", "data.targets=12", "training.max_epochs=3", "surrogate.hidden_width=8"]
SMALL += ["hybrid.targets=64", "hybrid.validation_targets=16", "hybrid.max_epochs=2", "starts.number=2"]


def unoptimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile in a tenth of the time."""
    monkeypatch.setattr("aimback.library.aim.Compiler", partial(Compiler, backend=Cpu(optimise=False)))


def in_numpy(v: Any, t: Any) -> Any:
    return v**2 * np.sin(2 * t) / G


def in_floats(v: float, t: float) -> float:
    return v**2 * math.sin(2 * t) / G


def in_torch(v: Any, t: Any) -> Any:
    return v**2 * torch.sin(2 * t) / G


def in_duals(v: Any, t: Any) -> Any:
    return v * v * torch.sin(2 * t) / G


def of_one_tensor(v: Any, t: Any) -> Any:
    return (v if v > 5 else v + 0) ** 2 * torch.sin(2 * t) / G


def at_random(v: float, t: float) -> float:
    return float(in_floats(v, t) + np.random.default_rng().normal())


class Counting:
    """A function that counts the cases which it is asked for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.cases = function, 0

    def __call__(self, v: Any, t: Any) -> Any:
        self.cases += math.prod(getattr(v, "shape", ()))
        return self.function(v, t)


def invert(function: Any, target: Any = 5.2, **options: Any) -> Answer:
    return aimback.invert(function, controls=CONTROLS, target=target, tolerance=0.01, **options)


@pytest.mark.parametrize("solver", [None, "cma_es", GaussNewton()], ids=["default", "cma_es", "instance"])
@pytest.mark.parametrize("function", [in_numpy, in_floats, in_torch, of_one_tensor])
def test_an_answer_is_true_and_every_case_is_on_the_ledger(function: Any, solver: Any) -> None:
    counting = Counting(function)
    answer = invert(counting, solver=solver, starts=3)
    assert answer.simulations == counting.cases
    assert answer.status == "solved" and answer.miss <= 0.01
    assert in_floats(**answer.controls) == pytest.approx(5.2, abs=0.01)
    assert answer.outcome["outcome"] == pytest.approx(in_floats(**answer.controls))
    assert all(low <= answer.controls[name] <= high for name, (low, high) in CONTROLS.items())


def test_what_has_no_derivatives_is_solved_without() -> None:
    counting = Counting(at_random)
    answer = invert(counting, starts=2)
    assert answer.wish.findings is not None and answer.wish.findings.derivatives == "none"
    assert answer.simulations == counting.cases and answer.ledger.gradients == 0


def test_many_targets_are_rows_and_each_has_its_own_status() -> None:
    answer = invert(in_numpy, [1.0, 400.0, math.nan, 1.0])
    assert answer.status.tolist() == ["solved", "stalled", "invalid_input", "solved"]
    assert answer.controls["v"].shape == (4,) and answer.controls["v"][0] == answer.controls["v"][3]
    assert answer.miss[1] == pytest.approx(400 - 100 / G)
    frame = answer.to_frame()
    assert list(frame["status"]) == list(answer.status)
    np.testing.assert_array_equal(frame["outcome"], answer.outcome["outcome"])
    starts = answer.to_frame(starts=True)
    assert len(starts) == 3 * 8 and set(starts["target"]) == {0, 1, 3}
    assert starts.groupby("target")["believed_miss"].is_monotonic_increasing.all()
    assert "2 of 4 solved" in repr(answer) and "&lt;" not in answer._repr_html_()


def test_a_failed_answer_misses_by_infinitely_much() -> None:
    answer = invert(in_numpy, [1.0, 2.0, 3.0])
    failed = replace(answer, judged=replace(answer.judged, miss=torch.full((3,), math.inf, dtype=torch.float64)))
    assert "median miss ∞" in repr(failed)


def test_the_same_seed_gives_the_same_answer() -> None:
    first, again, other = (invert(in_torch, seed=seed).controls for seed in (0, 0, 1))
    assert first == again != other


def test_conditions_are_given_under_each_target_or_once() -> None:
    def pushed(v: Any, wind: Any) -> Any:
        return v**2 / G + wind

    wind = np.array([-1.0, 0.0, 2.0])
    answer = aimback.invert(pushed, {"v": (1, 10)}, [3.0, 3.0, 3.0], 1e-6, conditions={"wind": wind})
    np.testing.assert_allclose(answer.controls["v"], np.sqrt(G * (3 - wind)), rtol=1e-6)
    one = aimback.invert(pushed, {"v": (1, 10)}, 3.0, 1e-6, conditions={"wind": 2.0})
    assert one.controls["v"] == pytest.approx(math.sqrt(G))
    pinned = aimback.invert(pushed, {"v": (1, 10), "wind": 2.0}, 3.0, 1e-6)
    assert pinned.controls == {"v": pytest.approx(math.sqrt(G)), "wind": 2.0}
    wide = {"values": wind, "range": (-5, 5), "unit": "m"}
    assert aimback.invert(pushed, {"v": (1, 10)}, [3.0] * 3, 1e-6, conditions={"wind": wide}).status[0] == "solved"


def test_several_outcomes_and_arrays_have_their_names() -> None:
    def film(index: Any, layers: Any) -> Any:
        return {"sum": layers.sum(-1) * index, "parts": layers**2}

    outcomes = {"parts": {"size": 3, "tolerance": 0.01}, "sum": {"tolerance": 0.01}}
    controls = {"index": (1, 2), "layers": {"range": (0.1, 1), "size": 3}}
    target = {"sum": 1.2, "parts": [0.04, 0.09, 0.25]}
    answer = aimback.invert(film, controls, target, outcomes=outcomes)
    np.testing.assert_allclose(answer.controls["layers"], [0.2, 0.3, 0.5], atol=0.03)
    assert answer.controls["index"] == pytest.approx(1.2, abs=0.05)
    assert list(answer.outcome) == ["parts", "sum"]


def test_a_network_stays_as_it_is() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    with torch.no_grad():
        middle = float(network.eval()(torch.tensor([[5.0, 0.7]])))
    answer = invert(network.train(), middle)
    assert answer.status == "solved"
    weight = next(network.parameters())
    assert network.training and weight.dtype == torch.float32 and weight.requires_grad


def test_a_task_brings_everything_along() -> None:
    task = CannonVacuum()
    answer = aimback.invert(task, target=5.0)
    assert answer.status == "solved" and set(answer.controls) == {"speed", "angle"}
    with pytest.raises(UserError, match="tolerance: is the task's own; leave it out"):
        aimback.invert(task, target=5.0, tolerance=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"f": 3}, "f: must be a function or a Task, got 3"),
        ({"controls": None}, "controls: give ranges by name"),
        ({"controls": {"v": (10, 1), "t": 1.0}}, "controls.v.range: the lower bound must be below the upper"),
        ({"controls": {"v": (1, 10)}}, "in_torch takes (v, t); t is no control and no condition"),
        ({"target": None}, "target: say what is wanted"),
        ({"target": "far"}, "target: must be numbers, got 'far'"),
        ({"target": [[1.0, 2.0]]}, "target: give a number, or a row of numbers, got an array of shape (1, 2)"),
        ({"target": math.nan}, "target: none is finite"),
        ({"target": {"far": 1.0}}, "target: name outcome, got far"),
        ({"tolerance": None}, "tolerance: say how far"),
        ({"tolerance": -1.0}, "outcomes.outcome.tolerance: must be a number above 0, got -1.0"),
        ({"conditions": {"w": [1.0, 2.0, 3.0]}}, "conditions.w: 3 values for 1 targets"),
        ({"conditions": {"w": (0, 1)}}, "conditions.w: give its value under each target"),
        ({"derivatives": "exact"}, "derivatives: must be one of auto, dual, "),
        ({"solver": "lewenberg"}, "solver: there is no 'lewenberg'; "),
        ({"solver": 3}, "solver: must be a name of conf/solver or a Solver, got 3"),
        ({"starts": 0}, "starts: must be a whole number from 1"),
        ({"f": lambda v, t: "far"}, "the function returned 'far'"),
    ],
)
def test_a_mistake_is_one_line(arguments: dict[str, Any], message: str) -> None:
    usual = {"f": in_torch, "controls": CONTROLS, "target": 5.2, "tolerance": 0.01}
    with pytest.raises(UserError) as raised:
        aimback.invert(**{**usual, **arguments})
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_routes_are_compared_as_the_pipeline_compares_them() -> None:
    counting = Counting(in_numpy)
    routes = ("surrogate", "direct", "hybrid", "cma_es")
    outcomes = {"distance": {"unit": "m", "tolerance": 0.01}}
    few = [*SMALL, "optimise.cma_es.solver.max_steps=10"]
    found = aimback.compare(counting, CONTROLS, outcomes=outcomes, routes=routes, settings=few)
    assert found.simulations == counting.cases
    assert list(found.answers) == ["surrogate", "direct", "cma_es", "hybrid"]
    assert found["direct"].ledger.simulations == 3 * found["direct"].ledger.evaluations
    assert found["surrogate"].ledger == Ledger(
        400, found["surrogate"].ledger.evaluations, found["surrogate"].ledger.gradients, 400
    )
    frame = found.to_frame()
    for route, answer in found.answers.items():
        assert frame.loc[route, "solved_fraction"] == (answer.status == "solved").mean()
        assert frame.loc[route, "simulations"] == answer.simulations
    assert found.winner in found.verdict.partition("\n")[0]
    assert "of 12 targets within 0.01 m" in repr(found) and "<table>" in found._repr_html_()
    assert found.plot()._repr_png_().startswith(b"\x89PNG")
    assert found["direct"].plot()._repr_png_().startswith(b"\x89PNG")


def test_targets_and_conditions_of_a_comparison_are_given_or_drawn() -> None:
    def pushed(v: Any, wind: Any) -> Any:
        return v**2 / G + wind

    wind = np.linspace(-1, 1, 5)
    found = aimback.compare(
        pushed, {"v": (1, 10)}, wind + 4, 0.01, routes=["direct"], conditions={"wind": wind}, settings=SMALL
    )
    np.testing.assert_allclose(found["direct"].controls["v"], math.sqrt(4 * G), rtol=1e-3)
    drawn = aimback.compare(
        pushed, {"v": (1, 10)}, tolerance=0.01, routes=["direct"], conditions={"wind": (-1, 1)}, settings=SMALL
    )
    assert len(drawn["direct"].targets) == 12
    assert "The direct route alone solves 100 % of 12 targets" in drawn.verdict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"routes": "direct"}, 'routes: give a list of names, e.g. ("surrogate", "direct")'),
        ({"routes": ["straight"]}, "routes: there is no 'straight'; choose of "),
        ({"settings": ["data.exampels=3"]}, "settings: Could not override 'data.exampels'"),
        ({"settings": ["data.examples=3"]}, "data.examples: must be at least 10"),
        ({"settings": ["solver=adm"]}, "solver: there is no 'adm'; did you mean adam?"),
        ({"settings": ["invert.surrogate.rounds=1"]}, "invert.surrogate: rounds and calibration are for projects"),
    ],
)
def test_a_mistake_in_a_comparison_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        aimback.compare(in_torch, CONTROLS, tolerance=0.01, **arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_importing_aimback_imports_nothing() -> None:
    program = "import sys, aimback; print(sorted({'torch', 'numpy', 'hydra', 'pandas'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not hasattr(aimback, "inwert")


def test_inverting_needs_no_hydra_and_no_figures() -> None:
    program = (
        "import sys, aimback; aimback.invert(lambda v: v * v, {'v': (0, 2)}, 2.0, 1e-6); "
        "print(sorted({'hydra', 'matplotlib', 'pandas', 'pytorch_lightning', 'mlflow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "library.ipynb").read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
    assert space["answer"].status == "solved"
    assert space["many"].status.tolist() == ["solved", "solved", "solved", "stalled"]
    assert space["found"].winner == "direct"
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_a_handle_gives_the_bits_of_a_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    """From starts beyond the box and on its corners too, to targets within reach and beyond."""
    unoptimised(monkeypatch)
    task, solver = CannonDrag(), LevenbergMarquardt()
    generator = torch.Generator().manual_seed(1)
    conditions = task.conditions.sample(200, generator)
    targets = 1.3 * task(task.box.sample(200, generator), conditions)
    unit = torch.rand(200, 3, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    aim = aimback.prepare(task, solver=solver, starts=3, compile=True)
    handle, problem = aim._handle, InverseProblem(targets, conditions, task.box, task.distance, unit)
    assert handle is not None
    solution = solve(task, problem, solver, generator, compiler=aim._compiler)
    for rows in (slice(0, 1), slice(7, 23), slice(0, 200)):
        found = handle.believe(targets[rows].numpy(), conditions[rows].numpy(), unit[rows].numpy())
        best = solution.best()[rows, None]
        np.testing.assert_array_equal(found.controls, solution.controls[rows].take_along_dim(best[..., None], 1)[:, 0])
        np.testing.assert_array_equal(found.believed_miss, solution.believed_miss[rows].gather(1, best)[:, 0])
    asked = Targets(targets, conditions, torch.zeros(200), ("",) * 200)
    assert found.status.tolist() == believe(task, asked, solution).status.tolist()
    assert {Status.BELIEVED, Status.STALLED} <= set(found.status.tolist())


@needs_compiler
def test_what_is_prepared_answers_as_invert_does(monkeypatch: pytest.MonkeyPatch) -> None:
    unoptimised(monkeypatch)
    once = aimback.invert(CannonDrag(), target=[3.0, 4.0, 90.0], conditions={"wind": np.array([0.0, 1.0, -1.0])})
    aim, compiled = (aimback.prepare(CannonDrag(), compile=compile) for compile in (False, True))
    wind = {"wind": [0.0, 1.0, -1.0]}
    for prepared in (aim, compiled):
        for _ in range(2):
            answer = prepared([3.0, 4.0, 90.0], wind)
            assert answer.status.tolist() == once.status.tolist()
            np.testing.assert_allclose(answer.controls["angle"][:2], once.controls["angle"][:2], rtol=1e-6)
            assert answer.ledger.gradients < answer.simulations
    np.testing.assert_array_equal(aim([3.0, 4.0, 90.0], wind).controls["angle"], once.controls["angle"])
    believed = compiled.believe([3.0, 4.0, 90.0], wind["wind"])
    np.testing.assert_array_equal(believed.controls[:, 1], compiled([3.0, 4.0, 90.0], wind).controls["angle"])
    starts = np.full((3, 2, 2), 0.7)
    begun = compiled([3.0, 4.0, 90.0], wind, starts)
    np.testing.assert_array_equal(
        compiled.believe([3.0, 4.0, 90.0], wind["wind"], starts).controls[:, 0], begun.controls["speed"]
    )


@needs_compiler
def test_what_is_not_finite_is_an_invalid_input(monkeypatch: pytest.MonkeyPatch) -> None:
    unoptimised(monkeypatch)
    aim = aimback.prepare(in_duals, CONTROLS, 0.01, starts=2, compile=True)
    whole = aim.believe([3.0, 4.0, 5.0])
    found = aim.believe([3.0, math.nan, 5.0])
    assert [Status(code) for code in found.status] == [Status.BELIEVED, Status.INVALID_INPUT, Status.BELIEVED]
    assert np.isnan(found.controls[1]).all() and np.isnan(found.believed_miss[1])
    np.testing.assert_array_equal(found.controls[[0, 2]], whole.controls[[0, 2]])
    starts = np.full((1, 1, 2), math.inf)
    assert aim.believe([3.0], None, starts).status.tolist() == [Status.INVALID_INPUT]
    assert aim([3.0, math.nan]).status.tolist() == ["solved", "invalid_input"]
    for wrong in ([[3.0, 4.0]], [[3.0], [4.0]] * 2 + [[5.0, 6.0]], ["three"]):
        with pytest.raises(UserError, match="targets: must be"):
            aim.believe(wrong)
    with pytest.raises(UserError, match="prepare with compile=True"):
        aimback.prepare(in_torch, CONTROLS, 0.01).believe([3.0])
    with pytest.raises(NotCompilable, match="compile: only code in torch's operations"):
        aimback.prepare(in_numpy, CONTROLS, 0.01, compile=True)


@needs_compiler
def test_ordinary_torch_code_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    unoptimised(monkeypatch)
    plain, compiled = (aimback.prepare(in_torch, CONTROLS, 1e-6, starts=4, compile=how) for how in (False, True))
    assert plain.wish.task.derivatives == "autograd"
    targets = np.linspace(1, 5, 30)
    expected, found = plain(targets), compiled(targets)
    for name in CONTROLS:
        np.testing.assert_allclose(found.controls[name], expected.controls[name], rtol=1e-9)
    assert set(found.status) == {"solved"}
    believed = compiled.believe(targets).controls
    np.testing.assert_allclose(believed, np.stack(list(expected.controls.values()), axis=-1), rtol=1e-9)


@needs_compiler
def test_threads_share_a_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    unoptimised(monkeypatch)
    aim = aimback.prepare(in_duals, CONTROLS, 1e-6, starts=1, compile=True)
    targets = [np.full(40, 1 + number / 3) for number in range(12)]
    alone = [aim.believe(one).controls for one in targets]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for one, expected in zip(pool.map(aim.believe, targets), alone, strict=True):
                np.testing.assert_array_equal(one.controls, expected)
