"""What a config says of a simulator: where it is, and how it is called, differentiated and guarded."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from aimback.core.section import Section

# "own": those that the simulator brings along.
Derivatives = Literal["auto", "dual", "jvp", "autograd", "jax", "own", "finite_differences", "none"]
# What is given to a function: tensors, arrays of NumPy or of JAX.
Arrays = Literal["auto", "torch", "numpy", "jax"]
# How many cases a call takes: any number at once; one, mapped over many by torch.func.vmap; or one.
Cases = Literal["auto", "batch", "vmap", "one"]

NAMED_BY = ("call", "module", "command", "tesseract", "umbridge", "fmu")


class Description(Section):
    """A simulator, as a task's file in conf/ names it by one of `NAMED_BY`.

    Attributes:
        call: a function of named numbers or arrays, "package.module:function".
        module: a file of `torch.export` or TorchScript, which takes and gives rows `(n, inputs)` of tensors.
        command: an executable with its arguments, {name} for a number.
        template: a file with {name} in it, written into the folder of each run of the command.
        answer: where the command writes its outcomes: stdout, or a file in the folder of the run.
        tesseract: the folder of a tesseract_api.py. umbridge: the URL of a server. fmu: an FMU of FMI 2 or 3.
        options: further arguments of these three.
        derivatives: how it is differentiated; auto: the best that is found to be right, before the first stage.
        arrays, cases: what a function takes; auto: found out.
        step: of finite differences, a share of each control's range; null: by the noise that is measured.
        workers: processes that run cases side by side; 0: none, this process does.
        timeout: seconds after which a run is given up.
        retries: how often a run that failed is tried again.
        failures: the share of failed runs in a sample of the box from which on the work stops.
    """

    call: str | None = None
    module: str | None = None
    command: str | None = None
    template: str | None = None
    answer: str = "stdout"
    tesseract: str | None = None
    umbridge: str | None = None
    fmu: str | None = None
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    derivatives: Derivatives = "auto"
    arrays: Arrays = "auto"
    cases: Cases = "auto"
    step: Annotated[float, Field(gt=0, le=0.1)] | None = None
    workers: Annotated[int, Field(ge=0, le=1024)] = 1
    timeout: Annotated[float, Field(gt=0, le=1e7)] | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    failures: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        named = [kind for kind in NAMED_BY if getattr(self, kind) is not None]
        if len(named) != 1:
            raise ValueError(f"name it by one of {', '.join(NAMED_BY)}, got {' and '.join(named) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """By which of `NAMED_BY` it is named."""
        return next(kind for kind in NAMED_BY if getattr(self, kind) is not None)

    @property
    def place(self) -> str:
        """What it is named by."""
        return str(getattr(self, self.kind))
