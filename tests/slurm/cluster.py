"""A real SLURM of two nodes on this machine, without systemd: munged, slurmctld and two slurmd.

Its parts and state lie in a temporary folder, but for /etc/slurm/slurm.conf: what Snakemake starts within a job
has no SLURM_CONF.
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CONF = Path("/etc/slurm/slurm.conf")
MARK = "# The SLURM of expoflow's tests; removed with it."
DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = ("node1", "node2")
DEVICES = ("null", "zero", "full", "random")  # stand for the GPUs of a node
SETTINGS = """\
{mark}
ClusterName=expoflow
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
{accounting}
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
KillWait=2
ReturnToService=2
SlurmdTimeout=15
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs=12 RealMemory=60000 Gres=gpu:4
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2} CPUs=12 RealMemory=60000 Gres=gpu:4
PartitionName=cpu Nodes=node1,node2 Default=YES MaxTime=1-0 DefMemPerCPU=1000
PartitionName=gpu Nodes=node1,node2 MaxTime=1-0 DefMemPerCPU=1000
"""

WITHOUT_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
MinJobAge=7200"""
# Jobs that have ended are soon forgotten: only the accounting can tell how they fared.
WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations
MinJobAge=2"""
ACCOUNTING = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=slurm
StoragePass={password}
"""
ACCOUNTING_DAEMONS = ("mariadbd", "slurmdbd")


def unavailable() -> str | None:
    """Why there can be no SLURM for tests on this machine; None if there can."""
    if missing := [daemon for daemon in DAEMONS if not shutil.which(daemon)]:
        return f"no {', '.join(missing)} here; apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return f"{CONF} can only be written by root"
    if CONF.exists() and not CONF.read_text().startswith(MARK):
        return f"{CONF} is that of another SLURM"
    if CONF.exists() and "is UP" in _output("scontrol", "ping"):
        return f"{CONF} belongs to tests that run now"
    return None


class Cluster:
    """Partitions `cpu` (the default) and `gpu` over two nodes, each said to have 12 CPUs and 4 GPUs: room for one job of two GPUs, by its 8 CPUs."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="expoflow-slurm-"))
        self.daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Start the daemons, and wait until both nodes take jobs."""
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        self._ports = dict(zip(("ctld", *NODES), _free_ports(3), strict=True))
        CONF.parent.mkdir(exist_ok=True)
        self._write_conf(WITHOUT_ACCOUNTING)
        (self.folder / "gres.conf").write_text(
            "AutoDetect=off\n" + "".join(f"Name=gpu File=/dev/{device}\n" for device in DEVICES)
        )
        munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
        self._daemon("munged", "--force", "--foreground", f"--socket={self.folder}/munge.socket", *munge)
        _wait_for(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        self._wait_for_nodes()

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-D", "-N", node, name=node)

    @contextmanager
    def accounting(self, account: str) -> Iterator[None]:
        """Keep accounts of jobs as long as the block lasts, in which this user has `account`."""
        if missing := [daemon for daemon in ACCOUNTING_DAEMONS if not shutil.which(daemon)]:
            pytest.skip(f"no {', '.join(missing)} here; apt-get install slurmdbd mariadb-server")
        port, storage = _free_ports(2)
        self._start_database(storage, password := secrets.token_hex())
        conf = self.folder / "slurmdbd.conf"
        conf.touch(0o600)
        conf.write_text(ACCOUNTING.format(port=port, storage=storage, folder=self.folder, password=password))
        self._daemon("slurmdbd", "-D")
        self._write_conf(WITH_ACCOUNTING.format(port=port, folder=self.folder))
        _wait_for(lambda: _succeeds("sacctmgr", "-n", "list", "cluster"), "slurmdbd")
        for made in ("cluster expoflow", f"account {account}", f"user root account={account}"):
            subprocess.run(["sacctmgr", "-i", "add", *made.split()], check=True, capture_output=True)
        self._restart()
        try:
            yield
        finally:
            self.cancel_all()
            self._write_conf(WITHOUT_ACCOUNTING)
            self._restart()
            for name in reversed(ACCOUNTING_DAEMONS):
                self._end(name)
            shutil.rmtree(self.folder / "database")

    def _start_database(self, port: int, password: str) -> None:
        data, place = self.folder / "database", self.folder / "database.socket"
        options = ["--no-defaults", f"--datadir={data}", "--user=root", "--skip-name-resolve"]
        subprocess.run(["mariadb-install-db", *options, "--skip-test-db"], check=True, capture_output=True)
        listen = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={place}"]
        self._daemon("mariadbd", *options, *listen)
        _wait_for(place.exists, "mariadbd")
        user = f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}'; "
        grant = "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'"
        subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={place}"], input=user + grant, text=True, check=True
        )

    def stop(self) -> None:
        """Cancel what runs, end the daemons, and remove their files."""
        if "slurmctld" in self.daemons:
            self.cancel_all()
        for name in reversed([*self.daemons]):
            self._end(name)
        CONF.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def cancel_all(self) -> None:
        """Cancel what waits or runs, and wait for its end."""
        _output("scancel", "--user=root")
        _wait_for(lambda: not _output("squeue", "-h"), "jobs to end")

    @contextmanager
    def busy(self, gpus: int) -> Iterator[list[str]]:
        """Have as many GPUs of each node in use as long as the block lasts; the ids of the jobs that use them."""
        hold = [
            "sbatch",
            "--parsable",
            "--partition=gpu",
            "--mem=100",
            f"--gres=gpu:{gpus}",
            "--output=/dev/null",
        ]
        ids = [_output(*hold, f"--nodelist={node}", "--wrap=sleep 3600") for node in NODES]
        try:
            _wait_for(
                lambda: _output("squeue", "-h", "-t", "R", "-j", ",".join(ids)).count("\n") == 1,
                "GPUs in use",
            )
            yield ids
        finally:
            _output("scancel", *ids)

    def jobs(self) -> list[dict[str, str]]:
        """The records of all jobs, in the order of their ids; a job's SLURM log is not among them."""
        records = _output("scontrol", "--oneliner", "show", "job").splitlines()
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in records if line.startswith("JobId=")]
        return sorted(jobs, key=lambda job: int(job["JobId"]))

    def _write_conf(self, accounting: str) -> None:
        host = socket.gethostname().split(".")[0]
        text = SETTINGS.format(mark=MARK, host=host, folder=self.folder, accounting=accounting, **self._ports)
        (self.folder / "slurm.conf").write_text(text)
        CONF.write_text(text)

    def _wait_for_nodes(self) -> None:
        _wait_for(lambda: _output("sinfo", "-h", "-p", "cpu", "-t", "idle", "-o", "%D") == "2", "two nodes")

    def _restart(self) -> None:
        """End slurmctld and start it once more: it keeps its jobs, and reads slurm.conf."""
        self._end("slurmctld")
        self._daemon("slurmctld", "-D")
        self._wait_for_nodes()

    def _end(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.terminate()
        daemon.wait(timeout=60)

    def _daemon(self, program: str, *arguments: str, name: str = "") -> None:
        """Start a daemon that does not outlive this process, even if that is killed."""
        name = name or program
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")},
                cwd=self.folder,
                start_new_session=True,
            )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def _wait_for(condition, what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError(f"waited a minute for {what}")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def started() -> Iterator[Cluster]:
    """A SLURM of two nodes as long as the block lasts; the test is skipped if there can be none."""
    if reason := unavailable():
        pytest.skip(reason)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
