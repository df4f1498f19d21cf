"""A pair's checkpoints as the workflow makes them: those of the sweep, and the published one."""

import filecmp
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from expoflow import store
from expoflow.checkpoints import manifests
from expoflow.checkpoints.adapter import is_adapter
from expoflow.checkpoints.findings import Finding
from expoflow.config.base import REFERENCE_ALPHAS
from expoflow.config.stages import ExtrapolateConfig
from expoflow.errors import PairError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.likeness import Likeness
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair
from expoflow.extrapolation.recipe import ARITHMETIC, ExtrapolationRecipe
from expoflow.files import hashing
from expoflow.files.records import Record, write_json
from expoflow.paths import RECIPE
from expoflow.results import Manifest

SAME_WEIGHTS = "have the same weights: there is nothing to extrapolate; name the checkpoint before the alignment, and the one after it"


class Exported(Record):
    """What an exported folder was made from; kept beside it to avoid making it twice."""

    key: str
    recipe: ExtrapolationRecipe


def extrapolate_pair(
    sft: Manifest,
    aligned: Manifest,
    alpha: str,
    folder: Path,
    config: ExtrapolateConfig,
    *,
    write_weights: bool,
    threads: int = 1,
    hash_outputs: bool = False,
    card: Callable[[ExtrapolationRecipe], str] | None = None,
) -> ExtrapolationRecipe:
    """Make the checkpoint of `alpha` in `folder`, replacing what is there."""
    options = Options.of(dict(config), threads=threads, hash_outputs=hash_outputs)
    parents = [manifests.model_folder(manifest) for manifest in (sft, aligned)]
    recipes = extrapolate(
        *parents,
        {alpha: folder},
        options,
        known=dict(zip(parents, (sft.sha256s(), aligned.sha256s()), strict=True)),
        labels=tuple(each.source.get("hub", each.folder) for each in (sft, aligned)),
        revisions=(sft.revision, aligned.revision),
        write_weights=write_weights,
        replace=True,
        card=card,
    )
    return recipes[alpha]


def require_different(sft: Manifest, aligned: Manifest) -> None:
    """Raise PairError if two models have the same weights: every alpha would give them again."""
    weights = [
        {name: digest for name, digest in each.sha256s().items() if name.endswith((".safetensors", ".bin"))}
        for each in (sft, aligned)
    ]
    if weights[0] == weights[1] != {}:
        raise PairError(
            f"the models {sft.model} ({sft.folder}) and {aligned.model} ({aligned.folder}) {SAME_WEIGHTS}"
        )


def with_equality(pair: Pair, likeness: Likeness) -> Pair:
    """Return the pair, with an error among its findings if its files are equal byte for byte.

    The files are read only if no element of the sample in `likeness` differs.
    """
    files = [{path.name: path for path in each.sources} for each in (pair.sft, pair.aligned)]
    if likeness.whole.delta2 or files[0].keys() != files[1].keys():
        return pair
    if not all(filecmp.cmp(files[0][name], files[1][name], shallow=False) for name in files[0]):
        return pair
    text = f"{pair.sft.folder} and {pair.aligned.folder} {SAME_WEIGHTS}"
    return replace(pair, findings=(*pair.findings, Finding("error", "weights", text)))


def for_sweep(
    sft: Manifest, aligned: Manifest, alpha: str, folder: Path, config: ExtrapolateConfig, threads: int = 1
) -> None:
    """Make one checkpoint of the sweep.

    Weights of alpha 0 and -1 are the parents' own and are never written.
    """
    stored = config.weights == "stored" and alpha not in REFERENCE_ALPHAS
    extrapolate_pair(sft, aligned, alpha, folder, config, write_weights=stored, threads=threads)


def export(
    sft: Manifest,
    aligned: Manifest,
    alpha: str,
    folder: Path,
    config: ExtrapolateConfig,
    code: str,
    threads: int = 1,
) -> bool:
    """Make the publishable checkpoint of `alpha` in `folder`, without a card.

    Returns False if the folder already has it complete. `code` is the digest of the code that makes
    it. recipe.json is written last.
    """
    content = [ARITHMETIC, code, alpha, config.canonical(), sft.sha256s(), aligned.sha256s()]
    key = json.dumps(content, sort_keys=True)
    note = folder.with_name(f".{folder.name}.json")
    if recipe := _exported(note, key, folder):
        write_json(folder / RECIPE, recipe)
        return False
    recipe = extrapolate_pair(
        sft, aligned, alpha, folder, config, write_weights=True, threads=threads, hash_outputs=True
    )
    write_json(note, Exported(key=key, recipe=recipe))
    return True


def aligned_folder(sft: Manifest, aligned: Manifest, code: str) -> Path:
    """Return the aligned model's folder; for an adapter, a merged model in the store.

    The merged model is the adapter on `sft`. `code` is as in `export`.
    """
    folder = manifests.model_folder(aligned)
    if not is_adapter(folder):
        return folder
    whole = store.root() / "converted" / hashing.json_digest([sft.sha256s(), aligned.sha256s(), code])[:16]
    with store.locked(whole):
        export(sft, aligned, "0", whole, ExtrapolateConfig(), code)
    return whole


def _exported(note: Path, key: str, folder: Path) -> ExtrapolationRecipe | None:
    """Return the folder's recipe if it was made for `key` and every file is intact; else None."""
    try:
        exported = Exported.model_validate_json(note.read_text(encoding="utf-8"))
        files = {**exported.recipe.files, **exported.recipe.outputs}
        intact = all(hashing.sha256(folder / name) == sha256 for name, sha256 in files.items())
    except (OSError, ValueError):
        return None
    return exported.recipe if exported.key == key and intact else None
