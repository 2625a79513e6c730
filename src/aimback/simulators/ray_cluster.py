"""Shards on the machines of Ray."""

import functools
import os
from concurrent.futures import Future
from typing import Any

from aimback.core.errors import UserError
from aimback.core.extras import check_installed
from aimback.simulators.executor import ATTEMPTS, Cluster, Crew, run_shard
from aimback.simulators.pool import Result
from aimback.simulators.reasons import describe_error


class RayCluster(Cluster):
    """A cluster of Ray that is there: `ray start --head`, and `ray start --address=HEAD:6379` on its machines.

    Args:
        address: such as head:6379, or auto for the one that this machine belongs to; None: one of this machine alone.
        workers, cases: see `Cluster`.
    """

    def check(self) -> None:
        check_installed("ray", "ray")

    def submit(self, crew: Crew, *arguments: Any) -> "Future[list[Result] | str]":
        cores = max(1, crew.workers)
        shard = self._run.options(num_cpus=cores).remote(crew, *arguments)
        future: Future[list[Result] | str] = shard.future()
        future.add_done_callback(functools.partial(_take_back, shard))  # a future by itself would not
        return future

    @functools.cached_property
    def _run(self) -> Any:
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
        alone = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
        try:
            ray.init(address=self.address or "local", configure_logging=False, log_to_driver=False, **alone)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"executor.address: no Ray answers at {self.address} ({describe_error(error)})") from error
        return ray.remote(max_retries=ATTEMPTS - 1)(run_shard)

    def close(self) -> None:
        if "_run" in vars(self):
            import ray

            del vars(self)["_run"]
            ray.shutdown()


def _take_back(shard: Any, future: "Future[Any]") -> None:
    if future.cancelled():
        import ray

        ray.cancel(shard)
