"""What a person types after a command: paths mean where it is typed, and what Hydra cannot read gets advice."""

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aimback.runtime.project import ROOT, name_below_root

_PATHS = ("targets", "inputs")
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'")

# conf/config.yaml writes ${root:}, so that a run by hand writes into the project wherever it is started.
OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)


def place(cfg: DictConfig, overrides: Sequence[str], typed_in: str) -> None:
    """Let the paths that overrides name mean what they mean where they are typed; see `aimback.runtime.project`."""

    def placed_part(part: Any) -> Any:
        return name_below_root(part, typed_in) if isinstance(part, str) and part else part

    try:
        for key in _named(overrides):
            value = OmegaConf.to_container(cfg, resolve=True)[key]  # type: ignore[call-overload, index]
            cfg[key] = [placed_part(part) for part in value] if isinstance(value, list) else placed_part(value)
    except OmegaConfBaseException:
        pass  # an unknown name in ${...}: who reads the configuration says so


def advise_quotes(error: Exception) -> str | None:
    """What to type instead where Hydra cannot read an override, or reads several values; None if it is not that."""
    ambiguous = _AMBIGUOUS.match(str(error))
    override = error.override if isinstance(error, OverrideParseException) else ambiguous[1] if ambiguous else ""
    key, separator, value = override.partition("=")
    if not (key and separator):
        return None
    meant = f"{key}={QuotedString(text=value, quote=Quote.double).with_quotes()}"
    try:
        OverridesParser.create().parse_override(meant)
    except HydraException:
        return None
    what = "a comma separates values" if ambiguous else "the value has a character that needs quotes"
    advice = f"{override}: {what}; one text, such as the name of a file, is typed {shlex.quote(meant)}"
    return f"{advice}; several values, a run each, need --multirun in front" if ambiguous else advice


def _named(overrides: Iterable[str]) -> list[str]:
    """The paths of the configuration that overrides name."""
    keys = [override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))]
    return [key for key in _PATHS if key in keys]
