"""MLflow's own page in a real browser, opened from the link that `make ui` prints: are the routes side by side?"""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from chromium import launched, needs_chromium

from aimback.runtime.project import ROOT
from aimback.tracking import Run, flatten, open_store, publish

# mlflow, and what it brings, warns of its own deprecations.
pytestmark = [*needs_chromium, pytest.mark.slow, pytest.mark.filterwarnings("default")]

TASKS, SEEDS, ROUTES = ("cannon_drag", "sine_wave"), (0, 1), ("surrogate", "direct", "hybrid")
PATIENCE = 90_000  # ms, on a busy machine


def run(task, seed, route):
    curve = [(step, 10.0**-step) for step in range(8)]
    return Run(
        state=f"{task} {seed}",
        kind="route",
        task=task,
        route=route,
        params=flatten({"solver": {"starts": 8}, "seed": seed}),
        metrics={"solved_fraction": 0.9, "miss_median": 1e-3, "simulations": 10.0, "seconds_solve": 1.0},
        series={"loss": curve, "miss": curve},
        note="**the direct route wins**",
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store with runs of several tasks and seeds, and others of another kind."""
    folder = tmp_path_factory.mktemp("ui")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        store = open_store(folder)
        runs = [run(task, seed, route) for task in TASKS for seed in SEEDS for route in ROUTES]
        training = Run("apart", "training", "cannon_drag", "training", {"seed": "0"}, {"steps": 1.0}, {})
        claims = Run("apart", "diagnosis", "cannon_drag", "diagnosis", {"seed": "0"}, {"C1": 1.0}, {})
        done = publish(store, ["all"], lambda: [*runs, training, claims], folder / "marker.json")
    return store.uri, done


@pytest.fixture(scope="module")
def link(published):
    """What `make ui` prints; its server runs while the tests do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "aimback.workflow.ui", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": published[0], "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        # It is printed once the server answers.
        printed = next(filter(None, (re.search(r"http://\S+", line) for line in server.stdout)), None)
        assert printed, "no link was printed"
        yield printed[0]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.stdout.close()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser):
    requests = []
    window = browser.new_context(viewport={"width": 1500, "height": 1100})
    page = window.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: requests.append(request.url))
    yield page
    window.close()
    assert [url for url in requests if not re.match(r"(http://127\.0\.0\.1:|data:|blob:)", url)] == []


def test_the_printed_link_shows_what_was_published_last_without_the_claims(page, link):
    page.goto(link)
    for task in TASKS:
        for route in ROUTES:
            assert page.get_by_role("link", name=f"{task} · {route}").first.inner_text()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    assert page.get_by_text(f"{len(TASKS) * len(SEEDS) * len(ROUTES) + 1} matching runs").count() == 1
    assert page.get_by_text("cannon_drag · diagnosis").count() == 0
    # It is the view for trained models, with our sections.
    assert page.get_by_text("Model registry").count() == 1
    for section in ("Outcome", "Cost", "Training", "Side by side"):
        page.get_by_text(section, exact=True).first.wait_for()
    # The second chart overlays a curve a run.
    legend = page.locator(".js-plotly-plot").nth(1).locator(".scatterlayer .trace")
    legend.first.wait_for(state="attached")
    assert legend.count() >= len(ROUTES)


def test_the_compare_page_takes_several_tasks_and_seeds(page, link, published):
    _, done = published
    chosen = json.dumps(done.run_ids[: len(TASKS) * len(SEEDS) * len(ROUTES)])
    page.goto(f"{link.partition('#')[0]}#/compare-runs?runs={chosen}&experiments={json.dumps([done.experiment_id])}")
    page.locator(".js-plotly-plot").first.wait_for()
    text = page.locator("body").inner_text()
    for wanted in (*TASKS, *ROUTES, "seed", "solved_fraction"):
        assert wanted in text


def test_the_verdict_is_in_the_runs_description(page, link, published):
    _, done = published
    page.goto(f"{link.partition('#')[0]}#/experiments/{done.experiment_id}/runs/{done.run_ids[0]}")
    assert page.get_by_text("the direct route wins").first.inner_text()
