"""Compose params.yaml from conf/, unless DVC has just composed it with overrides, and check it.

`dvc exp run -S ...` writes params.yaml itself (hydra.enabled) and names the experiment in the
environment; a plain `dvc repro` must notice edits of conf/. So the first line of params.yaml tells
which conf/ it was composed from, and is written only once everything in it was found to be right.
"""

import hashlib
import os

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf

from aimback.errors import UserError
from aimback.files import sha256, write_text
from pipelines.ending import CONF, ROOT, ending
from pipelines.entry import composing
from pipelines.settings import Settings

PARAMS = ROOT / "params.yaml"
HEADER = "# Composed from conf/ (edit there, or override), which had the hash "


def digest_of_conf() -> str:
    """What conf/ holds, in one hash."""
    digest = hashlib.sha256()
    for file in sorted(CONF.rglob("*.yaml")):
        digest.update(f"{file.relative_to(CONF).as_posix()}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_params(cfg: DictConfig) -> None:
    """Check everything that is configured; then write it, under the line that tells from where."""
    settings = Settings(cfg).check()
    # The bytes of a user's targets file are a parameter: DVC cannot depend on a file that may be none.
    if settings.targets is not None and not settings.targets.is_file():
        raise UserError(f"targets: there is no file {str(settings.targets)!r}")
    digest = sha256(settings.targets) if settings.targets else None
    text = OmegaConf.to_yaml(OmegaConf.create({**settings.tree, "targets_sha256": digest}))
    write_text(PARAMS, f"{HEADER}{digest_of_conf()}\n{text}")


def listed_tasks() -> list[str]:
    """The tasks that dvc.yaml makes stages of."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return list(defaults[0]["task"])


def _explain(error: Exception) -> str | None:
    ours = (hydra.errors.HydraException, yaml.YAMLError)
    return str(error) if isinstance(error, ours) else None


def _composed() -> DictConfig:
    """params.yaml if it is still right, else conf/ composed anew."""
    text = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""
    # DVC composes without our first line, and only for an experiment.
    by_dvc = text and not text.startswith(HEADER) and "DVC_EXP_NAME" in os.environ
    if by_dvc or text.startswith(HEADER + digest_of_conf()):
        cfg = OmegaConf.create(text)
        assert isinstance(cfg, DictConfig)
        return cfg
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra.compose("config")
        except Exception as error:  # whatever fails there is what stands in conf/
            raise UserError(composing(error)) from error


def main() -> None:
    with ending("compose", _explain):
        cfg = _composed()
        chosen, listed = list(cfg.get("task") or {}), listed_tasks()
        if chosen != listed:
            names = ",".join(chosen)
            raise UserError(
                f"the overrides ask for task=[{names}], the stages are made for [{','.join(listed)}], the list in "
                f"conf/config.yaml; choose tasks for one run by: python -m pipelines.run 'task=[{names}]'"
            )
        write_params(cfg)


if __name__ == "__main__":
    main()
