"""The formats of data files, by their names."""

FORMATS = (
    ".parquet",
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
)  # of the files of a split, the first there is is taken
PACKED = (".gz", ".zst")


def format_of(name: str) -> tuple[str, str]:
    """The format of the file `name`, and how it is packed, if it is; a name that says nothing stands for JSON lines.

    The case does not count: `A.CSV.gz` gives ".csv" and ".gz", `a.txt` gives ".jsonl" and "".
    """
    name = name.lower()
    packed = next((each for each in PACKED if name.endswith(each)), "")
    name = name.removesuffix(packed)
    return next((each for each in FORMATS if name.endswith(each)), ".jsonl"), packed
