"""The one scaling: to the bit at its corners, and back."""

import math

import pytest
import torch

from aimback.core.box import Axis, Box
from aimback.core.errors import UserError

T = torch.float64
BOX = Box([Axis("speed", "m/s", 0.1, 10.3), Axis("angle", "rad", 0.0, math.pi / 2), Axis("n", "", -3.0, 7.0)])


def test_corners_to_the_bit() -> None:
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=T)
    torch.testing.assert_close(BOX.from_unit(corners), torch.stack([BOX.lower, BOX.upper]), rtol=0, atol=0)


def test_there_and_back() -> None:
    unit = torch.rand(100, 3, dtype=T, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(BOX.to_unit(BOX.from_unit(unit)), unit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scaling_never_leaves_the_box(dtype: torch.dtype) -> None:
    unit = 1 - torch.logspace(-18, 0, 200, dtype=dtype)
    points = BOX.from_unit(unit[:, None].expand(-1, 3))
    assert points.dtype == dtype
    lower, upper = BOX.bounds(points)
    assert bool(((points >= lower) & (points <= upper)).all())


def test_contains_its_bounds_and_no_nan() -> None:
    points = torch.stack([BOX.lower, BOX.upper, BOX.upper + 1e-9, torch.full((3,), math.nan, dtype=T)])
    assert BOX.contains(points).tolist() == [True, True, False, False]


def test_samples_fill_the_box_and_repeat() -> None:
    points = BOX.sample(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(points, BOX.sample(4000, torch.Generator().manual_seed(0)), rtol=0, atol=0)
    assert bool(BOX.contains(points).all())
    unit = BOX.to_unit(points)
    assert float((unit.mean(0) - 0.5).abs().max()) < 0.03
    assert float((unit.var(0) - 1 / 12).abs().max()) < 0.01


def test_a_width_of_zero_is_a_constant() -> None:
    still = Box([Axis("wind", "m/s", 2.0, 2.0)])
    assert still.to_unit(torch.tensor([2.0])).item() == 0
    assert still.from_unit(torch.tensor([0.7])).item() == 2


def test_labels_carry_units() -> None:
    assert [axis.label for axis in BOX.axes] == ["speed [m/s]", "angle [rad]", "n"]
    assert BOX.names == ("speed", "angle", "n")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([Axis("x", "", 1, 0)], "must not exceed"),
        ([Axis("x", "", 0, math.inf)], "finite"),
        ([Axis("x", "", math.nan, 1)], "finite"),
        ([Axis("x", "", 0, 1), Axis("x", "", 0, 1)], "names must differ"),
    ],
)
def test_senseless_bounds_are_refused(axes: list[Axis], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Box(axes)


def test_a_shrunk_box_leaves_its_margin_free_at_either_end() -> None:
    box = Box([Axis("x", "m", -1.0, 1.0), Axis("y", "rad", 0.0, 10.0)]).shrink(0.05)
    assert [(axis.name, axis.unit, axis.lower, axis.upper) for axis in box.axes] == [
        ("x", "m", pytest.approx(-0.9), pytest.approx(0.9)),
        ("y", "rad", pytest.approx(0.5), pytest.approx(9.5)),
    ]
