"""Results, claims and their arrays for tests of the report: made up, so that what must be shown is known."""

import json

import numpy as np

from aimback.data.archive import write_arrays
from aimback.diagnose.claim import Claim, Estimate
from aimback.report.evidence import PICTURES, declare_arrays
from aimback.report.result import Route, TaskResult
from aimback.tasks.bouncing_ball import BouncingBall

ROUTES = {
    "surrogate": Route(
        "surrogate", "invert-surrogate", {"seconds_generate": "generate", "seconds_train": "train-surrogate"}
    ),
    "direct": Route("direct", "optimise-direct", {}),
    "hybrid": Route("hybrid", "refine-hybrid", {"seconds_train": "amortise-hybrid"}),
}


def metrics(solved, miss, simulations, **changes):
    numbers = {f"{kind}_{part}": miss for kind in ("miss", "believed_miss") for part in ("median", "p90", "max")}
    return {
        **numbers,
        "solved_fraction": solved,
        "arrived_fraction": 1.0,
        "steps_to_tolerance_median": 3.0,
        "steps_to_tolerance_p90": None,
        "simulations": simulations,
        "gradients": 10,
        "training_examples": 0,
        "targets": 100,
        "reachable_targets": 100,
        "status": {"solved": int(100 * solved), "missed": 100 - int(100 * solved), "invalid_input": 0},
        **changes,
    }


def meter(seconds, device="cpu"):
    return {"seconds": seconds, "peak_memory_bytes": 2**20, "device": device, "threads": 1}


METERS = {
    "generate": meter(1.0),
    "train-surrogate": meter(9.0),
    "invert-surrogate": meter(1.0),
    "optimise-direct": meter(3.0),
}


def result(surrogate, direct, meters=METERS, hybrid=None, **changes):
    """A result of the routes that are given."""
    by_route = {"surrogate": surrogate, "direct": direct} | ({} if hybrid is None else {"hybrid": hybrid})
    settings = {
        "name": "cannon_vacuum",
        "routes": {route: ROUTES[route] for route in by_route},
        "unit": "m",
        "tolerance": 0.01,
        "metrics": by_route,
        "meters": meters,
        "unsolved": [],
        "claims": [],
        "figures": [],
        "panels": {},
    }
    return TaskResult(**(settings | changes))


def claim(key="C2", value=1.3, seeds=(1.3, 1.25, 1.4)):
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return Claim(
        key=key,
        says=f"{key} is so",
        question=f"Is {key} so?",
        unit="times as many steps",
        bound=1.0,
        measure="steps, one over the other",
        number=Estimate(value, low, high, tuple(seeds)),
        rule="supported where the interval lies above 1",
        because=f"It is {value} over 32 targets.",
        details={"arrived": 0.9},
    )


CLAIMS = [claim("C1"), claim("C2", 0.8, (0.8, 0.9)), claim("C3", None, (None,))]


def write_claims(folder, claims=CLAIMS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({one.key: one.metrics() for one in claims}))
    (folder / "claims.json").write_text(json.dumps({one.key: one.texts() for one in claims}))


def pictures(controls, points=7):
    """The arrays of every claim's figure, by key of the claim, with gaps as a real task may have them."""
    random = np.random.default_rng(0)
    grid = (points,) * min(controls, 2)
    axes = {"axis_x": np.linspace(0, 10, points)} | ({"axis_y": np.linspace(0, 1.5, points)} if controls > 1 else {})
    basin = random.random(grid)
    basin.flat[0] = np.nan
    steps = np.arange(21)
    eigenvalues = random.normal(size=(30, controls))
    eigenvalues[0] = np.nan
    condition = 10 ** random.gamma(2, 0.3, 40)
    condition[:2] = np.inf, np.nan
    return {
        "C1": {"believed": np.array([0.0, 1e-12, np.nan]), "miss": np.array([0.02, 1e-3, 1.0])},
        "C2": {
            "sizes": np.array([0.1, 1.0]),
            "hit_direct": np.array([0.5, 1.0]),
            "hit_surrogate": np.array([0.4, 0.9]),
            "curve_direct": 1 - 0.8**steps,
            "curve_surrogate": 0.9 - 0.9 * 0.9**steps,
        },
        "C5": {
            **axes,
            "direct": np.ones(grid),
            "surrogate": basin,
            "gradient_direct": basin,
            "gradient_surrogate": 0.5 * basin,
        },
        "C6": {
            "hessian_condition_direct": condition,
            "hessian_condition_surrogate": 2 * condition,
            "eigenvalues_direct": eigenvalues,
            "eigenvalues_surrogate": np.full((3, controls), np.nan),
        },
        "C7": {
            "scales": np.array([1e-6, 1e-4, 1e-2]),
            "relative_error": np.array([[1e-9, np.nan], [1e-8, 1e-7], [np.nan, np.inf]]),
            "cosine": np.array([1.0, 0.9, np.nan, -1.0]),
        },
        "C9": {
            "examples": np.array([1000.0, 1000.0, 4000.0, 4000.0]),
            "forward_error": np.array([0.08, 0.07, 0.01, 0.02]),
            "cosine": np.array([0.9, 0.95, 1.0, np.nan]),
            "miss": np.array([0.5, np.inf, 0.0, 0.02]),
        },
    }


def name_arrays(key, controls):
    """What the figure of a claim is drawn from; nothing where it has none."""
    return {name for figure, (of, _) in PICTURES.items() if of == key for name in declare_arrays(figure, controls)}


def write_pictures(folder, task):
    for key, arrays in pictures(len(task.box)).items():
        write_arrays(folder / f"{key}.npz", arrays, task)


def published_bounce(**changes):
    """As published; the configuration takes finer time steps, which tests have no use for."""
    return BouncingBall(**{"time_step": 0.002, "steps": 203} | changes)
