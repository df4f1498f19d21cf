"""The last line of whatever goes wrong: what it was and what to do; never a traceback, in logs, commands and Snakemake."""

import errno
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from expoflow import cli
from expoflow.data.rows import rows
from expoflow.errors import DataError
from expoflow.project import terminal
from expoflow.system.last_words import last_words
from snakemake.exceptions import InputFunctionException, LockException, WorkflowError, print_exception
from snakemake_interface_logger_plugins.common import LogEvent

JOB = """
import sys
from expoflow.errors import *
from expoflow.system.logs import job_log
class OutOfMemoryError(RuntimeError): pass
with job_log(sys.argv[1]):
    {code}
"""
FAULT = "unless a file in results/ was changed by hand, this is a bug in expoflow: report it, with {log}"
CASES = {
    "raise DataError('a.csv: broken; delete it')": "error: a.csv: broken; delete it",
    "raise ConfigError(['a: one', 'b: two'])": "b: two",
    "open('/nowhere/file')": "error: /nowhere/file: No such file or directory; if it was removed or replaced while "
    "expoflow was working, try again, otherwise report it as a bug in expoflow, with {log}",
    "raise OSError(28, 'No space left on device', 'out.csv')": "error: out.csv: No space left on device; make room on "
    "this disk, then try again",
    "raise PermissionError(13, 'Permission denied', 'a')": "error: a: Permission denied; get access to it, "
    "then try again",
    "raise RuntimeError('while saving\\nNo space left on device (os error 28)')": "error: No space left on device (os "
    "error 28); make room on this disk, then try again",
    "bytearray(1 << 62)": "error: out of memory; run fewer jobs at a time (--cores), or take a machine with more memory,"
    " or more GPUs for the model (resources: {{gpus: N}})",
    "raise OutOfMemoryError('CUDA: 2 GiB')": "error: out of memory (CUDA: 2 GiB); run fewer jobs at a time (--cores), or "
    "take a machine with more memory, or more GPUs for the model (resources: {{gpus: N}})",
    "raise KeyError('a')": "error: KeyError: 'a'; " + FAULT,
    "raise RuntimeError('in the host:\\nTraceback ...\\nValueError: b')": "error: RuntimeError: ValueError: b; "
    + FAULT,
    "assert False": "error: AssertionError; " + FAULT,
    "sys.exit(0)": "error: SystemExit: 0; " + FAULT,
    "raise KeyboardInterrupt": "error: interrupted; run snakemake again to go on",
    "raise ValueError('\\x1b[2Ja')": "error: ValueError: \\x1b[2Ja; " + FAULT,
}
FORESEEN = (
    "OSError(28",
    "PermissionError",
    "No space",
    "bytearray",
    "OutOfMemory",
    "Keyboard",
    "Data",
    "Config",
)


def test_a_job_ends_its_log_with_what_to_do(tmp_path):
    # all at once: a process each would take seconds
    runs = {}
    for number, code in enumerate(CASES):
        log = tmp_path / f"{number}.log"
        command = [sys.executable, "-c", JOB.format(code=code), str(log)]
        runs[code] = log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for code, (log, run) in runs.items():
        assert run.communicate(timeout=60)[0] == b""
        assert run.returncode == 1, code
        *above, last = log.read_text().rstrip("\n").split("\n")
        assert last == CASES[code].format(log=log)
        assert ("Traceback (most recent call last):" in above) == (not any(each in code for each in FORESEEN))


def test_the_place_in_the_library_is_named(tmp_path):
    with pytest.raises(AttributeError) as caught:
        rows(str(tmp_path)).__next__()
    trace, line = last_words(caught.value, "the lines above")
    assert trace.startswith("Traceback (most recent call last):")
    assert " (in expoflow/data/rows.py:" in line


@pytest.mark.parametrize(
    ("error", "status", "last"),
    [
        (DataError("a: broken; delete it"), 2, "expoflow: a: broken; delete it"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a"),
            2,
            "expoflow: a: No space left on device; make room on this disk, then try again",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "with the lines above"),
        (KeyError("a"), 1, "this is a bug in expoflow: report it, with the lines above"),
    ],
)
def test_a_command_ends_with_what_to_do(monkeypatch, capsys, error, status, last):
    def fails(arguments: object) -> int:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "clean", ("", lambda parser: None, fails))
    assert cli.main(["clean"]) == status
    assert capsys.readouterr().err.rstrip("\n").split("\n")[-1].endswith(last)


@pytest.fixture
def said():
    """What Snakemake's logger hands on, with expoflow's words."""
    logger, records = logging.getLogger(terminal.LOGGER), []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(str(record.msg))
    logger.addHandler(handler)
    terminal.listen()
    words = terminal.listen()  # of the next workflow in this process
    yield records, words
    logger.removeHandler(handler)
    logger.removeFilter(words)


RULE = SimpleNamespace(name="score", lineno=3, snakefile="score.smk", workflow=SimpleNamespace(linemaps={}))


def raised(error: Exception, text: str) -> Exception:
    """`error` with frames of a file that is not Snakemake's, as of a Snakefile."""
    try:
        exec(compile(text, __file__, "exec"), {"error": error})
    except Exception as caught:
        return caught


def test_snakemakes_words_on_exceptions(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records, _ = said
    print_exception(raised(WorkflowError("the config has problems:\na: b; do c"), "raise error"), {})
    print_exception(raised(KeyError("a"), "raise error"), {})
    for cause in (DataError("a.json: cut; delete it"), ValueError("b")):
        caught = raised(cause, "raise error")
        print_exception(InputFunctionException(caught, wildcards={"pair": "p"}, rule=RULE), {})
    print_exception(OSError(28, "No space left on device"), {})
    print_exception(OSError(30, "Read-only file system", "/data/.snakemake"), {})
    print_exception(OSError(5, "Input/output error: the disk is gone"), {})
    print_exception(LockException(), {})
    print_exception(
        raised(WorkflowError("no metadata ([Errno 28] No space left on device)."), "raise error"), {}
    )
    config, key, own, other, full, read_only, broken, lock, metadata = records
    assert metadata.split("\n")[1:] == [
        "no metadata ([Errno 28] No space left on device).",
        "No space left on device: make room on this disk, then try again",
    ]
    assert config.endswith("the config has problems:\na: b; do c")
    assert key.endswith(f"KeyError: 'a'\n{terminal.FAULT}")
    assert "DataError: a.json: cut; delete it" in own
    assert own.endswith("pair=p")
    assert "ValueError: b" in other
    assert other.endswith(terminal.FAULT)
    assert full == "expoflow: No space left on device; make room on this disk, then try again"
    assert read_only == (
        "expoflow: /data/.snakemake: Read-only file system; name a place that can be written to, then try again"
    )
    assert broken.startswith("expoflow: Input/output error")
    assert lock == (
        "expoflow: this folder is locked, and no process of this machine is at work in it; if its run was killed, run"
        " snakemake --unlock, then start it as before"
    )


def test_the_last_line_of_each_log_is_said_again(said, tmp_path):
    _, words = said
    logs = [tmp_path / name for name in ("a.log", "empty.log", "none.log", "bar.log")]
    logs[0].write_text("much\nerror: a.csv: cut; delete it\n\n")
    logs[1].write_text("")
    logs[3].write_text("loading\n10%\r20% of \x1b[2J\r\n", newline="")

    for log in (*logs, logs[0]):
        logging.getLogger(terminal.LOGGER).error(
            "failed", extra={"event": LogEvent.JOB_ERROR, "log": [str(log)]}
        )
    assert words.last().split("\n") == [
        f"{logs[0]}: error: a.csv: cut; delete it",
        f"{logs[1]}: is empty: the job was killed, perhaps for lack of memory",
        f"{logs[2]}: cannot be read (No such file or directory)",
        rf"{logs[3]}: 20% of \x1b[2J",
    ]
    assert words.last(lambda log: log.name).startswith(
        "a.log: error: a.csv: cut; delete it\nempty.log: is empty"
    )


def test_of_a_slurm_job_of_several_jobs_those_are_told_that_failed(said, tmp_path):
    _, words = said
    logger = logging.getLogger(terminal.LOGGER)
    fine, broken, slurm = (tmp_path / name for name in ("fine.log", "broken.log", "slurm.log"))
    fine.write_text("tiny: alpha 1: reward 0.716\n")
    slurm.write_text("CANCELLED DUE TO TIME LIMIT\n")

    def fail(aux):
        jobs = [{"log": [str(log)], "event": LogEvent.JOB_ERROR} for log in (fine, broken)]
        group = {"event": LogEvent.GROUP_ERROR, "job_error_info": jobs, "aux_logs": aux}
        for extra in (group, *jobs):
            logger.error("failed", extra=extra)

    fail([str(slurm)])
    assert words.last() == f"{slurm}: CANCELLED DUE TO TIME LIMIT"
    words.failed.clear()
    broken.write_text("error: a.csv: cut; delete it\n")
    fail([str(slurm)])
    assert words.last() == f"{broken}: error: a.csv: cut; delete it"
