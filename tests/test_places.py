"""A path belongs to where it is typed, else to the project's root; a name that needs quotes gets the line to type."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
from conftest import Repository
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from aimback.runtime import project as places
from aimback.runtime.project import CONF, ROOT
from aimback.settings.tree import read_settings
from aimback.workflow.entry import explain_composing, place


def composed(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", list(overrides))


@pytest.mark.parametrize(
    ("typed", "folder", "means"),
    [
        ("my.csv", ROOT, "my.csv"),
        ("my.csv", ROOT / "conf", "conf/my.csv"),
        ("../my.csv", ROOT / "conf", "my.csv"),
        ("./task/../my.csv", ROOT / "conf", "conf/my.csv"),
        ("../../my.csv", ROOT / "conf", str(ROOT.parent / "my.csv")),
        (f"{ROOT}/conf/my.csv", ROOT / "src", "conf/my.csv"),
        ("/elsewhere/my.csv", ROOT / "src", "/elsewhere/my.csv"),
        ("my.csv", Path("/elsewhere"), "/elsewhere/my.csv"),
        ("tä r (1).csv", ROOT / "conf", "conf/tä r (1).csv"),
    ],
)
def test_what_is_typed_belongs_to_where_it_is_typed(typed: str, folder: Path, means: str) -> None:
    overrides = ["seed=3", f'targets="{typed}"', f'inputs=["{typed}", outputs]']
    cfg = composed(*overrides)
    place(cfg, overrides, str(folder))
    assert cfg.targets == means
    assert cfg.inputs == [means, "outputs" if folder == ROOT else places.name_below_root("outputs", folder)]


@pytest.mark.parametrize("typed", ["targets=null", "targets=5", "inputs=[]", "inputs=[${nope}]", "++targets=${nope}"])
def test_what_is_no_path_is_left_to_the_settings(typed: str) -> None:
    cfg = composed(typed)
    before = cfg.copy()
    place(cfg, [typed], "/elsewhere")
    assert cfg == before


def test_what_is_not_typed_belongs_to_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cfg = composed("targets=conf/config.yaml")
    place(cfg, ["preset=null", "seed=1"], "/elsewhere")
    assert (cfg.targets, cfg.inputs) == ("conf/config.yaml", ["outputs"])
    for folder, shown in (
        (ROOT, Path("conf/config.yaml")),
        (CONF, Path("config.yaml")),
        (tmp_path, CONF / "config.yaml"),
    ):
        monkeypatch.chdir(folder)
        settings = read_settings(cfg)
        assert settings.targets == shown
        assert settings.inputs[0].absolute() == ROOT / "outputs"


def test_the_project_is_the_nearest_folder_whose_stages_are_ours(tmp_path: Path) -> None:
    below = tmp_path / "mine" / "notes" / "src"
    below.mkdir(parents=True)
    (tmp_path / "mine/dvc.yaml").write_text("stages: {compose: {cmd: python -m aimback.pipelines.compose}}\n")
    (tmp_path / "mine/notes/dvc.yaml").write_text("stages: {compose: {cmd: python -m pipelines.compose_all}}\n")
    assert places.find_project(below) == places.find_project(tmp_path / "mine") == tmp_path / "mine"
    assert places.find_project(tmp_path) is None
    shutil.copy(ROOT / "dvc.yaml", tmp_path / "mine/notes")
    assert places.find_project(below) == tmp_path / "mine/notes"


def test_dots_after_a_link_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "below")
    (tmp_path / "far" / "my.csv").touch()
    assert Path(places.name_below_root("link/../my.csv", tmp_path)).samefile(tmp_path / "far" / "my.csv")


def test_a_copy_reads_from_the_original_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original, foreign = tmp_path / "original", tmp_path / "foreign"
    copy = original / ".dvc" / "tmp" / "exps" / "standalone" / "tmpx"
    for folder in (copy, original, foreign):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tracked.csv").touch()
    (original / "mine.csv").touch()
    (foreign / "nowhere.csv").touch()
    monkeypatch.setattr(places, "ROOT", copy)
    monkeypatch.setenv("DVC_ROOT", str(foreign))  # as where another project's dvc runs ours
    assert places.locate_untracked("mine.csv") == original / "mine.csv"
    assert places.locate_untracked("tracked.csv") == copy / "tracked.csv"
    assert places.locate_untracked("nowhere.csv") == copy / "nowhere.csv"
    assert places.name_below_root(str(original / "mine.csv")) == "mine.csv"


NAMES = ["täter.csv", "(1).csv", "a=b.csv", "x,y.csv", "a'b.csv", 'a"b.csv', "~/x.csv", "a#b.csv", "[a].csv", "{x}.csv"]
NAMES += ["日本 (2).csv", "a&b;c.csv", "`id`.csv", "a!b.csv", "a\\'b.csv"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_needs_quotes_gets_the_line_to_type(name: str) -> None:
    with pytest.raises(hydra.errors.HydraException) as caught:
        composed(f"targets={name}")
    advice = explain_composing(caught.value)
    assert advice.startswith(f"targets={name}: ") and "\n" not in advice
    (words,) = (part for part in [advice.partition("is typed ")[2].partition("; several")[0]])
    (word,) = shlex.split(words)  # as a shell reads it
    assert OverridesParser.create().parse_override(word).value() == name


@pytest.mark.parametrize("override", ["(1)=5", "tä=5", "tä", ""])
def test_a_key_that_cannot_be_read_gets_no_advice_to_quote(override: str) -> None:
    with pytest.raises(hydra.errors.HydraException) as caught:
        composed(override)
    assert "is typed" not in explain_composing(caught.value)


@pytest.mark.slow
def test_from_a_subfolder(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "project", git=False)
    root, below = repository.root, repository.root / "below"
    below.mkdir()
    (root / "my.csv").write_text("distance,wind\n1,0\n2,0\n")
    (below / "my.csv").write_text("distance,wind\n3,0\n")
    repository.root = below

    def run(*arguments: Any) -> Any:
        path = {"PYTHONPATH": f"{root / 'src'}:{root}"}
        return repository.run("pipelines.generate", "task=cannon_drag", "data.examples=20", *arguments, env=path)

    run("targets=my.csv").ok()
    (made,) = (root / "outputs" / "by_hand" / "generate").glob("*/cannon_drag/data/targets.npz")
    with np.load(made) as archive:
        assert archive["targets"].tolist() == [[3.0]]
    refused = run("targets=../nowhere.csv")
    assert refused.code == 2 and "nowhere.csv: there is no such targets file" in refused.stderr
    assert (root / "outputs" / "logs" / "generate.log").exists()
    assert [file.name for file in below.iterdir()] == ["my.csv"]
