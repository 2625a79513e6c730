"""What a new project is made from: a function, a command line, a file, a folder or an address, as its user names it.

Each says what can be told of it without running it: the names it can be given, ranges for them, the files to copy.
"""

import importlib
import importlib.util
import inspect
import math
import re
import shlex
import string
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.data.sheet import read_number, read_sheet, split_label

# Whatever runs case by case does so in two processes, and is given up after a minute.
RUNNING = {"derivatives": "auto", "workers": 2, "timeout": 60.0}


@dataclass(frozen=True)
class Origin:
    """What a new project is made from.

    Attributes:
        head: the entry of the task's file that says what simulates, or which data there are.
        place: what its user edits to change that: a file or folder of the project, or what is not in it.
        names: what it can be given; None where that cannot be told.
        needed: those of them that it cannot do without.
        ranges: values of names as the task's file has them, each with a note on where they are from.
        files: what is copied into the project, by its place there.
        trust: what the project lets the task run.
    """

    head: Mapping[str, Any]
    place: str
    names: tuple[str, ...] | None = None
    needed: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    trust: tuple[str, ...] = ()


def read_call(text: str, name: str) -> Origin:
    """A Python function, `pkg.mod:function` or `file.py:function`; code that lies here is copied into the project."""
    place, _, function = text.rpartition(":")
    is_file, first = place.endswith(".py"), place.partition(".")[0]
    if not function.isidentifier() or not (is_file or all(part.isidentifier() for part in place.split("."))):
        raise UserError(f"--call {text}: is typed package.module:function or file.py:function")
    file = Path(place if is_file else f"{place}.py")
    if is_file and not file.is_file():
        raise UserError(f"--call {text}: there is no file {quote(place)}")
    files = {}
    if file.is_file():
        made = _find_function(text, lambda: _load(file), function)
        files, call, trust = {f"src/{name}/simulator.py": file}, f"{name}.simulator:{function}", name
    else:
        if Path(first).is_dir():
            sys.path.insert(0, str(Path.cwd()))
        made = _find_function(text, lambda: importlib.import_module(place), function)
        call, trust = text, first
        if (Path(first) / "__init__.py").resolve() == Path(sys.modules[first].__file__ or "").resolve():
            files = {f"src/{first}": Path(first)}
    simulator, edited = {"call": call, **RUNNING}, next(iter(files), text)
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):  # one written in C
        return Origin({"simulator": simulator}, edited, files=files, trust=(trust,))
    known = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if not known:  # a network, which takes a row of numbers
        return Origin({"simulator": simulator}, edited, files=files, trust=(trust,))
    ranges = {one.name: _range_about(one.default) for one in known if _is_number(one.default)}
    needed = tuple(one.name for one in known if one.default is one.empty)
    names = tuple(one.name for one in known if one.default is one.empty or one.name in ranges)
    return Origin({"simulator": simulator}, edited, names, needed, ranges, files, (trust,))


def _load(file: Path) -> Any:
    sys.path.insert(0, str(file.resolve().parent))  # as where it is run
    spec = importlib.util.spec_from_file_location("simulator", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules["simulator"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _find_function(text: str, load: Callable[[], Any], name: str) -> Any:
    try:
        found = getattr(load(), name, None)
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        raise UserError(f"--call {text}: cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise UserError(f"--call {text}: there is no function {name!r}")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _range_about(value: float) -> tuple[Any, str]:
    if value == 0:
        return [0.0, 1.0], "made up: its default is 0"
    return sorted([value / 2, value * 2]), f"made up: half and twice its default, {value:g}"


def read_command(text: str, name: str) -> Origin:
    """A command line with placeholders, `./drop {speed} {angle}`; files here that it names are copied."""
    try:
        words = shlex.split(text)
        found = [one for _, one, _, _ in string.Formatter().parse(text) if one is not None]
    except ValueError as error:
        raise UserError(f"--command {text}: cannot be read ({error})") from error
    if not words or not found or not all(one.isidentifier() for one in found):
        raise UserError(f"--command {text}: names its controls in braces, such as './drop {{speed}} {{angle}}'")
    files = {}
    for word in words:
        file = Path(word)
        if "{" in word or file.is_absolute() or ".." in file.parts:
            continue
        if file.is_file():
            files[file.as_posix()] = file
        elif word == words[0] and "/" in word:
            raise UserError(f"--command {text}: there is no file {quote(word)} here")
    names = tuple(dict.fromkeys(found))
    simulator, edited = {"command": text, **RUNNING}, next(iter(files), text)
    return Origin({"simulator": simulator}, edited, names, names, {}, files, (text,))


def read_data(text: str, name: str) -> Origin:
    """A table of measurements, a column for each control, condition and outcome: `speed [m/s],distance [m]`.

    A column without a number is none of them, and neither is one that is the same everywhere.
    """
    file = _find(text, "data", Path.is_file)
    try:
        sheet = read_sheet(file, "measurement")
    except UserError as error:
        raise UserError(f"--data {error}") from error
    rows = [] if sheet.header is None or isinstance(sheet.header, UserError) else list(sheet.rows)
    known: dict[str, tuple[str | None, list[float]]] = {}
    for column, cell in enumerate(sheet.header if rows else ()):  # type: ignore[arg-type] # it is no error where there are rows
        title, unit = split_label(cell)
        if title in known:
            raise UserError(f"--data {text}: has two columns of the same name")
        cells = [row[column] for row in rows if not isinstance(row, UserError) and len(row) > column]
        known[title] = unit, [number for number in map(read_number, cells) if not math.isnan(number)]
    ranges: dict[str, tuple[Any, str]] = {
        title: ([min(values), max(values), *([unit] if unit else [])], "of the data")
        for title, (unit, values) in known.items()
        if values and min(values) < max(values)
    }
    if not ranges:
        raise UserError(f"--data {text}: is no table of numbers that vary, under a line of names")
    return Origin({"data": file.name}, file.name, tuple(ranges), (), ranges, {file.name: file})


def read_tesseract(text: str, name: str) -> Origin:
    """The folder of a Tesseract, with its `tesseract_api.py`; it is copied."""
    folder = _find(text, "tesseract", lambda place: (place / "tesseract_api.py").is_file())
    place = folder.resolve().name
    return Origin({"simulator": {"tesseract": place, **RUNNING}}, place, files={place: folder}, trust=(place,))


def read_fmu(text: str, name: str) -> Origin:
    """A Functional Mock-up Unit; it is copied."""
    file = _find(text, "fmu", Path.is_file)
    return Origin({"simulator": {"fmu": file.name, **RUNNING}}, file.name, files={file.name: file}, trust=(file.name,))


def read_umbridge(text: str, name: str) -> Origin:
    """The address of an UM-Bridge server."""
    if re.fullmatch(r"https?://[^\s/]+\S*", text) is None:
        raise UserError(f"--umbridge {text}: is an address such as http://localhost:4242")
    return Origin({"simulator": {"umbridge": text, **RUNNING}}, text, trust=(text,))


def _find(text: str, option: str, is_right: Callable[[Path], bool]) -> Path:
    if not is_right(Path(text)):
        what = "folder with a tesseract_api.py" if option == "tesseract" else "file"
        raise UserError(f"--{option} {text}: there is no such {what}")
    return Path(text)


READERS: Mapping[str, Callable[[str, str], Origin]] = {
    "call": read_call,
    "command": read_command,
    "data": read_data,
    "tesseract": read_tesseract,
    "umbridge": read_umbridge,
    "fmu": read_fmu,
}
