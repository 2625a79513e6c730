"""A Slurm of one node with two slots, with daemons, ports and a key of its own, for tests."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
_CONF = """
ClusterName=aimback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SwitchType=switch/none
MpiDefault=none
KillWait=1
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE
"""


class Slurm:
    """Args: folder: for its state and its logs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        with contextlib.ExitStack() as stack:  # held together, so that no two are the same
            places = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            ports = [place.getsockname()[1] for place in places]
        host = socket.gethostname().partition(".")[0]
        self.conf.write_text(_CONF.format(host=host, ports=ports, folder=folder))

    def start(self, daemon: str) -> None:
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        options = ["-F", "--force", f"--socket={self.folder}/munge.socket", *files]
        if daemon != "munged":
            options = ["-D", "-f", str(self.conf)]
        command = [_find(daemon), *options]
        with (self.folder / f"{daemon}.txt").open("ab") as output:
            self.daemons[daemon] = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def wait_until(self, command: list[str], wanted: str) -> None:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(subprocess.CalledProcessError):
                if wanted in (said := self.ask(*command)):
                    return
            assert time.monotonic() < until, (command, wanted, said)
            time.sleep(0.1)

    def stop(self, daemon: str) -> None:
        process = self.daemons.pop(daemon)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _find(daemon: str) -> str:
    return shutil.which(daemon, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or ""


def is_installed() -> bool:
    return os.geteuid() == 0 and all(map(_find, DAEMONS)) and shutil.which("sbatch") is not None


@contextlib.contextmanager
def run_slurm(folder: Path) -> Iterator[Slurm]:
    slurm = Slurm(folder)
    try:
        for daemon in DAEMONS:
            slurm.start(daemon)
        slurm.wait_until(["sinfo", "-h", "-o", "%t"], "idle")
        yield slurm
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            slurm.ask("scancel", "--partition=all")
        for daemon in reversed(list(slurm.daemons)):
            slurm.stop(daemon)
