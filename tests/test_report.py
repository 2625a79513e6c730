"""The verdict follows from the numbers, whoever wins, and the page needs nothing but itself."""

import hashlib
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimback import report
from aimback.errors import UserError
from aimback.tasks.cannon_vacuum import CannonVacuum

PNG = b"\x89PNG\r\n\x1a\n"


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
        "status": {"solved": int(100 * solved), "missed": 100 - int(100 * solved), "invalid_input": 0},
        **changes,
    }


def meter(seconds, device="cpu"):
    return {"seconds": seconds, "peak_memory_bytes": 2**20, "device": device, "threads": 1}


METERS = {"generate": meter(1.0), "train": meter(9.0), "invert": meter(1.0), "optimise": meter(3.0)}


def result(surrogate, direct, meters=METERS, **changes):
    settings = {
        "name": "cannon_vacuum",
        "unit": "m",
        "tolerance": 0.01,
        "metrics": {"surrogate": surrogate, "direct": direct},
        "meters": meters,
        "unsolved": [],
        "figures": [],
    }
    return report.TaskResult(**(settings | changes))


DIRECT_WINS = result(metrics(0.5, 0.02, 4000), metrics(1.0, 1e-14, 9000))


def test_the_fixed_cost_is_repaid_when_both_have_cost_the_same():
    assert report.break_even_targets(10.0, 0.01, 0.03) == 500
    assert report.break_even_targets(10.0, 0.03, 0.03) == math.inf
    assert report.break_even_targets(10.0, 0.04, 0.03) == math.inf


@given(st.floats(0, 1e6), st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_from_break_even_on_the_surrogate_costs_no_more(fixed, surrogate, direct):
    targets = report.break_even_targets(fixed, surrogate, direct)
    if math.isinf(targets):
        assert surrogate >= direct
    else:
        slack = 1e-9 * (fixed + targets * direct)
        assert fixed + targets * surrogate <= targets * direct + slack
        assert targets == 0 or fixed + (targets - 1) * surrogate >= (targets - 1) * direct - slack


def test_who_solves_more_wins():
    assert report.winner(DIRECT_WINS) == "direct"
    said = report.verdict(DIRECT_WINS)
    assert "the direct route wins: it solves 100 % of 100 targets within 0.01 m, the surrogate route 50 %" in said
    assert "9,000 against 4,000 (2.2 times more)" in said  # it wins, and still costs more simulations
    assert "repays its fixed cost from 500 targets on" in said


def test_the_surrogate_may_win():
    better = result(metrics(1.0, 1e-3, 4000), metrics(0.9, 1e-9, 9000))
    assert report.winner(better) == "surrogate"
    assert "the surrogate route wins" in report.verdict(better)


def test_where_both_hit_the_cheaper_wins():
    both = metrics(1.0, 1e-3, 4000), metrics(1.0, 1e-9, 9000)
    assert report.winner(result(*both)) == "direct"
    cheap = METERS | {"optimise": meter(100.0)}
    assert report.winner(result(*both, cheap)) == "surrogate"
    alike = METERS | {"optimise": meter(11.5)}
    assert report.winner(result(*both, alike)) is None
    assert "a tie by the rule" in report.verdict(result(*both, alike))


def test_nobody_wins_where_nothing_is_solved():
    nothing = result(metrics(0.0, 3.0, 1), metrics(0.0, None, 1))
    assert report.winner(nothing) is None
    assert report.DASH in report.verdict(nothing)


def test_what_was_not_measured_is_a_dash_and_not_a_guess():
    unmeasured = result(
        metrics(1.0, 1e-3, 4000), metrics(1.0, 1e-9, 9000), {k: v for k, v in METERS.items() if k != "train"}
    )
    assert report.winner(unmeasured) is None
    assert "not timed" in report.verdict(unmeasured)
    rows = {row.label: row.cells for row in report.table(unmeasured)}
    assert rows["train [s]"] == [report.DASH, "0"]
    assert rows["break-even targets"][0] == report.DASH
    assert report.costs_of(unmeasured, "surrogate")["seconds_train"] is None


def test_costs_are_valid_json_and_never_is_said_in_words(tmp_path):
    never = result(metrics(1.0, 1e-3, 1), metrics(1.0, 1e-3, 1), METERS | {"optimise": meter(0.5, "cuda")})
    paths = {"page": tmp_path / "a.html", "markdown": tmp_path / "a.md", "costs": tmp_path / "a.json"}
    report.write_report([never], **paths)

    def refuse(constant):
        raise AssertionError(constant)

    costs = json.loads(paths["costs"].read_text(), parse_constant=refuse)["cannon_vacuum"]
    assert costs["surrogate"]["break_even_targets"] is None
    assert costs["surrogate"]["break_even"] == "never"
    assert costs["direct"]["device"] == "cuda"
    assert report.route_metrics(never, "surrogate")["break_even_targets"] == math.inf


def test_both_routes_have_the_same_metrics_but_for_break_even():
    surrogate, direct = (report.route_metrics(DIRECT_WINS, route) for route in report.ROUTES)
    assert set(surrogate) - set(direct) == {"break_even_targets"}
    assert direct["status_solved"] == 100
    assert direct["seconds_solve"] == 3.0
    assert direct["seconds_train"] == 0.0


def files(folder, answers, figures=()):
    for name in figures:
        (folder / f"{name}.png").write_bytes(PNG)
    (folder / "metrics.json").write_text(json.dumps(DIRECT_WINS.metrics))
    (folder / "answers.csv").write_text(answers, encoding="utf-8")
    (folder / "meters").mkdir()
    (folder / "weights").write_bytes(b"new")
    for stage, made in (("train", b"new"), ("invert", b"restored since")):
        of = {"result": "weights", "result_sha256": hashlib.sha256(made).hexdigest()}
        (folder / "meters" / f"{stage}.json").write_text(json.dumps(meter(9.0) | of))
    places = {"metrics": "metrics.json", "answers": "answers.csv", "meters": "meters"}
    return {name: folder / place for name, place in places.items()} | {"figures": folder, "results": folder}


HOSTILE = "line 3: '<script>alert(1)</script>|[x](y)' is no number"
ANSWERS = (
    "route,target,line,status,miss,problem\n"
    "surrogate,0,2,missed,0.5,\n"
    f'surrogate,1,3,invalid_input,,"{HOSTILE}"\n'
    "surrogate,2,,solved,0.001,\n"
    "direct,0,2,solved,1e-15,\n"
    f'direct,1,3,invalid_input,,"{HOSTILE}"\n'
    "direct,2,,no_event,inf,\n"
)


def test_what_is_not_solved_is_listed_with_its_line(tmp_path):
    read = report.read_result("cannon_vacuum", CannonVacuum(), **files(tmp_path, ANSWERS, ["loss", "surfaces"]))
    assert [(one.row, one.route, one.status) for one in read.unsolved] == [
        ("line 3", "both", "invalid_input"),
        ("drawn 3", "direct", "no_event"),
        ("line 2", "surrogate", "missed"),
    ]
    assert [file.stem for file in read.figures] == ["surfaces", "loss"]
    assert set(read.meters) == {"train"}, "the meter of a result that is no longer there says nothing"


def written(tmp_path, some):
    page, markdown = tmp_path / "report" / "index.html", tmp_path / "report" / "report.md"
    report.write_report(some, page=page, markdown=markdown, costs=tmp_path / "report" / "costs.json")
    return page.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


def test_the_page_needs_no_network_and_runs_nothing_of_a_users_file(tmp_path):
    read = report.read_result("cannon_vacuum", CannonVacuum(), **files(tmp_path, ANSWERS, ["loss"]))
    page, markdown = written(tmp_path, [read])
    assert "<script>" not in page
    assert "<script>" not in markdown
    assert "&lt;script&gt;" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page
    assert "](../loss.png)" in markdown
    assert r"\|\[x\](y)" in markdown


def test_at_most_twenty_are_listed(tmp_path):
    many = [report.Unsolved(f"line {i}", "direct", "stalled", "miss 1") for i in range(33)]
    page, markdown = written(tmp_path, [result(*DIRECT_WINS.metrics.values(), unsolved=many)])
    assert "line 19" in page
    assert "line 20" not in page
    assert "and 13 more" in page
    assert "and 13 more" in markdown


def test_markdown_tables_are_whole(tmp_path):
    _, markdown = written(tmp_path, [DIRECT_WINS, result(*DIRECT_WINS.metrics.values(), name="other")])
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(blocks) == 5  # the summary, and two a task
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert report.note(DIRECT_WINS).count("| solved |") == 1


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    paths = files(tmp_path, ANSWERS)
    paths["metrics"].write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json"):
        report.read_result("cannon_vacuum", CannonVacuum(), **paths)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "—"),
        (0.0, "0"),
        (12, "12"),
        (1234567, "1,234,567"),
        (0.012345, "0.0123"),
        (1.5e-15, "1.5e-15"),
        (math.inf, "∞"),
    ],
)
def test_numbers_keep_three_digits(value, shown):
    assert report.number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(1.0, "100 %"), (0.99999, "99.99 %"), (0.0, "0 %"), (1e-9, "0.01 %")])
def test_only_all_is_a_hundred_per_cent(value, shown):
    assert report.percent(value) == shown
