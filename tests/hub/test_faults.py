"""What goes wrong on the way from the hub: nothing is lost, no wrong file is taken, the error names the remedy.

The `user` fixture looks for the token in all that every one of these tests wrote.
"""

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from expoflow.system.progress import read
from user import MARKER, User

ONE, TWO = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
TRIES = 5  # the first and one for each of get.py's waits


@pytest.fixture
def shard(hub) -> bytes:
    (commit,) = hub.repos["org/model"].commits.values()
    return commit[ONE]


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)


def partial(user: User, content: bytes) -> Path:
    name = f"{hashlib.sha256(content).hexdigest()}.expoflow.incomplete"
    return user.cache / "hub/models--org--model/blobs" / name


@pytest.mark.parametrize(("times", "cut"), [(1, 100_000), (8, 20_000)])
def test_a_cut_connection_is_resumed_where_it_broke(user, hub, shard, times, cut):
    hub.fault(f"/large/.*{ONE}", times=times, cut=cut)
    user.get()
    assert hub.sent[ONE] == len(shard)
    assert user.log.read_text().count("trying again") == times


def test_a_server_that_does_not_heed_range_sends_all_again(user, hub, shard):
    hub.fault(f"/large/.*{ONE}", cut=100_000)
    hub.fault(f"/large/.*{ONE}", whole=True)
    user.get()
    assert hub.sent[ONE] == 100_000 + len(shard)


@pytest.mark.parametrize(
    "path", ["/api/models", f"/resolve/.*{ONE}", f"/large/.*{ONE}", "/resolve/.*config.json"]
)
def test_too_many_requests_are_waited_out_as_the_hub_asks(user, hub, path):
    hub.fault(path, status=429, headers={"Retry-After": "1"})
    hub.fault(path, status=429, headers={"RateLimit": '"api";r=0;t=1'})
    start = time.monotonic()
    user.get()
    assert time.monotonic() - start > 2
    assert user.log.read_text().count("HTTP 429; trying again in 1 s") == 2


def test_a_hub_that_asks_for_an_hour_is_told(user, hub):
    hub.fault("/api/models", times=99, status=429, headers={"Retry-After": "3600"})
    assert "HTTP 429" in (line := user.refused())
    assert "asks to wait 3600 s; run again after that" in line
    assert len(hub.requests) == 1


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("path", ["/api/models", f"/large/.*{ONE}"])
def test_errors_of_the_server_are_passed_over(user, hub, status, path):
    hub.fault(path, times=TRIES - 1, status=status)
    user.get()


@pytest.mark.parametrize("path", ["/api/models", f"/large/.*{ONE}"])
def test_errors_of_the_server_that_stay_are_told_after_a_bounded_number_of_tries(user, hub, path):
    hub.fault(path, times=99, status=503)
    line = user.refused()
    assert re.search(rf"org/model: {hub.url} does not answer as it should \(HTTP 503\), {TRIES} tries", line)
    assert sum(bool(re.search(path, asked)) for asked in hub.requests) == TRIES
    hub.faults.clear()
    user.get()


def test_wrong_bytes_of_the_right_length_are_never_taken(user, hub, shard):
    hub.fault(f"/large/.*{ONE}", times=99, change=True)
    right = hashlib.sha256(shard).hexdigest()
    line = user.refused()
    assert f"org/model: {ONE} came with {len(shard)} bytes, sha256 " in line
    assert f"the hub says {len(shard)} bytes, sha256 {right}; try again later" in line
    assert right not in user.blobs()
    hub.faults.clear()
    user.get()


def test_wrong_bytes_of_a_small_file_are_never_taken(user, hub):
    hub.fault("/resolve/.*config.json", times=99, change=True)
    assert re.search("config.json came with .* git sha1 [0-9a-f]{40}; try again", user.refused())
    hub.faults.clear()
    user.get()


def test_wrong_bytes_once_are_received_again(user, hub, shard):
    hub.fault(f"/large/.*{ONE}", change=True)
    user.get()
    assert hub.sent[ONE] == 2 * len(shard)


def test_a_truncated_file_is_never_taken(user, hub, shard):
    hub.fault(f"/large/.*{ONE}", times=99, shorten=1000)
    line = user.refused()
    assert f"{ONE} came with {len(shard) - 1000} bytes, sha256" in line
    assert f"the hub says {len(shard)} bytes" in line
    hub.faults.clear()
    user.get()


@pytest.mark.parametrize("length", [1000, 10**6])
def test_a_wrong_piece_from_before_is_thrown_away(user, shard, length):
    piece = partial(user, shard)
    piece.parent.mkdir(parents=True)
    piece.write_bytes(bytes(length))
    user.get()


def test_a_file_that_another_client_took_wrongly_is_replaced(user, hub, shard):
    """huggingface_hub itself accepts wrong bytes of the right length."""
    blob = partial(user, shard).with_name(hashlib.sha256(shard).hexdigest())
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(len(shard)))
    user.get()
    assert blob.read_bytes() == shard


def test_a_revision_that_does_not_exist(user):
    assert user.refused("org/model", "v9") == (
        "error: org/model: has no revision 'v9'; correct `revision:` (a branch, a tag or a commit)"
    )


def test_something_else_than_a_hub(user, hub):
    hub.fault("/api/models", times=99, status=200)
    assert f"org/model: {hub.url} gives no description of it" in user.refused()
    hub.faults.clear()
    with_password = hub.url.replace("//", "//me:secret@")
    assert "secret" not in user.refused("org/absent", HF_ENDPOINT=with_password)


def test_a_repository_that_does_not_exist(user, hub):
    assert user.refused("org/modle") == (
        f"error: org/modle: {hub.url} has no such model (HTTP 401), or it is private and the token in HF_TOKEN "
        "belongs to an account without access; correct `hub:`, or set HF_TOKEN to a token that may read it; "
        "if a folder is meant, there is none here: correct the path, or write it as ./org/modle"
    )
    assert len(hub.requests) == 1


def test_a_gated_repository(user, hub):
    hub.repos["org/model"].gated, hub.token = True, "hf_another"
    accept = f"accept its terms at {hub.url}/org/model, then set HF_TOKEN to a token of that account"
    belongs = "the token in HF_TOKEN belongs to an account without access"
    assert user.refused() == f"error: org/model: is gated, and {belongs}; {accept}"
    assert user.refused(HF_TOKEN="") == f"error: org/model: is gated, and HF_TOKEN is not set; {accept}"
    assert user.blobs() == [] or not any(len(name) == 64 for name in user.blobs())
    hub.token = MARKER
    user.get()


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "the token in HF_TOKEN is refused",
        ),
        (403, {}, "access is forbidden (HTTP 403)"),
        (404, {"X-Error-Code": "RepoNotFound"}, "has no such model (HTTP 404)"),
        (404, {"X-Error-Code": "EntryNotFound"}, "a file is gone at revision 'main' (HTTP 404)"),
    ],
)
def test_refusals_are_told_apart_and_not_repeated(user, hub, status, headers, told):
    hub.fault("/api/models", times=99, status=status, headers=headers)
    assert told in user.refused()
    assert len(hub.requests) == 1


def test_a_server_that_goes_half_way_and_comes_back(user, hub, shard):
    hub.fault(f"/large/.*{ONE}", cut=100_000, then=hub.stop)
    job = user.begin()
    until(lambda: user.log.is_file() and "ConnectError" in user.log.read_text())
    hub.start()
    job.communicate(timeout=60)
    assert job.returncode == 0, user.log.read_text()
    assert hub.sent[ONE] == len(shard)
    user.get()


def test_a_server_that_does_not_come_back_keeps_what_came(user, hub, shard):
    hub.fault(f"/large/.*{ONE}", cut=100_000, then=hub.stop)
    assert "does not answer as it should (ConnectError)" in user.refused()
    assert partial(user, shard).stat().st_size == 100_000
    hub.start()
    user.get()
    assert hub.sent[ONE] == len(shard)


def test_two_jobs_that_want_the_same_files_share_one_download(user, hub, shard, tmp_path):
    hub.fault("/large/", times=99, pause=0.05)
    other = User(tmp_path / "other", hub)
    other.cache = user.cache
    jobs = [user.begin(), other.begin()]
    for job in jobs:
        job.communicate(timeout=60)
    assert [job.returncode for job in jobs] == [0, 0]
    assert hub.sent[ONE] == len(shard)
    assert user.manifest.read_bytes() == other.manifest.read_bytes()


def test_a_killed_download_goes_on_where_it_was(user, hub, shard):
    hub.fault(f"/large/.*{ONE}", pause=0.1)
    job = user.begin()
    piece = partial(user, shard)
    until(lambda: piece.is_file() and piece.stat().st_size > 50_000)
    job.kill()
    job.wait()
    kept = piece.stat().st_size
    assert 50_000 < kept < len(shard)
    assert not user.manifest.exists()
    user.get()
    assert [start for name, start in hub.starts if name == ONE] == [0, kept]
    assert not any("incomplete" in name for name in user.blobs())


def test_how_far_a_download_is_can_be_seen_and_what_is_kept_is_no_speed(user, hub, shard):
    (files,) = hub.repos["org/model"].commits.values()
    hub.fault(f"/large/.*{ONE}", times=2, pause=0.2)
    job = user.begin()
    until(lambda: (said := read(user.log)) and said.done > len(shard) / 2)
    job.kill()
    job.wait()
    first = read(user.log)
    names = [ONE, TWO, "config.json", "model.safetensors.index.json", "tokenizer.json", "README.md"]
    assert (first.total, first.unit) == (sum(len(files[name]) for name in names), "bytes")
    job = user.begin()
    until(lambda: (said := read(user.log)) and said.began > first.began)
    assert read(user.log).before >= first.done
    job.communicate(timeout=60)
    assert job.returncode == 0
    assert read(user.log) is None


@pytest.fixture
def small_disk(user) -> Iterator[Path]:
    """The cache on a disk of one megabyte."""
    user.cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(user.cache)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk is a tmpfs, which only root can mount")
    yield user.cache
    subprocess.run(["umount", "--lazy", str(user.cache)], check=True)


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(user, hub, small_disk):
    (small_disk / "other").write_bytes(bytes(700_000))
    line = user.refused()
    assert re.search(
        r"GB are missing in .*, 0.00 GB are free; free space or set HF_HOME to a larger disk", line
    )
    assert not any(hub.sent[name] for name in (ONE, TWO, "config.json"))


def test_a_disk_that_fills_up_on_the_way(user, hub, shard, small_disk):
    hub.fault(f"/large/.*{ONE}", pause=0.1)
    job = user.begin()
    until(lambda: hub.sent[ONE] > 50_000)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "other").write_bytes(bytes(10**6))
    job.communicate(timeout=60)
    assert job.returncode == 1
    text = user.log.read_text()
    assert "No space left on device; free space, or set HF_HOME" in text
    assert "Traceback" not in text
    assert not user.manifest.exists()
    (small_disk / "other").unlink()
    kept = partial(user, shard).stat().st_size
    user.get()
    assert [start for name, start in hub.starts if name == ONE] == [0, kept]
