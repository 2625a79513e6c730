"""Functions of named numbers or arrays, of one case or of many at once."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aimback.core.errors import UserError


@functools.cache
def find_function(call: str) -> Callable[..., Any]:
    """Import "package.module:function".

    Raises:
        UserError: there is no such module or function, or importing it fails.
    """
    place, _, name = call.partition(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        lacking = (
            "there is no such module" if (error.name or "") in place else f"it needs {error.name}, which is missing"
        )
        raise UserError(f"{call}: {lacking}") from error
    except Exception as error:  # whatever stands in the module is run
        raise UserError(f"{call}: cannot be imported ({type(error).__name__}: {error})") from error
    found = getattr(module, name, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise UserError(f"{call}: the module has no function {name}; it has {', '.join(functions) or 'none'}")
    made: Callable[..., Any] = found
    return made


def check_arguments(function: Callable[..., Any], names: Sequence[str], who: str) -> None:
    """Compare the parameters of a function with the names of its controls and conditions.

    Raises:
        UserError: it takes no argument of some name, or needs another one.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions of C do not say
        return
    taken = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    needed = [one.name for one in parameters if one.name in taken and one.default is one.empty]
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    listed = f"{who} takes ({', '.join(taken)})"
    if missing := next((name for name in needed if name not in names), None):
        raise UserError(f"{listed}; {missing} is no control and no condition: list it there, or give it a default")
    if strange := next((name for name in names if name not in taken and not takes_any), None):
        raise UserError(f"{listed}, and no {strange}, which is listed as a control or a condition")


@dataclass(frozen=True)
class Function:
    """A function that simulates one case, in plain floats and arrays of NumPy; what a worker process gets."""

    call: str
    function: Callable[..., Any] | None = None

    def __call__(self, case: Mapping[str, Any]) -> Any:
        return (self.function or find_function(self.call))(**case)
