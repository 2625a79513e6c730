"""Random sets of environment variables that libraries read: do a training and solves give the same bytes?"""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.campaigns.scratch import ROOT

# Libraries read them; many change bytes or end a run: here, on another processor, on a GPU or in a cluster.
HOSTILE = {
    "PL_TRAINER_MAX_STEPS": "1",
    "PL_TRAINER_PRECISION": "bf16-mixed",
    "PL_TRAINER_STRATEGY": "ddp",
    "PL_TRAINER_NUM_NODES": "2",
    "PL_TRAINER_FAST_DEV_RUN": "1",
    "PL_TRAINER_LIMIT_TRAIN_BATCHES": "0.5",
    "PL_TRAINER_DETECT_ANOMALY": "1",
    "PL_TRAINER_BAREBONES": "1",
    "PL_GLOBAL_SEED": "x",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
    "SLURM_NODEID": "1",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "7",
    "TORCHELASTIC_RUN_ID": "x",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_RANK": "x",
    "GROUP_RANK": "1",
    "NODE_RANK": "1",
    "MASTER_ADDR": "nowhere.invalid",
    "MASTER_PORT": "x",
    "LSB_JOBID": "7",
    "LSB_DJOB_RANKFILE": "nowhere",
    "JSM_NAMESPACE_RANK": "3",
    "JSM_NAMESPACE_SIZE": "4",
    "JSM_NAMESPACE_LOCAL_RANK": "3",
    "XLA_USE_BF16": "1",
    "PJRT_DEVICE": "TPU",
    "TPU_PROCESS_ADDRESSES": "nowhere",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "3",
    "MKL_DYNAMIC": "TRUE",
    "MKL_VERBOSE": "1",
    "MKL_SERVICE_FORCE_INTEL": "1",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "DNNL_VERBOSE": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 FMA3",
    "NPY_PROMOTION_STATE": "legacy",
    "OPENBLAS_CORETYPE": "Prescott",
    "OPENBLAS_NUM_THREADS": "7",
    "GOTO_NUM_THREADS": "5",
    "OMP_NUM_THREADS": "3",
    "OMP_DYNAMIC": "true",
    "OMP_SCHEDULE": "dynamic,1",
    "OMP_THREAD_LIMIT": "1",
    "OMP_STACKSIZE": "1K",
    "OMP_DISPLAY_ENV": "true",
    "KMP_DETERMINISTIC_REDUCTION": "0",
    "GOMP_STACKSIZE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":0:0",
    "CUBLASLT_LOG_LEVEL": "5",
    "CUDNN_LOGINFO_DBG": "1",
    "NVIDIA_TF32_OVERRIDE": "1",
    "CUDA_FORCE_PTX_JIT": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "TORCH_LOGS": "nonsense",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "0",
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B": "1",
    "TORCH_DISABLE_ADDR2LINE": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "TORCHINDUCTOR_DETERMINISTIC": "x",
    "TORCH_COMPILE_DEBUG": "1",
    "PYTORCH_JIT": "0",
    "PYTORCH_CUDA_ALLOC_CONF": "nonsense",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "LRU_CACHE_CAPACITY": "1",
    "HYDRA_MAIN_MODULE": "nonsense",
    "HYDRA_DEPRECATION_WARNINGS_AS_ERRORS": "1",
    "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE": "os.system",
    "SELF_WARNING_AS_ERROR": "1",
    "MPLBACKEND": "nonsense",
    "MATPLOTLIBRC": "nowhere",
    "MPLCONFIGDIR": "/dev/null",
    "PLOTLY_RENDERER": "browser",
    "SOURCE_DATE_EPOCH": "x",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
    "MALLOC_PERTURB_": "165",
    "PYTHONHASHSEED": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONDEVMODE": "1",
    "PYTHONINTMAXSTRDIGITS": "640",
    "LC_ALL": "tr_TR.UTF-8",
}

# Data, a training, a solve through its network and one through the simulator; all that was made, into one file.
_PROGRAM = """
import sys
from aimback.runtime.surroundings import start_clean
start_clean()
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
import aimback.report.canvas
from plans import plan

torch.set_num_threads(1)
task, folder = CannonDrag(), Path(sys.argv[1])
data = simulate_dataset(task, 1000, 0.1, torch.Generator().manual_seed(0))
shape, training = plan(hidden_width=16, hidden_layers=2, batch_size=256, max_epochs=5)
network, history = train_surrogate(data, task, shape, training, 0, "cpu", folder / "work")
starts = draw_evenly(100, 2, 2, torch.Generator().manual_seed(1))
problem = InverseProblem(data.outcomes[:100], data.conditions[:100], task.box, task.distance, starts)
made = {f"weight of {name}": weight.contiguous() for name, weight in network.state_dict().items()}
made["losses"] = torch.tensor([row[2:] for row in history], dtype=torch.float64)
for name, forward in (("direct", task), ("surrogate", network.double())):
    made[name] = solve(forward, problem, LevenbergMarquardt(), torch.Generator().manual_seed(1)).controls.contiguous()
save_file({**made, "outcomes": data.outcomes}, folder / "made.safetensors")
with aimback.report.canvas.new_figure(folder / "made.png", (2, 2)) as figure:
    figure.add_subplot().plot(made["losses"])
"""


_SEEN = """
import os, sys
from aimback.runtime.surroundings import start_clean
start_clean()
print(sys.flags, sorted(os.environ.items()))
"""


def environments(count: int, folder: Path) -> list[str]:
    """So many sets of one to six variables; those of which libraries see the same are tried once."""
    chance = random.Random(count)
    wanted = made(folder / "plain", {})
    if len(wanted) != hashlib.sha256().digest_size * 2:
        raise RuntimeError(wanted)
    found = {_run(_SEEN, {}): wanted}
    failed, used = [], set()
    for number in range(count):
        env = {name: HOSTILE[name] for name in chance.sample(sorted(HOSTILE), chance.randint(1, 6))}
        seen = _run(_SEEN, env)
        if seen not in found:
            found[seen] = made(folder / str(number), env)
        if found[seen] != wanted:
            failed.append(" ".join(env))
        used |= env.keys()
    return [
        f"{count} environments with 1 to 6 of {len(used)} variables, of which libraries see {len(found)} "
        f"different ones: {count - len(failed)} gave the same bytes of data, weights, losses, answers and a figure",
        *(f"not under {names}" for names in failed),
    ]


def made(folder: Path, env: Mapping[str, str]) -> str:
    """A hash of all that was made under these variables, or the last words of what ended it."""
    folder.mkdir(parents=True)
    complaint = _run(_PROGRAM, env, str(folder))
    if complaint:
        return complaint
    digest = hashlib.sha256()
    for file in ("made.safetensors", "made.png"):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()


def _run(program: str, env: Mapping[str, str], *arguments: str) -> str:
    """What a program prints, and the last that it complains of where it fails."""
    ours = {name: value for name, value in os.environ.items() if name not in HOSTILE}
    ours |= {"PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("src", "tests")), **env}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=ours, capture_output=True, text=True, check=False)
    return done.stdout + (done.stderr[-500:] if done.returncode != 0 else "")
