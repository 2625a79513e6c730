"""Simulators behind foreign interfaces, tried on the real thing: values and derivatives by their closed forms."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from aimback.core import extras
from aimback.core.errors import UserError
from aimback.simulators.fmu import FmuFile
from aimback.simulators.pool import Pool, Result
from aimback.simulators.tesseract import TesseractFile
from aimback.simulators.umbridge import UmbridgeModel


def need(library: str, extra: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(library) is None, reason=f"{library} is not installed (extra: {extra})")


_TESSERACT = """
import numpy as np
from pydantic import BaseModel
from tesseract_core.runtime import Differentiable, Float64

class InputSchema(BaseModel):
    speed: Differentiable[Float64]
    angle: Differentiable[Float64]

class OutputSchema(BaseModel):
    range: Differentiable[Float64]
    spare: Differentiable[Float64]

def apply(inputs: InputSchema) -> OutputSchema:
    print("noise")
    if inputs.speed < 0:
        raise ValueError("too slow")
    return OutputSchema(range=inputs.speed**2 * np.sin(2 * inputs.angle) / 9.81, spare=0.0)
"""
_JACOBIAN = """
def jacobian(inputs, jac_inputs, jac_outputs):
    by = {
        "speed": 2 * inputs.speed * np.sin(2 * inputs.angle) / 9.81,
        "angle": 2 * inputs.speed**2 * np.cos(2 * inputs.angle) / 9.81,
    }
    return {outcome: {control: by[control] for control in jac_inputs} for outcome in jac_outputs}
"""
CANNON = {"speed": 20.0, "angle": 0.5}


@need("tesseract_core", "tesseract")
@pytest.mark.parametrize("differentiable", [True, False])
def test_a_tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differentiable: bool) -> None:
    path = tmp_path / "api" / "tesseract_api.py"
    path.parent.mkdir()
    path.write_text(_TESSERACT + _JACOBIAN * differentiable)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    simulate = TesseractFile(path, ("range",), ("speed", "angle"))
    with Pool(simulate, workers=1, timeout=60, folder=tmp_path) as pool:
        (good, bad) = pool.run([CANNON, {"speed": -1.0, "angle": 0.5}])
        (derivatives,) = pool.run([CANNON], method="jacobian")
    assert good.value == {"range": pytest.approx(400 * np.sin(1) / 9.81)}
    assert bad.reason == "ValueError: too slow"
    if differentiable:
        expected = {"speed": pytest.approx(40 * np.sin(1) / 9.81), "angle": pytest.approx(800 * np.cos(1) / 9.81)}
        assert derivatives.value == {"range": expected}
    else:
        assert derivatives.reason is not None and derivatives.reason.startswith("NotImplementedError")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"api", "temporary"}


@need("tesseract_core", "tesseract")
def test_a_tesseract_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        TesseractFile(tmp_path / "tesseract_api.py", ("y",), ("x",))


_SERVER = """
import socket, sys, threading
import umbridge

class Ours(umbridge.Model):
    def __init__(self, name):
        super().__init__(name)
    def get_input_sizes(self, config):
        return [2, 1]
    def get_output_sizes(self, config):
        return [1, 1]
    def __call__(self, parameters, config):
        (x, y), (z,) = parameters
        if x < 0:
            raise ValueError("too small")
        return [[config.get("factor", 1) * x * y], [x * z]]
    def supports_evaluate(self):
        return True

class Differentiable(Ours):
    def gradient(self, out_wrt, in_wrt, parameters, sens, config):
        (x, y), (z,) = parameters
        f = config.get("factor", 1)
        by = [[[f * y, f * x], [0.0]], [[z, 0.0], [x]]]
        return [sens[0] * number for number in by[out_wrt][in_wrt]]
    def supports_gradient(self):
        return True

umbridge.serve_models([Ours("plain"), Differentiable("differentiable")], int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    import socket
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", _SERVER, str(port)], stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/Info").close()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        yield url
        process.kill()


@need("umbridge", "umbridge")
def test_a_model_behind_a_server(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = UmbridgeModel(server, "differentiable", (("x", "y"), ("z",)), ("a", "b"), {"factor": 2})
    case = {"z": 5.0, "x": 3.0, "y": 0.5}
    with Pool(model, workers=1, timeout=60) as pool:
        assert pool.run([case]) == [Result({"a": 3.0, "b": 15.0})]
        assert pool.run([case], method="jacobian") == [
            Result({"a": {"x": 1.0, "y": 6.0, "z": 0.0}, "b": {"x": 5.0, "y": 0.0, "z": 3.0}})
        ]
        (bad,) = pool.run([case | {"x": -1.0}])
        assert bad.reason == "the server gave no answer; its own log says why"
    with Pool(UmbridgeModel(server, "plain", (("x", "y"), ("z",)), ("a",)), workers=1, timeout=60) as pool:
        assert pool.run([case]) == [Result(reason="the server gave 2 numbers for 1 outcomes")]
        (derivatives,) = pool.run([case], method="jacobian")
        assert derivatives.reason == f"NotImplementedError: plain at {server} offers no gradients"


@need("umbridge", "umbridge")
def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match="no server answers at http://127.0.0.1:9"):
        UmbridgeModel("http://127.0.0.1:9", "plain", (("x",),), ("y",))({"x": 1.0})


_FMU = """
from pythonfmu import Fmi2Causality, Fmi2Slave, Fmi2Variability, Real

class Drop(Fmi2Slave):
    def __init__(self, **given):
        super().__init__(**given)
        self.speed, self.height, self.x, self.y, self.steps = 1.0, 2.0, 0.0, 0.0, 0.0
        for name in ("speed", "height"):
            self.register_variable(Real(name, causality=Fmi2Causality.parameter, variability=Fmi2Variability.tunable))
        for name in ("x", "y", "steps"):
            self.register_variable(Real(name, causality=Fmi2Causality.output))

    def do_step(self, current_time, step_size):
        t = current_time + step_size
        self.steps += 1
        self.x, self.y = self.speed * t, self.height - 9.81 * t**2 / 2
        return True
"""


_TIME = """
        self.time = 0.0
        self.register_variable(
            Float64("time", causality=Fmi3Causality.independent, variability=Fmi3Variability.continuous)
        )
"""


@pytest.fixture(scope="module", params=["pythonfmu", "pythonfmu3"])
def fmu(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The same model in FMI 2 and in FMI 3."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed; it builds what is tried here")
    folder, text = tmp_path_factory.mktemp("fmu"), _FMU
    if request.param == "pythonfmu3":
        text = text.replace("Fmi2", "Fmi3").replace("Real", "Float64").replace("pythonfmu", "pythonfmu3")
        text = text.replace("\n\n    def do_step", _TIME + "\n    def do_step")
    (folder / "drop.py").write_text(text)
    command = [sys.executable, "-m", request.param, "build", "-f", "drop.py"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "Drop.fmu"


@need("fmpy", "fmu")
def test_an_fmu(fmu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    simulate = FmuFile(fmu, tmp_path / "fmus", ("x", "y", "steps"), stop_time=0.5)
    simulate.check_names(["speed", "height"])
    with Pool(simulate, workers=2, timeout=60) as pool:
        results = pool.run([{"speed": float(speed), "height": 5.0} for speed in range(20)])
    values = [result.value for result in results]
    steps = values[0]["steps"]  # type: ignore[index]
    # An instance that was used before would have made more steps.
    y = pytest.approx(5 - 9.81 / 8)
    expected = [{"x": pytest.approx(speed / 2), "y": y, "steps": steps} for speed in range(20)]
    assert values == expected
    assert list((tmp_path / "temporary").iterdir()) == []
    assert len([*(tmp_path / "fmus").iterdir()]) == 1


@need("fmpy", "fmu")
def test_mistakes_about_an_fmu_are_one_line(fmu: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Drop.fmu has no variable q; it has .*speed"):
        FmuFile(fmu, tmp_path / "fmus", ("q",))
    with pytest.raises(UserError, match="has no variable spead"):
        FmuFile(fmu, tmp_path / "fmus", ("x",)).check_names(["spead"])
    with pytest.raises(UserError, match="there is no file"):
        FmuFile(tmp_path / "absent.fmu", tmp_path / "fmus", ("x",))
    (tmp_path / "text.fmu").write_text("text")
    with pytest.raises(UserError, match=r"text.fmu cannot be read: "):
        FmuFile(tmp_path / "text.fmu", tmp_path / "fmus", ("x",))
    assert len([*(tmp_path / "fmus").iterdir()]) == 1


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: TesseractFile(path, (), ()), "tesseract_core is not installed; pip install 'aimback[tesseract]'"),
        (lambda path: UmbridgeModel("", "", (), ()), "umbridge is not installed; pip install 'aimback[umbridge]'"),
        (lambda path: FmuFile(path, path, ()), "fmpy is not installed; pip install 'aimback[fmu]'"),
    ],
)
def test_a_library_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], line: str
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda library: None)
    with pytest.raises(UserError) as caught:
        make(tmp_path / "x")
    assert str(caught.value).startswith(line)
