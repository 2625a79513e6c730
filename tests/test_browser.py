"""The page in a real browser: it asks nobody for anything, draws its figures, and fits a dark room and a phone."""

from pathlib import Path

import numpy as np
import pytest
from chromium import launched, needs_chromium
from made_up import CLAIMS, METERS, meter, metrics, pictures, result

from aimback.core.box import Axis
from aimback.report import interactive, stills, views
from aimback.report.page import write_report

pytestmark = needs_chromium
TASKS = ("first", "second", "third", "fourth")  # one three-dimensional figure more than the page keeps


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of made-up results of three routes, with figures of every kind."""
    folder = tmp_path_factory.mktemp("page")
    figures, panels = draw(folder)
    numbers = (
        metrics(0.5, 0.02, 4000),
        metrics(1.0, 1e-14, 9000),
        METERS | {"amortise-hybrid": meter(1), "refine-hybrid": meter(1)},
    )
    some = [
        result(*numbers, metrics(0.9, 1e-9, 10), name=name, claims=CLAIMS, figures=figures, panels=panels)
        for name in TASKS
    ]
    write_report(some, page=folder / "index.html", markdown=folder / "report.md", costs=folder / "costs.json")
    return folder / "index.html"


def draw(folder: Path):
    axes = [Axis("speed", "m/s", 0, 10), Axis("angle", "rad", 0, 1.5)]
    x, y = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21))
    path = np.linspace([[1.0, 0.2], [9.0, 1.2]], [[5.0, 0.7], [5.0, 0.8]], 5)
    surfaces = [
        views.Surface("the simulator itself", "direct", None, x**2 + y**4, {"direct": path, "hybrid": path[2:]}),
        views.Surface("through the network", "surrogate", None, x**2 + 0.9 * y**4, {"surrogate": path}),
    ]
    landscape = views.Landscape(axes, surfaces, "target 1 m", None, "loss")
    made = pictures(2)
    content = {
        "surfaces": (stills.plot_surfaces, interactive.draw_surfaces, landscape),
        "basins": (stills.plot_basins, interactive.draw_basins, made["C5"], axes),
        "iterations": (stills.plot_iterations, interactive.draw_iterations, made["C2"]),
        "conditioning": (stills.plot_conditioning, interactive.draw_conditioning, made["C6"]),
    }
    figures, panels = [], {}
    for name, (still, live, *arrays) in content.items():
        figures.append(folder / f"{name}.png")
        still(figures[-1], "made up", *arrays)
        panels[name] = folder / f"{name}.json"
        panels[name].write_text(interactive.to_json(live(*arrays)))
    return figures, panels


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def visit(browser, page_file):
    """Open the page in a window of its own; at the end nobody may have complained or asked for anything."""
    windows, complaints, requests = [], [], []

    def visit(**how):
        window = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | how))
        windows.append(window)
        page = window.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield visit
    for window in windows:
        window.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {page_file.as_uri()}


def look(page, task, figure):
    """Scroll a figure into view and wait until it is drawn."""
    place = page.locator(f"#{task}-{figure}")
    place.scroll_into_view_if_needed()
    place.locator(".js-plotly-plot .main-svg").first.wait_for(state="attached")
    return place


def until(page, condition):
    """Ask again and again: Playwright's own way of waiting evaluates text inside the page, which its policy forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def test_figures_are_drawn_when_they_come_into_view(visit):
    page = visit()
    assert page.locator(".is-live").count() < 5 * len(TASKS)
    for figure, panels in (("surfaces", 2), ("basins", 4), ("iterations", 2)):
        place = look(page, "first", figure)
        assert place.locator(".js-plotly-plot").count() == panels
        assert place.locator(".still").is_hidden()
    assert page.locator("#first-iterations path.js-line").count() == 4


@pytest.mark.slow
def test_the_surfaces_are_three_dimensional_and_turn_together(visit):
    page = visit()
    place = look(page, "first", "surfaces")
    assert place.locator("canvas").count() >= 2
    plots = "document.querySelectorAll('#first-surfaces .js-plotly-plot')"
    page.evaluate(f"Plotly.relayout({plots}[0], {{'scene.camera': {{eye: {{x: 2, y: 0.5, z: 0.5}}}}}})")
    until(page, f"Math.abs({plots}[1]._fullLayout.scene.camera.eye.x - 2) < 1e-6")
    # Not an empty canvas: many shades.
    shades = page.evaluate(
        "Plotly.toImage(document.querySelector('#first-surfaces .js-plotly-plot'), {format: 'png', width: 300})"
        ".then(url => url.length)"
    )
    assert shades > 10_000
    assert place.locator("p").all_inner_texts()[0] == "the simulator itself; target 1 m"


@pytest.mark.slow
def test_only_a_few_three_dimensional_figures_live_at_once(visit):
    page = visit()
    for task in TASKS:
        look(page, task, "surfaces")
    assert page.locator("figure[data-webgl].is-live").count() == 3
    assert page.locator("#first-surfaces .still").is_visible()
    look(page, "first", "surfaces")  # and comes back


def test_folded_figures_are_drawn_when_unfolded(visit):
    page = visit()
    assert page.locator("#first-conditioning.is-live").count() == 0
    page.locator("#first details.further > summary").click()
    look(page, "first", "conditioning")


def colours(page):
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    line = page.evaluate("document.querySelector('#first-iterations path.js-line').style.stroke")
    text = page.evaluate("document.querySelector('#first-iterations .xtick text').style.fill")
    return body, line, text


def test_figures_follow_the_theme_at_once(visit):
    page = visit(color_scheme="light")
    look(page, "first", "iterations")
    light = colours(page)
    page.emulate_media(color_scheme="dark")
    until(page, f"getComputedStyle(document.body).backgroundColor !== '{light[0]}'")
    look(page, "first", "iterations")
    dark = colours(page)
    assert all(one != other for one, other in zip(light, dark, strict=True))


@pytest.mark.parametrize("width", [360, *(pytest.param(width, marks=pytest.mark.slow) for width in (420, 1200))])
def test_the_page_does_not_scroll_sideways(visit, width):
    page = visit(viewport={"width": width, "height": 800}, has_touch=width < 1000)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    for figure in ("surfaces", "basins", "iterations", "conditioning"):
        look(page, "first", figure)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_images_are_whole_and_links_lead_somewhere(visit):
    page = visit()
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)")
    dead = "[...document.querySelectorAll('a[href]')].filter(a => !document.querySelector(a.getAttribute('href')))"
    assert page.evaluate(f"{dead}.length") == 0
    page.locator("nav a", has_text="third").click()
    assert page.evaluate("location.hash") == "#third"
    top = page.evaluate("document.querySelector('#third h2').getBoundingClientRect().top")
    bar = page.evaluate("document.querySelector('nav').getBoundingClientRect().bottom")
    assert bar <= top < 300


def test_the_rule_of_a_claim_is_there_on_demand(visit):
    page = visit()
    rule = page.locator("#first-C1 details p")
    assert rule.is_hidden()
    page.locator("#first-C1 summary").click()
    assert "holds where" in rule.inner_text()


@pytest.mark.slow
def test_print_and_a_browser_without_scripts_show_the_still_figures(visit):
    page = visit()
    look(page, "first", "basins")
    page.emulate_media(media="print")
    assert page.locator("#first-basins .still").is_visible()
    assert page.locator("#first-basins .live").is_hidden()
    plain = visit(java_script_enabled=False)
    assert plain.locator("#first-basins .still").is_visible()
