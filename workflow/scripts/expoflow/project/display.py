"""The display of a run at work: a line per pair and stage, from its events and progress files.

It only reads files and never talks to jobs, so the run may belong to another terminal or to SLURM.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from expoflow.errors import shown
from expoflow.paths import Results
from expoflow.project.events import Follower, Job, Run
from expoflow.system import progress
from expoflow.system.progress import Progress

# Jobs that share one line.
REPORT = ("tables", "benchmark_table", "paper_tables", "figure", "appendices", "report", "claims", "cosines")
# Stages that handle files rather than models: a job takes seconds.
LIGHT = ("prompts", "preflight", "select", "compare", "certify", "benchmark data", "report")
SECONDS = 5  # assumed for such a job if none has been measured
HINT = 5  # seconds by which the clocks of two machines may differ
BAR = 20  # maximum number of characters


@dataclass
class Row:
    """A stage of a pair, or of none: its jobs, the last job's place in the plan, its result."""

    label: str
    jobs: list[Job] = field(default_factory=list)
    last: int = 0
    result: str = ""

    def count(self, state: str) -> int:
        """Return how many of its jobs are in a state."""
        return sum(job.state == state for job in self.jobs)


class Board:
    """The display of a project folder's run; if `head` is set, only of the run with this pid."""

    def __init__(self, folder: Path):
        self.folder, self.head = folder, 0
        self.follower = Follower(Results.of(folder).events)
        self.run: Run | None = None
        self.rows: list[Row] = []
        self.now = 0.0
        self.latest = ""
        self._progress: dict[int, tuple[float, Progress | None]] = {}
        self._rows: dict[int, Row] = {}
        self._told: set[int] = set()

    def read(self, now: float | None = None) -> Run | None:
        """Read the events since the last call."""
        run, self.now = self.follower.read(), time.time() if now is None else now
        if run and self.head not in (0, run.pid):  # an earlier run
            run = None
        if run is not self.run:
            self.run, self.rows, self._rows, self._told = run, [], {}, set()
            self._progress, self.latest = {}, ""
            for job in run.jobs.values() if run else ():
                self._place(job)
            self.rows = in_order(self.rows)
        for job in run.having("started") if run and run.cluster else ():
            self._look_at_output(job)
        for job in sorted(run.having("finished"), key=lambda job: job.ended) if run else ():
            if job.id not in self._told:
                self._told.add(job.id)
                if result := self._result(job):
                    self._rows[job.id].result = result
                    self.latest = f"{job.wildcards['pair']}: {result}"
        return run

    def _look_at_output(self, job: Job) -> None:
        """Mark a job as finished if its output exists.

        Snakemake learns about jobs that share a SLURM job only when the last of them has ended.
        """
        with suppress(OSError):
            made = (self.folder / job.output).stat().st_mtime if job.output else 0
            if made > job.began:
                job.state, job.ended = "finished", made

    def over(self) -> bool:
        """Return whether the run has ended, or has no job left."""
        run = self.run
        return bool(run and (run.ending or not (run.having("started") or run.having("waiting"))))

    def at_work(self) -> list[Job]:
        """Return the jobs that run now, without those that wait for a node of a cluster."""
        found = self.run.having("started") if self.run and not self.run.ending else []
        return [job for job in found if not self.waits(job)]

    def waits(self, job: Job) -> bool:
        """Return whether a cluster job has not begun: it has no log, or only an old one."""
        if not self.run or not self.run.cluster or not job.log:
            return False
        try:
            return (self.folder / job.log).stat().st_mtime < job.began - HINT
        except OSError:
            return True

    def progress(self, job: Job) -> Progress | None:
        """Return the progress of a running job; None if it reports none.

        A file that has not changed is not read again.
        """
        log = self.folder / job.log
        try:
            changed = progress.place(log).stat().st_mtime if job.log else None
        except OSError:
            changed = None
        if changed is None:
            return None
        seen, known = self._progress.get(job.id, (0.0, None))
        if changed != seen:
            known = progress.read(log)
            self._progress[job.id] = changed, known
        return known if known and known.updated >= job.began - HINT else None

    def left(self) -> tuple[float, int]:
        """Return the estimated seconds until the run ends, and how many jobs have no estimate."""
        if not self.run:
            return 0, 0
        took: dict[str, list[float]] = {}
        for job in self.run.having("finished"):
            took.setdefault(job.rule, []).append(job.ended - job.began)
        for job in self.run.having("started"):  # for a rule's first job, its own estimate
            if job.rule not in took and (seconds := self._job_left(job, None)) is not None:
                took[job.rule] = [self.now - job.began + seconds]
        mean = {rule: sum(each) / len(each) for rule, each in took.items()}
        rest, longest, unknown = 0.0, 0.0, 0
        for job in (*self.run.having("started"), *self.run.having("waiting")):
            seconds = self._job_left(job, mean.get(job.rule, SECONDS if stage(job) in LIGHT else None))
            if seconds is None:
                unknown += 1
            else:
                rest, longest = rest + seconds, max(longest, seconds)
        return max(longest, rest / self._at_once()), unknown

    def _at_once(self) -> float:
        """Return how many jobs ran at a time so far, on average."""
        run = self.run
        assert run
        begun = [job for job in run.jobs.values() if job.began]
        busy = sum((self.now if job.state == "started" else job.ended) - job.began for job in begun)
        return max(1.0, busy / max(self.now - min((job.began for job in begun), default=self.now), 1e-3))

    def _job_left(self, job: Job, mean: float | None) -> float | None:
        if job.state != "started":
            return mean
        told = self.progress(job)
        if told and (seconds := seconds_left(told, self.now)) is not None:
            return seconds
        took = self.now - job.began
        return (
            mean - took if mean is not None and mean > took else None
        )  # no estimate for a job that takes longer than the others did

    def _place(self, job: Job) -> None:
        label = " ".join(filter(None, (job.wildcards.get("pair"), stage(job))))
        row = next((row for row in self.rows if row.label == label), None)
        if row is None:
            row = Row(label)
            self.rows.append(row)
        row.jobs.append(job)
        row.last = len(self._rows)
        self._rows[job.id] = row

    def _result(self, job: Job) -> str:
        """Return a finished job's last line about its pair, such as `alpha 0.3: reward 1.52`."""
        if not (pair := job.wildcards.get("pair")):
            return ""
        try:
            with open(self.folder / job.log, "rb") as file:
                file.seek(max(file.seek(0, 2) - 2000, 0))
                last = file.read().decode(errors="replace").rstrip("\n").rpartition("\n")[2]
        except OSError:
            return ""
        return shown(last.removeprefix(f"{pair}: ")) if last.startswith(f"{pair}: ") else ""

    # The display as text.

    def lines(self, width: int, height: int = 10_000) -> list[str]:
        """Return a line per pair and stage, and one for the run.

        If they do not fit, lines at work and the next ones are kept.
        """
        if not self.run:
            return [self.sentence()[:width]]
        rows, left_out = self.rows, 0
        room = max(height - 2, 3)
        if len(rows) > room:
            rank = {id(row): order(row) for row in rows}
            kept = {id(row) for row in sorted(rows, key=lambda row: rank[id(row)])[: room - 1]}
            left_out = len(rows) - len(kept)
            rows = [row for row in rows if id(row) in kept]
        side = min(max((len(row.label) for row in rows), default=0), width // 3)
        lines = [self._line(row, side, width) for row in rows]
        if left_out:
            lines.append(f"{'...':{side}} {left_out} more lines, finished or waiting")
        return [*lines, self.sentence()[:width]]

    def sentence(self, detailed: bool = False) -> str:
        """Return the progress in one line; `detailed` adds a current job and the last result."""
        run = self.run
        if not run:
            return "no job has begun yet"
        done, failed = len(run.having("finished")), len(run.having("failed"))
        parts = [f"{done} of {len(run.jobs)} jobs", f"{failed} failed" if failed else ""]
        if run.ending:
            parts.append(f"{run.ending} after {clock(run.ended - run.began)}")
        else:
            parts += [clock(self.now - run.began), self._left_words()]
        line = ", ".join(filter(None, parts))
        if detailed and (now := self.at_work()):
            line += f"; {self.label(now[0])}: {self.detail(now[0])}"
        if detailed and self.latest:
            line += f"; last result: {self.latest}"
        return line

    def label(self, job: Job) -> str:
        """Return the job's name, such as `mini20 generate alpha 0.3`."""
        return " ".join(filter(None, (shown(self._rows[job.id].label), special(job))))

    def detail(self, job: Job) -> str:
        """Return progress, speed and time left of a job at work, or else how long it has run."""
        if self.waits(job):
            return "waits for SLURM"
        told = self.progress(job)
        return progress_words(told, self.now)[0] if told else clock(self.now - job.began)

    def _left_words(self) -> str:
        seconds, unknown = self.left()
        heavy = [job for job in self.run.jobs.values() if job.state in ("started", "waiting")]
        heavy = [job for job in heavy if stage(job) not in LIGHT]
        if not seconds or unknown > len(heavy) / 2:  # too little is known
            return ""
        return f"{'over' if unknown else 'about'} {clock(seconds)} left"

    def _line(self, row: Row, side: int, width: int) -> str:
        done, failed = row.count("finished"), row.count("failed")
        at_work = [job for job in row.jobs if job.state == "started"] if not self.run.ending else []
        share = (done + sum(self._share(job) for job in at_work)) / len(row.jobs)
        count = f"{done}/{len(row.jobs)}"
        line = f"{shown(row.label)[:side]:{side}} {bar(share, min(BAR, width // 8))} {count:>7}  "
        told = [f"{failed} failed"] if failed else []
        forms = ["; ".join([*told, *each]) for each in self._forms(row, at_work)]
        room = width - len(line)
        return (line + next((form for form in forms if len(form) <= room), forms[-1])).rstrip()[:width]

    def _forms(self, row: Row, at_work: list[Job]) -> list[list[str]]:
        """Return texts about the jobs of a stage, from the longest to the shortest."""
        result = [row.result] if row.result else []
        begun = [job for job in at_work if not self.waits(job)]
        if not begun:
            return [[f"{len(at_work)} wait for SLURM", *result], result] if at_work else [result]
        job, more = begun[0], f" (and {len(begun) - 1} more)" if len(begun) > 1 else ""
        told = self.progress(job)
        said = progress_words(told, self.now) if told else [clock(self.now - job.began)]
        forms = [[": ".join(filter(None, (special(job), each))) + more] for each in said]
        return [[*forms[0], *result], *forms]

    def _share(self, job: Job) -> float:
        told = self.progress(job)
        return min(told.done / told.total, 1) if told and told.total else 0


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Sort the rows: those of no pair, those of each pair, and the report.

    A stage is placed by its last job.
    """
    pairs = [row.jobs[0].wildcards.get("pair") for row in rows]
    place = {pair: number for number, pair in enumerate(dict.fromkeys(filter(None, pairs)), start=1)}

    def key(row: Row) -> tuple[int, int]:
        late = stage(row.jobs[0]) == "report"
        return len(place) + 1 if late else place.get(row.jobs[0].wildcards.get("pair"), 0), row.last

    return sorted(rows, key=key)


def order(row: Row) -> int:
    """Return a row's rank on a small screen: failed, at work, waiting, finished."""
    if row.count("failed"):
        return 0
    if row.count("started"):
        return 1
    return 2 if row.count("waiting") else 3


def stage(job: Job) -> str:
    """Return the stage of a job: its rule, unless several rules share a line."""
    if job.rule in REPORT:
        return "report"
    if job.rule.endswith("_data") or job.rule == "preferences":
        return "benchmark data"
    if job.rule.startswith("benchmark_"):
        return "benchmark"
    return job.rule.replace("_", " ")


def special(job: Job) -> str:
    """Return what distinguishes a job from others of its stage: `alpha 0.3` or `expo reward`."""
    values = {name: value for name, value in job.wildcards.items() if name not in ("pair", "prompts")}
    if alpha := values.pop("alpha", None):
        return shown(" ".join([f"alpha {alpha}", *values.values()]))
    benchmark = job.rule.removeprefix("benchmark_") if stage(job) == "benchmark" else ""
    return shown(" ".join(filter(None, (*values.values(), benchmark))))


def progress_words(told: Progress, now: float) -> list[str]:
    """Return `120 of 400 responses, 310 tokens/s, 9 s left, reward 1.52`, then shorter texts."""
    size, unit = (1e9, "GB") if told.unit in ("byte", "bytes", "B") else (1, told.unit)
    total = f" of {amount(told.total / size)}" if told.total else ""
    count = f"{amount(told.done / size)}{total} {unit}".rstrip()
    fast = ""
    if told.speed and told.left != 0:  # no speed is shown for a finished count
        in_tokens = told.tokens_per_second
        speed, what = (in_tokens, "tokens") if in_tokens else (told.speed / size, unit or "of them")
        fast = f"{amount(speed / slower(told, now))} {what}/s"
    seconds = seconds_left(told, now)
    left = "" if seconds is None else f"{clock(seconds)} left"
    forms = [(count, fast, left, told.last), (count, fast, left), (fast, left), (left or fast or count,)]
    return [", ".join(filter(None, form)) for form in forms]


def seconds_left(told: Progress, now: float) -> float | None:
    """Return the seconds until the job is done.

    None if that is unknown, for example after a job's last count but before its end.
    """
    if not told.left:
        return None
    silent = max(now - told.updated, 0)
    return max(told.left - silent, told.left * silent / told.measured)


def slower(told: Progress, now: float) -> float:
    """Return the factor by which a job that has long been silent seems slower than its speed."""
    return max(1, (now - told.updated) / told.measured)


def amount(number: float) -> str:
    """Format a small number with three significant digits, and others as whole numbers."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"


def clock(seconds: float) -> str:
    """Format a duration: `42 s`, `12 min`, `3.1 h`; negative ones (clock changes) are 0 s."""
    seconds = max(seconds, 0)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def bar(share: float, length: int) -> str:
    """Return a bar of `length` characters."""
    full = int(min(max(share, 0), 1) * length)
    return "━" * full + "─" * (length - full)
