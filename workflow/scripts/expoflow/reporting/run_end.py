"""The summary at the end of a run, and the partial results of a run that failed."""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expoflow.benchmarks.lm_eval.files import Plan
from expoflow.config import Config
from expoflow.config.base import REFERENCE_ALPHAS
from expoflow.dag.resources import Needs
from expoflow.errors import DataError
from expoflow.files.records import read_json
from expoflow.paths import RESULTS, Results, of_benchmark
from expoflow.reporting import paper_tables, rehearsal, remarks
from expoflow.reporting import tables as result_tables
from expoflow.reporting.pages.provenance import Told
from expoflow.reporting.tables import BENCHMARKED, read
from expoflow.reporting.words import best_lines, duration
from expoflow.results import Best, Certificate, read_certificate


@dataclass(frozen=True)
class Ran:
    """A run that has ended.

    `config` was read from `file` (None: the workflow's own config). `cwd` is the folder that the
    run was started from. `seconds` is the time it took; None if one looks at the run later.
    """

    config: Config
    file: Path | None
    cwd: Path
    seconds: float | None

    def place(self, path: Path = Path()) -> str:
        """A path in the run's folder, relative to where the run was started.

        It is given in full if it does not lie below that folder.
        """
        whole = os.path.abspath(path)
        below = os.path.relpath(whole, self.cwd)
        return whole if below.startswith("..") else below

    def again(self) -> str:
        """The command that runs the config again."""
        if self.file is None:
            return "snakemake --cores all"
        file, here = shlex.quote(self.place(self.file)), self.file.absolute().parent == Path.cwd()
        if here and self.file.name == "config.yaml":
            return "expoflow run" if self.place() == "." else f"expoflow run {shlex.quote(self.place())}"
        return f"expoflow run --config {file}{'' if here else f' --out {shlex.quote(self.place())}'}"


def closing_words(results: Results = RESULTS, ran: Ran | None = None) -> str:
    """The last lines of a finished run, on one screen; empty if it made only a part.

    For every pair they have the choice, the certificate and the remarks. Then they say where the
    results are and, if the run is known, what to do with them.
    """
    if not results.report.exists():
        return ""
    lines, choices = [], set()
    try:
        benchmarks = [*read([results.table("benchmarks")], BENCHMARKED)]
        for row in read([results.table("summary")], ("pair", "reward_aligned")):
            best = read_json(results.best(row["pair"]), Best)
            choices.add(best.alpha)
            certificate = read_certificate(results.certificate(row["pair"]), best)
            first, *others = best_lines(remarks.without_next(best), row["reward_aligned"], certificate)
            lines += [first, *(f"  {line}" for line in others)]
            lines += [f"  {line}" for line in _remarks(results, best, certificate, benchmarks, ran)]
    except DataError:
        return ""
    place = ran.place if ran else str
    lines.append(f"report: {place(results.report)}, tables: {place(results.table('*'))}")
    return "\n".join([*lines, *(_models(results, ran, kept=choices == {"0"}) if ran else ())])


def _remarks(
    results: Results,
    best: Best,
    certificate: Certificate | None,
    benchmarks: Sequence[Mapping[str, str]],
    ran: Ran | None,
) -> Iterator[str]:
    alphas = [*read([results.alphas(best.pair)], ("alpha",))]
    said = remarks.of_pair(best, certificate, alphas, benchmarks, *_told(ran, best.pair))
    if said.responses:
        yield f"responses: {said.responses}"
    if ran and ran.config.limit:
        return  # also for a choice without a certificate
    if said.exchanged:
        yield f"WARNING: {said.exchanged}"
    if said.worse:
        yield f"worse than the aligned model in {said.worse}"
    if said.further:
        yield f"next: {said.further}{_command(best.pair, said.more, ran) if said.more and ran else ''}"


def _command(pair: str, more: Sequence[str], ran: Ran) -> str:
    """The command that tries `more` alphas of a pair."""
    grid = [*(each for each in ran.config.pairs[pair].grid() if each not in REFERENCE_ALPHAS), *more]
    if ran.file and len(ran.config.pairs) == 1 and " --out " not in ran.again():
        return f": {ran.again()} --alphas {','.join(grid)}"
    where = ran.place(ran.file) if ran.file else "the config"
    return f"; set alphas: [{', '.join(grid)}] of pairs.{pair} in {where}, then: {ran.again()}"


def _told(ran: Ran | None, pair: str) -> tuple[Mapping[str, bool | None], float]:
    """Whether more is better, for each known metric of lm-eval, and the confidence of intervals."""
    if ran is None:
        return {}, 0.95
    section = ran.config.section(pair, "benchmarks").lm_eval
    higher = read_json(Path(section.inputs()["data"]), Plan).higher if section else {}
    return higher, ran.config.section(pair, "select").confidence


def _models(results: Results, ran: Ran, kept: bool) -> Iterator[str]:
    """Where the models are, what can be done with them, and how long the run took.

    If `kept`, alpha 0 was chosen for all pairs, and there are no new models.
    """
    if ran.config.limit:
        yield f"{rehearsal.words(ran.config.limit)}; the same without --limit (in the config: limit) makes results"
        yield from _took(ran)
        return
    pairs = [*ran.config.pairs]
    if kept:
        yield "no better model: alpha 0 was chosen, which is the aligned model"
        yield from _took(ran)
        return
    model = ran.place(results.exported(pairs[0] if len(pairs) == 1 else "PAIR"))
    quoted = shlex.quote(model)
    usual = ran.file is None or ran.file.absolute() in (
        Path("config.yaml").absolute(),
        Path("config/config.yaml").absolute(),
    )
    config = "" if usual else f" --config {shlex.quote(ran.place(ran.file))}"
    yield (
        f"model: {model}/, its card: README.md there; with the evidence: expoflow publish {quoted}{config} --repo ORG/NAME --dry-run"
    )
    needs = Needs(ran.config, lambda model: 0)
    if real := [pair.aligned for pair in ran.config.pairs.values() if not needs.miniature(pair.aligned)]:
        trusted = " --trust-remote-code" * any(ran.config.models[each].trust_remote_code for each in real)
        yield f"serve: vllm serve {quoted}{trusted}; as GGUF: python llama.cpp/convert_hf_to_gguf.py {quoted}"
    yield from _took(ran)


def _took(ran: Ran) -> Iterator[str]:
    if ran.seconds is not None:
        yield f"took: {duration(ran.seconds)}"


def salvage(
    benchmarks: list[Path],
    told: Told,
    results: Results = RESULTS,
    limit: int | None = None,
) -> str:
    """After a failed run, show the finished `benchmarks` in results/partial/; return a message.

    `told` is what the page cannot read from results, and `limit` is that of a rehearsal.

    If a benchmark fails, neither the joint table nor the page can be made. With `--keep-going` all
    other jobs go on. At the end the head process makes benchmarks.csv, the tables in the paper's
    form and the page from the finished results, with gaps. They lie in a separate folder, so
    Snakemake does not take them for finished outputs.
    """
    from expoflow.reporting.pages.report import write_report

    partial = results.partial
    shutil.rmtree(partial.folder, ignore_errors=True)
    missing = [path for path in benchmarks if not path.exists()]
    if not missing or len(missing) == len(benchmarks):
        return ""
    table, pairs = partial.table("benchmarks"), [*dict.fromkeys(of_benchmark(path)[0] for path in benchmarks)]
    try:
        result_tables.write_benchmarks(table, benchmarks)
        paper_tables.write_paper_tables(table, partial.paper_tables, told.confidence)
        if all(results.best(pair).exists() for pair in pairs):
            result_tables.write_summary(partial.table("summary"), results, pairs)
        rehearsal.mark([*partial.folder.glob("*.csv"), *partial.paper_tables.glob("*")], limit)
        if partial.table("summary").exists():
            write_report(partial.report, told, results)
    except DataError as error:
        return f"the finished results cannot be shown in {partial.folder}: {error}"
    places = map(of_benchmark, missing)
    gaps = [f"missing in {table}: {pair}: {benchmark} of {variant}" for pair, variant, benchmark in places]
    return "\n".join([*gaps, f"their logs: {results.benchmark_log('{pair}', '{variant}', '{benchmark}')}"])
