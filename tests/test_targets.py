import math
from pathlib import Path

import pytest
import torch

from aimback.core.errors import UserError
from aimback.data.targets import draw_targets, load_targets, read_targets, save_targets
from aimback.tasks.cannon_drag import CannonDrag
from aimback.tasks.cannon_vacuum import CannonVacuum

TASK = CannonDrag()


def read(tmp_path: Path, text: str | bytes, task=TASK):
    path = tmp_path / "targets.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_targets(path, task)


def test_drawn_targets_are_reachable():
    targets = draw_targets(TASK, 30, torch.Generator().manual_seed(0))
    least, greatest = TASK.reach(targets.conditions)
    slack = 1e-6
    assert len(targets) == 30
    assert targets.valid.all()
    assert (targets.lines == 0).all()
    assert targets.first(3).targets.equal(targets.targets[:3])
    assert (len(targets.first(3)), len(targets.first(99))) == (3, 30)
    assert ((targets.targets >= least - slack) & (targets.targets <= greatest + slack)).all()


def test_drawing_needs_a_count():
    with pytest.raises(UserError, match="at least 1"):
        draw_targets(TASK, 0, torch.Generator())


def test_columns_by_name_in_any_order_with_or_without_unit(tmp_path: Path):
    for header, cells in [
        ("distance,wind", "3.5,-1"),
        ("wind,distance", "-1,3.5"),
        ("distance [m], wind [m/s]", "3.5, -1"),
        ("\ufeffdistance,wind", "3.5,-1.0"),
        ('"distance [m]",wind', '"3.5",-1'),
    ]:
        for end in ("\n", "\r\n"):
            targets = read(tmp_path, f"{header}{end}{cells}{end}")
            assert targets.targets.tolist() == [[3.5]]
            assert targets.conditions.tolist() == [[-1.0]]
            assert targets.lines.tolist() == [2]
            assert targets.problems == ("",)


def test_without_conditions(tmp_path: Path):
    targets = read(tmp_path, "distance\n1\n2\n", CannonVacuum())
    assert targets.targets.tolist() == [[1.0], [2.0]]
    assert targets.conditions.shape == (2, 0)


def test_numbers_are_read_to_the_last_bit(tmp_path: Path):
    assert read(tmp_path, "distance,wind\n0.1,1e-3\n").targets.item() == 0.1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",0", "distance is empty"),
        ("1,  ", "wind is empty"),
        ("far,0", "distance is 'far', not a finite number"),
        ("nan,0", "distance is 'nan'"),
        ("1,-inf", "wind is '-inf'"),
        ("1_0,0", "distance is '1_0'"),
        ("1e999,0", "distance is '1e999'"),
        ("3,5,0", "3 cells, the header has 2 (a decimal comma?)"),
        ("3", "1 cell, the header has 2"),
        ("", "0 cells, the header has 2"),
        ("3,2.5", "wind 2.5 is outside the range the task was made for [-2, 2]"),
    ],
)
def test_a_bad_row_is_marked_and_spoils_no_other(tmp_path: Path, row, reason):
    targets = read(tmp_path, f"distance,wind\n1,0.5\n{row}\n2,-0.5\n")
    assert targets.valid.tolist() == [True, False, True]
    assert targets.problems[1].startswith("line 3: ")
    assert reason in targets.problems[1]
    assert math.isnan(targets.targets[1, 0])
    assert math.isnan(targets.conditions[1, 0])
    good = targets.only_valid()
    assert good.targets.tolist() == [[1.0], [2.0]]
    assert good.lines.tolist() == [2, 4]
    assert good.valid.all()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'"3,0.5', "a quote is not closed"),
        (b'3,"0.5', "a quote is not closed"),
        (b'"3"x,0.5', "is not a row of a CSV file"),
        (b'3,"0.5\n"', "a quote is not closed"),
        (b"3\r,0.5", "1 cell, the header has 2"),
        (b"3\x00,0.5", r"distance is '3\x00', not a finite number"),
        (b"\xef\xbb\xbf3,0.5", r"distance is '\ufeff3', not a finite number"),
        (b"3\xb1,0.5", "is not text in UTF-8 (its byte 2 is 0xb1)"),
        (b"\xff\xfe3\x00,\x000\x00", "is not text in UTF-8"),
        (b"3" * 2_000_000 + b",0.5", "field larger than field limit"),
        (b"y" * 100_000 + b",0.5", "distance is 'yyyyyyyyyyyy...yyyyyyyyyyyyy'"),
        (b"3;0.5", "1 cell, the header has 2 (separated by semicolons?)"),
        (b"3\t0.5", "1 cell, the header has 2 (separated by tabs?)"),
        (b"3\x850.5", "is not text in UTF-8"),
        ("3\u20280.5".encode(), "1 cell, the header has 2"),
        (b"", "0 cells, the header has 2"),
    ],
)
def test_whatever_a_row_contains_it_costs_no_other(tmp_path: Path, row, reason, end):
    lines = [b"distance,wind", b"1,0.5", row, b'"4.5","-0.5"', b"2,-0.5"]
    targets = read(tmp_path, end.join(lines) + end)
    good = targets.only_valid()
    assert good.targets.tolist() == [[1.0], [4.5], [2.0]]
    # A row with a line break in it counts as two lines, as in every editor.
    more = len(row.splitlines()) - 1 if row else 0
    assert good.lines.tolist() == [2, 4 + more, 5 + more]
    assert targets.problems[1].startswith("line 3: ") and reason in targets.problems[1]
    assert len(targets.problems[1]) < 200


def test_empty_lines_at_the_end_are_no_rows(tmp_path: Path):
    assert len(read(tmp_path, 'distance,wind\n1,0\n\n \n,\n"",""\n')) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("distance,wind\n", "no target below"),
        ("distance\n1\n", "'wind' is missing"),
        ("distance,wind,mass\n1,0,2\n", "unknown column 'mass'"),
        ("distance,wind,wind\n1,0,0\n", "'wind' is there twice"),
        ("distance [m];wind [m/s]\n1;0\n", "columns are separated by semicolons; separate them by commas"),
        ("distance [m]\twind [m/s]\n1\t0\n", "columns are separated by tabs; separate them by commas"),
        ("distance | wind\n1|0\n", "columns are separated by bars; separate them by commas"),
        ('"distance,wind\n1,0\n', "its first line is not a row of a CSV file (a quote is not closed); it must name"),
        ("distance\x1b[2J,wind\n1,0\n", r"unknown column 'distance\x1b[2J'"),
        (b"distance,w\xefnd\n1,0\n", "its first line is not text in UTF-8 (its byte 11 is 0xef)"),
        ("1,0\n2,0\n", "unknown column '1'"),
        ("distance [km],wind\n1,0\n", "in [km], the task has it in [m]"),
        ("distance,wind\nx,0\n,\n", "no row is valid; line 2"),
        ("distance,wind\n1,0\n".encode("utf-16"), "UTF-8"),
        ("distance,wind\n1,0\n".encode("utf-16-le"), "UTF-8"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(tmp_path: Path, text, reason):
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert reason in message
    assert "targets.csv" in message
    assert "\n" not in message
    if "column" in reason and "km" not in reason:
        assert "distance [m],wind [m/s]" in message


def test_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match="no such targets file"):
        read_targets(tmp_path / "none.csv", TASK)
    for unreadable in (tmp_path, Path("a\0b.csv")):
        with pytest.raises(UserError, match="cannot be read"):
            read_targets(unreadable, TASK)


def test_a_file_gives_back_the_same_and_the_same_bytes(tmp_path: Path):
    targets = read(tmp_path, "distance,wind\n1,0\nx,0\n2,1\n")
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    save_targets(one, [targets], TASK)
    back = load_targets(one, TASK)
    assert back.problems == targets.problems
    assert torch.equal(back.lines, targets.lines)
    torch.testing.assert_close(back.targets, targets.targets, rtol=0, atol=0, equal_nan=True)
    save_targets(two, [back], TASK)
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(UserError, match="another task"):
        load_targets(one, CannonDrag(drag=0.2))
    one.write_bytes(one.read_bytes()[:-40])
    with pytest.raises(UserError, match="dvc repro"):
        load_targets(one, TASK)


def test_equal_rows_are_one_question(tmp_path: Path):
    targets = read(tmp_path, "distance,wind\n3,0\n1,0\n3,0\n3,1\n1,0\n")
    once, again = targets.once()
    assert once.targets[:, 0].tolist() == [3, 1, 3]
    assert once.conditions[:, 0].tolist() == [0, 0, 1]
    assert once.lines.tolist() == [2, 3, 5]
    assert again.tolist() == [0, 1, 0, 2, 1]
    assert once.targets[again].equal(targets.targets) and once.conditions[again].equal(targets.conditions)


def test_rows_that_all_differ_stay_as_they_are():
    targets = draw_targets(TASK, 300, torch.Generator().manual_seed(0))
    once, again = targets.once()
    assert once.targets.equal(targets.targets)
    assert again.equal(torch.arange(300))


def test_without_conditions_too(tmp_path: Path):
    once, again = read(tmp_path, "distance\n1\n1\n", CannonVacuum()).once()
    assert len(once) == 1 and again.tolist() == [0, 0]
