"""aimback: the simulator as a user writes it, integrated by its Runge-Kutta scheme, with dual numbers for tangents."""

from collections.abc import Callable

import torch
from torch import Tensor

from aimback.autodiff.dual import linearise, value_of
from aimback.autodiff.ode import Grid, State, integrate
from benchmarks.ensemble import BETA, DURATION, SIGMA, START, STEPS, Array, Integrate
from benchmarks.rows import columns_of, fused


def reach(given: Tensor) -> Tensor:
    """Rho and the start, `(..., 4)` -> the state at the end, `(..., 3)`."""
    rho, *start = given.unbind(-1)

    def slope(state: State) -> State:
        x, y, z = state
        return SIGMA * (y - x), x * (rho - z) - y, x * y - BETA * z

    times = Grid(STEPS, torch.full_like(value_of(rho), DURATION))
    return torch.stack(integrate(slope, tuple(start), times), dim=-1)


def linearise_reach(given: Tensor) -> tuple[Tensor, Tensor]:
    return linearise(lambda given, _: reach(given), given, given[..., :0])


def _lay_out(rho: Array) -> Tensor:
    numbers = torch.from_numpy(rho)
    return torch.stack([numbers, *(torch.full_like(numbers, one) for one in START)], dim=-1)


def _compile(function: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> Integrate:
    program = fused(function, torch.zeros(1, 1 + len(START)))
    return lambda rho: program(columns_of(_lay_out(rho))).numpy()


def prepare() -> Integrate:
    return _compile(reach)


def with_tangents() -> Integrate:
    return _compile(linearise_reach)


def interpreted() -> Integrate:
    return lambda rho: reach(_lay_out(rho)).T.numpy()
