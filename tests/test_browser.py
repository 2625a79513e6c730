"""The page in a real browser: it asks nobody for anything, draws its figures, and fits a dark room and a phone."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from chromium import launched, needs_chromium
from made_up import CLAIMS, METERS, ROUTES, meter, metrics, pictures, result

from aimback.core.box import Axis
from aimback.report import interactive, stills, views
from aimback.report.page import write_report
from aimback.report.scene import Dial, Mark, Scene
from aimback.report.sweep import FRAMES, Side, Sweep, plot_sweep

pytestmark = needs_chromium
# Of every piece of text its contrast and what it says.
CONTRASTS = """(() => {
  const light = (rgb) => rgb.map((part) => (part /= 255) <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const paper = (one) => {
    const found = numbers(getComputedStyle(one).backgroundColor);
    return found.length === 4 && found[3] === 0 && one.parentElement ? paper(one.parentElement) : found.slice(0, 3);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const pairs = [];
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const one = text.parentElement;
    if (!text.data.trim() || !one.checkVisibility() || one.closest("script, style, .js-plotly-plot, option")) continue;
    const both = [light(numbers(getComputedStyle(one).color).slice(0, 3)), light(paper(one))].sort((a, b) => b - a);
    pairs.push([(both[0] + 0.05) / (both[1] + 0.05), text.data.trim()]);
  }
  return pairs;
})()"""
TASKS = ("first", "second", "third", "fourth")  # one three-dimensional figure more than the page keeps

MARKS = [Mark("surrogate", 20.0, 2.0), Mark("direct", 50.0, 5.0), Mark("hybrid", 52.0, 5.2)]
SCENE = Scene(
    [Dial("speed", "m/s", 0, 10, MARKS)],
    3,
    [("wind", 1.5, "m/s")],
    [Dial("distance", "m", 4.9, 5.1, [Mark("target", 50.0, 5.0), *MARKS], (40.0, 60.0))],
    0,
    {"surrogate": (0.02, False), "direct": (1e-14, True), "hybrid": (1e-9, True)},
)


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
        result(
            *numbers,
            metrics(0.9, 1e-9, 10),
            name=name,
            claims=CLAIMS,
            figures=figures,
            panels=panels,
            scene=SCENE,
            prepared={"surrogate": 4000, "direct": 0, "hybrid": 0},
            misses={"surrogate": [0.02, 0.001] * 50, "direct": [1e-14] * 100, "hybrid": [1e-9] * 90},
        )
        for name in TASKS
    ]
    write_report(some, page=folder / "index.html", markdown=folder / "report.md", costs=folder / "costs.json")
    return folder / "index.html"


def draw(folder: Path):
    axes = [Axis("speed", "m/s", 0, 10), Axis("angle", "rad", 0, 1.5)]
    x, y = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21))
    path = np.linspace([[1.0, 0.2], [9.0, 1.2]], [[5.0, 0.7], [5.0, 0.8]], 5)
    surfaces = [
        views.Surface("the simulator itself", "direct", x**2 + y**4, {"direct": path, "hybrid": path[2:]}),
        views.Surface("through the network", "surrogate", x**2 + 0.9 * y**4, {"surrogate": path}),
    ]
    landscape = views.Landscape(axes, surfaces, "target 1 m", "loss")
    made = pictures(2)
    content = {
        "surfaces": (interactive.draw_surfaces, landscape),
        "basins": (interactive.draw_basins, made["C5"], axes),
        "iterations": (interactive.draw_iterations, made["C2"]),
        "conditioning": (interactive.draw_conditioning, made["C6"]),
    }
    figures, panels = [folder / "sweep.gif"], {"sweep": folder / "sweep.json"}
    sweep = view_sweep()
    plot_sweep(figures[0], "made up", sweep)
    panels["sweep"].write_text(interactive.to_json(interactive.draw_sweep(sweep), "The target moves."))
    for name, (live, *arrays) in content.items():
        figures.append(folder / f"{name}.png")
        stills.plot_panels(figures[-1], "made up", live(*arrays))
        panels[name] = folder / f"{name}.json"
        panels[name].write_text(interactive.to_json(live(*arrays)))
    return figures, panels


def view_sweep():
    random = np.random.default_rng(0)
    sides = [
        Side(
            title,
            route,
            random.random((FRAMES, 9, 9)) + 0.1,
            random.random((4, FRAMES, 3, 2)),
            random.random(FRAMES),
            random.random(FRAMES),
            random.random(FRAMES),
            random.random((FRAMES, 5, 2)),
        )
        for title, route in (("the simulator itself", "direct"), ("through the network", "surrogate"))
    ]
    captions = [f"target distance {distance:.2f} m" for distance in np.linspace(1, 9, FRAMES + 1)[1:]]
    captions[FRAMES // 2] = "target distance 5.00 m"
    axes = Axis("speed", "m/s", 0, 1), Axis("angle", "rad", 0, 1)
    goals = random.random((FRAMES, 2))
    return Sweep(axes, sides, captions, "m", 0.01, Axis("distance", "m", -0.01, 0.01), goals, "loss")


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
    page.locator("#first details.further > summary").first.click()
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


@pytest.mark.parametrize("width", [360, *(pytest.param(width, marks=pytest.mark.slow) for width in (768, 1200, 1920))])
def test_the_page_does_not_scroll_sideways(visit, width):
    page = visit(viewport={"width": width, "height": 800}, has_touch=width < 1000)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    for figure in ("surfaces", "basins", "iterations", "conditioning"):
        look(page, "first", figure)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_screen_reader_finds_everything_in_its_order_and_by_name(visit):
    page = visit()
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(heading => Number(heading.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    # Whatever can be scrolled or typed into can be reached by keys and has a name.
    assert page.evaluate("[...document.querySelectorAll('[tabindex]')].every(one => one.getAttribute('aria-label'))")
    assert page.evaluate("[...document.querySelectorAll('input, select')].every(one => one.labels.length === 1)")
    assert page.evaluate("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0


def test_images_are_whole_and_links_lead_somewhere(visit):
    page = visit()
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)")
    links = "[...document.querySelectorAll(`a[href^='#']`)].map(a => a.getAttribute('href'))"
    assert page.evaluate(f"{links}.filter(link => !document.querySelector(link)).length") == 0
    page.locator("nav a", has_text="third").click()
    assert page.evaluate("location.hash") == "#third"
    top = page.evaluate("document.querySelector('#third h2').getBoundingClientRect().top")
    bar = page.evaluate("document.querySelector('nav').getBoundingClientRect().bottom")
    assert bar <= top < 300


def test_the_rule_of_a_claim_is_there_on_demand(visit):
    page = visit()
    rule = page.locator("#first-C1 details p")
    assert rule.is_hidden()
    page.locator("a[href='#first-C1']").click()  # which unfolds the claims
    page.locator("#first-C1 summary").click()
    assert "supported where" in rule.inner_text()


def test_a_slider_moves_the_target_in_all_panels(visit):
    page = visit()
    place = look(page, "first", "sweep")
    slider, said = place.locator("input[type=range]"), place.locator("output")
    assert said.inner_text() == "target distance 5.00 m"
    shown = "JSON.stringify(document.querySelectorAll('#first-sweep .js-plotly-plot')[1].data[1].x)"
    before = page.evaluate(shown)
    slider.focus()
    page.keyboard.press("End")
    assert said.inner_text() == "target distance 9.00 m"
    assert slider.get_attribute("aria-valuetext") == "target distance 9.00 m"
    assert page.evaluate(shown) != before


def test_the_calculator_follows_what_is_typed(visit):
    page = visit()
    form, said = page.locator("#yours form"), page.locator("#yours .choice")
    # Of the simulator in seconds: direct 100 targets x 90, each for two with its derivatives; hybrid 100 x 0.1 for two,
    # and 1 s of training; surrogate 4000, and 9 s of training and 10 ms a target.
    assert said.inner_text() == (
        "Choose direct: it solves 100 % in 5 h. "
        "hybrid would solve 90 %, in 21 s. surrogate would solve 50 %, in 66.8 min."
    )
    form.locator("[name=seconds]").fill("3600")
    form.locator("[name=derivatives]").uncheck()
    form.locator("[name=controls]").fill("50")
    # 100 x 90 x 51 hours.
    assert said.inner_text().startswith("Choose direct: it solves 100 % in 52.4 years.")
    form.locator("[name=tolerance]").select_option(label="10 × 0.01 m")
    # Within ten times the tolerance all that the network misses are hits, and then it is the cheaper one.
    assert said.inner_text().startswith("Choose surrogate: it solves 100 % in 167 days.")
    form.locator("[name=seconds]").fill("-1")
    assert said.inner_text() == "Each of these must be a number above 0."
    page.locator("#yours .curve .scatterlayer path.js-line").first.wait_for(state="attached")
    assert page.locator("#yours .curve .scatterlayer path.js-line").count() == len(ROUTES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_paper(visit, scheme):
    """WCAG 2.1, 1.4.3: at least 4.5, by the formula of relative luminance there."""
    page = visit(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    pairs = page.evaluate(CONTRASTS)
    assert len(pairs) > 100
    assert [pair for pair in pairs if pair[0] < 4.5] == []


@pytest.mark.slow
def test_print_and_a_browser_without_scripts_show_the_still_figures(visit):
    page = visit()
    look(page, "first", "basins")
    page.emulate_media(media="print")
    assert page.locator("#first-basins .still").is_visible()
    assert page.locator("#first-basins .live").is_hidden()
    plain = visit(java_script_enabled=False)
    assert plain.locator("#first-basins .still").is_visible()
