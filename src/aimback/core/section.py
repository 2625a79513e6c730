"""What every section of the configuration is: a schema without defaults, for values live in conf/ alone."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration, checked when it is made and fixed from then on.

    Its fields are its keys; each has a type (`Sequence` for a list, never `tuple`), its bounds by
    `pydantic.Field`, and no default. Raises
    `pydantic.ValidationError`, of which `aimback.settings.tree` makes one line for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
