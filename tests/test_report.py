"""The verdict follows from the numbers, whoever wins, and the page needs nothing but itself."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import CLAIMS, METERS, ROUTES, claim, meter, metrics, result, write_claims

from aimback.core.errors import UserError
from aimback.report.calculator import list_demands
from aimback.report.captions import KINDS
from aimback.report.costs import break_even_targets, find_break_even, list_costs, list_metrics
from aimback.report.figures import list_figures
from aimback.report.page import note, write_report
from aimback.report.provenance import Provenance
from aimback.report.published import parse_published, read_published
from aimback.report.result import Unsolved, read_result
from aimback.report.rows import findings, interval, over_seeds, place_spread, summary, table
from aimback.report.text import DASH, factor, join_names, number, percent
from aimback.report.verdict import advise_starts, lead, name_rows, ranking, verdict, winner
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum

TWO = {route: ROUTES[route] for route in ("surrogate", "direct")}
PNG = b"\x89PNG\r\n\x1a\n"


def direct_wins():
    return result(metrics(0.5, 0.02, 4000), metrics(1.0, 1e-14, 9000))


def test_the_fixed_cost_is_repaid_when_both_have_cost_the_same():
    assert break_even_targets(10.0, 0.01, 0.03) == 500
    assert break_even_targets(10.0, 0.03, 0.03) == math.inf
    assert break_even_targets(10.0, 0.04, 0.03) == math.inf


@given(st.floats(0, 1e6), st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_from_break_even_on_the_surrogate_costs_no_more(fixed, surrogate, direct):
    targets = break_even_targets(fixed, surrogate, direct)
    if math.isinf(targets):
        assert surrogate >= direct
    else:
        slack = 1e-9 * (fixed + targets * direct) + 1e-300
        assert fixed + targets * surrogate <= targets * direct + slack
        assert targets == 0 or fixed + (targets - 1) * surrogate >= (targets - 1) * direct - slack


class TestTwoRoutes:
    def test_who_solves_more_wins(self):
        assert winner(direct_wins()) == "direct"
        said = verdict(direct_wins())
        assert "Choose direct: it solves 50 % more of the targets than surrogate, the next best." in said
        assert "Simulations: direct 9,000 and surrogate 4,000." in said  # it wins, and still costs more simulations
        assert "Surrogate solves fewer, however many targets there are." in said
        assert "A target takes direct 30 ms and surrogate 10 ms." in said
        assert lead(direct_wins()) == "50 % more targets solved than surrogate"

    def test_the_surrogate_may_win(self):
        better = result(metrics(1.0, 1e-3, 4000), metrics(0.9, 1e-9, 9000))
        assert winner(better) == "surrogate"
        assert "Choose surrogate: it solves 10 % more of the targets than direct, the next best." in verdict(better)

    def test_where_both_hit_the_cheaper_wins(self):
        both = metrics(1.0, 1e-3, 4000), metrics(1.0, 1e-9, 9000)
        assert winner(result(*both)) == "direct"
        assert lead(result(*both)) == "3.7 times faster in all than surrogate"
        cheap = METERS | {"optimise-direct": meter(100.0)}
        assert winner(result(*both, cheap)) == "surrogate"
        alike = METERS | {"optimise-direct": meter(11.5)}
        assert winner(result(*both, alike)) is None
        assert "A tie by the rule: surrogate and direct hit equally often" in verdict(result(*both, alike))

    def test_nobody_wins_where_nothing_is_solved(self):
        nothing = result(metrics(0.0, 3.0, 1), metrics(0.0, None, 1))
        assert winner(nothing) is None
        assert DASH in verdict(nothing)

    def test_what_was_not_measured_is_a_dash_and_not_a_guess(self):
        unmeasured = result(
            metrics(1.0, 1e-3, 4000),
            metrics(1.0, 1e-9, 9000),
            {k: v for k, v in METERS.items() if k != "train-surrogate"},
        )
        assert winner(unmeasured) is None
        assert "not timed" in verdict(unmeasured)
        rows = {row.label: row.cells for row in table(unmeasured)}
        assert rows["train [s]"] == [DASH, "0"]
        assert rows["break-even targets"] == [DASH, DASH]
        assert list_costs(unmeasured, "surrogate")["seconds_train"] is None

    def test_both_routes_have_the_same_metrics_but_for_break_even(self):
        surrogate, direct = (list_metrics(direct_wins(), route) for route in TWO)
        assert set(surrogate) - set(direct) == {"break_even_targets"}
        assert direct["status_solved"] == 100
        assert direct["seconds_solve"] == 3.0
        assert direct["seconds_train"] == 0.0


THREE_METERS = METERS | {"amortise-hybrid": meter(4.0), "refine-hybrid": meter(1.0)}


class TestMoreStarts:
    def said(self, *shares, targets=100, number=64):
        growth = {str(number >> len(shares) - 1 - place): share for place, share in enumerate(shares)}
        mine = metrics(shares[-1], 1e-3, 10, reachable_targets=targets, solved_by_starts=growth)
        return advise_starts(result(metrics(0.0, 2.0, 10, reachable_targets=targets), mine))

    def test_where_each_doubling_brings_as_much_the_next_one_is_worth_a_word(self):
        assert self.said(0.2, 0.28, 0.36, 0.45) == [
            "More starts would likely help direct: it solves 28 %, 36 % and 45 % with 16, 32 and 64 of them.",
            "With starts.number=128 it would solve perhaps 53 %.",
        ]
        found = result(metrics(0.0, 2.0, 1), metrics(0.45, 1, 1, solved_by_starts={"1": 0.2, "2": 0.3, "4": 0.45}))
        assert verdict(found).splitlines()[-2].startswith("More starts would likely help direct: ")

    @pytest.mark.parametrize(
        ("shares", "targets"),
        [
            ((0.9, 1.0, 1.0), 100),  # nothing is left to solve
            ((0.5, 0.6, 0.6), 100),  # the last doubling has brought nothing
            ((0.2, 0.6, 0.62), 100),  # it has brought so little that the next one brings less than can be told
            ((0.1, 0.3, 0.5), 10),  # two targets may be chance
            ((0.3, 0.5), 100),  # a trend takes three
        ],
    )
    def test_else_nothing_is_said(self, shares, targets):
        assert self.said(*shares, targets=targets) == []

    def test_a_guess_never_solves_more_than_there_are(self):
        _, line = self.said(0.1, 0.2, 0.6)
        assert line.endswith("perhaps 80 %.")


class TestThreeRoutes:
    def all(self, surrogate, direct, hybrid, meters=THREE_METERS):
        shares = surrogate, direct, hybrid
        one, other, third = (metrics(share, miss, 1000) for share, miss in zip(shares, (0.02, 1e-9, 1e-8), strict=True))
        return result(one, other, meters, third)

    def test_the_winner_is_ahead_of_all_others(self):
        assert winner(self.all(0.5, 0.9, 1.0)) == "hybrid"
        assert ranking(self.all(0.5, 0.9, 1.0)) == ["hybrid", "direct", "surrogate"]
        assert winner(self.all(1.0, 0.9, 0.98)) == "surrogate"
        assert lead(self.all(0.5, 0.9, 1.0)) == "10 % more targets solved than direct"

    def test_time_decides_only_among_those_that_hit_equally_often(self):
        # The surrogate route takes 11 s, the direct one 3 s, the hybrid one 5 s.
        assert winner(self.all(0.5, 1.0, 0.995)) == "direct"
        assert ranking(self.all(0.5, 1.0, 0.995)) == ["direct", "hybrid", "surrogate"]
        slow = THREE_METERS | {"optimise-direct": meter(20.0)}
        assert winner(self.all(1.0, 1.0, 1.0, slow)) == "hybrid"
        assert ranking(self.all(1.0, 1.0, 1.0, slow)) == ["hybrid", "surrogate", "direct"]
        # A route that misses more than the others may be untimed without leaving the rest undecided.
        untimed = {name: value for name, value in THREE_METERS.items() if name != "invert-surrogate"}
        assert winner(self.all(0.5, 1.0, 1.0, untimed)) == "direct"
        assert winner(self.all(1.0, 1.0, 1.0, untimed)) is None

    def test_a_tie_of_the_front_is_a_tie(self):
        alike = THREE_METERS | {"optimise-direct": meter(5.5)}
        assert winner(self.all(0.5, 1.0, 1.0, alike)) is None
        said = verdict(self.all(0.5, 1.0, 1.0, alike))
        assert "A tie by the rule: direct and hybrid hit equally often, and none is 1.2 times faster." in said
        assert lead(self.all(0.5, 1.0, 1.0, alike)) == "within the margins"

    def test_the_sentence_names_everybody(self):
        assert verdict(self.all(0.5, 0.9, 1.0)).splitlines() == [
            "cannon_vacuum: Choose hybrid: it solves 10 % more of the targets than direct, the next best.",
            "Solved of 100 targets within 0.01 m: hybrid 100 %, direct 90 % and surrogate 50 %.",
            "The median miss: hybrid 1 × 10⁻⁸ m, direct 1 × 10⁻⁹ m and surrogate 0.02 m.",
            "A target takes hybrid 10 ms, direct 30 ms and surrogate 10 ms.",
            "Paid once, before the first target: surrogate 10 s and hybrid 4 s.",
            "Simulations: hybrid 1,000, direct 1,000 and surrogate 1,000.",
            "Surrogate solves fewer, however many targets there are.",
            "Hybrid is cheaper from about 200 targets on: what was paid before is repaid.",
        ]

    def test_every_route_with_fixed_stages_breaks_even(self):
        found = self.all(1.0, 1.0, 1.0)
        assert find_break_even(found, "surrogate") == 500
        assert find_break_even(found, "hybrid") == 200  # 4 s of training, and 20 ms less a target
        assert find_break_even(found, "direct") is None
        assert list_metrics(found, "hybrid")["break_even_targets"] == 200
        assert "break_even_targets" not in list_metrics(found, "direct")
        assert list_costs(found, "hybrid")["seconds_generate"] == 0.0
        never = self.all(1.0, 1.0, 1.0, THREE_METERS | {"refine-hybrid": meter(3.0)})
        assert list_costs(never, "hybrid")["break_even"] == "never"

    def test_tables_have_a_column_a_route(self):
        found = self.all(0.5, 0.9, 1.0)
        assert {len(row.cells) for row in table(found)} == {3}
        (row,) = summary([found])
        assert row.cells == [
            *("hybrid", "10 % more targets solved than direct"),
            *("50 %", "90 %", "100 %"),
            *("0.02 m", "1 × 10⁻⁹ m", "1 × 10⁻⁸ m"),
            *("never", "200"),
        ]

    def test_all_three_are_on_the_page(self, tmp_path):
        page, markdown = written(tmp_path, [self.all(0.5, 0.9, 1.0)])
        assert page.count('class="hybrid">hybrid</th>') == 3  # in the answer, and in two tables of the task
        assert "| solved, of these | 50 % | 90 % | 100 % |" in markdown

    def test_several_tasks_have_a_table_of_their_own(self, tmp_path):
        page, markdown = written(tmp_path, [self.all(0.5, 0.9, 1.0), self.all(0.5, 0.9, 1.0)])
        assert "Which route wins where" in page and "median miss, hybrid" in markdown

    @pytest.mark.parametrize(
        ("surrogate", "direct", "repaid"),
        [(0.926, 1.0, math.inf), (0.0, 0.0, math.inf), (0.995, 1.0, 500), (1.0, 0.9, 500), (None, None, math.inf)],
    )
    def test_only_who_solves_as_many_repays(self, surrogate, direct, repaid):
        found = result(metrics(surrogate or 0, 1, 1), metrics(direct or 0, 1, 1), THREE_METERS, metrics(1, 1, 1))
        if surrogate is None:  # no target can be solved at all
            for measured in found.metrics.values():
                measured |= {"solved_fraction": None}
        assert find_break_even(found, "surrogate") == repaid
        assert list_metrics(found, "surrogate")["break_even_targets"] == repaid
        assert list_costs(found, "surrogate")["break_even"] == ("never" if math.isinf(repaid) else "500")
        assert summary([found])[0].cells[-2] == ("never" if math.isinf(repaid) else "500")


def rows(*unsolved):
    """What is not solved: a line, its status, and by which route."""
    return [
        Unsolved(f"line {line}", route, status, f"line {line}: no number" if route == "all" else "miss 3")
        for line, status, route in unsolved
    ]


class TestUsersTargets:
    """Of seven rows four are invalid and two out of reach; the direct route solves the last, the surrogate does not."""

    def found(self, **changes):
        counts = {"targets": 7, "reachable_targets": 1}
        one = metrics(0.0, 2.0, 1, **counts, status={"missed": 3, "invalid_input": 4})
        other = metrics(1.0, 1e-9, 1, **counts, status={"solved": 1, "unreachable": 2, "invalid_input": 4})
        unsolved = rows(
            *((line, "invalid_input", "all") for line in (2, 3, 4, 5)),
            *((line, "unreachable", "direct") for line in (6, 7)),
            *((line, "missed", "surrogate") for line in (6, 7, 8)),
        )
        return result(one, other, **{"unsolved": unsolved} | changes)

    def test_what_is_no_target_is_not_counted(self):
        said = verdict(self.found())
        assert "Solved of 1 reachable target within 0.01 m: direct 100 % and surrogate 0 %." in said
        assert "Not counted: 2 targets out of reach and 4 invalid rows." in said
        assert "Surrogate solves fewer, however many targets there are." in said
        assert {row.label: row.cells for row in table(self.found())}["solved, of these"] == ["0 %", "100 %"]

    def test_rows_are_named(self):
        assert name_rows(self.found()) == [
            *(f"cannon_vacuum: invalid: line {line}: no number" for line in (2, 3, 4, 5)),
            "cannon_vacuum: out of reach: line 6 and line 7",
        ]

    def test_of_many_rows_a_few_are_named(self):
        unsolved = rows(
            *((line, "invalid_input", "all") for line in range(2, 10)),
            *((line, "unreachable", route) for route in TWO for line in range(20, 29)),
        )
        named = name_rows(self.found(unsolved=unsolved))
        assert len(named) == 7
        assert named[5] == "cannon_vacuum: and 3 more invalid rows"
        assert named[6].endswith("line 23, line 24 and 4 more")

    def test_what_one_route_solves_is_not_out_of_reach(self):
        assert name_rows(self.found(unsolved=rows((6, "unreachable", "surrogate")))) == []

    def test_where_nothing_can_be_solved_nobody_wins(self):
        none = metrics(0, None, 1, targets=2, reachable_targets=0, status={"unreachable": 1, "invalid_input": 1})
        none["solved_fraction"] = None
        said = verdict(result(none, none))
        assert said.endswith(
            "no target is valid and within reach.\nNot counted: 1 target out of reach and 1 invalid row."
        )
        assert winner(result(none, none)) is None


@pytest.mark.parametrize("route", ROUTES)
def test_a_single_route_is_told_of_alone(tmp_path, route):
    one = result(metrics(1, 1, 1), metrics(1, 1, 1), routes={route: ROUTES[route]}, metrics={route: metrics(0.5, 1, 2)})
    assert verdict(one).startswith(f"cannon_vacuum: The {route} route alone solves 50 % of 100 targets within 0.01 m.")
    assert find_break_even(one, route) is None
    assert f'<th scope="col" class="{route}">{route}</th>' in written(tmp_path, [one])[0]


def test_routes_of_any_name_have_their_colours_and_stand_beside_published_rows(tmp_path):
    routes = {"first": ROUTES["surrogate"], "second": ROUTES["surrogate"], "third": ROUTES["direct"]}
    of_paper = [row for row in read_published() if row.task == "sine_wave"]
    measured = {route: metrics(1, 1, 1, r_1=0.125) for route in routes}
    some = result(metrics(1, 1, 1), metrics(1, 1, 1), routes=routes, metrics=measured, published=of_paper)
    page, markdown = written(tmp_path, [some])
    assert all(f"--{route}-line: #" in page for route in routes)
    assert "| NA, published | 0.0011 | 1.7 × 10⁻⁶ |" in markdown and "| second, measured | 0.125 | — |" in markdown
    assert "Ren, Padilla, Malof, NeurIPS 2020" in page


@pytest.mark.parametrize("damage", ["a,b\n1,2\n", "task,method,r_1,r_50,validation_mse,source\nt,m,-1,,,s\n"])
def test_published_rows_are_checked(damage):
    with pytest.raises(UserError, match="published line 2"):
        parse_published(damage)


def test_what_was_learned_in_rounds_is_in_the_verdict():
    rounds = {name: np.array(column) for name, column in {"round": [1, 2], "simulations": [100, 39]}.items()}
    rounds["solved_targets"] = np.array([61, 80])
    said = verdict(result(metrics(0.9, 1, 639), metrics(1, 1, 1), rounds={"surrogate": rounds}))
    assert (
        "In 2 rounds surrogate has simulated 139 answers; 80 hit. Learning from them is in its time to solve." in said
    )


def test_what_calibration_certifies_is_told_and_for_which_targets():
    calibrated = result(metrics(0.9, 1, 639, coverage=0.91, certified_fraction=0.6), metrics(1, 1, 1))
    said = verdict(calibrated)
    assert "60 % of the answers of surrogate are certified to hit, with 90 %. That is void for targets that" in said
    rows = {row.label: row.cells for row in table(calibrated)}
    assert rows["certified to hit, with 90 %"] == ["60 %", "—"]
    assert rows["misses within their 90 % bounds"] == ["91 %", "—"]
    assert "certified" not in " ".join(row.label for row in table(direct_wins()))


def test_the_simulators_own_error_is_in_the_verdict():
    caution = "the simulator's own error is not small; set steps"
    assert verdict(result(metrics(1, 1, 1), metrics(1, 1, 1), caution=caution)).endswith(
        "The simulator's own error is not small; set steps."
    )


@pytest.mark.parametrize(
    ("greatest", "said"), [(5e-4, ""), (2e-3, "greatest 0.002 m"), (None, "greatest unknown")], ids=str
)
def test_the_worst_route_tells_the_error(tmp_path, greatest, said):
    paths = files(tmp_path, ANSWERS)
    measured = {
        route: dict(metrics(1, 1, 1), simulation_error_median=1e-5, simulation_error_max=1e-5) for route in ROUTES
    }
    measured["surrogate"] |= {"simulation_error_max": greatest}
    paths["metrics"].write_text(json.dumps(measured))
    found = read_result("cannon_drag", CannonDrag(), ROUTES, **paths)
    assert said in found.caution
    assert bool(found.caution) is bool(said)


def test_costs_are_valid_json_and_never_is_said_in_words(tmp_path):
    never = result(metrics(1.0, 1e-3, 1), metrics(1.0, 1e-3, 1), METERS | {"optimise-direct": meter(0.5, "cuda")})
    written(tmp_path, [never])

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "report" / "costs.json").read_text()
    costs = json.loads(text, parse_constant=refuse)["cannon_vacuum"]
    assert costs["surrogate"]["break_even_targets"] is None
    assert costs["surrogate"]["break_even"] == "never"
    assert costs["direct"]["device"] == "cuda"
    assert list_metrics(never, "surrogate")["break_even_targets"] == math.inf


def files(folder, answers, figures=()):
    (folder / "figures").mkdir()
    (folder / "interactive").mkdir()
    for name in figures:
        (folder / "figures" / f"{name}.png").write_bytes(PNG)
    (folder / "metrics.json").write_text(json.dumps(direct_wins().metrics))
    (folder / "answers.csv").write_text(answers, encoding="utf-8")
    (folder / "meters").mkdir()
    (folder / "weights").write_bytes(b"new")
    for stage, made in (("train-surrogate", b"new"), ("invert-surrogate", b"restored since")):
        of = {"result": "weights", "result_sha256": hashlib.sha256(made).hexdigest()}
        (folder / "meters" / f"{stage}.json").write_text(json.dumps(meter(9.0) | of))
    places = {"metrics": "metrics.json", "answers": "answers.csv", "meters": "meters"}
    places |= {"figures": "figures", "panels": "interactive", "results": "."}
    claims = folder / "claims"
    return {name: folder / place for name, place in places.items()} | {"diagnosis": claims if claims.is_dir() else None}


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


def read(folder, **changes):
    return read_result("cannon_vacuum", CannonVacuum(), TWO, **(files(folder, ANSWERS, ["loss", "surfaces"]) | changes))


def test_what_is_not_solved_is_listed_with_its_line(tmp_path):
    found = read(tmp_path)
    assert [(one.row, one.route, one.status) for one in found.unsolved] == [
        ("line 3", "all", "invalid_input"),
        ("drawn 3", "direct", "no_event"),
        ("line 2", "surrogate", "missed"),
    ]
    assert [figure.name for figure in list_figures(found, tmp_path)] == ["surfaces", "loss"]
    assert set(found.meters) == {"train-surrogate"}, "the meter of a result that is no longer there says nothing"


def test_claims_come_back_as_they_were_written(tmp_path):
    write_claims(tmp_path / "claims")
    assert list(read(tmp_path).claims) == CLAIMS


def test_without_claims_the_page_says_so(tmp_path):
    found = read(tmp_path)
    assert found.claims == []
    page, markdown = written(tmp_path, [found])
    assert "Not diagnosed in this run." in page
    assert "Not diagnosed in this run." in markdown


@pytest.mark.parametrize("damage", ["verdict", "seeds", "says"])
def test_a_damaged_claim_is_named(tmp_path, damage):
    write_claims(tmp_path / "claims")
    file = tmp_path / "claims" / ("claims.json" if damage == "says" else "metrics.json")
    content = json.loads(file.read_text())
    if damage == "verdict":
        content["C2"]["verdict"] = "perhaps"
    else:
        del content["C2"][damage]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"metrics\.json: C2 cannot be read"):
        read(tmp_path)


def test_a_claim_is_shown_with_its_interval_and_its_spread():
    assert interval(claim()) == "1.2 to 1.4"
    assert over_seeds(claim()) == "1.25 to 1.4"
    assert interval(claim(value=None)) == DASH
    assert over_seeds(claim(seeds=(1.3,))) == DASH


def test_the_spread_of_a_claim_is_drawn_against_its_bound(tmp_path):
    spread = place_spread(claim())  # 1.3 (1.2 to 1.4), networks 1.3, 1.25 and 1.4, bound 1
    assert (spread.bound, spread.high) == (5.0, 95.0)
    assert spread.low == pytest.approx(5 + 90 * 0.2 / 0.4)
    assert spread.seeds == pytest.approx([72.5, 61.2, 95.0], abs=0.1)
    assert place_spread(claim(value=None, seeds=(None,))) is None
    page, _ = written(tmp_path, [result(metrics(1, 1, 1), metrics(1, 1, 1), claims=CLAIMS)])
    assert page.count('class="track spread"') == 2  # the third claim has no number


def test_the_page_tells_where_its_numbers_are_from_and_gives_them_away(tmp_path):
    (tmp_path / "answers.csv").write_text("route,target\n")
    found = result(metrics(0.5, 0.02, 4000), metrics(1.0, 1e-14, 9000), answers=tmp_path / "answers.csv")
    known = Provenance("abc123", 7, {"cannon_vacuum": "f00d"}, [("solver.max_steps", "9", "100")], {"torch": "2.13"})
    page, _ = written(tmp_path, [found], known)
    for said in ("abc123", "<dd>7</dd>", "f00d", 'solver.max_steps: 9 <span class="quiet">(conf/: 100)', "torch 2.13"):
        assert said in page
    links = dict(re.findall(r'<a download="([^"]*)" href="data:[a-z/]*;base64,([^"]*)"', page))
    files = {name: base64.b64decode(content).decode() for name, content in links.items()}
    assert files.keys() == {"numbers.json", "numbers.csv", "cannon_vacuum-answers.csv"}
    assert json.loads(files["numbers.json"])["cannon_vacuum"]["routes"]["direct"]["simulations"] == 9000
    assert "cannon_vacuum,surrogate,miss_median,0.02\n" in files["numbers.csv"]
    assert files["cannon_vacuum-answers.csv"] == "route,target\n"


def test_what_a_budget_has_left_out_is_named(tmp_path):
    page, _ = written(tmp_path, [result(metrics(1, 1, 1), metrics(1, 1, 1), left_out=["C2", "C5"])])
    assert "cannon_vacuum: C2, C5 are left out, since budget.simulations was spent." in page


def test_the_calculator_knows_what_was_measured():
    surrogate = metrics(0.5, 0.02, 4000, gradients=0, training_examples=4000)
    found = result(
        surrogate, metrics(1.0, 1e-14, 9000), prepared={"surrogate": 4000}, misses={"surrogate": [0.02, 0.001] * 50}
    )
    demands = list_demands([found])["cannon_vacuum"]
    learned, direct = demands["routes"]["surrogate"], demands["routes"]["direct"]
    assert (learned["prepared"], learned["each"], learned["seconds_train"], learned["seconds_each"]) == (
        4000,
        0,
        9,
        0.01,
    )
    assert (direct["prepared"], direct["each"], direct["seconds_each"], direct["differentiated"]) == (0, 90, 0.0, True)
    assert dict(zip(demands["factors"], learned["solved"], strict=True)) == {
        **dict.fromkeys((1e-6, 1e-3), 0.0),
        **dict.fromkeys((0.1, 0.5), 0.5),
        **{1.0: 0.5, 2.0: 1.0, 10.0: 1.0},
    }
    # A network's own Jacobians cost no simulator; those that it has learned from do.
    for learns in (False, True):
        known = {name: replace(route, learns_jacobians=learns) for name, route in found.routes.items()}
        routes = list_demands([replace(found, routes=known, metrics={**found.metrics, "surrogate": metrics(1, 1, 1)})])
        assert routes["cannon_vacuum"]["routes"]["surrogate"]["differentiated"] == learns
    untimed = result(surrogate, metrics(1.0, 1e-14, 9000), {})
    assert list_demands([untimed]) == {}


def test_claims_stand_side_by_side_whatever_a_task_has():
    one = result(metrics(1, 1, 1), metrics(1, 1, 1), claims=CLAIMS[:2])
    other = result(metrics(1, 1, 1), metrics(1, 1, 1), name="other", claims=CLAIMS[1:])
    rows = {finding.key: finding.claims for finding in findings([one, other])}
    assert list(rows) == ["C1", "C2", "C3"]
    assert rows["C1"] == [CLAIMS[0], None]
    assert rows["C3"] == [None, CLAIMS[2]]


def test_every_claim_is_on_the_page_with_word_rule_and_ground(tmp_path):
    page, markdown = written(tmp_path, [result(metrics(1, 1, 1), metrics(1, 1, 1), claims=CLAIMS)])
    for one in CLAIMS:
        assert page.count(f">{one.verdict}</span>") == 2  # in the matrix, and in the task's own table
        assert one.because in page
        assert one.because in markdown
        assert f'href="#cannon_vacuum-{one.key}"' in page
        assert f'id="cannon_vacuum-{one.key}"' in page
    assert page.count("supported where the interval lies above 1") == len(CLAIMS)


def written(tmp_path, some, provenance=None):
    page, markdown = tmp_path / "report" / "index.html", tmp_path / "report" / "report.md"
    write_report(some, page=page, markdown=markdown, costs=tmp_path / "report" / "costs.json", provenance=provenance)
    return page.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


SCRIPT = re.compile(r"<script( [^>]*)?>(.*?)</script>", re.DOTALL)


def test_the_page_needs_no_network_and_runs_nothing_of_a_users_file(tmp_path):
    panels = [{"data": [], "layout": {"title": HOSTILE}}]
    (tmp_path / "panels.json").write_text(json.dumps({"panels": panels, "takeaway": HOSTILE}))
    found = read(tmp_path)
    page, markdown = written(
        tmp_path, [found.__class__(**(vars(found) | {"panels": {"loss": tmp_path / "panels.json"}}))]
    )
    scripts = SCRIPT.findall(page)
    running = [text for kind, text in scripts if "json" not in kind]
    assert len(running) == 2  # Plotly, once, and our own
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none';")
    allowed = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in running}
    assert set(re.search(r"script-src ([^;]*);", policy)[1].split()) == allowed
    shown = SCRIPT.sub("", page)
    assert "<script" not in shown
    assert "<script" not in markdown
    assert "&lt;script&gt;" in shown
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", shown)
    assert "http" not in shown.replace("http-equiv", "")
    (panels,) = [text for kind, text in scripts if "json" in kind and "id=" not in kind]
    assert json.loads(panels)[0]["layout"]["title"] == HOSTILE
    assert "prefers-color-scheme: dark" in page
    assert "](../figures/loss.png)" in markdown
    assert r"\|\[x\](y)" in markdown


def test_the_same_results_make_the_same_page(tmp_path):
    found = read(tmp_path)
    assert written(tmp_path / "1", [found])[0] == written(tmp_path / "2", [found])[0]


def test_every_in_page_link_leads_somewhere(tmp_path):
    page, _ = written(tmp_path, [result(metrics(1, 1, 1), metrics(1, 1, 1), claims=CLAIMS)])
    shown = SCRIPT.sub("", page)
    assert set(re.findall(r'href="#([^"]*)"', shown)) <= set(re.findall(r' id="([^"]*)"', shown))


def test_at_most_twenty_are_listed(tmp_path):
    many = [Unsolved(f"line {i}", "direct", "stalled", "miss 1") for i in range(33)]
    page, markdown = written(tmp_path, [result(metrics(0.5, 1, 1), metrics(1, 1, 1), unsolved=many)])
    assert "line 19" in page
    assert "line 20" not in page
    assert "and 13 more" in page
    assert "and 13 more" in markdown


def test_markdown_tables_are_whole(tmp_path):
    some = [direct_wins(), result(metrics(1, 1, 1), metrics(1, 1, 1), name="other", claims=CLAIMS)]
    _, markdown = written(tmp_path, some)
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(blocks) == 7  # summary and claims, two a task, and the claims of the one that has them
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert note(direct_wins()).count("| solved, of these |") == 1


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    paths = files(tmp_path, ANSWERS)
    paths["metrics"].write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json"):
        read_result("cannon_vacuum", CannonVacuum(), TWO, **paths)


def test_figures_of_every_place_have_something_to_say():
    assert {kind.place for kind in KINDS.values()} == {"lead", "pair", "more"}
    assert all(kind.title and kind.caption.endswith(".") for kind in KINDS.values())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "—"),
        (0.0, "0"),
        (12, "12"),
        (1234567, "1,234,567"),
        (0.012345, "0.0123"),
        (1.5e-15, "1.5 × 10⁻¹⁵"),
        (math.inf, "∞"),
    ],
)
def test_numbers_keep_three_digits(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(1.0, "100 %"), (0.99999, "99.99 %"), (0.0, "0 %"), (1e-9, "0.01 %")])
def test_only_all_is_a_hundred_per_cent(value, shown):
    assert percent(value) == shown


def test_factors_and_lists_are_words():
    assert [factor(2.0, 1.0), factor(1.0, 30.0), factor(1e-9, 1.0)] == ["2", "30", "over 10⁹"]
    assert [factor(0.0, 1.0), factor(None, 1.0), factor(math.inf, 1.0)] == ["", "", ""]
    assert [join_names(["a"]), join_names(["a", "b"]), join_names(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
