"""The lock files name what pyproject.toml asks for, with hashes, and a wheel holds all that a project needs."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from conftest import Finished, Repository
from packaging.requirements import Requirement

from aimback.runtime.project import ROOT

LOCKS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("requirements.lock", "requirements-cpu.lock")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def locked(lock: str) -> set[tuple[str, str]]:
    """Packages and versions, without the local part: PyTorch's CPU build is the same release."""
    return set(re.findall(r"^([\w.-]+)==([^\s;\\+]+)", LOCKS[lock], re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_what_is_asked_for_is_locked(asked: Requirement, lock: str) -> None:
    name = re.sub(r"[-_.]+", "-", asked.name).lower()
    versions = [version for package, version in locked(lock) if package == name]
    assert versions and all(map(asked.specifier.contains, versions)), "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_its_hashes_and_no_place(lock: str) -> None:
    packages = re.split(r"\n(?=\S)", LOCKS[lock].strip())
    assert len(packages) > 100
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", package) for package in packages)
    assert "://" not in LOCKS[lock]


def test_both_locks_name_the_same_releases() -> None:
    assert locked("requirements-cpu.lock") <= locked("requirements.lock")


@pytest.mark.parametrize(
    ("name", "bad"), [("pytorch-lightning", "2.6.2"), ("pytorch-lightning", "2.6.3"), ("mlflow", "3.9.0")]
)
def test_releases_known_to_be_bad_are_excluded(name: str, bad: str) -> None:
    (asked,) = (asked for asked in ASKED if asked.name == name)
    assert not asked.specifier.contains(bad)


@pytest.mark.slow
def test_a_wheel_makes_a_project_and_runs_it(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    source = Repository(tmp_path / "source", git=False).root  # building writes beside the sources
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", tmp_path, source]
    subprocess.run(build, check=True)
    venv.create(tmp_path / "environment", with_pip=False)
    python = tmp_path / "environment" / "bin" / "python"
    (packages,) = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    # All but aimback comes from here; a .pth file of a folder that is added so is not read, and so no editable install.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--quiet", wheel], check=True)

    def aimback(folder: str, *arguments: str) -> Finished:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [python.with_name("aimback"), *arguments]
        return Finished(
            subprocess.run(
                command,
                cwd=tmp_path / folder,
                env={"PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                check=False,
            )
        )

    small = ("routes=[direct]", "data.targets=5", "diagnose=none", "tracking=off")
    refused = aimback(".", *small)
    assert refused.code == 2 and refused.stderr.endswith("type: aimback init NAME\n")
    assert not (tmp_path / "outputs").exists()
    aimback(".", "init", "mylab", "--example", "cannon_vacuum").ok()
    assert all((tmp_path / "mylab" / file).is_file() for file in ("Makefile", ".dvcignore", "tests/test_laws.py"))
    done = aimback("mylab", *small).ok()
    assert "optimise@cannon_vacuum-direct" in done.stages()
    assert (tmp_path / "mylab" / "outputs" / "report" / "index.html").is_file()
    assert aimback("mylab", *small).ok().stages() == ["compose", "publish"]
    assert "did you mean adam?" in aimback("mylab", "solver=adm").stderr
