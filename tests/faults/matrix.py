"""The fault matrix: which fault is tried at which stage.

`x` is tried by `make faults`, `ci` also by .ci/run, and a letter says why there is nothing to try.
"""

LOCAL = (
    "job killed",
    "engine host killed",
    "head killed",
    "head terminated",
    "Ctrl-C",
    "disk full",
    "out of memory",
    "unreadable input",
    "corrupt intermediate",
)
SLURM = ("scancel", "time-out", "node dies", "head killed (SLURM)")
# fmt: off
MATRIX = {
    #               job   host  head  TERM  ^C    disk  mem   input cut   scan  time  node  head
    "train":       ("x",  "a",  "ci", "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x"),
    "download":    ("x",  "a",  "x",  "x",  "ci", "x",  "x",  "b",  "x",  "c",  "c",  "c",  "c"),
    "extrapolate": ("x",  "a",  "x",  "x",  "x",  "ci", "x",  "x",  "x",  "x",  "x",  "x",  "x"),
    "generate":    ("ci", "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x"),
    "score":       ("x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "ci", "x",  "x",  "x",  "x"),
    "select":      ("x",  "a",  "x",  "x",  "x",  "x",  "ci", "x",  "x",  "x",  "x",  "x",  "x"),
    "export":      ("x",  "a",  "x",  "ci", "x",  "x",  "x",  "x",  "x",  "ci", "x",  "x",  "x"),
    "benchmark":   ("x",  "ci", "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x",  "x"),
    "report":      ("x",  "a",  "x",  "x",  "x",  "x",  "x",  "ci", "x",  "c",  "c",  "c",  "c"),
}
# fmt: on
REASONS = {
    "a": "no engine host works for this stage",
    "b": "a download reads no file of the workflow",
    "c": "runs beside the head on the login node, not as a SLURM job",
}


def cells(faults: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Stage, fault and mark of all cells in the columns of `faults`."""
    return [
        (stage, fault, mark)
        for stage, marks in MATRIX.items()
        for fault, mark in zip(LOCAL + SLURM, marks, strict=True)
        if fault in faults
    ]
