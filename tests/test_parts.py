"""More targets than are held at once: part by part they come to the same, in memory that does not grow with them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Repository
from problems import seeded

from aimback.core.box import Box, make_axis
from aimback.core.errors import UserError
from aimback.data import targets as module
from aimback.data.archive import count_parts, write_parts
from aimback.data.targets import Targets, draw_parts, draw_targets, load_targets, save_targets, split
from aimback.evaluate import quantiles
from aimback.evaluate.quantiles import Quantiles
from aimback.tasks.cannon_drag import CannonDrag

TASK = CannonDrag()
STAGES = ("generate", "optimise", "evaluate")
# A stage with parts of another size, which says how much memory it has had.
MODULE = "stage_in_parts"
SOURCE = """
import importlib, sys, torch
from aimback.core.hardware import peak_memory
from aimback.data import targets
_, stage, part, *_ = sys.argv
targets.PART = int(part)
del sys.argv[1:3]
importlib.import_module(f"pipelines.{stage}").main()
print("peak memory", peak_memory(torch.device("cpu")))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository(tmp_path_factory.mktemp("parts") / "repository", git=False)
    (repository.root / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
    return repository


def test_targets_drawn_part_by_part_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw_targets(TASK, 1000, seeded(3))
    monkeypatch.setattr(module, "PART", 96)
    parts = list(draw_parts(TASK, 1000, seeded(3)))
    assert [len(part) for part in parts] == [96] * 10 + [40]
    assert torch.cat([part.targets for part in parts]).equal(whole.targets)
    assert torch.cat([part.conditions for part in parts]).equal(whole.conditions)


def test_draws_without_an_outcome_are_drawn_again_in_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    task = CannonDrag()
    monkeypatch.setattr(task, "box", Box([make_axis("speed", "m/s", (5.0, 10.0)), task.box.axes[1]]))
    monkeypatch.setattr(task, "draw_controls", TASK.draw_controls)  # half of them outside the box
    whole = draw_targets(task, 100, seeded(3))
    monkeypatch.setattr(module, "PART", 32)
    parts = list(draw_parts(task, 100, seeded(3)))
    assert [len(part) for part in parts] == [32, 32, 32, 4]
    assert torch.cat([part.targets for part in parts]).equal(whole.targets)


def test_each_part_of_a_file_has_a_row_that_can_be_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 3)
    problems = ["", "bad", "bad", "bad", "bad", "bad", "", "", "", "bad", "bad", "bad", "bad"]
    table = torch.arange(13.0, dtype=torch.float64)[:, None]
    parts = list(split(Targets(table, table, torch.arange(13), tuple(problems))))
    assert [part.lines.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]
    assert all(bool(part.valid.any()) for part in parts)


def test_a_file_of_parts_is_read_part_by_part(tmp_path: Path) -> None:
    file = tmp_path / "targets.npz"
    drawn = [draw_targets(TASK, size, seeded(size)) for size in (5, 7, 2)]
    save_targets(file, iter(drawn), TASK)
    assert count_parts(file) == 3
    for part, targets in enumerate(drawn):
        assert load_targets(file, TASK, part).targets.equal(targets.targets)
    content = file.read_bytes()
    for name in (b"1/lines.npy", b"2/lines.npy"):  # a part that is called something else
        file.write_bytes(content.replace(name, b"7" + name[1:]))
        with pytest.raises(UserError, match="dvc repro"):
            [load_targets(file, TASK, part) for part in range(count_parts(file))]
    save_targets(file, drawn[:1], TASK)
    one = file.read_bytes()
    arrays = ("targets", "conditions", "lines", "problems")
    with np.load(file) as archive:
        write_parts(file, [{name: archive[name] for name in arrays}], TASK)
    assert file.read_bytes() == one and count_parts(file) == 1


@pytest.mark.parametrize("special", [[], [np.inf, np.inf, np.nan]])
@pytest.mark.parametrize("kind", ["far apart", "close", "few values"])
def test_a_rank_is_that_of_the_sorted_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, special: list[float], kind: str
) -> None:
    monkeypatch.setattr(quantiles, "_AT_ONCE", 50)
    monkeypatch.setattr(quantiles, "_IN_MEMORY", 1000)
    numbers = {
        "far apart": torch.rand(3000, generator=seeded(1), dtype=torch.float64).pow(40),
        "close": 1 + 1e-12 * torch.rand(3000, generator=seeded(2), dtype=torch.float64),
        "few values": torch.randint(0, 3, (3000,), generator=seeded(3)).double(),
    }[kind]
    numbers = torch.cat([torch.tensor(special, dtype=torch.float64), numbers])
    gathered = Quantiles(tmp_path)
    for some in numbers.split(700):
        gathered.add(some)
    ordered = np.sort(numbers.numpy())
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        expected = ordered[round(share * (len(ordered) - 1))]
        np.testing.assert_equal(gathered.find(share), expected)
    assert len(gathered) == len(numbers) and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_targets(plain: Repository) -> None:
    """Ten times as many targets take the memory of a few blocks more, and all at once take a great deal more."""
    few = run_stages(plain, "few", 2048, 4096)
    many = run_stages(plain, "many", 2048, 40960)
    whole = run_stages(plain, "whole", 65536, 40960)
    allowed = 20e6  # a few blocks
    for stage in STAGES:
        assert many[stage] - few[stage] < allowed, (stage, few, many)
    assert whole["evaluate"] - few["evaluate"] > 5 * allowed, (few, whole)


@pytest.mark.slow
def test_stages_come_to_the_same_part_by_part_and_after_a_kill(plain: Repository) -> None:
    run_stages(plain, "whole", 65536, 1500)
    run_stages(plain, "parts", 400, 1500)
    whole, parts = (plain.root / "outputs" / name / "cannon_drag" for name in ("whole", "parts"))
    file = "routes/direct/solution.npz"
    with np.load(whole / file) as one, np.load(parts / file) as other:
        for name in ("controls", "believed_miss", "start_status", "steps", "steps_to_tolerance"):
            joined = np.concatenate([other[name], *(other[f"{part}/{name}"] for part in (1, 2, 3))])
            np.testing.assert_array_equal(joined, one[name])
        np.testing.assert_array_equal(other["history_controls"][-1], one["history_controls"][-1])
    assert (parts / "routes/direct/ledger.json").read_bytes() == (whole / "routes/direct/ledger.json").read_bytes()
    for name in ("answers", "distinct"):
        one, other = (pq.read_table(folder / f"evaluate/{name}.parquet") for folder in (whole, parts))
        assert one.equals(other)
    with (parts / "evaluate/answers.csv").open() as shown:  # of the first part
        assert shown.readlines() == (whole / "evaluate/answers.csv").read_text().splitlines(keepends=True)[:401]
    one, other = (json.loads((folder / "evaluate/metrics.json").read_text())["direct"] for folder in (whole, parts))
    assert other == {**one, **{name: pytest.approx(value) for name, value in one.items() if name.startswith("r_")}} | {
        "believed_r_1": pytest.approx(one["believed_r_1"])
    }

    before = (parts / file).read_bytes()
    (parts / file).unlink()
    place = parts / "routes" / "direct"
    plain.run_and_kill(MODULE, "optimise", "400", *settings("parts", 1500), when=lambda: any_written(place))
    assert not (parts / file).exists()
    run_stage(plain, "optimise", 400, settings("parts", 1500))
    assert (parts / file).read_bytes() == before


def any_written(folder: Path) -> bool:
    """Whether a first part has been written, and not yet all of them."""
    return any(file.stat().st_size > 10_000 for file in folder.glob(".solution-*"))


def run_stages(repository: Repository, name: str, part: int, count: int) -> dict[str, int]:
    """The peak memory of each stage, run by hand, in bytes."""
    return {stage: run_stage(repository, stage, part, settings(name, count)) for stage in STAGES}


def run_stage(repository: Repository, stage: str, part: int, overrides: list[str]) -> int:
    done = repository.run(MODULE, stage, str(part), *overrides).ok()
    return int(done.printed.split("peak memory ")[1].split()[0])


def settings(name: str, count: int) -> list[str]:
    return [
        *("task=[cannon_drag]", "routes=[direct]", "diagnose=none", "tracking=off"),
        *("hardware=cpu", "hardware.compile=off", f"data.targets={count}"),
        *(f"hydra.run.dir=outputs/{name}", f"inputs=[outputs/{name}]"),
    ]
