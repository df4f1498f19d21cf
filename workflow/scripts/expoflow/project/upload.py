"""Send a publication to the Hugging Face hub: the missing files, in one commit that is checked.

Large files go by LFS, one after the other. The hub keeps what has arrived under its sha256, and a
second try sends only the rest. The commit comes last, so a repository never shows half a model.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import disable_progress_bars, get_session, hf_raise_for_status
from huggingface_hub.utils import logging as client_logging

from expoflow.errors import CheckpointError
from expoflow.hub import cache, http, verified_file
from expoflow.project.card import FIGURE
from expoflow.project.publication import CARD, Upload

OWN = (".gitattributes",)  # files that the hub itself adds to a repository
EVIDENCE = (CARD, FIGURE)  # these may change while the model stays the same
MESSAGE = "Model extrapolated by expoflow"

Result = TypeVar("Result")


def publish(repo: str, uploads: list[Upload], *, private: bool = False, replace: bool = False) -> str:
    """Make the repository hold exactly `uploads`; return the commit that does.

    A missing repository is created, `private` or not. If it holds anything else (apart from the
    card and the figure), a CheckpointError is raised, unless `replace`: then the commit removes it.
    Raises CheckpointError for all failures that are not temporary.
    """
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{repo}: HF_HUB_OFFLINE is set; unset it to publish")
    if not get_token():
        raise CheckpointError(
            f"{repo}: no token; set HF_TOKEN to one with write access, or run: hf auth login"
        )
    constants.HF_HUB_DISABLE_XET = True  # with Xet none of the above could be promised
    client_logging.set_verbosity_error()  # its warnings would show signed addresses
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return _publish(HfApi(), repo, uploads, private, replace)
    except HTTPError as error:
        raise CheckpointError(_explain(error, repo)) from None


def _publish(api: HfApi, repo: str, uploads: list[Upload], private: bool, replace: bool) -> str:
    _patiently(repo, lambda: api.create_repo(repo, private=private or None, exist_ok=True))
    if private and not _patiently(repo, lambda: api.model_info(repo)).private:
        raise CheckpointError(
            f"{repo}: exists and is public; make it private in its settings, or leave out --private"
        )
    commit, there = cache.describe(repo, None)
    missing = _missing(uploads, there)
    others = sorted(there.keys() - {upload.name for upload in uploads} - {*OWN})
    changed = [upload.name for upload in missing if upload.name in there and upload.name not in EVIDENCE]
    if (others or changed) and not replace:
        raise CheckpointError(
            f"{repo}: holds another model ({', '.join([*others, *changed][:3])}); give another --repo, or replace "
            "that model with --replace"
        )
    if missing or others:
        _send(api, repo, commit, missing, others)
        commit, there = cache.describe(repo, None)
    if wrong := _missing(uploads, there):
        raise CheckpointError(
            f"{repo}: {wrong[0].name} does not have sha256 {wrong[0].sha256}; somebody else may have changed it: "
            "look at its commits, then run again"
        )
    return commit


def _missing(uploads: list[Upload], there: dict[str, verified_file.HubFile]) -> list[Upload]:
    return [
        upload
        for upload in uploads
        if (file := there.get(upload.name)) is None
        or file.size != upload.size
        or not upload.is_named(file.etag)
    ]


def _send(api: HfApi, repo: str, parent: str, uploads: list[Upload], others: list[str]) -> None:
    """Commit `uploads` on top of the commit `parent`, and remove `others`."""
    additions = [_addition(upload) for upload in uploads]
    sent, total = 0, sum(upload.size for upload in uploads)
    for upload, addition in zip(uploads, additions, strict=True):
        share = f"{sent / 1e9:.2f} of {total / 1e9:.2f} GB sent"
        print(f"{repo}: {upload.name}, {upload.size:,} bytes; {share}", file=sys.stderr, flush=True)
        sent += upload.size
        _patiently(repo, lambda each=addition: api.preupload_lfs_files(repo, [each], free_memory=False))
    operations = [*additions, *map(CommitOperationDelete, others)]
    try:
        _patiently(
            repo, lambda: api.create_commit(repo, operations, commit_message=MESSAGE, parent_commit=parent)
        )
    except HfHubHTTPError as error:
        if error.response.status_code != 412:  # another commit exists: perhaps ours, with its answer lost
            raise


def _addition(upload: Upload) -> CommitOperationAdd:
    addition = CommitOperationAdd(upload.name, upload.content)
    addition.upload_info.sha256 = bytes.fromhex(upload.sha256)  # or the client would read the file
    return addition


def _patiently(repo: str, call: Callable[[], Result]) -> Result:
    """Return the result of a client call; `http.patiently` retries all its requests together."""

    def bare() -> Result:
        session = get_session()
        hooks = session.event_hooks
        if _raise not in hooks["response"]:
            session.event_hooks = {**hooks, "response": [*hooks["response"], _raise]}
            session.timeout = http.LONGEST
        try:
            return call()
        except RuntimeError as error:  # how the client reports an error while it sends a file
            cause = error.__cause__ or error
        except ValueError as error:  # how the client rejects an answer
            cause = error
        if isinstance(cause, ValueError):
            said = " ".join(str(cause).split()).replace(get_token() or "\n", "...")
            cause = CheckpointError(f"{repo}: {http.ENDPOINT} rejects it: {said}")
        raise cause from None

    return http.patiently(bare)


def _raise(response: Any) -> None:
    """Raise temporary errors at once, since the client itself would wait silently."""
    if response.status_code in (408, 429) or response.status_code >= 500:
        response.read()
        hf_raise_for_status(response)


def _explain(error: HTTPError, repo: str) -> str:
    """Return what went wrong for good, and the remedy; never the token."""
    answered = isinstance(error, HfHubHTTPError) and str(error.response.url).startswith(constants.ENDPOINT)
    status = error.response.status_code if answered else None  # not if the storage of large files answered
    owner, token = repo.partition("/")[0], http.token_name()
    if status == 401:
        return f"{repo}: {token} is refused (HTTP 401); set HF_TOKEN to a valid one with write access"
    if status == 403:
        return (
            f"{repo}: {token} may not write there (HTTP 403); set HF_TOKEN to one with write access, of an account "
            f"that may write to {owner}"
        )
    if status == 404:
        return f"{repo}: {http.ENDPOINT} has no {owner}, or the repository is gone (HTTP 404); correct --repo"
    if asked := http.asked_pause(error):
        return f"{repo}: {http.happened(error)}, {http.ENDPOINT} asks to wait {asked} s; run again after that"
    return (
        f"{repo}: {http.ENDPOINT} does not answer as it should ({http.happened(error)}); what has arrived is kept: "
        "run again"
    )
