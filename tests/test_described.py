"""Tasks that a config describes: what is found out about a stranger's function, and what it costs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch

from aimback.core.errors import UserError
from aimback.core.ledger import Counted, Ledger
from aimback.core.problem import InverseProblem, StartStatus
from aimback.data.identity import identify
from aimback.settings import foreign as foreign_settings
from aimback.settings.build import build
from aimback.settings.foreign import check_trust, find_out, forget_stale, hash_code, reuse_findings
from aimback.simulators.description import Description
from aimback.simulators.noise import choose_step, estimate_noise
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.base import Task
from aimback.tasks.described import DescribedTask, complete

SPEED_AND_ANGLE = {"speed": [1, 10, "m/s"], "angle": [0.1, 1.4, "rad"]}
DISTANCE = {"distance": {"unit": "m", "tolerance": 0.01}}
G = 9.81


def describe(name: str, controls: Mapping[str, Any] = SPEED_AND_ANGLE, **more: Any) -> dict[str, Any]:
    simulator = {"call": f"foreign:{name}", **more.pop("simulator", {})}
    return {"simulator": simulator, "controls": dict(controls), "outcomes": DISTANCE, **more}


def make(name: str, controls: Mapping[str, Any] = SPEED_AND_ANGLE, **more: Any) -> DescribedTask:
    """The task, with all that is found out about it."""
    node = describe(name, controls, **more)
    return rebuild(complete(node, rebuild(node).probe()))


def rebuild(node: Mapping[str, Any]) -> DescribedTask:
    task = build(node, Task)  # type: ignore[type-abstract]
    assert isinstance(task, DescribedTask)
    return task


@pytest.mark.parametrize(
    ("name", "more", "arrays", "cases", "derivatives"),
    [
        ("in_dual_numbers", {}, "torch", "batch", "dual"),
        ("of_one_tensor", {}, "torch", "one", "autograd"),
        ("of_arrays", {"conditions": {"wind": [-2, 2, "m/s"]}}, "numpy", "batch", "finite_differences"),
        ("rounded", {}, "numpy", "batch", "finite_differences"),
        ("detached", {}, "torch", "batch", "finite_differences"),
        ("at_random", {}, "numpy", "one", "none"),
        ("Network", {}, "torch", "batch", "autograd"),
    ],
)
def test_what_a_function_takes_and_has_is_found_out(
    name: str, more: dict[str, Any], arrays: str, cases: str, derivatives: str
) -> None:
    found = rebuild(describe(name, **more)).probe()
    assert (found.arrays, found.cases, found.derivatives) == (arrays, cases, derivatives)
    assert (found.step is not None) == (derivatives == "finite_differences")
    assert found.calls < 500


def test_arrays_go_in_and_come_out() -> None:
    controls = {"index": [1, 2], "thickness": {"range": [0.1, 1], "unit": "um", "size": 3}}
    task = make("film", controls, outcomes={"transmission": {"tolerance": 0.01, "size": 11}})
    assert task.box.names == ("index", "thickness_1", "thickness_2", "thickness_3")
    assert (len(task.outcomes), task.outcomes.names[10]) == (11, "transmission_11")
    points = task.box.sample(7, torch.Generator().manual_seed(1))
    expected = foreign.film(points[:, 0], points[:, 1:])
    outcome, jacobian = task.linearise(points, torch.zeros(7, 0, dtype=torch.float64))
    torch.testing.assert_close(outcome, expected)
    wave = torch.linspace(0.5, 1.5, 11, dtype=torch.float64)
    by_index = 2 * points[:, :1] * torch.sin(points[:, 1:].sum(-1, keepdim=True) * wave)
    by_thickness = points[:, :1] ** 2 * torch.cos(points[:, 1:].sum(-1, keepdim=True) * wave) * wave
    torch.testing.assert_close(jacobian[..., 0], by_index)
    torch.testing.assert_close(jacobian[..., 3], by_thickness)


def test_a_mapping_is_read_by_name_and_a_pinned_condition_is_handed_on() -> None:
    outcomes = {"distance": {"unit": "m", "tolerance": 0.1}, "top": {"unit": "m/s", "tolerance": 2}}
    task = make("of_one_case", outcomes=outcomes, conditions={"wind": 1.5}, simulator={"workers": 0})
    assert len(task.conditions) == 0 and task.tolerances == (0.1, 2.0) and task.tolerance == 1.0
    outcome = task(torch.tensor([[6.0, 0.7]], dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64))
    distance = 36 * torch.sin(torch.tensor(1.4, dtype=torch.float64)) / G + 1.5
    torch.testing.assert_close(outcome, torch.stack([distance, distance.new_tensor(6.0)])[None])


def test_differences_are_right_and_stay_inside_the_box() -> None:
    task = make("of_arrays", conditions={"wind": [-2, 2, "m/s"]})
    corners = torch.tensor([[1, 0.1], [10, 1.4], [10, 0.1], [5, 0.5]], dtype=torch.float64)
    _, jacobian = task.linearise(corners, torch.zeros(4, 1, dtype=torch.float64))
    speed, angle = corners.unbind(-1)
    exact = torch.stack([2 * speed * torch.sin(2 * angle), 2 * speed**2 * torch.cos(2 * angle)], -1) / G
    torch.testing.assert_close(jacobian[:, 0], exact, rtol=1e-5, atol=1e-5)
    assert task.simulations_a_jacobian == 3


def test_the_ledger_counts_every_case_that_differences_take() -> None:
    task = make("count")
    foreign.CALLS.clear()
    ledger = Ledger()
    targets = torch.tensor([[3.0], [5.0]], dtype=torch.float64)
    problem = InverseProblem(targets, targets[:, :0], task.box, task.distance, torch.full((2, 3, 2), 0.4).double())
    solution = solve(Counted(task, ledger, simulates=True), problem, LevenbergMarquardt(), torch.Generator())
    assert (solution.start_status == StartStatus.ARRIVED).all()
    assert ledger.simulations == sum(foreign.CALLS) > 0
    assert ledger.simulations == 3 * ledger.gradients == 3 * ledger.evaluations


def test_one_that_fails_marks_its_row_alone() -> None:
    task = make("failing_above_eight", simulator={"workers": 0})
    assert task.outcomes.upper[0] < 8
    points = torch.tensor([[4.0, 1.0], [9.0, 1.0]], dtype=torch.float64)
    outcome = task(points, points[:, :0])
    assert torch.isfinite(outcome[0]).all() and outcome[1].isnan().all()


def test_rows_of_arrays_that_raise_are_tried_one_by_one() -> None:
    task = make("raising_for_some")
    points = torch.tensor([[4.0, 1.0], [9.999, 1.0], [5.0, 1.0]], dtype=torch.float64)
    outcome, jacobian = task.linearise(points, points[:, :0])
    assert outcome[[0, 2]].isfinite().all() and jacobian[[0, 2]].isfinite().all() and outcome[1].isnan().all()
    assert task.failures[0].reason == "ValueError: too fast"
    assert task.failures[0].case["speed"] == 9.999


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (describe("nowhere"), "foreign:nowhere: the module has no function nowhere; it has "),
        (describe("none"), "none of 32 runs gave a finite outcome; 37 failed: foreign:none returned None; it must "),
        (describe("text"), "foreign:text returned 'far'; it must return distance, as a number or an array each"),
        (describe("pair"), "foreign:pair returned 2 numbers as distance, it should be 1"),
        (describe("failing"), "20 of 20 runs failed: 20 RuntimeError: no convergence; simulator.failures allows fewer"),
        (describe("count", {"speed": [1, 10]}), "foreign:count takes (speed, angle); angle is no control"),
        (describe("count", {**SPEED_AND_ANGLE, "drag": [0, 1]}), "and no drag, which is listed as a control"),
        (describe("of_arrays", conditions={"wind": 1.0}, simulator={"derivatives": "dual"}), "derivatives: "),
        (describe("at_random", simulator={"derivatives": "finite_differences"}), "its noise is"),
    ],
)
def test_what_cannot_be_called_is_one_line(node: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        rebuild(node).probe()
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": {"speed": [10, 1], "angle": 1.0}}, "controls.speed.range: the lower bound must be below"),
        ({"controls": {"speed": "fast", "angle": 1.0}}, "controls.speed: give [lower, upper, unit]"),
        ({"controls": {"speed": 1, "angle": 1.0}}, "controls: name at least one with a range"),
        ({"controls": {"a b": [0, 1]}}, "controls: 'a b' is no name of an argument"),
        ({"conditions": {"speed": [0, 1]}}, "conditions.speed: is a control too"),
        ({"outcomes": {}}, "outcomes: name at least one"),
        ({"outcomes": {"distance": {"unit": "m"}}}, "outcomes.distance.tolerance: must be a number above 0, got None"),
        ({"outcomes": {"distance": {"tolerance": 1, "units": "m"}}}, "outcomes.distance.units: unknown key"),
        ({"constraints": ["speed <= fast"]}, "constraints: 'speed <= fast': must compare sums of controls, as in "),
        ({"constraints": "speed <= 9"}, "constraints: 'str' instances are not allowed as a Sequence value"),
        ({"simulator": {}}, "simulator: name it by one of call, module, command"),
        ({"simulator": {"call": "a:b", "command": "c"}}, "simulator: name it by one of"),
        ({"simulator": {"call": "a:b", "worker": 2}}, "simulator.worker: unknown key; did you mean workers?"),
        ({"simulator": {"call": "a:b", "timeout": 0}}, "simulator.timeout: "),
    ],
)
def test_a_wrong_description_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        build({**describe("count"), **change}, Task, "task.drop")  # type: ignore[type-abstract]
    assert str(raised.value).startswith(f"task.drop.{message}") and "\n" not in str(raised.value)


def test_noise_is_measured() -> None:
    generator = torch.Generator().manual_seed(3)

    def along(places: torch.Tensor) -> torch.Tensor:
        noise = 1e-5 * torch.randn(len(places), 1, generator=generator, dtype=torch.float64)
        return torch.cat([torch.sin(3 * places[:, None]) + noise, torch.exp(places[:, None])], dim=1)

    estimates = [estimate_noise(along) for _ in range(50)]
    first, second = (sorted(float(one[column]) for one in estimates) for column in (0, 1))
    assert 5e-6 < first[25] < 2e-5
    assert second[49] < 1e-14
    assert choose_step(1e-16) == 3e-8 and choose_step(1e-8) == pytest.approx(2e-4) and choose_step(1.0) == 0.05


# What may be run, and of which code it is


def test_only_what_conf_itself_trusts_is_run() -> None:
    with pytest.raises(UserError, match=r"trust: is what conf/config.yaml lists there, \[\]; edit that file"):
        check_trust({"trust": ["os"]})
    assert check_trust({"trust": []}) == []
    with pytest.raises(UserError, match=r"task.drop.simulator.call: 'os:remove' is not trusted"):
        hash_code(describe("x", simulator={"call": "os:remove"}), "task.drop", ["foreign"])
    command = {"simulator": {"command": "sh -c {speed}"}}
    with pytest.raises(UserError, match="is not trusted"):
        hash_code(command, "task.drop", ["sh"])
    command = {"simulator": {"command": "foreign.sh {speed}"}}
    with pytest.raises(UserError, match="is not trusted"):  # a package is no program of the same name
        hash_code(command, "task.drop", ["foreign"])
    with pytest.raises(UserError, match="must name a Task of aimback"):
        build({"_target_": "foreign.Network"}, Task)  # type: ignore[type-abstract]


def test_an_edit_of_what_it_imports_changes_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tmp_path / "somelab"
    lab.mkdir()
    files = {"__init__.py": "", "sim.py": "from somelab import part\n", "part.py": "A = 1\n", "other.py": "B = 1\n"}
    for name, content in files.items():
        (lab / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    node = describe("x", simulator={"call": "somelab.sim:run"})
    before = hash_code(node, "task.drop", ["somelab"])
    (lab / "other.py").write_text("B = 2\n")
    assert hash_code(node, "task.drop", ["somelab"]) == before
    (lab / "part.py").write_text("A = 2\n")
    edited = hash_code(node, "task.drop", ["somelab"])
    assert edited != before
    (lab / "table.csv").write_text("1,2\n")
    assert hash_code(node, "task.drop", ["somelab"]) != edited


def test_what_was_found_out_is_kept_until_the_code_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"drop": describe("count")}
    known = find_out(reuse_findings(tasks, {}, ["foreign"]), ["foreign"])
    assert known["drop"]["simulator"]["derivatives"] == "finite_differences"
    assert reuse_findings(tasks, known, ["foreign"]) == known
    changed = {"drop": {**describe("count"), "controls": {"speed": [1, 5, "m/s"], "angle": [0.1, 1.4, "rad"]}}}
    assert "range" not in reuse_findings(changed, known, ["foreign"])["drop"]["outcomes"]["distance"]
    other = {"drop": {**known["drop"], "_code_": "edited"}}
    assert "range" not in reuse_findings(tasks, other, ["foreign"])["drop"]["outcomes"]["distance"]
    monkeypatch.setattr(foreign_settings, "read_trust", lambda: ["foreign"])
    assert forget_stale({"task": other}) == {"task": tasks}
    assert forget_stale({"task": known}) == {"task": known}
    with pytest.raises(UserError, match=r"task.drop: its code was edited after params.yaml was composed"):
        find_out(other, ["foreign"])


@pytest.mark.parametrize("name", ["leaving", "constant"])
def test_what_is_found_out_in_a_process_of_its_own_is_one_line(name: str) -> None:
    expected = {"leaving": "task.drop: has ended the process", "constant": "task.drop.outcomes.distance: is 3 in all"}
    with pytest.raises(UserError, match=expected[name]):
        find_out({"drop": describe(name)}, ["foreign"])


def test_files_tell_tasks_apart_by_code_and_by_what_is_pinned() -> None:
    node = complete(describe("count"), rebuild(describe("count")).probe())
    lines = [
        identify(rebuild(one))
        for one in (
            node,
            {**node, "_code_": "1"},
            {**node, "_code_": "2"},
            {**node, "conditions": {"wind": 1.0}},
            {**node, "conditions": {"wind": 2.0}},
        )
    ]
    assert len(set(lines)) == len(lines)
    assert all(json.loads(line)["simulator"]["call"] == "foreign:count" for line in lines)
    slower = {**node, "simulator": {**node["simulator"], "workers": 7, "timeout": 5.0}}
    assert identify(rebuild(slower)) == lines[0]
    assert Description.model_validate(node["simulator"]).place == "foreign:count"
