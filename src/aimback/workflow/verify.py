"""Hash again what dvc.lock names, the outputs and their objects in DVC's cache: `python -m aimback.workflow.verify`.

DVC itself goes by size and time of a file and never looks at an object again. Here every byte is read. What is
damaged or missing is named, with the command that mends it; the exit code is then 1. The one argument is the folder
of a dvc.yaml, if it is not this one.
"""

import configparser
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aimback.core.errors import UserError
from aimback.runtime.exits import report_errors
from aimback.workflow.params import ANEW, read_mapping
from aimback.workflow.turns import list_turns

_LISTS = {"tasks": "a list of names"}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Damage:
    """A file that is not what dvc.lock says.

    Attributes:
        path: the file, below the folder that was looked at.
        missing: whether it is not there at all.
        cure: the command that mends it.
    """

    path: Path
    missing: bool
    cure: str

    def __str__(self) -> str:
        return f"{self.path}: {'is missing' if self.missing else 'is damaged'}; to mend: {self.cure}"


class Checked:
    """Every file that the dvc.lock of a folder names, hashed.

    Args:
        folder: that of the dvc.yaml.

    Attributes:
        files: whether a file holds what it should, by path below the folder; None: it is not there.
        damages: those that do not, with what helps.

    Raises:
        UserError: dvc.lock cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache = _cache(folder)
        self.files: dict[Path, bool | None] = {}
        self.damages: list[Damage] = []
        defined = yaml.load((folder / "dvc.yaml").read_bytes(), _LOADER)["stages"]
        uncached = _list_uncached(defined.values())
        named = any(isinstance(of, str) for stage in defined.values() for of in stage.get("matrix", {}).values())
        made = list_turns(folder, read_mapping(folder / "params.yaml", ANEW, _LISTS) if named else {})
        for stage, path, digest in _outs(folder):
            if stage in made:  # DVC keeps the record of those that dvc.yaml no longer makes
                self._check(stage, Path(path), digest, not uncached.fullmatch(path))

    def _check(self, stage: str, path: Path, digest: str, cached: bool) -> None:
        outputs, objects = self._name(path, digest)
        if not cached:
            objects = {}
        bad_outputs, bad_objects = self._find_damage(outputs), self._find_damage(objects)
        if not bad_objects and cached:
            cure = f"rm -rf {_quote(path)} && dvc checkout {_quote(path)}"
        elif not bad_outputs:
            cure = f"rm -f {_quote(*bad_objects)} && dvc commit --force {_quote(stage)}"
        else:
            cure = f"rm -rf {_quote(path, *bad_objects)} && dvc repro {_quote(stage)}"
        known = {damage.path for damage in self.damages}  # two outputs of the same bytes share an object
        bad = [path for path in bad_outputs + bad_objects if path not in known]
        self.damages += [Damage(path, self.files[path] is None, cure) for path in bad]

    def _name(self, path: Path, digest: str) -> tuple[dict[Path, str], dict[Path, str]]:
        """The files of an output and its objects, each with the hash that it should have."""
        listing = self._object(digest)
        if not digest.endswith(".dir"):
            return {path: digest}, {listing: digest}
        objects = {listing: digest.removesuffix(".dir")}
        if self._holds(listing, objects[listing]):
            entries = json.loads((self._folder / listing).read_bytes())
        else:
            entries = self._list_folder(path)
            if hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() != objects[listing]:
                return {path: digest}, objects  # nothing is left that tells what should be in there
        outputs = {path / entry["relpath"]: entry["md5"] for entry in entries}
        objects |= {self._object(entry["md5"]): entry["md5"] for entry in entries}
        strangers = {file: "" for file in self._below(path) if file not in outputs}
        return outputs | strangers, objects

    def _find_damage(self, files: dict[Path, str]) -> list[Path]:
        return [path for path, digest in files.items() if not self._holds(path, digest)]

    def _holds(self, path: Path, digest: str) -> bool | None:
        if path not in self.files:
            place = self._folder / path
            self.files[path] = _md5(place) == digest if place.exists() else None
        return self.files[path]

    def _list_folder(self, path: Path) -> list[dict[str, str]]:
        """A folder as DVC would list it."""
        files = {file.relative_to(path).as_posix(): _md5(self._folder / file) for file in self._below(path)}
        return [{"md5": digest, "relpath": name} for name, digest in sorted(files.items())]

    def _below(self, path: Path) -> list[Path]:
        return [file.relative_to(self._folder) for file in (self._folder / path).rglob("*") if file.is_file()]

    def _object(self, digest: str) -> Path:
        return self._cache / "files" / "md5" / digest[:2] / digest[2:]


def _md5(path: Path) -> str:
    """The MD5 of a file, by which DVC knows it; of a folder none."""
    if path.is_dir():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _outs(folder: Path) -> list[tuple[str, str, str]]:
    """The stage, the path and the hash of every output."""
    lock = folder / "dvc.lock"
    try:
        stages = yaml.load(lock.read_bytes(), _LOADER)["stages"]
        return [(name, out["path"], out["md5"]) for name in stages for out in stages[name].get("outs", [])]
    except FileNotFoundError:
        raise UserError(f"{lock}: there is none, so nothing was made yet; run `dvc repro`") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, LookupError, AttributeError):
        raise UserError(f"{lock}: cannot be read; run `python -m aimback.runtime.doctor`") from None


def _list_uncached(stages: Iterable[Mapping[str, Any]]) -> re.Pattern[str]:
    """Paths of outputs that DVC is told to leave to git."""
    outs = [out for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    paths = [path for out in outs if isinstance(out, dict) for path, how in out.items() if how.get("cache") is False]
    return re.compile("|".join(re.sub(r"\\\$\\\{.*?\\\}", ".*", re.escape(path)) for path in paths))


def _cache(folder: Path) -> Path:
    config = configparser.ConfigParser(strict=False)
    config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"], encoding="utf-8")
    return Path(".dvc", config.get("cache", "dir", fallback="cache"))


def _quote(*paths: Path | str) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def main() -> None:
    with report_errors("verify"):
        checked = Checked(Path(*sys.argv[1:2]))
        if not checked.damages:
            print(f"all {len(checked.files)} outputs and cache objects that dvc.lock names are whole")
            return
        for damage in checked.damages:
            print(damage)
        sys.exit(f"{len(checked.damages)} of {len(checked.files)} outputs and cache objects are not whole")


if __name__ == "__main__":
    main()
