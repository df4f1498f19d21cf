"""Preflight of hub models: headers by Range, and no weight."""

import subprocess
import sys

import pytest


def preflight(user, sft, aligned, **environment):
    return subprocess.run(
        [sys.executable, "-m", "expoflow.cli", "preflight", "--sft", sft, "--aligned", aligned],
        cwd=user.folder,
        env=user.environment(**environment),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )


def sent_weights(hub):
    return sum(count for name, count in hub.sent.items() if name.endswith(".safetensors"))


@pytest.mark.parametrize("whole", [False, True])
def test_a_pair_on_the_hub_is_compared_by_its_headers(user, hub, checkpoint, whole):
    """Also if a server, or a proxy before it, ignores Range."""
    hub.add("org/dpo", checkpoint("dpo", seed=1, shards=1))
    if whole:
        hub.fault("/large/", times=9, whole=True)
    done = preflight(user, "org/model", "org/dpo@main")
    assert done.returncode == 0, done.stdout
    assert "0 errors; 21 of 21 tensors to extrapolate" in done.stdout
    size = sum(
        len(each)
        for name in ("org/model", "org/dpo")
        for file, each in commit(hub, name)
        if "safetensors" in file
    )
    assert whole or sent_weights(hub) < size / 2
    assert len([name for name, _ in hub.starts if name.endswith(".safetensors")]) == 3


def commit(hub, name):
    repo = hub.repos[name]
    return repo.commits[repo.branches["main"]].items()


def test_a_hub_model_against_a_folder(user, hub, checkpoint):
    done = preflight(user, "org/model", str(checkpoint("other", vocab=4000, hidden=64)))
    assert done.returncode == 1, done.stdout
    assert "error" in done.stdout


def test_faults_on_the_way_and_what_is_not_there(user, hub):
    hub.fault("/large/", status=503)
    hub.fault("/api/models/org/model", status=429, headers={"Retry-After": "1"})
    assert preflight(user, "org/model", "org/model").returncode == 0
    done = preflight(user, "org/model", "org/absent")
    assert done.returncode == 2
    assert "expoflow: org/absent: " in done.stdout
    assert "has no such model (HTTP 401)" in done.stdout


def test_pickles_have_no_header(user, hub, tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("pytorch_model.bin", "config.json"):
        (tmp_path / "old" / name).write_text("{}")
    hub.add("org/old", tmp_path / "old")
    done = preflight(user, "org/model", "org/old")
    assert done.returncode == 2
    assert "pickles have no header; download it and give its folder" in done.stdout
