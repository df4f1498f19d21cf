"""The words after a run, and what is shown of one that failed."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from expoflow.errors import DataError
from expoflow.files.records import read_json
from expoflow.paths import RESULTS, Results, of_benchmark
from expoflow.reporting import paper_tables
from expoflow.reporting import tables as result_tables
from expoflow.reporting.page import write_page
from expoflow.reporting.tables import read
from expoflow.reporting.words import best_line
from expoflow.results import Best, read_certificate


def closing_words(results: Results = RESULTS) -> str:
    """What a finished run says last: each pair's choice and its certificate, and where the results lie; nothing where it made a part."""
    if not results.report.exists():
        return ""
    lines = []
    try:
        for row in read([results.table("summary")], ("pair", "reward_aligned")):
            best = read_json(results.best(row["pair"]), Best)
            certificate = read_certificate(results.certificate(row["pair"]), best)
            lines.append(best_line(best, row["reward_aligned"], certificate))
    except DataError:
        return ""
    models = f"{results.exported('{pair}')}/"
    return "\n".join([*lines, f"report: {results.report}, tables: {results.table('*')}, models: {models}"])


def salvage(benchmarks: list[Path], figures: Mapping[str, str], results: Results = RESULTS) -> str:
    """After a failed run: show in results/partial/ the `benchmarks` that there are, with the gaps; the words on it.

    A benchmark that fails keeps the joint table from being made, and with it the page: with `--keep-going` all
    other jobs go on, and at the end the head process makes benchmarks.csv, the tables in the paper's form and
    the page of what is there. They lie apart, so that Snakemake does not take them for finished ones.
    """
    partial = results.partial
    shutil.rmtree(partial.folder, ignore_errors=True)
    missing = [path for path in benchmarks if not path.exists()]
    if not missing or len(missing) == len(benchmarks):
        return ""
    table, pairs = partial.table("benchmarks"), [*dict.fromkeys(of_benchmark(path)[0] for path in benchmarks)]
    try:
        result_tables.write_benchmarks(table, benchmarks)
        if any(of_benchmark(path)[2] in paper_tables.BENCHMARKS for path in benchmarks):
            paper_tables.write_paper_tables(table, partial.paper_tables)
        if all(results.best(pair).exists() for pair in pairs):
            result_tables.write_summary(partial.table("summary"), results, pairs)
            drawn = {name: text for name, text in figures.items() if results.figure(name, "svg").exists()}
            write_page(partial.report, drawn, results=results)
    except DataError as error:
        return f"what there is cannot be shown in {partial.folder}: {error}"
    places = map(of_benchmark, missing)
    gaps = [f"missing in {table}: {pair}: {benchmark} of {variant}" for pair, variant, benchmark in places]
    return "\n".join([*gaps, f"their logs: {results.benchmark_log('{pair}', '{variant}', '{benchmark}')}"])
