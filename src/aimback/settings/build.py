"""Objects as conf/ describes them, and what is wrong with a description, in one line that names its key."""

import difflib
import functools
import importlib
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

import aimback
from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.core.section import Section
from aimback.simulators.executor import Executor
from aimback.simulators.source import CODE, FOUND
from aimback.solve.solver import Solver
from aimback.tasks.base import Task

T = TypeVar("T")
_PACKAGE = Path(aimback.__file__).parent
_FAMILIES = (Solver, Executor)
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def build(node: Any, kind: type[T], path: str = "", trusted: Sequence[str] = ()) -> T:
    """Make the object that a config node describes.

    Args:
        node: a mapping of constructor keywords; `_target_` names the class where `kind` leaves a choice.
        kind: the class, or a protocol that the class must implement, or the base of a family of classes.
        path: where the node stands in the config, for messages.
        trusted: packages beside aimback that may hold the class.

    Raises:
        UserError: a target that is no class of this kind inside aimback or what is trusted, an unknown or missing key,
            a value of another type, out of range, or not finite.
    """
    if not isinstance(node, Mapping):
        raise UserError(_place(path, f"must be a group of settings, got {quote(node)}"))
    values = {str(name): value for name, value in node.items()}
    code = values.pop(CODE, None)
    values.pop(FOUND, None)
    made = _choose_class(values, kind, path, trusted)
    schema = _describe(made)
    try:
        checked = schema.model_validate(values)
        built: T = made(**{name: getattr(checked, name) for name in values})
        if code is not None:
            vars(built)["code"] = code  # so that files are known to be made by other code; see `identify`
        return built
    except ValidationError as error:
        raise UserError(_place(path, explain(error, schema))) from None
    except ValueError as error:
        raise UserError(_place(path, str(error))) from error


@functools.cache
def _describe(made: type) -> type[Section]:
    """The keywords of a constructor, as a model."""
    hints, parameters = get_type_hints(made.__init__), inspect.signature(made).parameters  # type: ignore[misc]
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
    }
    return create_model(made.__name__, __base__=Section, **fields)


def _choose_class(values: dict[str, Any], kind: type[T], path: str, trusted: Sequence[str]) -> type:
    """The class to make, where `kind` leaves a choice by what is said of it; `_target_` is taken out."""
    if not (getattr(kind, "_is_protocol", False) or kind in _FAMILIES):
        return kind
    if kind is Task and "_target_" not in values and "simulator" in values:
        from aimback.tasks.described import DescribedTask

        return DescribedTask
    if kind is Task and "_target_" not in values and "data" in values:
        from aimback.tasks.measured import MeasuredTask

        return MeasuredTask
    return _find_class(values.pop("_target_", None), kind, path, trusted)


def _find_class(target: Any, kind: type[T], path: str, trusted: Sequence[str]) -> type[T]:
    """The class that `target` names, once it is known to be ours or trusted: importing and calling run code."""
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    wanted = _place(path, f"_target_: must name {article} {kind.__name__} of aimback, got {quote(target)}")
    if not isinstance(target, str) or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z]\w*)+", target) is None:
        raise UserError(wanted)
    module_name, _, name = target.rpartition(".")
    if (package := module_name.partition(".")[0]) != "aimback":
        if package not in trusted:
            raise UserError(wanted)
    else:
        file = _PACKAGE.joinpath(*module_name.split(".")[1:])
        if not (file.with_suffix(".py").is_file() or file.joinpath("__init__.py").is_file()):
            raise UserError(wanted)
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:  # whatever stands in a module of the user's is run
        if package == "aimback":
            raise
        raise UserError(_place(path, f"_target_: {module_name} cannot be imported ({error})")) from error
    if not isinstance(found, type) or found.__module__ != module_name or not _implements(found, kind):
        raise UserError(wanted)
    return found


def _implements(made: type, kind: type) -> bool:
    if kind in _FAMILIES:
        return issubclass(made, kind) and made is not kind
    if inspect.isabstract(made) or getattr(made, "_is_protocol", False):
        return False
    # A protocol with attributes cannot answer issubclass(); its methods tell.
    methods = [name for name, member in vars(kind).items() if inspect.isfunction(member)]
    wanted = [name for name in methods if not name.startswith("_") or name == "__call__"]
    return all(callable(getattr(made, name, None)) for name in wanted)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong; an unknown key before the missing one that it may have been meant for."""
    found = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    kind, place = found["type"], found["loc"]
    key = ".".join(map(str, place))
    if (inner := found.get("ctx", {}).get("error")) is not None:
        return _place(key, str(inner))
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "extra_forbidden":
        known = [str(name) for name in _fields(_descend(model, place[:-1])[0])]
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        return f"{key}: unknown key; " + (f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}")
    reason = found["msg"].replace("Input should be", "must be").replace("Value should", "must")
    if kind in ("model_type", "dict_type"):
        reason = "must be a group of settings"
    elif kind == "path_type":
        reason = "must be the path of a file or a folder"
    elif kind.startswith(("greater_than", "less_than")):
        limits = [
            f"{word} {getattr(bound, name):,}"
            for bound in _descend(model, place)[1]
            for name, word in _BOUNDS.items()
            if hasattr(bound, name)
        ]
        reason = f"must be {' and '.join(limits)}" if limits else reason
    return f"{key}: {reason}, got {quote(found['input'])}"


def _place(path: str, message: str) -> str:
    """A message about `path`, or about the key below it that the message begins with."""
    joint = "." if re.match(r"[\w.]+: ", message) else ": "
    return f"{path}{joint}{message}" if path else message


def _fields(model: Any) -> dict[Any, Any]:
    """The fields of a model by the keys of the config."""
    fields = getattr(model, "model_fields", {})
    return {field.alias or name: field for name, field in fields.items()}


def _descend(hint: Any, place: tuple[int | str, ...]) -> tuple[Any, list[Any]]:
    """The type that a model has at a place, and the bounds of its values."""
    bounds: list[Any] = []
    for name in place:
        if field := _fields(hint).get(name):
            hint, bounds = field.annotation, field.metadata
            # A section that may be left out is a union with None.
            if isinstance(hint, types.UnionType):
                hint = next((part for part in get_args(hint) if hasattr(part, "model_fields")), hint)
        else:  # what a mapping or a list holds
            hint = (get_args(hint) or (Any,))[-1]
            hint, bounds = getattr(hint, "__origin__", hint), list(getattr(hint, "__metadata__", ()))
            bounds = [bound for part in bounds for bound in getattr(part, "metadata", [part])]
    return hint, bounds
