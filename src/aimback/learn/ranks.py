"""The processes of one training: each has a rank, the first is whoever called for it, the others are started here.

Lightning's own ways to start them would not do: "popen" runs the caller's script again, a stage that holds its lock;
"spawn" imports it; "fork" does not survive threads and CUDA. And with the last two the caller is none of the ranks, so
that its ledger, its live values and its signals would be those of another process.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from aimback.core.errors import UserError
from aimback.runtime.orphan import end, end_with_parent
from aimback.runtime.surroundings import clean
from aimback.simulators.pool import list_places
from aimback.simulators.reasons import describe_error, describe_exit

_PROGRAM = "import sys; sys.path[:] = {path!r}; from aimback.learn.trainer import take_part; take_part({rank})"
_SECONDS_TO_TELL = 1.0  # for one that has failed to end
_SECONDS_WITHOUT = 10.0


class Rank(LightningEnvironment):
    """A process's place among those of a training, whatever a scheduler's variables say.

    Args:
        rank: from 0.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.set_global_rank(rank)

    def local_rank(self) -> int:
        return self.rank

    def node_rank(self) -> int:
        return 0


class Joint(DDPStrategy):
    """Lightning's DDP among processes that are there already; it adds up their gradients."""

    def __init__(self) -> None:
        super().__init__(broadcast_buffers=False)

    def _configure_launcher(self) -> None:
        """Nothing is to be launched; a launcher would also choose the number of threads."""

    def _register_ddp_hooks(self) -> None:
        cast("DistributedDataParallel", self.model).register_comm_hook(None, _add_apart)


# torch.distributed exports GradBucket without telling type checkers.
def _add_apart(_: None, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Add up the gradients of a bucket, each by itself.

    DDP lays them out anew after the first step, and so after a resume, and where a gradient lies decides in which order
    more than two processes add it.
    """
    parts = [distributed.all_reduce(part, async_op=True).get_future() for part in bucket.gradients()]
    return torch.futures.collect_all(parts).then(lambda _: bucket.buffer())


@contextlib.contextmanager
def start_ranks(number: int, accelerator: str, work: Sequence[Any], section: str) -> Iterator[None]:
    """Start the ranks after the first, wait until all can talk, and end them with the block.

    Args:
        number: of ranks, the first included.
        accelerator: "cpu" or "cuda": of each rank its own.
        work: what each of them is told, see `join_ranks`.
        section: of the configuration that asks for them, for messages.

    Raises:
        UserError: one of them cannot be started, or has failed, or this process is one of somebody else's.
    """
    if distributed.is_initialized():
        raise UserError(
            f"{section}.devices: must be 1 in a process that torch.distributed has a group for, got {number}"
        )
    others: list[subprocess.Popen[bytes]] = []
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            meeting = number, accelerator, (place / "meeting").as_uri()
            _write((meeting, torch.get_num_threads(), work), place / "work", section)
            others += [stack.enter_context(_start(rank, place)) for rank in range(1, number)]
            for other in others:
                if other.stdout is None or not other.stdout.read(1):
                    raise RuntimeError("a rank has ended before it was ready")
                threading.Thread(target=_end_without, args=(other, over), daemon=True).start()
            _meet(0, *meeting)
            yield
            distributed.destroy_process_group()
            for other in others:
                other.wait()
        except UserError:
            raise
        except Exception as error:
            # A rank that ends has the first one fail; the first one's own failure is not yet known to the others.
            if told := [reason for rank, other in enumerate(others, 1) if (reason := _explain(rank, other, place))]:
                cure = f"run again, or choose {section}.devices=1"
                raise UserError(f"{section}.devices: of {number} processes {', '.join(told)}; {cure}") from error
            raise
        finally:
            over.set()
            for other in others:
                other.kill()
            if distributed.is_initialized():
                distributed.destroy_process_group()


def join_ranks(rank: int) -> Sequence[Any]:
    """Join them, in a process that `start_ranks` has started and that ends with its own. -> what it is told."""
    end_with_parent()
    places = {"cuda:0": f"cuda:{rank}"}
    meeting, threads, work = torch.load(sys.stdin.buffer, map_location=places, weights_only=False)
    torch.set_num_threads(threads)
    print(end="!", flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody listens any more
    _meet(rank, *meeting)
    return tuple(work)


def _meet(rank: int, number: int, accelerator: str, place: str) -> None:
    backend, device = ("nccl", torch.device("cuda", rank)) if accelerator == "cuda" else ("gloo", None)
    distributed.init_process_group(backend, init_method=place, rank=rank, world_size=number, device_id=device)


def _write(work: Sequence[Any], path: Path, section: str) -> None:
    try:
        torch.save(work, path)
    except Exception as error:  # whatever a user's simulator holds
        raise UserError(
            f"{section}.devices: what is learned from cannot be handed to another process ({describe_error(error)}); "
            f"choose {section}.devices=1"
        ) from error


def _start(rank: int, place: Path) -> "subprocess.Popen[bytes]":
    with (place / "work").open("rb") as work, (place / f"{rank}.log").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM.format(path=list_places(), rank=rank)],
            env=clean(dict(os.environ)),
            stdin=work,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # Ctrl-C is for us, who end it
        )


def _explain(rank: int, other: "subprocess.Popen[bytes]", place: Path) -> str | None:
    """Why a rank has failed, in words; None where it has not."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        if code := other.wait(_SECONDS_TO_TELL):
            last = (place / f"{rank}.log").read_text(errors="replace").strip().rpartition("\n")[2]
            return f"number {rank + 1} {describe_exit(code)}" + (f" ({last})" if last else "")
    return None


def _end_without(other: "subprocess.Popen[bytes]", over: threading.Event) -> None:
    """End this process where it does not notice that another one has failed: with GPUs it would wait for long."""
    if other.wait() and not over.wait(_SECONDS_WITHOUT):
        end()
