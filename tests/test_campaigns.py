"""Short runs of what `python -m benchmarks.campaigns` does by the thousand."""

from pathlib import Path

from benchmarks.campaigns.mutations import arrays, hostile, overrides, tables


def test_no_mutated_command_line_ends_in_a_trace() -> None:
    assert overrides(40).keys() <= {"accepted", "refused in one line"}


def test_no_mutated_file_of_targets_ends_in_a_trace(tmp_path: Path) -> None:
    became = tables(500, tmp_path)
    assert became.keys() == {"read", "read, with rows marked", "refused in one line"}


def test_no_good_row_is_lost_among_hostile_ones(tmp_path: Path) -> None:
    assert hostile(100, tmp_path).keys() == {"every good row read", "refused in one line"}


def test_no_wrong_array_passes_or_ends_in_a_trace(tmp_path: Path) -> None:
    assert arrays(150, tmp_path).keys() == {"read, and whole", "refused in one line"}
