"""requirements.lock: what pyproject.toml asks for, each with the hashes of its files."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from pipelines.ending import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK, re.MULTILINE))
ASKED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_what_is_asked_for_is_locked(asked: Requirement) -> None:
    assert asked.specifier.contains(LOCKED[re.sub(r"[-_.]+", "-", asked.name).lower()]), "run `make lock`"


def test_every_package_has_its_hashes_and_no_place() -> None:
    packages = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(packages) > 100
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", package) for package in packages)
    assert "://" not in LOCK


@pytest.mark.parametrize(
    ("name", "bad"), [("pytorch-lightning", "2.6.2"), ("pytorch-lightning", "2.6.3"), ("mlflow", "3.9.0")]
)
def test_releases_known_to_be_bad_are_excluded(name: str, bad: str) -> None:
    (asked,) = (asked for asked in ASKED if asked.name == name)
    assert not asked.specifier.contains(bad)
