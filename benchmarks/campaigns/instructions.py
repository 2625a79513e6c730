"""Other instructions of the processor, as the variables that restrict it emulate them: do the numbers agree?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.campaigns.scratch import Scratch

_TASKS = ("cannon_drag", "robotic_arm")
INSTRUCTIONS = {
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    },
    "SSE4": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
    },
}


def instructions(count: int, folder: Path) -> list[str]:
    """The first so many of them, with the pipeline's own settings, up to the measures of every route."""
    plain = _ran(folder / "plain", {})
    rows = [f"as the processor offers them: {_solved(plain)}"]
    for name, env in list(INSTRUCTIONS.items())[:count]:
        other = _ran(folder / name, env)
        rows.append(
            f"{name} at most: examples differ by {_apart(plain, other, 'data/dataset.npz'):.1e} of their range, "
            f"targets by {_apart(plain, other, 'data/targets.npz'):.1e}; {_solved(other)}"
        )
    return rows


def _ran(folder: Path, env: Mapping[str, str]) -> Path:
    scratch = Scratch(folder, tasks=", ".join(_TASKS), sizes={})
    # This copy obeys them; the pipeline itself takes no instructions from its environment.
    scratch.edit("src/aimback/runtime/__init__.py", {r"^    start_clean\(\)$": "    pass"})
    scratch.run("dvc", "repro", "evaluate", env=env)
    return folder / "outputs"


def _apart(one: Path, other: Path, file: str) -> float:
    """The greatest difference between numbers of a file, in ranges of their column."""
    worst = 0.0
    for task in _TASKS:
        with np.load(one / task / file) as here, np.load(other / task / file) as there:
            for name in here.files:
                if here[name].dtype.kind == "f" and here[name].size:
                    spread = np.ptp(here[name], axis=0).max()
                    worst = max(worst, float(np.abs(here[name] - there[name]).max() / spread))
    return worst


def _solved(outputs: Path) -> str:
    shares = []
    for task in _TASKS:
        measures: dict[str, Any] = json.loads((outputs / task / "evaluate/metrics.json").read_text(encoding="utf-8"))
        told = (f"{route} {100 * of_route['solved_fraction']:.1f} %" for route, of_route in measures.items())
        shares.append(f"{task} solved: {', '.join(told)}")
    return "; ".join(shares)
