import math
from pathlib import Path

import pytest
import torch

from aimback.errors import UserError
from aimback.targets import draw_targets, load_targets, read_targets, save_targets
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


def test_empty_lines_at_the_end_are_no_rows(tmp_path: Path):
    assert len(read(tmp_path, "distance,wind\n1,0\n\n \n")) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("distance,wind\n", "no target below"),
        ("distance\n1\n", "'wind' is missing"),
        ("distance,wind,mass\n1,0,2\n", "unknown column 'mass'"),
        ("distance,wind,wind\n1,0,0\n", "'wind' is there twice"),
        ("distance;wind\n1;0\n", "unknown column 'distance;wind'"),
        ("1,0\n2,0\n", "unknown column '1'"),
        ("distance [km],wind\n1,0\n", "in [km], the task has it in [m]"),
        ("distance,wind\nx,0\n,\n", "no row is valid; line 2"),
        ("distance,wind\n1,0\n".encode("utf-16"), "UTF-8"),
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


def test_a_file_gives_back_the_same_and_the_same_bytes(tmp_path: Path):
    targets = read(tmp_path, "distance,wind\n1,0\nx,0\n2,1\n")
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    save_targets(one, targets, TASK)
    back = load_targets(one, TASK)
    assert back.problems == targets.problems
    assert torch.equal(back.lines, targets.lines)
    torch.testing.assert_close(back.targets, targets.targets, rtol=0, atol=0, equal_nan=True)
    save_targets(two, back, TASK)
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
