"""How a command with settings begins: Hydra composes them."""

import difflib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from aimback.errors import UserError
from pipelines import hydra_section
from pipelines.ending import CONF, ending

_MULTIRUN = ("-m", "--multirun")
hydra_section.guard()


def entry(work: Callable[[DictConfig], None]) -> Callable[[], None]:
    """Turn `work` into a command that Hydra composes the configuration of."""
    name = Path(inspect.unwrap(work).__code__.co_filename).stem

    # Hydra names the job and finds the file through __wrapped__.
    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    @functools.wraps(work)
    def composed(cfg: DictConfig) -> None:
        with ending(name):
            work(cfg)

    @functools.wraps(work)
    def main() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what goes wrong while it composes
        # Hydra's parser takes overrides on one side of a flag only, so the flag goes first wherever it was typed.
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in _MULTIRUN)
        with ending(name, composing):
            composed()

    return main


def composing(error: Exception) -> str:
    """Whatever fails before the work begins is the command line or conf/."""
    message = str(error) or type(error).__name__
    unknown = re.match(r"Could not override '([^']+)'", message)
    if unknown is None:
        return message.partition("Config search path")[0]
    try:
        known = _keys()
    except UserError as refused:
        return str(refused)
    # Hydra's own advice, to append the key with +, is what nobody wants here.
    close = difflib.get_close_matches(unknown[1], known, 1)
    advice = f"did you mean {close[0]}?" if close else "see --cfg job for what there is"
    return f"{unknown[1]}: unknown key; {advice}"


def _keys() -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return _dotted(hydra.compose("config"))


def _dotted(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys.append(f"{prefix}{name!s}")
        if OmegaConf.is_dict(value):
            keys += _dotted(value, f"{prefix}{name!s}.")
    return keys
