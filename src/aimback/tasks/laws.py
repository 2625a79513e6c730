"""The laws that every task keeps, ours and a user's own: what the routes rely on, tried at a few dozen points.

They ask for few simulations, since a user's simulator may take seconds for one.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aimback.tasks.base import Task

_ROWS = 16
_CORNERS = 32
_DRAWN = 2000  # no simulation is needed for these
_STEPS = (1e-6, 1e-5, 1e-4, 1e-3)  # of differences, in widths of the box
_AGREE = 0.02  # what differences and derivatives may differ by, of the largest derivative of an outcome


def draw_inside(task: Task, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Controls and conditions away from the faces of their boxes, where differences need room."""
    generator = torch.Generator().manual_seed(seed)
    unit = 0.05 + 0.9 * torch.rand(count, len(task.box), generator=generator, dtype=torch.float64)
    return task.box.from_unit(unit), task.conditions.sample(count, generator)


def check_contract(task: Task) -> None:
    """It is a task, with something to solve for and something to reach."""
    assert task.tolerance > 0, "the tolerance must be above 0"
    assert isinstance(task, Task)
    assert len(task.box) > 0 and len(task.outcomes) > 0


def check_faces(task: Task) -> None:
    """Outcomes are finite where a search ends that is held by the box: at its faces and in its corners."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([0.0, 1e-9, 0.5, 1 - 1e-9, 1.0], dtype=torch.float64)
    picked = torch.randint(len(levels), (_CORNERS, len(task.box)), generator=generator)
    controls, conditions = task.box.from_unit(levels[picked]), task.conditions.sample(_CORNERS, generator)
    outcome = task(controls, conditions)
    assert outcome.shape == (_CORNERS, len(task.outcomes))
    bad = controls[~torch.isfinite(outcome).all(dim=1)]
    assert not len(bad), f"not finite at {task.box.names} = {bad[0].tolist()}"


def check_rows(task: Task) -> None:
    """A call is repeated to the bit, and a sample alone has the outcome that it has in a batch.

    But for rounding: a product of matrices may add in another order.
    """
    controls, conditions = draw_inside(task, _ROWS)
    outcome = task(controls, conditions)
    assert torch.equal(task(controls, conditions), outcome), "the same controls have another outcome the second time"
    for row in (0, _ROWS // 2, _ROWS - 1):
        torch.testing.assert_close(task(controls[row], conditions[row]), outcome[row], rtol=1e-9, atol=1e-12)


def check_shapes(task: Task) -> None:
    """Targets and starts are two dimensions, so a batch may have any number of them."""
    controls, conditions = draw_inside(task, 8)
    shaped = task(controls.reshape(2, 2, 2, -1), conditions.reshape(2, 2, 2, len(task.conditions)))
    torch.testing.assert_close(shaped.reshape(8, -1), task(controls, conditions), rtol=1e-9, atol=1e-12)


def check_derivatives(task: Task) -> None:
    """The Jacobian is that of the outcome: at nearly all points differences of some length agree with it.

    Of some length, for a simulator may print few digits, or jump; at nearly all points, for a jump may be anywhere.
    """
    controls, conditions = draw_inside(task, _ROWS)
    _, jacobian = task.linearise(controls, conditions)
    assert bool(torch.isfinite(jacobian).all()), "derivatives are not finite"
    width = task.box.upper - task.box.lower
    slopes = jacobian * width  # of each outcome along the whole of each control
    scale = slopes.abs().amax(dim=(0, 2), keepdim=True).clamp_min(1e-300)
    errors = []
    for step in _STEPS:
        moved = step * torch.diag(width)
        there, here = (task(controls[:, None] + sign * moved, conditions[:, None]) for sign in (1.0, -1.0))
        errors.append(((there - here).transpose(1, 2) / (2 * step) - slopes).abs() / scale)
    agree = torch.stack(errors).amin(dim=0) <= _AGREE
    assert float(agree.double().mean()) > 0.9, "derivatives are not those of the outcome"


def check_draws(task: Task) -> None:
    """The same seed draws the same; draws may leave the box, but mostly lie in it, where the search looks."""
    for draw in (task.draw_controls, task.draw_starts):
        first, again, other = (draw(_DRAWN, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
        assert first.shape == (_DRAWN, len(task.box)) and first.dtype == torch.float64
        assert bool(torch.isfinite(first).all())
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert float(task.box.contains(first).double().mean()) > 0.5


LAWS: Mapping[str, Callable[[Task], None]] = {
    law.__name__.removeprefix("check_"): law
    for law in (
        check_contract,
        check_faces,
        check_rows,
        check_shapes,
        check_derivatives,
        check_draws,
    )
}


def list_laws(task: Task) -> list[str]:
    """The names of the laws that can be tried on a task: those that need no simulation, where there is no simulator."""
    return list(LAWS) if task.has_simulator else ["contract", "draws"]
