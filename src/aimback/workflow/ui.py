"""MLflow's UI on this machine, with a link to the routes side by side."""

import argparse
import http.client
import os
import socket
import sys
import time

from aimback.core.errors import UserError
from aimback.runtime.exits import report_errors
from aimback.runtime.project import CONFS, ROOT
from aimback.tracking import ui_link
from aimback.workflow.params import CONF_CURE, PARAMS, read_mapping, read_params
from aimback.workflow.runs import open_project_store

_HOST = "127.0.0.1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m aimback.workflow.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    with report_errors("ui"):
        port = parser.parse_args().port
        _check_free(port)
        place = open_project_store(_experiment())
        _, experiment_id = place.connect()
        if place.uri.startswith("http"):
            print(f"the runs are at {ui_link(experiment_id, place.shown)}")
            return
        print("MLflow starts ...", flush=True)
        if os.fork() == 0:
            _announce(f"open {ui_link(experiment_id, f'http://{_HOST}:{port}')}\nCtrl-C ends it", port)
            os._exit(0)
        os.environ |= {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "PYTHONWARNINGS": "ignore",
        }
        server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", place.uri]
        quietly = ["--uvicorn-opts", "--log-level=warning --no-access-log --lifespan=off"]
        os.chdir(ROOT)
        os.execv(sys.executable, [*server, "--host", _HOST, "--port", str(port), "-w", "1", *quietly])


def _announce(message: str, port: int) -> None:
    """Print `message` once the server, which this process was forked from, answers; nothing if it ends before."""
    server = os.getppid()
    while os.getppid() == server:
        time.sleep(0.2)
        connection = http.client.HTTPConnection(_HOST, port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                print(message, flush=True)
                return
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()


def _experiment() -> str:
    if PARAMS.exists():
        return str(read_params()["tracking"]["experiment"])
    return str(read_mapping(CONFS[-1] / "tracking" / "mlflow.yaml", CONF_CURE, {"experiment": "text"})["experiment"])


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((_HOST, port)) == 0:
            raise UserError(f"port {port} is in use; choose another: python -m aimback.workflow.ui --port {port + 1}")


if __name__ == "__main__":
    main()
