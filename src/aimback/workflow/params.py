"""What files of settings hold, read in one place: whatever is wrong there becomes one line that names the file.

Neither PyTorch nor Hydra is imported: `publish` has to be over in milliseconds where there is nothing to do.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.runtime.project import CONF, ROOT

PARAMS = ROOT / "params.yaml"
ANEW = "make it anew: rm -rf params.yaml && aimback"
CONF_CURE = "mend it, or take it back: git checkout conf"

_LARGEST = 100_000  # bytes of a file; PyYAML takes seconds for the worst of that size
_MOST = 100_000  # values in it, once its aliases are written out
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: isinstance(value, str | None),
    "true or false": lambda value: isinstance(value, bool),
    "a whole number": lambda value: isinstance(value, int),
    "a group of settings": lambda value: isinstance(value, dict),
    "groups of settings, at least one": lambda value: _has_parts(value, dict, dict),
    "a list of text": lambda value: value == [] or _has_parts(value, list, str),
    "a list of names": lambda value: _has_parts(value, list, str),
}
_STAGES = ("train", "invert", "optimise", "amortise", "refine")
_SECTIONS = (
    *("tracking", "routes", "starts", "data", "surrogate", "training", "hybrid", "solver", "smoothing", "diagnose"),
    *("hardware", "executor", *_STAGES),
)
# What is asked of params.yaml without building the settings, which checks the rest.
_WANTED = {
    "task": "groups of settings, at least one",
    **dict.fromkeys(_SECTIONS, "a group of settings"),
    **dict.fromkeys((f"routes.{stage}" for stage in _STAGES), "a list of text"),
    "examined": "a list of text",
    "published": "text or null",
    "tracking.enabled": "true or false",
    "tracking.experiment": "text",
    "seed": "a whole number",
    "tasks": "a list of names",
    "budget": "a group of settings",
    "trust": "a list of text",
    "targets": "text or null",
    "targets_sha256": "text or null",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's, which reads as Hydra and DVC do: 1e-3 is a number, a day is text, and no key stands twice."""

    # Not the faster one in C: that ends with a segmentation fault where a file is nested deeply.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if (name := str(key.value)) in seen:
                problem = f"the name {quote(name)} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_params() -> dict[str, Any]:
    """params.yaml, with all that is asked of it by name; see `read_mapping`."""
    return read_mapping(PARAMS, ANEW, _WANTED)


def read_mapping(file: Path, cure: str, wanted: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A YAML file of names and values; an empty one has none.

    Args:
        cure: what a person can do where the file is not right.
        wanted: what must be there, by its key, as one of `_KINDS`.

    Raises:
        UserError: names the file, the line or the key, what is wrong, and the cure.
    """
    place = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    try:
        tree = _parse(file)
        for key, kind in (wanted or {}).items():
            _check_kind(tree, key, kind)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{place}: {_describe(error)}; {cure}") from error
    return tree


def check_conf() -> None:
    """Raises `UserError` naming the first file of conf/ that cannot be read."""
    for file in sorted(CONF.rglob("*.yaml")):
        read_mapping(file, CONF_CURE)


def _check_kind(tree: Mapping[str, Any], key: str, kind: str) -> None:
    above, _, name = key.rpartition(".")
    group = tree[above] if above else tree
    if name not in group:
        raise ValueError(f"{key} is missing")
    if not _KINDS[kind](group[name]):
        raise ValueError(f"{key} must be {kind}, got {quote(group[name])}")


def _has_parts(value: Any, kind: type, parts: type) -> bool:
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind) and bool(value) and all(isinstance(part, parts) for part in inside)


def _parse(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise ValueError("there is no such file")
    if not file.is_file():  # a pipe would be waited for
        raise ValueError("is no file")
    with file.open("rb") as opened:
        content = opened.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"holds more than {_LARGEST:,} bytes")
    tree = yaml.load(content.decode(), _Loader)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"must hold names and values, got {quote(tree)}")
    _check_values(tree)
    return tree


def _check_values(tree: dict[Any, Any]) -> None:
    """Names are text, values are what JSON knows, and aliases do not multiply into millions."""
    waiting: list[Any] = [tree]
    count = 0
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if wrong := [name for name in node if not isinstance(name, str)]:
                raise ValueError(f"names must be text, got {quote(wrong[0])}")
            parts = list(node.values())
        elif isinstance(node, list):
            parts = node
        elif isinstance(node, str | int | float | None):
            continue
        else:
            raise ValueError(f"{quote(node)} can be no value of a setting")
        count += len(parts)
        if count > _MOST:
            raise ValueError(f"holds more than {_MOST:,} values, its aliases (*name) written out")
        waiting += parts


def _describe(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start + 1})"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    return str(error).partition("\n")[0]
