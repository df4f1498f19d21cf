"""Requests to the hub: retries, and readable errors."""

import os
import re
import sys
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WAITS = (1, 2, 4, 8, 16)  # seconds between tries of a request; received bytes restart the series
LONGEST = 300  # seconds; the hub counts requests over five minutes
ENDPOINT = re.sub("//[^/@]*@", "//", constants.ENDPOINT)  # without user and password, so it may be shown

Result = TypeVar("Result")


def patiently(
    call: Callable[[], Result], stop: Event | None = None, progress: Callable[[], int] = lambda: 0
) -> Result:
    """The result of `call`, retried after temporary errors: a lost connection, 408, 429, 5xx."""
    waits, reached = iter(WAITS), progress()
    while True:
        try:
            return call()
        except HTTPError as error:
            if progress() > reached:
                waits, reached = iter(WAITS), progress()
            pause, asked = next(waits, None), asked_pause(error)
            if pause is None or asked > LONGEST or not _may_pass(error):
                raise
            pause = max(pause, asked)
            print(f"{happened(error)}; trying again in {pause:g} s", file=sys.stderr, flush=True)
            if (stop or Event()).wait(pause):
                raise


def _may_pass(error: HTTPError) -> bool:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 500
    return status in (408, 429) or status >= 500


def asked_pause(error: HTTPError) -> int:
    """Seconds that the server asks to wait; 0 if it asks for none."""
    if not isinstance(error, HfHubHTTPError):
        return 0
    headers = error.response.headers
    seconds = re.fullmatch(r"\d+", headers.get("Retry-After", "")) or re.search(
        r"(?<=\bt=)\d+", headers.get("RateLimit", "")
    )
    return int(seconds[0]) if seconds else 0


def happened(error: HTTPError) -> str:
    """A description of an error without text from outside, which may contain secrets."""
    return f"HTTP {error.response.status_code}" if isinstance(error, HfHubHTTPError) else type(error).__name__


def token_name() -> str:
    """Where the token comes from, for messages."""
    return "the token in HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token of `hf auth login`"


NO_FOLDER = "if a folder is meant, there is none here: correct the path, or write it as ./{}"


def explain(error: HTTPError, repo: str, revision: str | None, kind: str = "model") -> str:
    """A message for a lasting failure, with the remedy. It never contains the token."""
    token = token_name()
    account = f"{token} belongs to an account without access" if get_token() else "HF_TOKEN is not set"
    if isinstance(error, GatedRepoError):
        return (
            f"{repo}: is gated, and {account}; accept its terms at {ENDPOINT}/{repo}, "
            "then set HF_TOKEN to a token of that account"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo}: has no revision '{revision}'; correct `revision:` (a branch, a tag or a commit)"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repo}: {ENDPOINT} has no such {kind} (HTTP {status}), or it is private and {account}; "
            f"correct `hub:`, or set HF_TOKEN to a token that may read it; {NO_FOLDER.format(repo)}"
        )
    if status == 401:
        return f"{repo}: {token} is refused (HTTP 401); set HF_TOKEN to a valid one, or unset it"
    if status == 403:
        return f"{repo}: access is forbidden (HTTP 403), {account}; set HF_TOKEN to a token that may read it"
    if status == 404:
        return f"{repo}: a file is gone at revision '{revision or 'main'}' (HTTP 404); correct `revision:`"
    if asked := asked_pause(error):
        return f"{repo}: {happened(error)}, {ENDPOINT} asks to wait {asked} s; run again after that"
    return (
        f"{repo}: {ENDPOINT} does not answer as it should ({happened(error)}), {len(WAITS) + 1} tries; "
        f"received bytes are kept: run again, or set HF_HUB_OFFLINE=1 if all is in the cache; {NO_FOLDER.format(repo)}"
    )
