"""What a wheel holds besides the package: conf/, dvc.yaml and the stages, for a project of the user's own."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_PROJECT = ("conf", "pipelines", "dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots")


class BuildWithProject(build_py):
    """Beside the package's modules, copy what a project of a user's own is made of, and goes on to use."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        place = Path(self.build_lib) / "aimback" / "project"
        for name in _PROJECT:
            if Path(name).is_dir():
                shutil.copytree(name, place / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, place / name)


setup(cmdclass={"build_py": BuildWithProject})
