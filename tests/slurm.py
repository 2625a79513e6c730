"""A Slurm of one node with two slots, with daemons, ports, a database and a key of its own, for tests."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")
_CONF = """
ClusterName=aimback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[2]}
AccountingStoragePass={folder}/munge.socket
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=100000,batch_sched_delay=0
SwitchType=switch/none
MpiDefault=none
JobRequeue=1
KillWait=1
MinJobAge=600
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE
"""
# Without its accounts, sacct has nothing to tell, and submitit takes every job for done.
_ACCOUNTS = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports[2]}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[3]}
StorageUser=slurm
StoragePass=slurm
"""


class Slurm:
    """Args: folder: for its state and its logs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.host = socket.gethostname().partition(".")[0]
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        folder.chmod(0o755)
        for name in ("state", "spool", "database"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        with contextlib.ExitStack() as stack:  # held together, so that no two are the same
            places = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
            self.ports = [place.getsockname()[1] for place in places]
        for file, text in (("slurm.conf", _CONF), ("slurmdbd.conf", _ACCOUNTS)):
            (folder / file).write_text(text.format(host=self.host, ports=self.ports, folder=folder))
            (folder / file).chmod(0o600)
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._data = ["--no-defaults", "--user=root", f"--datadir={folder}/database"]
        places = [f"--socket={folder}/database.socket", f"--pid-file={folder}/database.pid"]
        self._commands = {
            "munged": ["-F", "--force", f"--socket={folder}/munge.socket", *munge],
            "mariadbd": [*self._data, "--bind-address=127.0.0.1", f"--port={self.ports[3]}", *places],
            "slurmdbd": ["-D"],
            "slurmctld": ["-D", "-f", str(self.conf)],
            "slurmd": ["-D", "-f", str(self.conf)],
        }

    def begin(self) -> None:
        """Start everything, each daemon when the one that it needs is there."""
        self.start("munged")
        install = [_find("mariadb-install-db"), *self._data, "--skip-test-db"]
        subprocess.run(install, check=True, capture_output=True)
        self.start("mariadbd")
        wait(lambda: _is_open(self.ports[3]), "no database")
        user = "GRANT ALL ON *.* TO slurm@'127.0.0.1' IDENTIFIED BY 'slurm', slurm@localhost IDENTIFIED BY 'slurm'"
        asked = ["mariadb", "--no-defaults", f"--socket={self.folder}/database.socket", "-e", user]
        subprocess.run(asked, check=True)
        self.start("slurmdbd")
        wait(lambda: _is_open(self.ports[2]), "no slurmdbd")
        self.start("slurmctld")
        wait(lambda: _is_open(self.ports[0]), "no slurmctld")
        self.start("slurmd")
        self.wait_until(["sinfo", "-h", "-o", "%t"], "idle")

    def start(self, daemon: str) -> None:
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        with (self.folder / f"{daemon}.txt").open("ab") as output:
            self.daemons[daemon] = subprocess.Popen(
                [_find(daemon), *self._commands[daemon]],
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
            )

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def list_jobs(self) -> list[str]:
        """The jobs that run."""
        return self.ask("squeue", "-h", "--array", "-t", "R", "-o", "%i").split()

    def wait_until(self, command: list[str], wanted: str) -> None:
        def is_said() -> bool:
            with contextlib.suppress(subprocess.CalledProcessError):
                return wanted in self.ask(*command)
            return False

        wait(is_said, f"{command} does not say {wanted}")

    def stop(self, daemon: str) -> None:
        process = self.daemons.pop(daemon)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(until: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _find(program: str) -> str:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or ""


def list_missing() -> list[str]:
    """What is not here of all that it takes."""
    return [name for name in _PROGRAMS if not _find(name)] + (["root"] if os.geteuid() else [])


@contextlib.contextmanager
def run_slurm(folder: Path) -> Iterator[Slurm]:
    slurm = Slurm(folder)
    try:
        slurm.begin()
        yield slurm
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            slurm.ask("scancel", "--partition=all")
        for daemon in reversed(list(slurm.daemons)):
            slurm.stop(daemon)
