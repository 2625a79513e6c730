"""The Neural-Adjoint benchmark as a preset of the ordinary pipeline: small, from nothing to MLflow."""

import json
from pathlib import Path

import pytest
from conftest import Repository

ROUTES = ["neural_adjoint", "no_boundary", "hard_box", "second_order", "direct", "cma_es"]
SMALL = (
    *("task=[sine_wave]", "data.examples=300", "data.targets=5", "starts.number=12", "optimise.cma_es.starts.number=2"),
    *(f"invert.{route}.solver.max_steps=20" for route in ROUTES[:3]),
    *("optimise.cma_es.solver.max_steps=20", "train.neural_adjoint.network.hidden_width=16"),
    *("train.neural_adjoint.training.max_epochs=3", "train.second_order.network.hidden_width=16"),
    "train.second_order.training.max_epochs=20",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # mlflow, and what it brings, warns of its own deprecations
def test_every_route_is_played_and_stands_beside_the_published_rows(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "copy", git=False)
    asked = ("aimback.workflow.run", "preset=neural_adjoint", *SMALL)
    done = repository.run(*asked).ok()
    trained = [stage for stage in done.stages() if stage.startswith(("train", "amortise", "diagnose"))]
    assert sorted(trained) == ["train@sine_wave-neural_adjoint", "train@sine_wave-second_order"]
    outputs = repository.root / "outputs"
    metrics = json.loads((outputs / "sine_wave" / "evaluate" / "metrics.json").read_text())
    assert list(metrics) == ROUTES
    assert metrics["direct"]["r_1"] < 1e-12
    assert metrics["direct"]["solved_fraction"] == 1.0
    assert metrics["direct"]["training_examples"] == 0 == metrics["cma_es"]["gradients"]
    assert metrics["neural_adjoint"]["training_examples"] == 300
    assert metrics["neural_adjoint"]["outside_fraction"] <= metrics["no_boundary"]["outside_fraction"]
    assert metrics["hard_box"]["outside_fraction"] == 0 == metrics["second_order"]["outside_fraction"]
    assert [metrics[route]["starts"] for route in ROUTES] == [12, 12, 12, 12, 12, 2]
    page = (outputs / "report" / "report.md").read_text()
    assert "| NA, published | 0.0011 | 1.7 × 10⁻⁶ |" in page
    assert "0.0058" not in page  # of ballistics, which is not played here
    assert "MLflow: 8 runs written" in done.printed
    again = repository.run(*asked).ok()
    assert again.stages() == ["publish"] and "nothing to publish" in again.printed
