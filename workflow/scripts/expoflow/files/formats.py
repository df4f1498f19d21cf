"""The formats of data files, derived from their names."""

FORMATS = (
    ".parquet",
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
)  # for a split, the first format that exists is used
PACKED = (".gz", ".zst")


def format_of(name: str) -> tuple[str, str]:
    """The format of the file `name` and its compression, if any. An unknown name stands for JSON
    lines.

    The case does not matter: `A.CSV.gz` gives ".csv" and ".gz", `a.txt` gives ".jsonl" and "".
    """
    name = name.lower()
    packed = next((each for each in PACKED if name.endswith(each)), "")
    name = name.removesuffix(packed)
    return next((each for each in FORMATS if name.endswith(each)), ".jsonl"), packed
