"""Shards on the workers of Dask: of a cluster that is there, or of one that Slurm's jobs make up."""

import functools
import re
import shutil
from concurrent.futures import Future
from typing import Any

from aimback.core.checks import check_whole, quote
from aimback.core.errors import UserError
from aimback.core.extras import check_installed
from aimback.runtime.project import ROOT
from aimback.simulators.executor import Cluster, Crew, run_shard
from aimback.simulators.pool import Result
from aimback.simulators.reasons import describe_error

_SECONDS_TO_CONNECT = 10
_LOGS = ROOT / "outputs" / "runs" / "slurm"
_FORMS = {
    "memory": ("2GB", r"\d+(\.\d+)?[KMGT]i?B"),
    "walltime": ("1:00:00 or 2-00:00:00", r"(\d+-)?\d+:\d\d:\d\d"),
    "partition": ("long,short", r"[\w.,-]+"),
    "account": ("physics", r"[\w.-]+"),
}


class DaskCluster(Cluster):
    """A cluster of Dask that is there: `dask scheduler`, and `dask worker ADDRESS --nthreads 1` on its machines.

    Args:
        address: of its scheduler, such as tcp://head:8786; None: what DASK_SCHEDULER_ADDRESS says.
        workers, cases: see `Cluster`.
    """

    def check(self) -> None:
        check_installed("distributed", "dask")

    def submit(self, crew: Crew, *arguments: Any) -> "Future[list[Result] | str]":
        future: Future[list[Result] | str] = self._client.get_executor(pure=False).submit(run_shard, crew, *arguments)
        return future

    @functools.cached_property
    def _client(self) -> Any:
        import dask
        from distributed import Client

        address = self.address or dask.config.get("scheduler-address", None)
        if address is None:
            raise UserError(
                "executor.address: is missing; give that of a scheduler, tcp://HOST:8786, which `dask scheduler` starts"
            )
        try:
            return Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"executor.address: no scheduler answers at {address} ({describe_error(error)})") from error

    def close(self) -> None:
        if "_client" in vars(self):
            vars(self).pop("_client").close()


class SlurmCluster(DaskCluster):
    """Jobs of Slurm, each a worker of Dask that takes shard after shard; they end with the stage that wants them.

    What else a site's jobs need stands where `dask-jobqueue` looks for it, in ~/.config/dask/jobqueue.yaml. What runs
    between the machines is encrypted, and nobody else can give the workers anything to do.

    Args:
        workers: jobs side by side; cases: see `Cluster`.
        cores: of a job; it should be `simulator.workers`.
        memory: of a job, such as 2GB.
        walltime: after which Slurm ends a job, and another one is asked for; such as 1:00:00 or 2-00:00:00.
        partition, account: None leaves them to the site.
    """

    def __init__(
        self,
        workers: int,
        cases: int,
        cores: int,
        memory: str,
        walltime: str,
        partition: str | None,
        account: str | None,
    ) -> None:
        super().__init__(None, workers, cases)
        check_whole(1, 1024, cores=cores)
        self._job = {"memory": memory, "walltime": walltime, "queue": partition, "account": account}
        self._cores = cores
        for (name, (example, form)), value in zip(_FORMS.items(), self._job.values(), strict=True):
            if value is not None and not re.fullmatch(form, value):
                raise UserError(f"{name}: must be such as {example}, got {quote(value)}")

    def check(self) -> None:
        check_installed("dask_jobqueue", "slurm")
        if shutil.which("sbatch") is None:
            raise UserError("executor: there is no sbatch here; start the run on a machine of the Slurm cluster")

    def mend(self) -> None:
        # It asks for as many as are lacking, those of lost workers too.
        self._jobs.scale(self.workers)

    @functools.cached_property
    def _jobs(self) -> Any:
        from dask_jobqueue import SLURMCluster

        _LOGS.mkdir(parents=True, exist_ok=True)
        # A worker has one thread, which waits for the processes that have the cores.
        return SLURMCluster(
            n_workers=self.workers,
            cores=1,
            processes=1,
            job_cpu=self._cores,
            security=True,
            shared_temp_directory=str(_LOGS),
            log_directory=str(_LOGS),
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            **self._job,
        )

    @functools.cached_property
    def _client(self) -> Any:
        from distributed import Client

        try:
            return Client(self._jobs, set_as_default=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"executor: Slurm takes no jobs ({describe_error(error)})") from error

    def close(self) -> None:
        super().close()
        if "_jobs" in vars(self):
            vars(self).pop("_jobs").close()
