"""What a run does, as it does it: results/logs/run.jsonl.

The main Snakemake process writes it, begun anew by each run; who shows a run reads it (`display`). Every line is an event:

- `run`: the planned jobs, each with id, rule, wildcards and log; whether a cluster runs them; the process and its machine;
- `job`: one of them was started, finished or failed. On a cluster `started` means submitted;
- `end`: whether the run finished, failed or was interrupted.
"""

import atexit
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter


@dataclass
class Job:
    """A job that a run has planned, with its log and the first of its outputs.

    `state`: waiting, started, finished or failed; times are epoch seconds.
    """

    id: int
    rule: str
    wildcards: dict[str, str]
    log: str = ""
    output: str = ""
    state: str = "waiting"
    began: float = 0
    ended: float = 0


def planned(dag: Any) -> Iterator[Job]:
    """The jobs that Snakemake's `dag` is about to run, those first that need no other."""
    for level in dag.toposorted(set(dag.needrun_jobs())):
        for job in sorted(level, key=lambda job: (job.rule.name, *job.wildcards)):
            if not job.is_norun:
                log, output = (str(next(iter(files), "")) for files in (job.log, job.output))
                yield Job(job.jobid, job.rule.name, dict(job.wildcards_dict), log, output)


@dataclass
class Run:
    """What the events so far say of a run. `ending` is empty as long as none was written."""

    began: float
    host: str
    pid: int
    cluster: bool
    jobs: dict[int, Job] = field(default_factory=dict)
    ended: float = 0
    ending: str = ""

    def having(self, state: str) -> list[Job]:
        """The jobs in a state."""
        return [job for job in self.jobs.values() if job.state == state]

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in an event that is not `run`. Raises ValueError, KeyError or TypeError for what is none."""
        time = float(event["time"])
        if event["event"] == "end":
            self.ended, self.ending = time, str(event["state"])
        elif event["event"] == "job" and (job := self.jobs.get(event["id"])):
            if event["state"] == "started":
                job.state, job.began = "started", time
            elif event["state"] in ("finished", "failed"):
                job.state, job.ended = event["state"], time


class Recorder:
    """Writes the events of the run that this process is the head of; a disk that is full costs events, not the run."""

    def __init__(self, path: Path, jobs: Iterable[Job], cluster: bool):
        self.jobs = {job.id: job for job in jobs}
        self.file: IO[bytes] | None = None
        self.ending = ""
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # who reads the last run's sees by that that another one has begun
            self.file = open(path, "ab", buffering=0)  # noqa: SIM115 (open until the run ends)
        planned = [
            {name: getattr(job, name) for name in ("id", "rule", "wildcards", "log", "output")}
            for job in self.jobs.values()
        ]
        head = {"host": socket.gethostname(), "pid": os.getpid(), "cluster": cluster}
        self._write({"event": "run", "time": time.time(), **head, "jobs": planned})
        atexit.register(self.end)

    def hear(self, record: logging.LogRecord) -> None:
        """Write what a message of Snakemake's says of a job, if it says something."""
        match getattr(getattr(record, "event", None), "name", ""):
            case "JOB_INFO":
                self._job(record.jobid, "started")
            case "JOB_FINISHED":
                self._job(record.job_id, "finished")
            case "JOB_ERROR":
                self._job(record.jobid, "failed")

    def end(self) -> None:
        """Write that the run has ended; what is written later is lost."""
        if self.file:
            states = {job.state for job in self.jobs.values()}
            done = "finished" if states <= {"finished"} else "interrupted"
            state = self.ending or ("failed" if "failed" in states else done)
            self._write({"event": "end", "state": state, "time": time.time()})
            self.file.close()
            self.file = None

    def _job(self, number: int, state: str) -> None:
        if job := self.jobs.get(number):
            job.state = state
            told = {"id": number, "rule": job.rule, "wildcards": job.wildcards, "log": job.log}
            self._write({"event": "job", "state": state, **told, "time": time.time()})

    def _write(self, event: Mapping[str, Any]) -> None:
        if self.file:
            with suppress(OSError):
                self.file.write(json.dumps(event).encode() + b"\n")


class Follower:
    """Reads the events of the last run in a folder as they are written, each of them once."""

    def __init__(self, path: Path):
        self.path = path
        self.run: Run | None = None
        self._file: IO[bytes] | None = None
        self._rest = b""

    def read(self) -> Run | None:
        """What is known of the run by now; None if there has been none."""
        try:
            if self._file is None or os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
                file = open(self.path, "rb")  # noqa: SIM115 (open as long as it is followed)
                self.close()
                self._file, self._rest, self.run = file, b"", None
        except OSError:
            return self.run
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # a line that a full disk has cut
                self._hear(json.loads(line))
        return self.run

    def close(self) -> None:
        """Let the file go."""
        if self._file:
            self._file.close()
            self._file = None

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "run":
            said = {name: event[name] for name in ("host", "pid", "cluster")}
            jobs = {each["id"]: each for each in event["jobs"]}
            self.run = TypeAdapter(Run).validate_python({"began": event["time"], "jobs": jobs, **said})
        elif self.run:
            self.run.hear(event)
