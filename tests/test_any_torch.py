"""Simulators in ordinary torch code, as people write it who never heard of dual numbers."""

import logging
import shutil

import pytest
import torch
from torch import Tensor

from aimback.autodiff import any_torch, dual
from aimback.compile.writer import write_step
from aimback.core.box import Axis, Box
from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.starts import draw_evenly
from aimback.tasks.base import Task
from benchmarks.rows import columns_of, fused

W = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)


class Simulator(Task):
    """Of two controls, by a function of them alone."""

    def __init__(self, function, outcomes: int = 1, box: Box | None = None) -> None:
        self.box = box or Box((Axis("a", "", 0.2, 1.0), Axis("b", "", 0.2, 1.0)))
        self.conditions = Box(())
        self.outcomes = Box(tuple(Axis(f"y{place}", "", 0.0, 1.0) for place in range(outcomes)))
        self.tolerance = 1e-6
        self._function = function

    def __call__(self, controls: Tensor, conditions: Tensor) -> Tensor:
        return self._function(controls)


def in_place(c: Tensor) -> Tensor:
    made = torch.zeros(*c.shape[:-1], 1, dtype=c.dtype)
    made[..., 0] = c[..., 0] * c[..., 1]
    return made


def masked(c: Tensor) -> Tensor:
    made = c.clone()
    made[made > 0.6] = 2.0
    return made * c


def looped(c: Tensor) -> Tensor:
    x = c
    while (x.abs() > 1e-2).any():
        x = x / 2
    return x


IDIOMS = {
    "power": lambda c: c**2,
    "method sum": lambda c: c.sum(-1, keepdim=True),
    "method sin": lambda c: c.sin(),
    "clamp": lambda c: torch.clamp(c, 0.3, 0.9),
    "matmul": lambda c: c @ W,
    "abs": lambda c: abs(c - 0.5),
    "comparison": lambda c: torch.where(c > 0.5, c, 2 * c),
    "einsum": lambda c: torch.einsum("...i,ij->...j", c, W),
    "norm": lambda c: torch.linalg.vector_norm(c, dim=-1, keepdim=True),
    "mean": lambda c: c.mean(dim=-1, keepdim=True),
    "prod": lambda c: c.prod(dim=-1, keepdim=True),
    "cumsum": lambda c: torch.cumsum(c, dim=-1),
    "maximum": lambda c: torch.maximum(c[..., :1], c[..., 1:]),
    "in place": in_place,
    "reshape": lambda c: c.reshape(-1, 2).reshape(c.shape).flip(-1),
    "unsqueeze": lambda c: (c.unsqueeze(-1) * W).sum(-1),
    "to": lambda c: c.to(torch.complex128).exp().real,
    "pow": lambda c: torch.pow(c, 1.5),
    "atan2": lambda c: torch.atan2(c[..., :1], c[..., 1:]),
    "solve": lambda c: torch.linalg.solve(torch.diag_embed(c) + torch.ones(2, 2, dtype=c.dtype), c.new_ones(2)),
    "hyperbolic": lambda c: torch.cat([c.tan(), c.sinh(), c.cosh(), (c / 2).atanh(), c.asinh()], dim=-1),
    "logarithms": lambda c: torch.cat([c.log2(), c.log10(), c.exp2(), c.rsqrt()], dim=-1),
    "remainder": lambda c: torch.cat([torch.remainder(-c, 0.3), torch.fmod(-c, 0.3)], dim=-1),
    "index": lambda c: torch.cat([c[..., [1, 0, 1]], c.index_select(-1, torch.tensor([1]))], dim=-1),
    "pad": lambda c: torch.nn.functional.pad(c, (1, 2), value=3.0),
    "variance": lambda c: torch.cat([c.var(-1, keepdim=True), c.std(-1, correction=0, keepdim=True)], dim=-1),
    "mask": masked,
    "extreme": lambda c: c.max(-1, keepdim=True).values,
    "constants": lambda c: torch.cat(
        [c.masked_fill(c > 0.6, 0.1), torch.where(c > 0.6, 0.1, c), in_place(c).fill_(0.1)], -1
    ),
    "truths": lambda c: c * torch.cat([(c > 0.6).amax(-1, True), (c > 0.6).amin(-1, True)], dim=-1),
    "softplus": lambda c: torch.nn.functional.softplus(c, beta=2.0),
    "gelu": lambda c: torch.nn.functional.gelu(c, approximate="tanh"),
    "loop": looped,
    "module": torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ELU(), torch.nn.LayerNorm(3)).double(),
}


NOT_WRITTEN = {"to": "complex numbers", "solve": "_linalg_solve_ex", "loop": "data-dependent", "extreme": "max.dim"}


@pytest.mark.parametrize("name", IDIOMS)
def test_ordinary_code_runs_as_written(name: str) -> None:
    task = Simulator(IDIOMS[name])
    controls = task.box.sample(5, torch.Generator().manual_seed(0))
    none = controls[:, :0]
    outcome, jacobian = task.linearise(controls, none)
    torch.testing.assert_close(outcome, task(controls, none), rtol=1e-14, atol=0)
    step = 1e-6
    for place in range(2):
        change = torch.zeros(2, dtype=torch.float64)
        change[place] = step
        difference = (task(controls + change, none) - task(controls - change, none)) / (2 * step)
        torch.testing.assert_close(jacobian[..., place], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_the_two_ways_agree_with_dual_numbers() -> None:
    def forward(c, k):
        return torch.stack([torch.sin(c[..., 0]) * k[..., 0], c[..., 0] / c[..., 1]], dim=-1)

    points = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    outcome, jacobian = dual.linearise(forward, points, points[..., :1])
    for mode in (any_torch.linearise_by_jvp, any_torch.linearise_by_autograd):
        value, found = mode(forward, points, points[..., :1])
        torch.testing.assert_close(value, outcome, rtol=0, atol=0)
        torch.testing.assert_close(found, jacobian, rtol=1e-14, atol=1e-15)


def test_what_dual_numbers_know_is_left_to_them(caplog: pytest.LogCaptureFixture) -> None:
    task = Simulator(torch.sin)
    task.linearise(*(task.box.sample(2, torch.Generator().manual_seed(0)), torch.zeros(2, 0)))
    assert "_mode" not in vars(task) and caplog.records == []


def test_it_is_found_out_once_and_said(caplog: pytest.LogCaptureFixture) -> None:
    called: list[type] = []

    def function(c):
        called.append(type(c))
        return c.sin()

    task = Simulator(function)
    points = task.box.sample(2, torch.Generator().manual_seed(0)), torch.zeros(2, 0)
    with caplog.at_level(logging.WARNING):
        task.linearise(*points)
        called.clear()
        task.linearise(*points)
    assert dual.Dual not in called and len(called) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Simulator: is differentiated by torch, since 'Dual' object has no attribute 'sin'"
    ]


def test_few_outcomes_are_followed_backwards_and_many_forwards() -> None:
    points = torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for repeated, mode in ((8, any_torch.linearise_by_autograd), (9, any_torch.linearise_by_jvp)):
        task = Simulator(lambda c, repeated=repeated: c.abs().repeat(1, repeated))
        assert any_torch.choose_mode(task, points, points[:, :0]) is mode


def test_forward_mode_where_there_is_no_reverse_mode() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_forward(*inputs)

        @staticmethod
        def vmap(info, in_dims, x):
            return Square.apply(x), in_dims[0]

        @staticmethod
        def jvp(ctx, tangent):
            return 2 * ctx.saved_tensors[0] * tangent

    task = Simulator(Square.apply)
    _, jacobian = task.linearise(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 0))
    assert vars(task)["_mode"] is any_torch.linearise_by_jvp
    assert jacobian.tolist() == [[[6.0, 0.0], [0.0, 8.0]]]


def test_reverse_mode_where_there_is_no_forward_mode() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient

    task = Simulator(lambda c: Square.apply(c).repeat(1, 9))
    _, jacobian = task.linearise(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 0))
    assert vars(task)["_mode"] is any_torch.linearise_by_autograd
    assert jacobian[:, :2].tolist() == [[[6.0, 0.0], [0.0, 8.0]]]


def test_what_cannot_be_differentiated_says_what_can_be_done() -> None:
    task = Simulator(lambda c: torch.from_numpy(c.numpy() ** 2))
    points = task.box.sample(2, torch.Generator().manual_seed(0)), torch.zeros(2, 0)
    with pytest.raises(UserError, match="torch cannot differentiate it.*solver=cma_es"):
        task.linearise(*points)


@pytest.mark.parametrize("error", [KeyError("mine"), MemoryError("none left")])
def test_a_simulators_own_error_stays_its_own(error: Exception) -> None:
    def function(c):
        raise error

    task = Simulator(function)
    with pytest.raises(type(error)) as caught:
        task.linearise(torch.ones(1, 2), torch.zeros(1, 0))
    assert caught.value is error
    assert "_mode" not in vars(task)


def transmit(thicknesses: Tensor) -> Tensor:
    """Layers of SiO2 and TiO2 in turn on glass: reflectance at 21 wavelengths, by complex transfer matrices."""
    wavelengths = torch.linspace(400, 800, 21, dtype=torch.float64)
    matrix = torch.eye(2, dtype=torch.complex128)
    for layer, thickness in enumerate(thicknesses.unbind(-1)):
        index = 1.46 if layer % 2 == 0 else 2.4
        phase = 2 * torch.pi * index * thickness[..., None] / wavelengths
        cos, sin = torch.cos(phase).to(torch.complex128), torch.sin(phase).to(torch.complex128)
        rows = [torch.stack([cos, 1j * sin / index], -1), torch.stack([1j * index * sin, cos], -1)]
        matrix = matrix @ torch.stack(rows, -2)
    ends = matrix @ torch.tensor([1.0, 1.52], dtype=torch.complex128)
    return ((ends[..., 0] - ends[..., 1]) / (ends[..., 0] + ends[..., 1])).abs() ** 2


def test_a_stack_of_layers_is_solved_for_its_spectrum() -> None:
    box = Box(tuple(Axis(f"d{layer}", "nm", 50.0, 150.0) for layer in range(4)))
    task = Simulator(transmit, 21, box)
    wanted = task(box.sample(3, torch.Generator().manual_seed(1)), torch.zeros(3, 0))
    starts = draw_evenly(3, 8, 4, torch.Generator().manual_seed(2))
    problem = InverseProblem(wanted, torch.zeros(3, 0, dtype=torch.float64), box, task.distance, starts)
    solution = solve(task, problem, LevenbergMarquardt(), torch.Generator().manual_seed(3))
    best = solution.believed_miss.amin(1)
    assert (best < 1e-6).sum() >= 2, best


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler")
def test_ordinary_code_is_written_down() -> None:
    """By the operations of torch's own backward and forward passes."""
    controls = Simulator(IDIOMS["power"]).box.sample(20, torch.Generator().manual_seed(0))
    # Masks are counted by torch's forward mode, and who counts asks for numbers.
    for mode, without in ((any_torch.linearise_by_autograd, ""), (any_torch.linearise_by_jvp, "mask")):
        written = [function for name, function in IDIOMS.items() if name not in (*NOT_WRITTEN, without)]

        def differentiate(c: Tensor, mode: any_torch.Linearise = mode, written: list = written) -> tuple[Tensor, ...]:
            both = [mode(lambda c, _, function=function: function(c), c, c[:, :0]) for function in written]
            return tuple(part for pair in both for part in pair)

        expected = columns_of(*differentiate(controls))
        found = fused(differentiate, controls, optimise=False)(columns_of(controls))
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("name", "reason"), NOT_WRITTEN.items())
def test_what_is_not_written_down_says_so(name: str, reason: str) -> None:
    def differentiate(c: Tensor) -> tuple[Tensor, Tensor]:
        return any_torch.linearise_by_autograd(lambda c, _: IDIOMS[name](c), c, c[:, :0])

    with pytest.raises(NotImplementedError, match=reason):
        write_step(differentiate, [torch.full((1, 2), 0.5, dtype=torch.float64)])
