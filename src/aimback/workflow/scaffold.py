"""A project of one's own: `aimback init mylab` writes what is its user's, and the installed aimback brings the rest."""

import argparse
import importlib.util
import keyword
import math
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
import jinja2
import yaml
from omegaconf import OmegaConf

from aimback import HOME
from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.core.files import write_text
from aimback.core.repository import is_git_root
from aimback.runtime.doctor import tell_of_git
from aimback.runtime.exits import join_lines
from aimback.workflow.origin import READERS, RUNNING, Origin

# Of aimback's own repository as they are; what DVC and git shall leave alone is the same here and there.
_COPIED = (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots")
_HEAD = "# The stages of the installed aimback, as `aimback init` wrote them.\n"
_EXTRAS = ("tesseract", "umbridge", "fmu")  # what reaches these is installed beside the rest
_LEFT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")


@dataclass(frozen=True)
class _Axis:
    """A line of the task's file."""

    name: str
    value: Any
    note: str = ""


class _Parser(argparse.ArgumentParser):
    """One whose mistakes are one line, as everywhere here."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see aimback init --help")


def main(arguments: Sequence[str]) -> None:
    """Make a project, as the words after `aimback init` say."""
    try:
        asked = _parse(arguments)
        target = Path(asked.name)
        make_project(target, asked)
    except (UserError, OSError) as error:  # no trace is kept, for the folder is not ours
        message = str(error) if isinstance(error, UserError) else f"{error.filename}: {error.strerror}"
        print(f"error: {join_lines(message)}", file=sys.stderr)
        sys.exit(2)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="aimback init",
        description="Make a folder with a project: a small Python package with your simulator, and its settings.",
        epilog="Without any of the first options the simulator is an example, a cannon, to be replaced by your own.",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="of the folder, and of the package in it")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--call", metavar="PKG.MOD:FUNCTION", help="a Python function; or FILE.py:FUNCTION")
    kinds.add_argument("--command", metavar="LINE", help="a program, such as './drop {speed} {angle}'")
    kinds.add_argument(
        "--data", metavar="FILE", help="measurements alone, CSV or Parquet; name the --outcomes among its columns"
    )
    kinds.add_argument("--tesseract", metavar="FOLDER", help="a Tesseract")
    kinds.add_argument("--umbridge", metavar="URL", help="an UM-Bridge server")
    kinds.add_argument("--fmu", metavar="FILE", help="a Functional Mock-up Unit")
    kinds.add_argument("--example", metavar="TASK", help="a task that aimback brings along, such as cannon_drag")
    parser.add_argument("--controls", metavar="LIST", help="such as 'speed=1:10:m/s,angle=0.1:1.4:rad,mass=3'")
    parser.add_argument("--conditions", metavar="LIST", help="such as 'wind=-2:2:m/s'")
    parser.add_argument("--outcomes", metavar="LIST", help="with unit and tolerance, such as 'distance:m:0.01'")
    return parser.parse_args(arguments)


def make_project(target: Path, asked: argparse.Namespace) -> None:
    """Write a project, whole or not at all.

    Raises:
        UserError: what is asked for cannot be, or the folder is there.
    """
    name = target.name
    _check_name(name)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target}: is there, and not empty; choose another name")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: there is no such folder")
    origin, told = _read_origin(asked, name)
    aside = target.with_name(f".{name}-{secrets.token_hex(4)}")
    try:
        _write(aside, name, origin, told)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"{target}: a new project; {origin.place} is what is {'learned from' if asked.data else 'simulated'}")
    if any(axis.note.startswith("made up") for kind in ("controls", "conditions", "outcomes") for axis in told[kind]):
        print(f"first edit the values that conf/task/{told['task']}.yaml calls made up")
    print(f"then type: cd {target} && aimback")


def _check_name(name: str) -> None:
    if not name.isidentifier() or not name.isascii() or name.startswith("_") or keyword.iskeyword(name):
        raise UserError(f"{quote(name)}: can be no name of a package; it is of letters, digits and _")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # a folder without modules
        return
    place = Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]
    if name in sys.stdlib_module_names or place.resolve() != Path.cwd():
        raise UserError(f"{name}: is the name of an installed package; choose another")


def _read_origin(asked: argparse.Namespace, name: str) -> tuple[Origin, dict[str, Any]]:
    """What the project is made from, and what its templates are told."""
    if asked.example is not None:
        return _read_example(asked)
    kind = next((kind for kind in READERS if getattr(asked, kind) is not None), None)
    given = {one: _read_axes(one, getattr(asked, one)) for one in ("controls", "conditions")}
    outcomes = _read_outcomes(asked.outcomes)
    if kind is not None:
        origin = READERS[kind](getattr(asked, kind), name)
    elif any((asked.controls, asked.conditions, asked.outcomes)):
        raise UserError("--controls, --conditions and --outcomes: belong to a simulator, such as that of --call")
    else:
        origin = _imagine(name)
        given["conditions"], outcomes = {"wind": None}, [_Axis("distance", {"unit": "m", "tolerance": 0.01})]
    return origin, {"task": name, **_share(kind, origin, given, outcomes)}


def _imagine(name: str) -> Origin:
    """The example that a project has whose user names no simulator; see templates/src/simulator.py."""
    ranges = {"speed": [1.0, 10.0, "m/s"], "angle": [0.1, 1.4, "rad"], "wind": [-2.0, 2.0, "m/s"]}
    simulator = {"call": f"{name}.simulator:simulate", **RUNNING}
    known = {axis: (value, "") for axis, value in ranges.items()}
    place = f"src/{name}/simulator.py"
    return Origin({"simulator": simulator}, place, tuple(ranges), tuple(ranges), known, trust=(name,))


def _read_example(asked: argparse.Namespace) -> tuple[Origin, dict[str, Any]]:
    """A task of aimback's own: its file is copied, to be edited."""
    if any((asked.controls, asked.conditions, asked.outcomes)):
        raise UserError(f"--example {asked.example}: says itself what its controls, conditions and outcomes are")
    file = HOME / "conf" / "task" / f"{asked.example}.yaml"
    if not asked.example.isidentifier() or not file.is_file():
        known = ", ".join(sorted(one.stem for one in file.parent.glob("*.yaml")))
        raise UserError(f"--example {asked.example}: there is no such task; choose one of {known}")
    place = f"conf/task/{asked.example}.yaml"
    told: dict[str, Any] = {"controls": [], "conditions": [], "outcomes": []}
    return Origin({}, place, files={place: file}), {"task": asked.example, **told}


def _read_axes(option: str, text: str | None) -> dict[str, Any]:
    """`speed=1:10:m/s,mass=3,wind` -> the value of each; None where there is only a name."""
    axes: dict[str, Any] = {}
    for part in (text or "").split(",") if text else []:
        name, separator, value = (word.strip() for word in part.partition("="))
        words = [word.strip() for word in value.split(":", 2)] if separator else []
        if not name.isidentifier() or name in axes or (separator and not all(words)):
            raise UserError(f"--{option} {part}: is typed name=least:greatest:unit, name=value or name, each once")
        numbers = [_read_number(option, part, word) for word in words[:2]]
        if len(numbers) == 2 and not numbers[0] < numbers[1]:
            raise UserError(f"--{option} {part}: the lower bound must be below the upper one")
        axes[name] = None if not words else numbers[0] if len(words) == 1 else [*numbers, *words[2:]]
    return axes


def _read_outcomes(text: str | None) -> list[_Axis]:
    """`distance:m:0.01,height` -> the lines of the task's file."""
    axes: list[_Axis] = []
    for part in (text or "").split(",") if text else []:
        words = [word.strip() for word in part.split(":")]
        name, unit, tolerance = (*words, "", "")[:3]
        if not name.isidentifier() or name in [axis.name for axis in axes] or len(words) > 3:
            raise UserError(f"--outcomes {part}: is typed name:unit:tolerance, name:unit or name, each once")
        value: dict[str, Any] = {"unit": unit} if unit else {}
        if len(words) == 3:
            value["tolerance"] = _read_number("outcomes", part, tolerance)
            if not value["tolerance"] > 0:
                raise UserError(f"--outcomes {part}: the tolerance must be above 0")
        axes.append(_Axis(name, value))
    return axes


def _read_number(option: str, part: str, word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"--{option} {part}: {quote(word)} is no finite number")
    return number


def _share(kind: str | None, origin: Origin, given: Mapping[str, Any], outcomes: list[_Axis]) -> dict[str, list[_Axis]]:
    """Who of the names is a control, a condition, an outcome, each with its value."""
    controls, conditions = dict(given["controls"]), dict(given["conditions"])
    reached = [axis.name for axis in outcomes]
    if kind == "data" and not outcomes:
        raise UserError(f"--data: name the outcomes among its columns, by --outcomes; they are {_join(origin.names)}")
    if not controls:
        if origin.names is None:
            raise UserError(f"--{kind}: does not tell its controls; name them, --controls 'speed=1:10:m/s'")
        controls = dict.fromkeys(one for one in origin.names if one not in (*conditions, *reached))
    if not controls:
        raise UserError("--controls: there must be one that is solved for")
    names = [*controls, *conditions, *reached]
    if twice := [one for one in names if names.count(one) > 1]:
        raise UserError(f"{twice[0]}: is one thing only, a control, a condition or an outcome")
    asked = [*controls, *conditions, *(reached if kind == "data" else [])]
    if origin.names is not None and (unknown := [one for one in asked if one not in origin.names]):
        raise UserError(f"{unknown[0]}: there is no such name; there are {_join(origin.names)}")
    if missing := [one for one in origin.needed if one not in asked]:
        raise UserError(f"{missing[0]}: must be among --controls or --conditions, for the simulator asks for it")
    if wrong := [one for one in names if not one.isidentifier()]:
        raise UserError(f"{quote(wrong[0])}: is no name; a name is of letters, digits and _")
    return {
        "controls": [_complete(name, value, origin) for name, value in controls.items()],
        "conditions": [_complete(name, value, origin) for name, value in conditions.items()],
        "outcomes": [_complete_outcome(axis, origin) for axis in outcomes or [_Axis("outcome", {})]],
    }


def _join(names: Sequence[str] | None) -> str:
    return ", ".join(names or ())


def _complete(name: str, value: Any, origin: Origin) -> _Axis:
    if value is not None:
        return _Axis(name, value)
    return _Axis(name, *origin.ranges.get(name, ([0.0, 1.0], "made up: edit its range")))


def _complete_outcome(axis: _Axis, origin: Origin) -> _Axis:
    """What was not told: the unit as the data have it, and a hundredth of their range for a tolerance."""
    if axis.name in origin.ranges:
        least, greatest, *unit = origin.ranges[axis.name][0]
        width = (greatest - least) or 1.0
        whole = {**({"unit": unit[0]} if unit else {}), "tolerance": float(f"{width / 100:.2g}"), **axis.value}
    else:
        whole = {"tolerance": 0.01, **axis.value}
    if "tolerance" in axis.value:
        return _Axis(axis.name, whole)
    return _Axis(axis.name, whole, f"made up: edit its {'' if axis.value else 'name, unit and '}tolerance")


def _write(folder: Path, name: str, origin: Origin, told: Mapping[str, Any]) -> None:
    """All of the project's files."""
    folder.mkdir()
    for file in _COPIED:
        _copy(HOME / file, folder / file)
    for place, source in origin.files.items():
        _copy(source, folder / place)
    dear, measured = "simulator" in origin.head, "data" in origin.head
    routes = ["surrogate"] if measured else ["surrogate", "direct", *([] if dear else ["hybrid"])]
    extra = "".join(f"[{kind}]" for kind in origin.head.get("simulator", ()) if kind in _EXTRAS)
    more = {
        "name": name,
        "extra": extra,
        "place": origin.place,
        "head": origin.head,
        "trust": list(origin.trust),
        "routes": routes,
        "dear": dear,
        "measured": measured,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("aimback.workflow"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    templates.filters["yaml"] = _format
    for template in templates.list_templates(filter_func=lambda one: "__pycache__" not in one):
        place = {"conf/task.yaml": f"conf/task/{told['task']}.yaml"}.get(template, template)
        place = place.replace("src/", f"src/{name}/")
        needless = template == "src/simulator.py" and place != origin.place
        if place not in origin.files and not needless:
            text = templates.get_template(template).render(**told, **more)
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(text, encoding="utf-8")
    outside = [place for place in origin.files if not place.startswith(("src/", "conf/"))]
    stages = (HOME / "dvc.yaml").read_text(encoding="utf-8")
    (folder / "dvc.yaml").write_text(_rewrite(stages, outside), encoding="utf-8")
    # DVC makes its stages of the lists in there. Without our first line it is composed anew, and checked, by the first.
    with hydra.initialize_config_dir(str((folder / "conf").resolve()), version_base="1.3"):
        write_text(folder / "params.yaml", OmegaConf.to_yaml(hydra.compose("config"), resolve=True))
    tell_of_git(folder / ".dvc" / "config.local", is_git_root(folder))


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=_LEFT)
    else:
        shutil.copy(source, place)


def _format(value: Any) -> str:
    """A value as YAML has it on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def _rewrite(text: str, files: Sequence[str]) -> str:
    """Our dvc.yaml with the stages of the installed aimback, which is no dependency: it does not change by editing.

    `compose` runs every time, for an installed aimback is replaced where DVC does not look. What it writes decides on
    the rest.
    """
    tree = yaml.safe_load(text)
    for stage in tree["stages"].values():
        stage["cmd"] = stage["cmd"].replace("python -m pipelines.", "python -m aimback.pipelines.")
        stage["deps"] = [place for place in stage["deps"] if not place.startswith(("src/", "pipelines/"))]
        if not stage["deps"]:
            del stage["deps"]
    compose = tree["stages"]["compose"]
    compose["deps"] = ["conf", "src", *files]
    compose["always_changed"] = True
    return f"{_HEAD}{yaml.safe_dump(tree, sort_keys=False, width=1000)}"
