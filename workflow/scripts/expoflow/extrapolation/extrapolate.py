"""The streaming driver: make one extrapolated checkpoint per alpha from two checkpoints.

Both inputs are read once, in constant memory, for any number of alphas.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event

from expoflow.checkpoints.adapter import is_adapter
from expoflow.checkpoints.checkpoint import ADAPTER, Checkpoint
from expoflow.checkpoints.package import copy_package, package_files
from expoflow.errors import CheckpointError, PairError
from expoflow.extrapolation import elements
from expoflow.extrapolation.effect import Effects, summarise, tensor_effect
from expoflow.extrapolation.merged_adapter import Merged
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair, open_pair
from expoflow.extrapolation.recipe import Effect, ExtrapolationRecipe, Input, adapter_input
from expoflow.extrapolation.scaled_adapter import scaled
from expoflow.extrapolation.tensor_stream import require_equal
from expoflow.extrapolation.writer import Progress, Writer, shard_layouts
from expoflow.files.atomic import write_text
from expoflow.files.folder import appearing, require_room
from expoflow.files.hashing import sha256
from expoflow.files.records import provenance, write_json
from expoflow.paths import RECIPE
from expoflow.store import remembered

Sha256s = Mapping[str, str]
LOW = 0.5  # an effective alpha below this share of alpha gives a warning


def extrapolate(
    sft: Path,
    aligned: Path,
    alphas: Mapping[str, Path],
    options: Options | None = None,
    *,
    known: Mapping[Path, Sha256s] | None = None,
    verify: bool = False,
    labels: tuple[str, str] | None = None,
    revisions: tuple[str | None, str | None] = (None, None),
    write_weights: bool = True,
    replace: bool = False,
    as_adapter: bool = False,
    look: Callable[[Pair], Pair] | None = None,
    card: Callable[[ExtrapolationRecipe], str] | None = None,
    progress: Progress | None = None,
) -> dict[str, ExtrapolationRecipe]:
    """Write one checkpoint folder per alpha (Eq. 1 of the paper) in one pass over both inputs.

    `alphas` has the output folder by the alpha's spelling. `known` has sha256s by file name for an
    input folder; missing ones are computed during the copy. With `verify`, known ones are computed
    too and compared. `labels` and `revisions` name the inputs (sft, aligned) in the recipe; their
    folders are the default. Without `write_weights`, a folder gets everything but weights; alphas 0
    and -1 then cost nothing and import no torch. With `as_adapter`, `aligned` is an adapter and the
    output is the adapter of theta2 on the same base. `look` adds findings to the pair, such as
    `likeness.looked_at`. `card` makes the text of README.md; without it there is none.
    `progress(done, total)` is called with bytes, from any thread.

    Raises PairError with every reason why the pair does not fit, and CheckpointError for broken
    inputs, an existing output (unless `replace`) or a full disk. A failed output is removed.
    """
    options = options or Options()
    values = _values(alphas)
    pair = _opened(sft, aligned, options, look)
    made = scaled(pair, aligned, options) if as_adapter else pair
    _refuse_overlap((sft, aligned), alphas)
    parents = (
        {-1} if isinstance(pair.aligned, Merged) else {0, -1}
    )  # alphas with weights that are on disk already
    computing = write_weights or options.alpha_for or not set(values.values()) <= parents
    size = _size(made, options) if write_weights else 0
    with ExitStack() as stack:
        folders = {
            spelling: stack.enter_context(appearing(folder, replace=replace, needs=size * len(alphas)))
            for spelling, folder in alphas.items()
        }
        known = known or {}
        both = [known.get(Path(sft), {}), known.get(Path(aligned), {})]
        hashes = stack.enter_context(_hashing(pair, both, verify))
        effects = {}
        if computing:
            require_equal(made)
            targets = {values[spelling]: folder for spelling, folder in folders.items()}
            with closing(Writer(made, targets, options, progress)) as writer, _workers(made, options) as pool:
                effects = writer.run(pool) if write_weights else _measured(made, list(targets), options, pool)
        inputs = _inputs(pair, hashes, labels or (str(sft), str(aligned)), revisions)
        return {
            spelling: _complete(made, options, values[spelling], folder, inputs, effects, write_weights, card)
            for spelling, folder in folders.items()
        }


def planned(
    sft: Path,
    aligned: Path,
    alphas: Mapping[str, Path],
    options: Options,
    as_adapter: bool = False,
    look: Callable[[Pair], Pair] | None = None,
) -> list[str]:
    """Return what `extrapolate` would do, as lines of text; raise what it would at its start."""
    values = _values(alphas)
    pair = _opened(sft, aligned, options, look)
    pair = scaled(pair, aligned, options) if as_adapter else pair
    _refuse_overlap((sft, aligned), alphas)
    size = _size(pair, options)
    for folder in alphas.values():
        require_room(folder, needs=size * len(alphas), replace=False)
    lines = [f"{finding.level}: {finding.message}" for finding in pair.findings]
    shared = sum(part.shared for part in pair.parts)
    tensors = {part.name for part in pair.parts}
    lines.append(
        f"{shared:,} of {pair.aligned.parameters:,} elements of {len(tensors)} tensors to extrapolate"
    )
    for regex, _ in options.alpha_for:
        names = [name for name in tensors if re.search(regex, name)]
        lines.append(f"alpha-for {regex}: matches {len(names)} tensors")
    for spelling, folder in alphas.items():
        lines.append(f"alpha {values[spelling]:g}: {size / 1e9:.3f} GB to {folder}")
    return lines


def _opened(sft: Path, aligned: Path, options: Options, look: Callable[[Pair], Pair] | None) -> Pair:
    """Open a pair and require that it fits; `look` is as in `extrapolate`."""
    pair = open_pair(sft, aligned, options.vocabulary)
    pair.require()
    if look:
        pair = look(pair)
        pair.require()
    return pair


def _measured(pair: Pair, alphas: list[float], options: Options, pool: Executor) -> Effects:
    parts = [part for part in pair.parts if part.shared]
    pieces = pool.map(lambda part: tensor_effect(pair, part, alphas, options), parts)
    names = [part.theta1.name for part in parts]
    return summarise(pair, alphas, options, dict(zip(names, pieces, strict=True)))


def _values(alphas: Mapping[str, Path]) -> dict[str, float]:
    values = {spelling: float(spelling) for spelling in alphas}
    if not all(map(math.isfinite, values.values())) or len(set(values.values())) < len(values):
        raise PairError(f"alphas {', '.join(alphas)}: not finite, or one is given twice; give each once")
    return values


def _size(pair: Pair, options: Options) -> int:
    return sum(plan.size for plan in shard_layouts(pair, options))


def _refuse_overlap(inputs: tuple[Path, Path], alphas: Mapping[str, Path]) -> None:
    resolved = [Path(folder).resolve() for folder in inputs]
    for folder in alphas.values():
        if any(Path(folder).resolve() in (each, *each.parents) for each in resolved):
            raise CheckpointError(f"{folder}: is or contains one of the inputs; give another --out")


@contextmanager
def _workers(pair: Pair, options: Options) -> Iterator[ThreadPoolExecutor]:
    """Threads that compute.

    If they need torch, it uses one thread in each of them; its setting is restored afterwards.
    """
    pool = ThreadPoolExecutor(options.workers())
    with ExitStack() as stack:
        if elements.need_torch(pair, options):
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        stack.callback(pool.shutdown, cancel_futures=True)
        yield pool


@contextmanager
def _hashing(pair: Pair, known: list[Sha256s], verify: bool) -> Iterator[list[Future]]:
    """Futures of the sha256 by weight file, for sft and aligned.

    A separate thread computes the unknown ones.
    """
    pool, stop = ThreadPoolExecutor(1), Event()

    def hashes(checkpoint: Checkpoint, given: Sha256s) -> dict[str, str]:
        result = {}
        for path in checkpoint.sources:
            name = path.name
            result[name] = (
                given[name] if name in given and not verify else remembered(path, stop, anew=verify)
            )
            if result[name] != given.get(name, result[name]):
                raise CheckpointError(
                    f"{path}: has sha256 {result[name]} instead of {given[name]}; download the file again"
                )
        return result

    try:
        yield [
            pool.submit(hashes, checkpoint, given)
            for checkpoint, given in zip((pair.sft, pair.aligned), known, strict=True)
        ]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _hash_outputs(folder: Path, pair: Pair, options: Options) -> dict[str, str]:
    names = pair.aligned.weight_files
    with ThreadPoolExecutor(options.workers()) as pool:
        return dict(zip(names, pool.map(sha256, [folder / name for name in names]), strict=True))


def _inputs(
    pair: Pair, hashes: list[Future], labels: tuple[str, str], revisions: tuple[str | None, str | None]
) -> list[Input]:
    adapters = [None, adapter_input(pair.aligned.adapter) if isinstance(pair.aligned, Merged) else None]
    return [
        Input(source=label, revision=revision, weights=future.result(), adapter=adapter)
        for label, revision, future, adapter in zip(labels, revisions, hashes, adapters, strict=True)
    ]


def _complete(
    pair: Pair,
    options: Options,
    alpha: float,
    folder: Path,
    inputs: list[Input],
    effects: Effects,
    write_weights: bool,
    card: Callable[[ExtrapolationRecipe], str] | None,
) -> ExtrapolationRecipe:
    """Add everything but weights to a folder; the recipe is written last."""
    overall, kinds = effects.get(alpha) or (_exact(pair, alpha), {})
    hashed = options.hash_outputs and write_weights
    package = pair.aligned.folder
    names = package_files(package) + [ADAPTER] * is_adapter(package)
    recipe = ExtrapolationRecipe(
        sft=inputs[0],
        aligned=inputs[1],
        alpha=alpha,
        **options.rules(),
        weights="stored" if write_weights else "streamed" if kinds else "parents",
        files=copy_package(package, folder, options.dtype, names),
        **overall.model_dump(),
        kinds=kinds,
        outputs=_hash_outputs(folder, pair, options) if hashed else None,
        warnings=tuple(_warnings(pair, options, alpha, overall)),
        notes=tuple(finding.message for finding in pair.findings if finding.level == "note"),
        provenance=provenance("torch"),
    )
    if card:
        write_text(folder / "README.md", card(recipe))
    write_json(folder / RECIPE, recipe)
    return recipe


def _exact(pair: Pair, alpha: float) -> Effect:
    """Return the effect for a parent's own weights: nothing is rounded and nothing measured."""
    elements = sum(part.shared for part in pair.parts)
    return Effect(elements=elements, measured=0, effective_alpha=alpha, moved_share=None if alpha else 0.0)


def _warnings(pair: Pair, options: Options, alpha: float, overall: Effect) -> Iterator[str]:
    yield from (finding.message for finding in pair.findings if finding.level == "warning")
    effective = overall.effective_alpha
    if alpha and not options.alpha_for and effective is not None and effective / alpha < LOW:
        yield (
            f"effective alpha is {effective:.3g} instead of {alpha:g}: rounding swallows most of the step; "
            f"dtype float32 keeps it{', and so does an adapter (--as adapter)' * isinstance(pair.aligned, Merged)}"
        )
