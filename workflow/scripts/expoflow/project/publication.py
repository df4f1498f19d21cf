"""The files to publish for a pair: the exported files as they are, a model card, and a figure.

All checks are done here, without the network.
"""

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expoflow.checkpoints.checkpoint import INDEX, open_checkpoint, read_json_file
from expoflow.checkpoints.findings import quantised
from expoflow.checkpoints.inspection import not_finite
from expoflow.config import Config
from expoflow.config.base import DIFFERENCE
from expoflow.errors import CheckpointError, ConfigError
from expoflow.extrapolation.preflight import open_pair
from expoflow.extrapolation.recipe import ExtrapolationRecipe, Input
from expoflow.extrapolation.verify import verify
from expoflow.files.hashing import sha256
from expoflow.files.records import read_json
from expoflow.hub import licence
from expoflow.paths import RECIPE, RESULTS, Results, of_benchmark, of_exported
from expoflow.project.card import FIGURE, VARIANTS, Evidence, hub_card
from expoflow.project.folder import Project
from expoflow.reporting import tables
from expoflow.reporting.words import certificate_words, rehearsal_words, worse
from expoflow.results import BenchmarkResult, Best, Manifest, read_certificate

CARD = "README.md"


@dataclass(frozen=True)
class Upload:
    """One file of the upload; `content` is its path, or its bytes."""

    name: str
    content: Path | bytes
    size: int
    sha256: str

    def is_named(self, etag: str) -> bool:
        """Return whether the hub's hash is this file's: sha256 (large files) or git's sha1."""
        if len(etag) == 64:
            return etag == self.sha256
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return etag == hashlib.sha1(b"blob %d\0" % self.size + content).hexdigest()


def publication(
    folder: Path,
    repo: str,
    pair: str | None = None,
    config: Path | None = None,
    stated: str | None = None,
    draft: bool = False,
) -> list[Upload]:
    """Return the files to upload for a pair, sorted by name.

    `folder` is a project's folder or that of an exported model. `pair` is needed if a project has
    several, and `config` if its folder has none. `stated` is the licence, if it is not that of both
    parents; the card of a `draft` may state none. Raises an ExpoflowError that lists every reason
    why the model must not be published.
    """
    project, pair = _place(folder, pair)
    found = Project.find(project, config).read()
    if pair not in found.pairs:
        raise ConfigError([f"the config has no pair '{pair}'; give this run's config: --config FILE"])
    exported = Results.of(project).exported(pair)
    evidence = _evidence(project, pair, found, exported)
    if problems := [*_problems(project, evidence, exported)]:
        raise CheckpointError("\n".join(problems))
    terms = {"license": stated} if stated else _inherited(project, evidence, draft)
    recipe = evidence.recipe
    for source in (recipe.sft.source, recipe.aligned.source):
        if Path(source).is_absolute():
            print(f"note: {RECIPE} is published as it is and names the folder {source}", file=sys.stderr)
    names = {*recipe.files, *(recipe.outputs or ()), RECIPE}
    if (exported / INDEX).is_file():
        names.add(INDEX)
    texts = {
        CARD: hub_card(evidence, repo, terms).encode(),
        FIGURE: _figure(Results.of(project), pair),
    }
    known = {**recipe.files, **(recipe.outputs or {})}
    uploads = [_file(exported / name, name, known.get(name)) for name in names]
    uploads += [
        Upload(name, text, len(text), hashlib.sha256(text).hexdigest()) for name, text in texts.items()
    ]
    return sorted(uploads, key=lambda upload: upload.name)


def _place(folder: Path, pair: str | None) -> tuple[Path, str]:
    """Return the project's folder and the pair; `folder` is the project's or the model's."""
    there = folder.absolute().resolve()
    if named := of_exported(there):
        project, own = named
        if pair not in (None, own):
            raise ConfigError([f"{folder}: belongs to pair '{own}'; leave out --pair {pair}"])
        return project, own
    pairs = Results.of(there).exported_pairs()
    if not pairs:
        wanted = RESULTS.exported("PAIR")
        raise ConfigError(
            [f"{folder}: no {wanted} in it; name the folder of a finished run, or of an exported model"]
        )
    if pair is None and len(pairs) > 1:
        raise ConfigError([f"{folder}: has the pairs {', '.join(pairs)}; choose one with --pair"])
    if pair is not None and pair not in pairs:
        raise ConfigError([f"{folder}: no exported model of pair '{pair}'; there are {', '.join(pairs)}"])
    return there, pair or pairs[0]


def _evidence(project: Path, pair: str, config: Config, exported: Path) -> Evidence:
    results = Results.of(project)
    if not (exported / RECIPE).is_file():
        raise CheckpointError(f"{exported}: has no {RECIPE}, its export is not finished; run snakemake again")
    members = config.pairs[pair]
    names = {"sft": members.sft, "aligned": members.aligned}
    names |= {"reward_model": config.reward_model} if config.reward_model else {}
    prompts = results.prompts(config.section(pair, "generate").prompts)
    benchmarks = [
        results.benchmark(pair, variant, benchmark)
        for benchmark, section in config.section(pair, "benchmarks").sections().items()
        for variant in VARIANTS
        if variant in (*section.RESULTS, DIFFERENCE)
    ]
    if absent := [path for path in (results.alphas(pair), prompts, *benchmarks) if not path.is_file()]:
        raise CheckpointError(f"{absent[0]}: is missing, the run is not finished; run snakemake again")
    made = (exported / RECIPE).stat().st_mtime_ns
    if old := [
        path for path in benchmarks if "expo" in of_benchmark(path)[1] and path.stat().st_mtime_ns < made
    ]:
        raise CheckpointError(
            f"{old[0]}: belongs to an earlier export, the run is not finished; run snakemake again"
        )
    best = read_json(results.best(pair), Best)
    return Evidence(
        pair=pair,
        config=config,
        recipe=read_json(exported / RECIPE, ExtrapolationRecipe),
        best=best,
        certificate=read_certificate(results.certificate(pair), best),
        alphas=list(tables.read([results.alphas(pair)])),
        benchmarks=[read_json(path, BenchmarkResult) for path in benchmarks],
        prompts=best.prompts or sum(1 for _ in prompts.open("rb")),
        models={role: read_json(results.manifest(name), Manifest) for role, name in names.items()},
    )


def _problems(project: Path, evidence: Evidence, exported: Path) -> Iterator[str]:
    """Yield the reasons why the model must not be published, one line each."""
    recipe, best = evidence.recipe, evidence.best
    if said := rehearsal_words(evidence.certificate):
        yield f"{exported}: {said}; publish the model of the run itself"
    if recipe.alpha != float(best.alpha):
        yield f"{exported}: has alpha {recipe.alpha:g}, but best.json chooses {best.alpha}; run snakemake again"
    elif not recipe.alpha:
        yield f"{exported}: alpha 0 was chosen, so this is the aligned model itself; there is nothing to publish"
    if evidence.certificate is None and best.prompts is not None:
        where = Results.of(project).certificate(evidence.pair)
        yield f"{where}: does not belong to the choice in best.json, the run is not finished; run snakemake again"
    if evidence.certificate and worse(evidence.certificate):
        words = certificate_words(evidence.certificate)
        yield f"{exported}: is not better than the aligned model: {words}; choose another alpha, or keep the aligned model"
    if recipe.weights != "stored" or not recipe.outputs:
        yield f"{exported}: is not a whole exported model; run snakemake again"
    for role in ("sft", "aligned"):
        parent: Input = getattr(recipe, role)
        manifest = evidence.models[role]
        if not parent.weights.items() <= manifest.sha256s().items():
            yield (
                f"{exported}: was made from another {role} model than {RESULTS.manifest(manifest.model)} describes; "
                "run snakemake again"
            )
    yield from _preflight(project, evidence, Results.of(project).preflight(evidence.pair))
    yield from verify(exported)
    checkpoint = open_checkpoint(exported)
    yield from (finding.message for finding in quantised(checkpoint, str(exported)))
    if bad := not_finite(checkpoint):
        yield f"{exported}: {len(bad)} tensors have NaN or Inf ({', '.join(bad[:3])}); check the parents for them"


def _preflight(project: Path, evidence: Evidence, recorded: Path) -> list[str]:
    """Return the errors of the pair's preflight: repeated if both models are here, or recorded."""
    parents = [evidence.models[role] for role in ("sft", "aligned")]
    folders = [project / parent.folder for parent in parents]
    if all(
        (each / name).is_file()
        for each, parent in zip(folders, parents, strict=True)
        for name in parent.files
    ):
        return open_pair(*folders, evidence.recipe.vocabulary).errors
    findings = read_json_file(recorded).get("findings")
    if findings is None:
        return [f"{recorded}: is missing; run snakemake again"]
    return [finding["message"] for finding in findings if finding["level"] == "error"]


def _inherited(project: Path, evidence: Evidence, draft: bool) -> licence.Licence:
    parents = [evidence.models[role] for role in ("aligned", "sft")]
    stated = {
        parent.source.get("hub", parent.model): parent.license
        or licence.stated(project / parent.folder / CARD)
        for parent in parents
    }
    try:
        return licence.inherited(stated)
    except CheckpointError as error:
        if not draft:
            raise
        print(f"note: this card states no licence, and an upload needs one: {error}", file=sys.stderr)
        return {}


def _figure(results: Results, pair: str) -> bytes:
    """Return the figure of the pair's sweep, as PNG."""
    from expoflow.config.figures import FigureConfig
    from expoflow.reporting import figures
    from expoflow.reporting.figures.style import Drawing

    inputs = [path for path in (results.alphas(pair), results.certificate(pair)) if path.exists()]
    drawing = Drawing(FigureConfig(kind="sweep", pairs=[pair]), inputs, paper={})
    with tempfile.TemporaryDirectory() as folder:
        figures.draw(drawing, [Path(folder) / FIGURE])
        return (Path(folder) / FIGURE).read_bytes()


def _file(path: Path, name: str, known: str | None) -> Upload:
    return Upload(name, path, path.stat().st_size, known or sha256(path))
