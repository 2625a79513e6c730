"""Figures are whole, the same each time, and show what they say; for one, two and more controls."""

import base64
import json
import math

import numpy as np
import pytest
import torch
from made_up import pictures
from matplotlib.figure import Figure
from PIL import Image
from plotly import graph_objects
from problems import Off, pose

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.data.archive import read_arrays, write_arrays
from aimback.data.targets import draw_targets
from aimback.evaluate.metrics import follow_descents
from aimback.report import evidence, interactive, stills, sweep, views
from aimback.report.canvas import COLOURS, LINES, new_figure
from aimback.report.captions import KINDS
from aimback.report.gallery import FIGURES, draw_figures
from aimback.solve.gradient_descent import GradientDescent
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.tasks.base import Task
from aimback.tasks.cannon_vacuum import CannonVacuum
from aimback.tasks.heat import Heat
from aimback.tasks.robotic_arm import RoboticArm

PNG = b"\x89PNG\r\n\x1a\n"
TRAINING = {
    "step": np.array([1.0, 2.0, 3.0]),
    "train_loss": np.array([1.0, 0.1, 0.02]),
    "validation_loss": np.array([math.nan, 0.2, 0.03]),
}
COMPARED = {"surrogate": "surrogate", "direct": "direct", "hybrid": "hybrid"}
SOLVER = LevenbergMarquardt(max_steps=20)


class Slope(Task):
    """A task with one control, a condition, and no answer below a tenth: the outcome is x² + wind."""

    box = Box([Axis("x", "m", 0.0, 2.0)])
    conditions = Box([Axis("wind", "m", 0.0, 1.0)])
    outcomes = Box([Axis("height", "m", 0.0, 5.0)])
    tolerance = 0.01

    def __call__(self, controls, conditions):
        return torch.where(controls < 0.1, torch.inf, controls.square() + conditions)

    def linearise(self, controls, conditions):
        return self(controls, conditions), 2 * controls[..., None]


class Drawn:
    """A task, three routes' solutions of a few of its targets, and its figures."""

    def __init__(self, task, folder):
        self.task, self.folder = task, folder
        self.targets = draw_targets(task, 12, torch.Generator().manual_seed(0))
        problem = pose(
            self.targets.targets, self.targets.conditions, task.box, task.tolerance, task.distance.span, 4, 1
        )
        forwards = {"surrogate": Off(task, 0.02, 1.01), "direct": task, "hybrid": task}
        self.solutions = {
            route: solve(forward, problem, SOLVER, torch.Generator().manual_seed(1))
            for route, forward in forwards.items()
        }
        self.misses = {}
        for route, solution in self.solutions.items():
            answers = solution.controls[torch.arange(12), solution.best()]
            self.misses[route] = (task(answers, self.targets.conditions) - self.targets.targets).norm(dim=-1)
        self.told = []
        self.names = self.draw(folder)

    def draw(self, folder, task=None):
        made = pictures(len(self.task.box))
        return draw_figures(
            folder / "figures",
            folder / "interactive",
            "made_up",
            task or self.task,
            surrogate=Off(self.task, 0.02, 1.01),
            targets=self.targets,
            solutions=self.solutions,
            compared=COMPARED,
            misses=self.misses,
            r_t={
                route: np.array([[1, 1e-3, 1e-4, 2e-4, 1e-2], [2, 1e-4, 0.0, 1e-4, np.nan]]) for route in self.solutions
            },
            training=TRAINING,
            pictures={figure: made[key] for figure, (key, _) in evidence.PICTURES.items()},
            solver=SOLVER,
            generator=torch.Generator().manual_seed(2),
            progress=self.told.append,
        )


@pytest.fixture(scope="module")
def cannon(tmp_path_factory):
    return Drawn(CannonVacuum(), tmp_path_factory.mktemp("cannon"))


@pytest.fixture(scope="module")
def slope(tmp_path_factory):
    return Drawn(Slope(), tmp_path_factory.mktemp("slope"))


@pytest.fixture(scope="module", params=["cannon", "slope", pytest.param("arm", marks=pytest.mark.slow)])
def drawn(request, tmp_path_factory):
    if request.param == "arm":
        return Drawn(RoboticArm(), tmp_path_factory.mktemp("arm"))
    return request.getfixturevalue(request.param)


def test_all_figures_are_drawn_twice_and_have_captions(drawn):
    expected = set(KINDS) - ({"trajectories"} if isinstance(drawn.task, Slope) else set())
    assert set(drawn.names) == expected and set(FIGURES) == set(KINDS)
    assert drawn.names == [name for name in FIGURES if name in expected]
    for name in expected - {"sweep"}:
        assert (drawn.folder / "figures" / f"{name}.png").read_bytes().startswith(PNG)
    for name in expected:
        live = json.loads((drawn.folder / "interactive" / f"{name}.json").read_text())
        assert live["panels"] and all(panel["data"] for panel in live["panels"])
        assert live["takeaway"].endswith(".") and len(live["takeaway"].split()) <= 40
    assert (drawn.folder / "figures" / "sweep.gif").read_bytes().startswith(b"GIF89a")


def test_plotly_knows_every_word_of_the_interactive_figures(drawn):
    for file in (drawn.folder / "interactive").glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            for frame in panel.pop("frames", []):
                graph_objects.Figure({"data": frame["data"]})
            graph_objects.Figure(panel)  # refuses properties and values that Plotly does not have
    with pytest.raises(ValueError, match="dashes"):
        graph_objects.Figure({"data": [{"type": "scatter", "line": {"dashes": "dot"}}]})


def test_progress_counts_every_figure(slope):
    assert slope.told == [1] * len(slope.names)


def test_the_same_figures_have_the_same_bytes(tmp_path, cannon):
    assert cannon.draw(tmp_path) == cannon.names
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert file.read_bytes() == (cannon.folder / file.relative_to(tmp_path)).read_bytes()
        assert b"Software" not in file.read_bytes()


def test_interactive_figures_are_small(drawn):
    sizes = {file.stem: file.stat().st_size for file in (drawn.folder / "interactive").glob("*.json")}
    assert sizes.pop("surfaces") < 250_000
    assert sizes.pop("sweep") < 800_000
    assert max(sizes.values()) < 60_000
    assert (drawn.folder / "figures" / "sweep.gif").stat().st_size < 3_000_000


def test_the_drawn_descent_tells_belief_from_truth(cannon):
    loss, miss = follow_descents(cannon.task, cannon.targets, cannon.solutions["surrogate"])
    assert loss[-1].max() < 1e-20  # it believes in a hit
    np.testing.assert_allclose(miss[-1], cannon.misses["surrogate"], rtol=1e-6)  # and is off by what it does not know
    assert miss[-1].min() > 0.01


def middle_target(drawn):
    wanted = drawn.targets.targets[:, 0]
    kept = wanted[: min(solution.history.controls.shape[1] for solution in drawn.solutions.values())]
    return float(kept[(kept - wanted.median()).abs().argmin()])


def test_surfaces_are_those_of_the_two_maps(cannon):
    task = cannon.task
    landscape = views.view_landscape(task, Off(task, 0.02, 1.01), cannon.targets, cannon.solutions, COMPARED, 5)
    true, network = landscape.surfaces
    # speed across, angle up: at 10 m/s and 45 degrees the vacuum range is v^2 / g
    far, span, target = 100 / task.gravity, task.distance.span, middle_target(cannon)
    assert true.loss[2, 4] == pytest.approx(((far - target) / span) ** 2)
    assert network.loss[2, 4] == pytest.approx(((far * 1.01 + 0.02 - target) / span) ** 2)
    assert f"{target:.3g}" in landscape.wanted
    assert landscape.wanted.startswith("target distance")
    assert set(true.paths) == {"direct", "hybrid"}, "both descend through the simulator"
    assert set(network.paths) == {"surrogate"}


def test_of_a_target_of_many_numbers_the_first_is_said():
    said = [views.say_target(task, [0.25] * len(task.outcomes), ".2f") for task in (CannonVacuum(), Heat(rows=2))]
    assert said == ["target distance 0.25 m", "target temperature_0_1 0.25, 11 more"]


def test_curvatures_of_many_controls_have_few_ticks_and_without_solutions_no_panel():
    def draw(controls, solutions):
        picture = {f"hessian_condition_{route}": np.array([1.0, 10.0]) for route in evidence.PAIR}
        return interactive.draw_conditioning(
            picture | {f"eigenvalues_{route}": np.ones((solutions, controls)) for route in evidence.PAIR}
        )

    ticks = [draw(controls, 3)[1]["layout"]["xaxis"].get("dtick") for controls in (2, 128)]
    assert ticks == [1, None] and len(draw(128, 0)) == 1
    axes = Figure().subplots()
    stills._draw_panel(axes.figure, axes, draw(2, 3)[1])
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_one_control_gives_curves(slope):
    task = slope.task
    landscape = views.view_landscape(task, Off(task, 0.02, 1.01), slope.targets, slope.solutions, COMPARED, 9)
    true, network = landscape.surfaces
    assert true.loss.shape == network.loss.shape == (9,)
    assert np.isinf(true.loss[0])
    assert true.paths["direct"].shape[2] == 1
    row = int((slope.targets.targets[:, 0] - slope.targets.targets[:, 0].median()).abs().argmin())
    wanted, wind = float(slope.targets.targets[row, 0]), float(slope.targets.conditions[row, 0])
    assert true.loss[4] == pytest.approx(((1 + wind - wanted) / 5) ** 2)


def numbers(values):
    """An array of Plotly's JSON."""
    flat = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    return flat.reshape([int(n) for n in values["shape"].split(",")]) if "shape" in values else flat


def test_the_interactive_surface_is_the_loss_and_the_descents_lie_on_it(cannon):
    task = cannon.task
    landscape = views.view_landscape(task, Off(task, 0.02, 1.01), cannon.targets, cannon.solutions, COMPARED, 161)
    true, _ = json.loads(interactive.to_json(interactive.draw_surfaces(landscape)))["panels"]
    surface, *lines = true["data"]
    np.testing.assert_allclose(numbers(surface["z"]), landscape.surfaces[0].loss[::2, ::2], rtol=1e-6)
    descent = next(line for line in lines if line["name"] == "direct descent")
    x, y, z = (numbers(descent[part]).astype(float) for part in "xyz")
    there = np.isfinite(x)
    assert not there.all(), "the starts are not joined with each other"
    controls = torch.tensor(np.stack([x[there], y[there]], -1))
    loss = ((task(controls, torch.empty(len(controls), 0)) - middle_target(cannon)) / task.distance.span).square()
    lift = 0.01 * float(np.nanmax(landscape.surfaces[0].loss))
    np.testing.assert_allclose(z[there] - lift, loss[:, 0], atol=5e-3)
    assert descent["line"]["color"] == COLOURS["direct"]


def test_the_sweep_follows_the_target(cannon):
    seen = sweep.view_sweep(
        cannon.task, Off(cannon.task, 0.02, 1.01), cannon.targets, SOLVER, torch.Generator().manual_seed(0)
    )
    direct, surrogate = seen.sides
    assert direct.loss.shape == (sweep.FRAMES, 61, 61)
    assert direct.miss.max() < 1e-6
    assert surrogate.miss.min() > 0.01
    np.testing.assert_array_equal(direct.paths[0], surrogate.paths[0])  # the same starts
    assert np.ptp(direct.paths[0], axis=0).max() == 0, "the same ones for every target"
    distances = [float(caption.split()[2]) for caption in seen.captions]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]


def test_the_sweep_goes_with_any_solver(slope):
    solver = GradientDescent(max_steps=500)
    seen = sweep.view_sweep(
        slope.task, Off(slope.task, 0.02, 1.01), slope.targets, solver, torch.Generator().manual_seed(0)
    )
    assert seen.sides[0].loss.shape == (sweep.FRAMES, 61)
    assert len(seen.sides[0].paths) <= 41  # cut short: it is a picture


def test_the_gif_has_a_frame_a_target_and_goes_on_for_ever(drawn):
    with Image.open(drawn.folder / "figures" / "sweep.gif") as moving:
        assert moving.n_frames == sweep.FRAMES
        assert moving.info["loop"] == 0
        first = np.asarray(moving.convert("RGB"))
        moving.seek(sweep.FRAMES // 2)
        assert (first != np.asarray(moving.convert("RGB"))).any()


def test_a_still_figure_shows_what_its_panel_does():
    step, loss = np.array([1.0, 2.0, 4.0]), np.array([1e-1, 1e-3, 1e-6])
    curve = np.array([[1, 0.0, 1e-4, 1e-3, 1e-2], [2, 0.0, 1e-6, 1e-5, 1e-4]])
    (trained,), (best,) = interactive.draw_training(step, loss, loss), interactive.draw_r_t({"direct": curve})
    figure = Figure()
    left, right = figure.subplots(1, 2)
    stills._draw_panel(figure, left, trained)
    stills._draw_panel(figure, right, best)
    first, second = left.get_lines()
    np.testing.assert_allclose(first.get_xydata(), np.stack([step, loss], -1), rtol=1e-6)
    assert (first.get_linestyle(), second.get_linestyle()) == (LINES["surrogate"], ":")
    assert (left.get_xscale(), left.get_yscale(), left.get_xlabel()) == ("linear", "log", "training step")
    (band,), (middle,) = right.patches, right.get_lines()
    np.testing.assert_allclose(middle.get_ydata(), [1e-3, 1e-5], rtol=1e-6)
    np.testing.assert_allclose(sorted(set(band.get_xy()[:, 1])), [1e-6, 1e-4, 1e-2], rtol=1e-6)
    assert middle.get_color() == COLOURS["direct"] and right.get_xscale() == "log"


def test_misses_of_zero_and_without_a_number_can_be_drawn(tmp_path):
    misses = {"direct": np.zeros(5), "surrogate": np.array([0.0, 1e-3, 5.0, np.nan, np.inf])}
    for some in (misses, {"direct": np.full(3, np.nan)}):
        panels = interactive.draw_misses(some, "m", 0.01)
        stills.plot_panels(tmp_path / "miss.png", "some", panels)
        assert (tmp_path / "miss.png").read_bytes().startswith(PNG)
        assert interactive.to_json(panels)


def test_losses_of_zero_and_without_a_number_can_be_drawn(tmp_path):
    losses = {"direct": np.array([[1.0, np.nan], [0.0, np.nan]]), "surrogate": np.array([[1.0, 1.0]])}
    panels = interactive.draw_loss(losses, losses, "m", 0.01)
    stills.plot_panels(tmp_path / "loss.png", "t", panels)
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
    assert interactive.to_json(panels)


def test_a_surface_without_a_number_can_be_drawn(tmp_path):
    nothing = np.full((5, 5), np.inf)
    paths = {"direct": np.full((2, 3, 2), 0.5)}
    surface = views.Surface("nowhere", "direct", nothing, paths)
    landscape = views.Landscape([Axis("x", "", 0, 1), Axis("y", "", 0, 1)], [surface, surface], "target 1", "loss")
    panels = interactive.draw_surfaces(landscape)
    stills.plot_panels(tmp_path / "surfaces.png", "t", panels)
    assert (tmp_path / "surfaces.png").read_bytes().startswith(PNG)
    assert interactive.to_json(panels)


def test_json_holds_no_number_that_json_has_not(drawn):
    def refuse(constant):
        raise AssertionError(constant)

    for file in (drawn.folder / "interactive").glob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("looks", [COLOURS, LINES], ids=["colours", "lines"])
def test_every_usual_route_has_its_own_colour_and_line(looks):
    assert len({looks[route] for route in ("surrogate", "direct", "hybrid")}) == 3


def test_routes_of_any_number_and_name_are_drawn(tmp_path):
    """As many as there are looks, and one more."""
    descents = {f"route_{number}": np.full((3, 2), 10.0**-number) for number in range(12)}
    believed, missed = interactive.draw_loss(descents, descents, "m", 0.01)
    stills.plot_panels(tmp_path / "loss.png", "many", [believed, missed])
    named = {line.get("name", "").partition(":")[0] for line in believed["data"]}
    assert descents.keys() <= named


def test_a_users_matplotlibrc_changes_nothing(tmp_path):
    import matplotlib as mpl

    panels = interactive.draw_training(np.arange(1.0, 4), np.arange(3.0, 0, -1), np.arange(3.0, 0, -1))
    stills.plot_panels(tmp_path / "1.png", "t", panels)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        stills.plot_panels(tmp_path / "2.png", "t", panels)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_a_figure_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), new_figure(tmp_path / "a.png", (2, 2)):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("controls", [1, 2, 3])
@pytest.mark.parametrize("figure", evidence.PICTURES)
def test_pictures_are_what_is_declared_and_no_other(tmp_path, figure, controls):
    key, shapes = evidence.PICTURES[figure]
    made, declared = pictures(controls)[key], evidence.declare_arrays(figure, controls)
    write_arrays(tmp_path / "made.npz", made, CannonVacuum())
    back = read_arrays(tmp_path / "made.npz", declared, CannonVacuum())
    assert back.keys() == shapes.keys() - ({"axis_y"} if controls == 1 else set())
    for name in back:
        write_arrays(tmp_path / "flat.npz", made | {name: made[name][None]}, CannonVacuum())
        with pytest.raises(UserError, match=f"array {name} has the shape"):
            read_arrays(tmp_path / "flat.npz", declared, CannonVacuum())
