"""Another processor's instructions change the last bits, and nothing that anybody reads off them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aimback.runtime.project import ROOT
from benchmarks.campaigns.instructions import INSTRUCTIONS

# Data, a direct solve, a short training and a solve through its network; all of it into one file without pickle.
PROGRAM = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from aimback.data.dataset import simulate_dataset
from aimback.core.problem import InverseProblem
from aimback.solve.levenberg_marquardt import LevenbergMarquardt
from aimback.solve.multistart import solve
from aimback.solve.starts import draw_evenly
from aimback.learn.surrogate_training import train_surrogate
from aimback.tasks.cannon_drag import CannonDrag
from plans import plan

torch.set_num_threads(1)
task, folder = CannonDrag(), Path(sys.argv[1])
data = simulate_dataset(task, 2000, 0.1, torch.Generator().manual_seed(0))
targets, given = data.outcomes[:200], data.conditions[:200]
starts = draw_evenly(200, 8, 2, torch.Generator().manual_seed(1))
problem = InverseProblem(targets, given, task.box, task.distance, starts)
direct = solve(task, problem, LevenbergMarquardt(), torch.Generator().manual_seed(1))
settings = plan(hidden_width=16, hidden_layers=2, batch_size=256, max_epochs=30)
network, history = train_surrogate(data, task, *settings, 0, "cpu", folder / "work")
through = solve(network.double(), problem, LevenbergMarquardt(), torch.Generator().manual_seed(1))
made = {
    "outcomes": data.outcomes,
    "direct": direct.believed_miss.amin(1),
    "surrogate": through.believed_miss.amin(1),
    "losses": torch.tensor([row.validation_loss for row in history], dtype=torch.float64),
}
save_file(made, folder / "made.safetensors")
print(torch.backends.cpu.get_cpu_capability())
"""


def made(folder: Path, env: dict[str, str]) -> tuple[str, dict[str, torch.Tensor]]:
    """The instructions that PyTorch said it used, and what came out."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    ours = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **env}
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, env=ours, capture_output=True, text=True, check=True)
    return done.stdout.strip(), load_file(folder / "made.safetensors")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, torch.Tensor]]:
    return made(tmp_path_factory.mktemp("here"), {})


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_numbers_agree(name: str, here: tuple[str, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    used, ours = here
    restricted, theirs = made(tmp_path, INSTRUCTIONS[name])
    if restricted == used:
        pytest.skip(f"this processor has nothing beyond {used}")
    span = 9.0
    torch.testing.assert_close(ours["outcomes"], theirs["outcomes"], rtol=0, atol=1e-12 * span)
    for route in ("direct", "surrogate"):
        assert ours[route].max() < 1e-6 and theirs[route].max() < 1e-6
    # Steps of a training in single precision drift apart, and end in the same place.
    torch.testing.assert_close(ours["losses"][:3], theirs["losses"][:3], rtol=1e-5, atol=0)
    torch.testing.assert_close(ours["losses"], theirs["losses"], rtol=1e-3, atol=0)
