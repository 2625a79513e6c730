"""Who runs the cases of a foreign simulator: workers of this machine, or machines that a cluster lends.

A cluster gets shards, lists of cases. On the machine that gets one, a `Pool` runs it as the pool of this machine would,
with its timeouts, kills and retries, so that a case gives the same bits whoever runs it. A shard comes back whole, and
its results are put in the places of its cases. Where a machine is lost, its shard is run again on another.

Underneath is Dask (`dask_cluster.py`): `distributed` runs shards on workers and gives those of a lost worker to
others; `dask-jobqueue` starts such workers as jobs of Slurm. A job stays for shard after shard, so that a shard waits
milliseconds and not in Slurm's queue. That decides against `submitit` and the cluster executors of `executorlib`, with
which each shard would be a job, in every step of a descent by finite differences. Ray is a cluster of its own, which
none of these three reaches; it needs thirty lines (`ray_cluster.py`). PBS, LSF, SGE and HTCondor are to
`dask-jobqueue` what Slurm is to it.
"""

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from aimback.core.checks import check_whole
from aimback.core.errors import UserError
from aimback.simulators.contract import CaseSimulator
from aimback.simulators.pool import Inline, Pool, Result, check_failures, list_places
from aimback.simulators.reasons import describe_error

_SECONDS_BETWEEN_LOOKS = 5.0
_ROUNDS = 4  # of shards that are wanted at once, so that few machines wait for the last ones
ATTEMPTS = 4  # at a shard whose machines are lost

_Case = Mapping[str, Any]


@dataclass(frozen=True)
class Crew:
    """What runs cases on one machine, described so that another machine can hire the same.

    Args:
        simulate: runs a case.
        workers: processes side by side; 0: none of their own.
        timeout, retries: see `Pool`.
    """

    simulate: CaseSimulator
    workers: int
    timeout: float
    retries: int

    def hire(self, folder: Path | None = None, places: Sequence[str] | None = None) -> Pool:
        """Make its pool, which works in a folder and imports from places; None: those of this process."""
        return Pool(self.simulate, max(1, self.workers), self.timeout, self.retries, folder, places)


class Runner(Protocol):
    """What cases are given to; see `Pool`."""

    def run(
        self,
        cases: Sequence[_Case],
        progress: Callable[[int, Result], None] | None = None,
        method: str = "__call__",
        failures: float = 0.5,
    ) -> list[Result]: ...

    def close(self) -> None: ...


class Executor(ABC):
    """What conf/executor names.

    Attributes:
        cases_at_once: as many as one call is to be given where many are wanted.
    """

    @property
    @abstractmethod
    def cases_at_once(self) -> int: ...

    @abstractmethod
    def make_runner(self, crew: Crew) -> Runner: ...

    def check(self) -> None:  # noqa: B027 - most need nothing
        """Raises `UserError` that says what to install where something is missing. Nothing is started."""

    def close(self) -> None:  # noqa: B027
        """Give back what it holds."""


@dataclass(frozen=True)
class Local(Executor):
    """This machine: worker processes as many as `simulator.workers`, or this process itself."""

    cases_at_once: ClassVar[int] = 256  # so that whoever waits sees how far they have come

    def make_runner(self, crew: Crew) -> Runner:
        return crew.hire() if crew.workers else Inline(crew.simulate)


class Cluster(Executor):
    """Machines that share this project's folder and this Python, under the same paths.

    Args:
        address: of what gives them work.
        workers: shards that are run side by side, each by as many processes as `simulator.workers`.
        cases: in a shard; what is lost at most with a machine.
    """

    def __init__(self, address: str | None, workers: int, cases: int) -> None:
        check_whole(1, 10_000, workers=workers)
        check_whole(1, 1_000_000, cases=cases)
        self.address, self.workers, self.cases = address, workers, cases

    @property
    def cases_at_once(self) -> int:
        return max(Local.cases_at_once, _ROUNDS * self.workers * self.cases)

    def make_runner(self, crew: Crew) -> Runner:
        return _Shards(self, crew)

    @abstractmethod
    def submit(self, crew: Crew, *arguments: Any) -> "Future[list[Result] | str]":
        """Have `run_shard(crew, *arguments)` called somewhere, which tries `ATTEMPTS` machines before it gives up."""

    def mend(self) -> None:
        """Ask for new machines in the place of those that are lost."""


class _Shards:
    """Cases that a cluster runs; see `Pool`."""

    def __init__(self, cluster: Cluster, crew: Crew) -> None:
        self._cluster, self._crew = cluster, crew

    def run(
        self,
        cases: Sequence[_Case],
        progress: Callable[[int, Result], None] | None = None,
        method: str = "__call__",
        failures: float = 0.5,
    ) -> list[Result]:
        results: dict[int, Result] = {}
        size, here = self._cluster.cases, (str(Path.cwd()), list_places())
        firsts = range(0, len(cases), size)
        waiting = {
            self._cluster.submit(self._crew, *here, cases[first : first + size], method): first for first in firsts
        }
        try:
            while waiting:
                done, _ = wait(waiting, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
                if not done:
                    self._cluster.mend()
                for future in done:
                    first = waiting.pop(future)
                    for place, result in enumerate(_read(future), first):
                        results[place] = result
                        if progress is not None:
                            progress(place, result)
                    failed = sum(result.reason is not None for result in results.values())
                    check_failures(results.values(), failed, failures)
        finally:
            for future in waiting:
                future.cancel()
        return [results[place] for place in range(len(cases))]

    def close(self) -> None:
        """Nothing is its own: the executor holds the machines."""


def _read(future: "Future[list[Result] | str]") -> list[Result]:
    try:
        answer = future.result()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | UserError):
            raise
        raise UserError(
            f"executor: a shard was lost on {ATTEMPTS} machines, or the cluster itself ({describe_error(error)}); "
            "what has come back is kept, run it again"
        ) from error
    if isinstance(answer, str):
        raise UserError(answer)
    return answer


_here = threading.local()  # what each thread of a cluster's machine has hired


def run_shard(crew: Crew, folder: str, places: list[str], cases: Sequence[_Case], method: str) -> list[Result] | str:
    """Run cases on the machine that this is called on. -> their results, or what a person can mend.

    The crew stays for the next shard, since to import a simulator may take longer than to run it; another one, and the
    end of this process, dismiss it.

    Args:
        folder: the working folder of whoever wants the results.
        places: where that process imports from.
    """
    if not Path(folder).is_dir():
        return f"executor: {socket.gethostname()} has no {folder}; a cluster's machines must share the project's folder"
    wanted = crew, folder, places
    if getattr(_here, "wanted", None) != wanted:
        if hasattr(_here, "pool"):
            _here.pool.close()
        _here.wanted, _here.pool = wanted, crew.hire(Path(folder), places)
    try:
        # Whether too many fail is seen where all results are.
        results: list[Result] = _here.pool.run(cases, method=method, failures=1.0)
        return results
    except UserError as error:
        return str(error)
