"""PyTorch run eagerly: Newton's method on angle and landing time together, tangents by hand."""

import torch
from torch import Tensor

from benchmarks.cannon import COARSE_STEPS, FINE_STEPS, Aim, Array, Cannon

# Each with its derivative by the angle beside it.
Pair = tuple[Tensor, Tensor]


def prepare(cannon: Cannon) -> Aim:
    gravity, drag = cannon.gravity, cannon.drag
    coarse, fine = (torch.from_numpy(cannon.shares(steps)).diff().tolist() for steps in (COARSE_STEPS, FINE_STEPS))

    def slope(u: Pair, v: Pair) -> tuple[Pair, Pair]:
        fast = torch.sqrt(torch.addcmul(u[0] * u[0], v[0], v[0]))
        air = -drag * fast
        by_angle = torch.addcmul(u[0] * u[1], v[0], v[1]) / fast * -drag
        return (
            (air * u[0], torch.addcmul(by_angle * u[0], air, u[1])),
            (air * v[0] - gravity, torch.addcmul(by_angle * v[0], air, v[1])),
        )

    def moved(part: Pair, h: Tensor, rate: Pair) -> Pair:
        return torch.addcmul(part[0], h, rate[0]), torch.addcmul(part[1], h, rate[1])

    def step(x: Pair, y: Pair, u: Pair, v: Pair, h: Tensor) -> tuple[Pair, Pair, Pair, Pair]:
        half, third, sixth = h / 2, h / 3, h / 6
        start = at = u, v
        for share, ahead in ((sixth, half), (third, half), (third, h), (sixth, None)):
            rates = slope(*at)
            x, y = moved(x, share, at[0]), moved(y, share, at[1])
            if ahead is not None:
                at = moved(start[0], ahead, rates[0]), moved(start[1], ahead, rates[1])
            u, v = moved(u, share, rates[0]), moved(v, share, rates[1])
        return x, y, u, v

    @torch.no_grad()
    def aim(targets: Array, wind: Array) -> Array:
        wanted, given = torch.from_numpy(targets), torch.from_numpy(wind)
        angle = torch.from_numpy(cannon.first_angle(targets))
        time = 1.9 * cannon.speed * torch.sin(angle) / gravity
        nought = torch.zeros_like(angle)
        for lengths in (coarse, coarse, coarse, fine, fine):
            c, s = cannon.speed * torch.cos(angle), cannon.speed * torch.sin(angle)
            x, y, u, v = (nought, nought), (nought, nought), (c - given, -s), (s, c)
            for length in lengths:
                x, y, u, v = step(x, y, u, v, length * time)
            over, along = x[0] + given * time - wanted, u[0] + given
            determinant = x[1] * v[0] - along * y[1]
            angle = angle - (v[0] * over - along * y[0]) / determinant
            time = time - (x[1] * y[0] - y[1] * over) / determinant
        return angle.numpy()

    return aim
