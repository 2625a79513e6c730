"""Figures are whole, the same each time, and show what they say."""

import math

import numpy as np
import pytest
import torch

from aimback import plots
from aimback.problem import InverseProblem
from aimback.report import CAPTIONS
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.targets import draw_targets
from aimback.tasks.cannon_vacuum import CannonVacuum

PNG = b"\x89PNG\r\n\x1a\n"
TRAINING = {"step": [1, 2, 3], "train_loss": [1.0, 0.1, 0.02], "validation_loss": [math.nan, 0.2, 0.03]}


class Skewed:
    """Stands for a network: the simulator, off by a little."""

    def __init__(self, task):
        self.task = task

    def __call__(self, controls, conditions):
        return self.task(controls, conditions) * 1.01 + 0.02

    def linearise(self, controls, conditions):
        outcome, jacobian = self.task.linearise(controls, conditions)
        return outcome * 1.01 + 0.02, jacobian * 1.01


@pytest.fixture(scope="module")
def solved():
    task = CannonVacuum()
    targets = draw_targets(task, 12, torch.Generator().manual_seed(0))
    span = float((task.outcomes.upper - task.outcomes.lower).norm())
    problem = InverseProblem(targets.targets, targets.conditions, task.box, task.tolerance, span)
    forwards = {"surrogate": Skewed(task), "direct": task}
    solver = LevenbergMarquardt(starts=4, max_steps=20)
    solutions = {
        route: solve(forward, problem, solver, torch.Generator().manual_seed(1)) for route, forward in forwards.items()
    }
    misses = {}
    for route, solution in solutions.items():
        answers = solution.controls[torch.arange(12), solution.best()]
        misses[route] = (task(answers, targets.conditions) - targets.targets).norm(dim=-1)
    return task, targets, solutions, misses


def draw(folder, solved, task=None):
    own, targets, solutions, misses = solved
    return plots.draw_figures(
        folder,
        "cannon_vacuum",
        task or own,
        surrogate=Skewed(own),
        targets=targets,
        solutions=solutions,
        misses=misses,
        training=TRAINING,
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, solved):
    folder = tmp_path_factory.mktemp("figures")
    return folder, draw(folder, solved)


def test_all_figures_are_drawn_and_have_captions(drawn):
    folder, names = drawn
    assert [name.removesuffix(".png") for name in names] == list(CAPTIONS)
    assert all((folder / name).read_bytes().startswith(PNG) for name in names)


def test_the_same_figures_have_the_same_bytes(tmp_path, drawn, solved):
    folder, names = drawn
    assert draw(tmp_path, solved) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
        assert b"Software" not in (folder / name).read_bytes()


def test_a_task_without_trajectories_has_none(tmp_path, solved):
    class Still(CannonVacuum):
        def trajectory(self, controls, conditions, points):
            return None

    names = draw(tmp_path, solved, Still())
    assert "trajectories.png" not in names
    assert "surfaces.png" in names


def test_the_drawn_descent_tells_belief_from_truth(solved):
    task, targets, solutions, misses = solved
    loss, miss = plots.draw_descent(task, targets, solutions["surrogate"], 10.0)
    assert loss[-1].max() < 1e-20  # it believes in a hit
    np.testing.assert_allclose(miss[-1], misses["surrogate"], rtol=1e-6)  # and is off by what it does not know
    assert miss[-1].min() > 0.01


def test_surfaces_are_those_of_the_two_maps(solved):
    task, targets, solutions, _ = solved
    surfaces, wanted = plots.draw_surfaces(task, {"surrogate": Skewed(task), "direct": task}, targets, solutions, 5)
    true, network = surfaces
    # speed across, angle up: at 10 m/s and 45 degrees the vacuum range is v^2 / g
    assert true.outcome[2, 4] == pytest.approx(100 / task.gravity)
    np.testing.assert_allclose(network.outcome, true.outcome * 1.01 + 0.02)
    assert wanted.startswith("target distance")


def test_misses_of_zero_and_without_a_number_can_be_drawn(tmp_path):
    misses = {"direct": np.zeros(5), "surrogate": np.array([0.0, 1e-3, 5.0, np.nan, np.inf])}
    plots.plot_misses(tmp_path / "miss.png", "all", misses, "m", 0.01)
    plots.plot_misses(tmp_path / "none.png", "none", {"direct": np.full(3, np.nan)}, "m", 0.01)
    assert (tmp_path / "miss.png").read_bytes().startswith(PNG)


def test_losses_of_zero_and_without_a_number_can_be_drawn(tmp_path):
    losses = {"direct": np.array([[1.0, np.nan], [0.0, np.nan]]), "surrogate": np.array([[1.0, 1.0]])}
    plots.plot_loss(tmp_path / "loss.png", "t", losses=losses, misses=losses, unit="m", tolerance=0.01)
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)


def test_a_users_matplotlibrc_changes_nothing(tmp_path):
    import matplotlib as mpl

    arrays = np.arange(1.0, 4), np.arange(3.0, 0, -1), np.arange(3.0, 0, -1)
    plots.plot_training(tmp_path / "1.png", "t", *arrays)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        plots.plot_training(tmp_path / "2.png", "t", *arrays)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
