"""aimback without a project: answers that are true, and every case that a function was asked for on the ledger."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aimback
from aimback.core.errors import UserError
from aimback.core.ledger import Ledger
from aimback.library.answer import Answer
from aimback.runtime.project import ROOT
from aimback.solve.gauss_newton import GaussNewton
from aimback.tasks.cannon_vacuum import CannonVacuum

G = 9.81
CONTROLS = {"v": (1, 10), "t": (0.1, 1.4)}
SMALL = ["data.examples=400", "data.targets=12", "training.max_epochs=3", "surrogate.hidden_width=8"]
SMALL += ["hybrid.targets=64", "hybrid.validation_targets=16", "hybrid.max_epochs=2", "starts.number=2"]


def in_numpy(v: Any, t: Any) -> Any:
    return v**2 * np.sin(2 * t) / G


def in_floats(v: float, t: float) -> float:
    return v**2 * math.sin(2 * t) / G


def in_torch(v: Any, t: Any) -> Any:
    return v**2 * torch.sin(2 * t) / G


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
