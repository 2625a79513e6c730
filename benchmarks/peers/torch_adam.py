"""PyTorch as in the tutorials: Adam on the angles, backwards through an eagerly run simulation, a batch at once."""

import torch
from torch import Tensor

from benchmarks.cannon import FINE_STEPS, Aim, Array, Cannon

State = tuple[Tensor, Tensor, Tensor, Tensor]
MAX_STEPS = 600


def prepare(cannon: Cannon) -> Aim:
    gravity, drag = cannon.gravity, cannon.drag
    shares = cannon.shares(FINE_STEPS)
    lengths = (shares[1:] - shares[:-1]).tolist()

    def slope(state: State) -> State:
        _, _, u, v = state
        air = -drag * torch.sqrt(u * u + v * v)
        return u, v, air * u, air * v - gravity

    def moved(state: State, h: Tensor, rate: State) -> State:
        x, y, u, v = (part + h * change for part, change in zip(state, rate, strict=True))
        return x, y, u, v

    def step(state: State, h: Tensor) -> State:
        k1 = slope(state)
        k2 = slope(moved(state, h / 2, k1))
        k3 = slope(moved(state, h / 2, k2))
        k4 = slope(moved(state, h, k3))
        a, b, c, d = ((p + 2 * (q + r) + s) / 6 for p, q, r, s in zip(k1, k2, k3, k4, strict=True))
        return moved(state, h, (a, b, c, d))

    def distance(angle: Tensor, wind: Tensor) -> Tensor:
        u, v = cannon.speed * torch.cos(angle) - wind, cannon.speed * torch.sin(angle)
        with torch.no_grad():
            apex = v * v / (2 * gravity + drag * torch.hypot(u, v) * v)  # Chudinov (2004)
            time = torch.sqrt(8 * apex / gravity)
        state = torch.zeros_like(u), torch.zeros_like(u), u, v
        for share in lengths:
            state = step(state, share * time)
        for _ in range(2):
            gap = -state[1] / state[3]
            state, time = step(state, gap), time + gap
        return state[0] + wind * time

    def aim(targets: Array, wind: Array) -> Array:
        wanted, given = torch.from_numpy(targets), torch.from_numpy(wind)
        angle = torch.from_numpy(cannon.first_angle(targets)).requires_grad_()
        optimizer = torch.optim.Adam([angle], lr=0.03, betas=(0.8, 0.95))
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        for _ in range(MAX_STEPS):
            miss = distance(angle, given) - wanted
            if bool((miss.detach().abs() <= cannon.tolerance / 2).all()):
                break
            optimizer.zero_grad()
            miss.square().sum().backward()
            optimizer.step()
            schedule.step()
        return angle.detach().numpy()

    return aim
