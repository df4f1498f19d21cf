"""The events of a run, written as they happen: results/logs/run.jsonl.

The main Snakemake process writes the file, and each run starts it anew. `display` reads it to show
the run. Every line is an event:

- `run`: the planned jobs, each with id, rule, wildcards and log; whether they run on a cluster; the
  process and its machine;
- `job`: a job was started, finished or failed. On a cluster `started` means submitted;
- `end`: the run finished, failed or was interrupted.
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
    """A planned job of a run, with its log and the first of its outputs.

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
    """Yield the jobs that Snakemake's `dag` will run; jobs without dependencies come first."""
    for level in dag.toposorted(set(dag.needrun_jobs())):
        for job in sorted(level, key=lambda job: (job.rule.name, *job.wildcards)):
            if not job.is_norun:
                log, output = (str(next(iter(files), "")) for files in (job.log, job.output))
                yield Job(job.jobid, job.rule.name, dict(job.wildcards_dict), log, output)


@dataclass
class Run:
    """A run according to the events so far. `ending` is empty until the run has ended."""

    began: float
    host: str
    pid: int
    cluster: bool
    jobs: dict[int, Job] = field(default_factory=dict)
    ended: float = 0
    ending: str = ""

    def having(self, state: str) -> list[Job]:
        """Return the jobs in a state."""
        return [job for job in self.jobs.values() if job.state == state]

    def hear(self, event: Mapping[str, Any]) -> None:
        """Apply an event, except `run`. Raises ValueError, KeyError or TypeError if malformed."""
        time = float(event["time"])
        if event["event"] == "end":
            self.ended, self.ending = time, str(event["state"])
        elif event["event"] == "job" and (job := self.jobs.get(event["id"])):
            if event["state"] == "started":
                job.state, job.began = "started", time
            elif event["state"] in ("finished", "failed"):
                job.state, job.ended = event["state"], time


class Recorder:
    """Writes the events of this process' run. If the disk is full, only events are lost."""

    def __init__(self, path: Path, jobs: Iterable[Job], cluster: bool):
        self.jobs = {job.id: job for job in jobs}
        self.file: IO[bytes] | None = None
        self.ending = ""
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a reader of the old file notices that a new run has begun
            self.file = open(path, "ab", buffering=0)  # noqa: SIM115 (open until the run ends)
        planned = [
            {name: getattr(job, name) for name in ("id", "rule", "wildcards", "log", "output")}
            for job in self.jobs.values()
        ]
        head = {"host": socket.gethostname(), "pid": os.getpid(), "cluster": cluster}
        self._write({"event": "run", "time": time.time(), **head, "jobs": planned})
        atexit.register(self.end)

    def hear(self, record: logging.LogRecord) -> None:
        """Write an event if a message of Snakemake's is about the start or end of a job."""
        match getattr(getattr(record, "event", None), "name", ""):
            case "JOB_INFO":
                self._job(record.jobid, "started")
            case "JOB_FINISHED":
                self._job(record.job_id, "finished")
            case "JOB_ERROR":
                self._job(record.jobid, "failed")

    def end(self) -> None:
        """Write that the run has ended; later events are dropped."""
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
    """Reads the events of the last run in a folder while they are written, each of them once."""

    def __init__(self, path: Path):
        self.path = path
        self.run: Run | None = None
        self._file: IO[bytes] | None = None
        self._rest = b""

    def read(self) -> Run | None:
        """Return what is known of the run so far; None if there has been none."""
        try:
            if self._file is None or os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
                file = open(self.path, "rb")  # noqa: SIM115 (open while it is followed)
                self.close()
                self._file, self._rest, self.run = file, b"", None
        except OSError:
            return self.run
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # a line cut short by a full disk
                self._hear(json.loads(line))
        return self.run

    def close(self) -> None:
        """Close the file."""
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
