"""Checkpoints and datasets from the Hugging Face hub, in the hub's own cache.

The client's own download (huggingface_hub 2.4) gives partial files random names, so a killed
process loses them. It also accepts wrong bytes of the right length. Files are therefore downloaded
here, through the client's session, into its cache. Downloads resume where they ended, and a file is
accepted only with the hash that the hub states. This uses plain HTTP, which the hub offers for Xet
files too; the Xet protocol could guarantee neither.

`python -m expoflow.hub.download` reads a manifest from stdin, downloads its files again and prints
their folder.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.config.sources import DataConfig, ModelConfig
from expoflow.errors import CheckpointError, ExpoflowError
from expoflow.files.records import provenance, write_json
from expoflow.hub import licence
from expoflow.hub.cache import checkpoint_names, fetch
from expoflow.hub.cards import CARD, split_files
from expoflow.results import Manifest


def download(model: str, source: ModelConfig, note: Path, say: Callable[[str], None] = print) -> Manifest:
    """Download a hub model into the cache and describe it, with its revision resolved to a commit.

    `note` keeps that commit. If a branch has moved since the last time, `say` reports it.
    """
    commit, folder, files = fetch(source.hub, source.revision, wanted=_with_card)
    files.pop(CARD, None)  # states the licence, but is not part of the model
    remember_commit(note, f"model '{model}'", source.hub, source.revision, commit, say)
    return Manifest(
        model=model,
        source={"hub": source.hub, "revision": source.revision or "main"},
        revision=commit,
        folder=str(folder),
        files=files,
        license=licence.stated(folder / CARD),
        provenance=provenance("huggingface_hub"),
    )


def remember_commit(
    note: Path, what: str, repo: str, revision: str | None, commit: str, say: Callable[[str], None]
) -> None:
    """Write to `note` which commit the revision stands for, and report if it was another one
    before."""
    asked = {"hub": repo, "revision": revision or "main"}
    before = read_json_file(note) if note.is_file() else {}
    if asked.items() <= before.items() and before["commit"] != commit:
        say(
            f"{what}: {repo} has moved: {asked['revision']} was {before['commit']} and is now {commit}; "
            f"to stay with the old one set revision: {before['commit']}"
        )
    write_json(note, {**asked, "commit": commit})


def dataset(source: DataConfig) -> tuple[str, list[Path]]:
    """Download the files of a split into the cache. Returns the commit, and the files in the
    split's order.

    Raises CheckpointError if the hub does not provide them, DataError if there is no such split.
    """
    repo = source.hub
    commit, folder, card = fetch(
        repo, source.revision, "dataset", lambda _, sizes: [CARD] if CARD in sizes else []
    )
    text = (folder / CARD).read_text(encoding="utf-8") if card else ""

    def wanted(_: str, sizes: Mapping[str, int]) -> list[str]:
        return split_files(text, list(sizes), source.config, source.split, repo)

    _, folder, files = fetch(repo, commit, "dataset", wanted)
    return commit, [folder / name for name in files]


def restore(manifest: Manifest) -> Path:
    """Download the files of a manifest again. Raises CheckpointError if their content has
    changed."""
    _, folder, files = fetch(manifest.source["hub"], manifest.revision)
    for name, file in manifest.files.items():
        if files.get(name) != file:
            raise CheckpointError(
                f"model '{manifest.model}': {name} of {manifest.source['hub']} at {manifest.revision} has "
                f"sha256 {files[name].sha256 if name in files else 'of no file'}, the manifest {file.sha256}; "
                f"run: snakemake --forcerun results/models/{manifest.model}.json"
            )
    return folder


def _with_card(repo: str, sizes: Mapping[str, int]) -> list[str]:
    return [*checkpoint_names(repo, sizes), *({CARD} & set(sizes))]


if __name__ == "__main__":
    try:
        print(restore(Manifest.model_validate_json(sys.stdin.read())))
    except ExpoflowError as problem:
        sys.exit(print(problem) or 1)
