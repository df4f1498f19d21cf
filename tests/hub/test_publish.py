"""`expoflow publish`: a finished run's model to the hub and back, and what goes wrong on the way.

The `user` fixture looks for the token in all that every one of these tests wrote.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from expoflow.cli import main
from server import Hub
from trained import train_on
from user import MARKER, User
from workflow.tree import Tree, new_tree

pytestmark = pytest.mark.workflow

SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
NEW = "org/new"
PAGE = (Path(__file__).parents[2] / "docs/publishing.md").read_text()


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A finished run of a pair that lives on a hub, which states a licence, in three files each."""
    folder, hub = tmp_path_factory.mktemp("publish"), Hub()
    hub.start()
    train_on(hub, folder / "trained", shards=3, card="---\nlicense: mit\n---\n# A model\n")
    tree = new_tree(folder / "tree", folder / "kept")
    tree.edit(lambda config: config["models"].update(sft={"hub": "org/sft"}, dpo={"hub": "org/dpo"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(folder / "hf"))
        tree.snakemake("--cores", "2")
    hub.stop()
    tree.parents = hub.repos
    return tree


class Publisher:
    """A user who publishes what lies in `project`."""

    def __init__(self, project: Path, user: User):
        self.project, self.user, self.hub = project, user, user.hub
        self.exported = project / "results/pairs/tiny/expo"

    def begin(self, *options: str, folder: Path | None = None, **environment: str) -> subprocess.Popen:
        command = [sys.executable, str(Path(__file__).with_name("put.py")), "publish"]
        return subprocess.Popen(
            [*command, str(folder or self.project), "--repo", NEW, *options],
            env=self.user.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, status: int, *options: str, **more) -> tuple[str, str]:
        process = self.begin(*options, **more)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == status, output + errors
        assert MARKER not in output + errors
        assert "Traceback" not in errors
        return output, errors

    def publish(self, *options: str, **more) -> str:
        """Publish; it must succeed, and the hub must have each file as it lies here. Returns what is printed."""
        output, errors = self.run(0, *options, **more)
        there = self.there()
        assert not any(MARKER.encode() in content for content in there.values())
        assert b"# new\n" in there.pop("README.md")
        assert there.pop("sweep.png").startswith(b"\x89PNG")
        assert there.pop(".gitattributes")
        here = {str(path.relative_to(self.exported)): path.read_bytes() for path in self.files()}
        del here["README.md"]
        assert there == here
        sha = self.hub.repos[NEW].branches["main"]
        assert f"{self.hub.url}/{NEW} at {sha}: {len(here) + 2} files" in output
        return output + errors

    def refused(self, *options: str, **more) -> str:
        """Publish; it must fail with lines for the user."""
        _, errors = self.run(2, *options, **more)
        return "\n".join(line for line in errors.splitlines() if line.startswith("expoflow: "))

    def there(self) -> dict[str, bytes]:
        repo = self.hub.repos[NEW]
        return dict(repo.commits[repo.branches["main"]])

    def files(self) -> list[Path]:
        return [path for path in self.exported.rglob("*") if path.is_file()]

    def sent(self, name: str) -> int:
        """Bytes of a file that have arrived on the hub's other origin."""
        return self.hub.received.bytes[hashlib.sha256((self.exported / name).read_bytes()).hexdigest()]

    def size(self, name: str) -> int:
        return (self.exported / name).stat().st_size

    def card(self) -> tuple[dict, str]:
        _, front, body = self.there()["README.md"].decode().split("---\n", 2)
        return yaml.safe_load(front), body


@pytest.fixture
def publisher(run_once: Tree, user: User, hub: Hub) -> Publisher:
    hub.token = MARKER
    hub.repos |= run_once.parents
    shutil.copytree(run_once.folder, user.folder / "project", symlinks=True)
    return Publisher(user.folder / "project", user)


def test_what_was_published_comes_back_the_same(publisher, user, hub):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in publisher.files()}
    publisher.publish()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in publisher.files()} == before
    assert [publisher.sent(name) for name in SHARDS] == [publisher.size(name) for name in SHARDS]
    assert len(hub.received.commits) == 1
    manifest = user.get(NEW)
    for name in (*SHARDS, "config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert (Path(manifest.folder) / name).read_bytes() == (publisher.exported / name).read_bytes()
    assert manifest.license == {"license": "mit"}


def test_the_card_says_what_the_results_say(publisher, hub):
    publisher.publish()
    metadata, body = publisher.card()
    assert metadata == {
        "base_model": ["org/dpo", "org/sft"],
        "base_model_relation": "merge",
        "license": "mit",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["expo", "model-extrapolation", "merge", "expoflow"],
    }
    pair = publisher.project / "results/pairs/tiny"
    best = json.loads((pair / "best.json").read_text())
    assert f"| alpha | {best['alpha']} |" in body
    assert f"gain {best['gain']:.3f} [{best['gain_low']:.3f}, {best['gain_high']:.3f}]" in body
    found = json.loads((pair / "certificate.json").read_text())
    said = f"gain {found['gain']:.2f} [{found['low']:.2f}, {found['high']:.2f}] on {found['prompts']} prompts of test"
    assert f"**Over the aligned model: {said} that took no part in the choice" in body
    assert f"Alpha {best['alpha']} was taken: {best['reason']}. The choice is" in body
    assert ("**not certified**" in body) != best["certified"]
    assert ("A better-aligned model" in body) == found["certified"]
    assert "answered 24 prompts (`dev`, a file)" in body
    assert "the reward model `rm` (not on the hub) scored the responses" in body
    manifest = json.loads((publisher.project / "results/models/dpo.json").read_text())
    assert f"[org/dpo](https://huggingface.co/org/dpo) at `{manifest['revision']}`" in body
    rows = (pair / "alphas.csv").read_text().splitlines()[1:]
    assert len(re.findall(r"\[-?\d+\.\d+, -?\d+\.\d+\] \|(?: -?\d+\.\d+ \[| {2}\|)", body)) == len(rows) == 4
    assert f"| **{best['alpha']}** |" in body
    difference = json.loads((pair / "benchmarks/expo-aligned/reward.json").read_text())["metrics"][0]
    assert f"| {difference['value']:.3f} [{difference['low']:.3f}, {difference['high']:.3f}] | " in body
    assert "![Reward and length of the responses against alpha](sweep.png)" in body
    assert "recognise and refuse harmful requests" in body
    assert str(publisher.project) not in body


def test_the_commands_of_the_card_make_the_same_weights(publisher, hub, tmp_path, monkeypatch):
    publisher.publish()
    _, body = publisher.card()
    commands = [line.split() for line in re.search(r"```bash\n(.*?)```", body, re.DOTALL)[1].splitlines()]
    assert [command[0] for command in commands] == ["hf", "hf", "expoflow"]
    (tmp_path / "again").mkdir()
    for command in commands[:2]:
        program = [str(Path(sys.executable).with_name("hf")), *command[1:]]
        subprocess.run(program, cwd=tmp_path / "again", env=publisher.user.environment(), check=True)
    monkeypatch.chdir(tmp_path / "again")
    assert main(commands[2][1:]) == 0
    for name in SHARDS:
        value = hashlib.sha256(Path("expo", name).read_bytes()).hexdigest()
        assert f"| {name} | `{value}` |" in body


def test_again_sends_nothing(publisher, hub):
    publisher.publish()
    sent, requests = hub.received.bytes.copy(), len(hub.requests)
    publisher.publish(folder=publisher.exported)
    assert hub.received.bytes == sent
    assert len(hub.received.commits) == 1
    assert not any("preupload" in path for path in hub.requests[requests:])


def test_another_card_sends_the_card_alone(publisher, hub):
    publisher.publish()
    sent = hub.received.bytes.copy()
    publisher.publish("--license", "apache-2.0")
    assert hub.received.bytes == sent
    assert len(hub.received.commits) == 2
    assert publisher.card()[0]["license"] == "apache-2.0"


def test_a_dry_run_asks_nothing_and_shows_what_will_be_sent(publisher, hub):
    commands = [line.split() for line in re.findall(r"^expoflow publish (.*)$", PAGE, re.MULTILINE)]
    assert [command[:3] for command in commands] == [["zephyr-7b-beta-expo", "--repo", "ORG/NAME"]] * 2
    output, errors = publisher.run(0, *commands[0][3:], HF_TOKEN="")
    assert hub.requests == []
    assert errors == ""
    publisher.publish(*commands[1][3:])
    files = re.findall(r"^(\S+) +([\d,]+)  ([0-9a-f]{64})$", output, re.MULTILINE)
    there = publisher.there()
    del there[".gitattributes"]
    assert sorted(
        (name, f"{len(content):,}", hashlib.sha256(content).hexdigest()) for name, content in there.items()
    ) == sorted(files)
    total = sum(map(len, there.values()))
    assert f"{len(there)} files, {total:,} bytes to {NEW}; README.md:\n\n" in output
    assert output.endswith(there["README.md"].decode() + "\n")


def test_a_folder_that_the_recipe_names_is_told(publisher):
    edit(publisher.exported / "recipe.json", lambda recipe: recipe["sft"].update(source="/home/me/sft"))
    _, errors = publisher.run(0, "--dry-run")
    assert errors == "note: recipe.json is published as it is and names the folder /home/me/sft\n"


def test_large_files_go_in_parts_where_the_hub_wants_parts(publisher, hub):
    hub.part = 50_000
    publisher.publish()
    assert len(hub.received.parts) == sum(-(-publisher.size(name) // hub.part) for name in SHARDS)


def test_killed_in_the_middle_the_second_run_sends_the_rest(publisher, hub):
    second = hashlib.sha256((publisher.exported / SHARDS[1]).read_bytes()).hexdigest()
    hub.fault(f"/put/{second}", cut=50_000, then=lambda: process.kill())
    process = publisher.begin()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    cut = publisher.sent(SHARDS[1])
    assert 50_000 <= cut < publisher.size(SHARDS[1])
    assert list(publisher.there()) == [".gitattributes"]  # nothing is shown before all is there
    publisher.publish()
    assert publisher.sent(SHARDS[0]) == publisher.size(SHARDS[0])
    assert publisher.sent(SHARDS[1]) == cut + publisher.size(SHARDS[1])


PLACES = {
    "create": "/api/repos/create",
    "describe": f"/api/models/{NEW}$",
    "preupload": "/preupload/",
    "card": "/api/validate-yaml",
    "batch": "/objects/batch",
    "put": "/put/",
    "verify": "/verify",
    "commit": "/commit/",
}


@pytest.mark.parametrize("place", PLACES)
def test_errors_that_pass_are_passed_over(publisher, hub, place):
    hub.fault(PLACES[place], times=2, status=503)
    hub.fault(PLACES[place], status=429, headers={"Retry-After": "1"})
    output = publisher.publish()
    assert output.count("HTTP 503; trying again in") == 2
    assert output.count("HTTP 429; trying again in 1 s") == 1
    assert len(hub.received.commits) == 1


def test_errors_that_stay_are_told_after_a_bounded_number_of_tries(publisher, hub):
    hub.fault("/put/", times=99, status=503)
    assert f"{NEW}: {hub.url} does not answer as it should (HTTP 503); what has arrived is kept" in (
        publisher.refused()
    )
    assert sum("/put/" in path for path in hub.requests) == 5
    assert hub.received.commits == []
    hub.faults.clear()
    publisher.publish()


def test_a_hub_that_asks_for_an_hour_is_told(publisher, hub):
    hub.fault("/objects/batch", times=99, status=429, headers={"Retry-After": "3600"})
    assert "HTTP 429" in (line := publisher.refused())
    assert "asks to wait 3600 s; run again after that" in line


def test_a_commit_whose_answer_is_lost_is_not_made_twice(publisher, hub):
    hub.fault("/commit/", cut=0)
    publisher.publish()
    assert len(hub.received.commits) == 1


def test_a_hub_that_goes_and_comes_back(publisher, hub):
    def go() -> None:
        threading.Timer(0, hub.stop).start()
        threading.Timer(2, hub.start).start()

    hub.fault("/put/", cut=50_000, then=go)
    publisher.publish()


def test_somebody_elses_commit_in_between_is_told(publisher, hub):
    def change() -> None:
        files = publisher.there() | {"theirs.txt": b"theirs"}
        hub.repos[NEW].commit(files)

    hub.fault("/objects/batch", status=503, then=change)
    line = publisher.refused()
    assert f"{NEW}: README.md does not have sha256" in line
    assert "somebody else may have changed it" in line
    assert publisher.there()["theirs.txt"] == b"theirs"


def test_no_token_a_wrong_one_and_one_that_may_not_write(publisher, hub):
    assert f"{NEW}: no token; set HF_TOKEN to one with write access" in publisher.refused(HF_TOKEN="")
    assert hub.requests == []
    hub.token = "hf_another"
    assert "the token in HF_TOKEN is refused (HTTP 401); set HF_TOKEN to a valid one" in publisher.refused()
    hub.token, hub.owners = MARKER, {"others"}
    line = publisher.refused()
    assert "the token in HF_TOKEN may not write there (HTTP 403)" in line
    assert "of an account that may write to org" in line
    assert NEW not in hub.repos
    assert "HF_HUB_OFFLINE is set; unset it to publish" in publisher.refused(HF_HUB_OFFLINE="1")


def test_a_hub_that_has_no_room(publisher, hub):
    hub.full = True
    line = publisher.refused()
    assert f"{NEW}: {hub.url} rejects it: LFS batch API returned errors" in line
    assert "Storage limit reached" in line
    assert hub.received.commits == []


def test_where_large_files_go_may_refuse_too(publisher, hub):
    """An address there is good for some time only; that is no matter of the token's rights."""
    hub.fault("/put/", status=403)
    line = publisher.refused()
    assert "does not answer as it should (HTTP 403); what has arrived is kept: run again" in line
    publisher.publish()


def test_a_repository_that_vanishes_on_the_way(publisher, hub):
    hub.fault("/preupload/", status=404, headers={"X-Error-Code": "RepoNotFound"})
    assert "has no org, or the repository is gone (HTTP 404); correct --repo" in publisher.refused()


def edit(path: Path, change: Callable[[dict], None]) -> None:
    times = path.stat()
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_licence_that_is_unknown_or_differs_has_to_be_stated(publisher, hub):
    models = publisher.project / "results/models"
    edit(models / "sft.json", lambda manifest: manifest.update(license={"license": "llama3"}))
    assert "licences differ (org/dpo has mit and org/sft has llama3)" in publisher.refused()
    shown, note = publisher.run(0, "--dry-run")
    assert "# new\n" in shown
    assert "\nlicense" not in shown
    assert "note: this card states no licence, and an upload needs one: the parents' licences differ" in note
    edit(models / "sft.json", lambda manifest: manifest.update(license=None, folder="nowhere"))
    assert "no licence is known for org/sft; read the terms of both" in publisher.refused()
    assert hub.requests == []
    line = publisher.refused("--license", "none-such")
    assert 'rejects it: Invalid metadata in README.md. - "license" must be one of [apache-2.0' in line
    publisher.publish("--license", "other")
    assert publisher.card()[0]["license"] == "other"


def flip(publisher: Publisher) -> None:
    with open(publisher.exported / SHARDS[1], "r+b") as file:
        file.seek(-100, 2)
        byte = file.read(1)[0]
        file.seek(-100, 2)
        file.write(bytes([byte ^ 1]))


def put_nan(publisher: Publisher) -> None:
    """NaN in the weights that the recipe does know, as if both parents had it."""
    path = publisher.exported / SHARDS[2]
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32("nan").tobytes()
    path.write_bytes(content)
    outputs = {SHARDS[2]: hashlib.sha256(content).hexdigest()}
    edit(publisher.exported / "recipe.json", lambda recipe: recipe["outputs"].update(outputs))


SPOILT = {
    "a flipped bit": (flip, f"{SHARDS[1]}: has sha256 .* instead of .*; extrapolate again"),
    "NaN": (put_nan, r"expo: 1 tensors have NaN or Inf \(.*\); check the parents"),
    "a file is gone": (
        lambda publisher: (publisher.exported / "config.json").unlink(),
        "config.json: is missing; extrapolate again",
    ),
    "an export that is not finished": (
        lambda publisher: (publisher.exported / "recipe.json").unlink(),
        "expo: has no recipe.json, its export is not finished; run snakemake again",
    ),
    "another choice": (
        lambda publisher: edit(publisher.exported.parent / "best.json", lambda best: best.update(alpha="0.5")),
        r"expo: has alpha \d+, but best.json chooses 0.5; run snakemake again",
    ),
    "worse on the prompts that judge": (
        lambda publisher: edit(
            publisher.exported.parent / "certificate.json",
            lambda found: found.update(certified=False, gain=-0.5, low=-0.6, high=-0.4),
        ),
        r"expo: is not better than the aligned model: gain -0.50 \[-0.60, -0.40\] on \d+ prompts of test .*; choose another alpha, or keep",
    ),
    "a certificate of another choice": (
        lambda publisher: edit(
            publisher.exported.parent / "best.json", lambda best: best.update(chosen_share=0.123)
        ),
        "certificate.json: does not belong to the choice in best.json, the run is not finished; run snakemake again",
    ),
    "other parents": (
        lambda publisher: edit(
            publisher.project / "results/models/dpo.json",
            lambda manifest: manifest["files"][SHARDS[0]].update(sha256=64 * "0"),
        ),
        "was made from another aligned model than results/models/dpo.json describes",
    ),
    "benchmarks of an earlier export": (
        lambda publisher: os.utime(publisher.exported / "recipe.json"),
        "benchmarks/expo/reward.json: belongs to an earlier export",
    ),
    "a benchmark is missing": (
        lambda publisher: (publisher.exported.parent / "benchmarks/sft/reward.json").unlink(),
        "benchmarks/sft/reward.json: is missing, the run is not finished",
    ),
    "no config": (
        lambda publisher: (publisher.project / "config.yaml").unlink(),
        "no config.yaml",
    ),
    "no results": (lambda publisher: shutil.rmtree(publisher.project / "results"), "no results/pairs/PAIR/expo"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_not_in_order_is_refused_before_any_request(publisher, hub, case):
    spoil, expected = SPOILT[case]
    spoil(publisher)
    assert re.search(expected, publisher.refused())
    assert hub.requests == []


def test_what_an_earlier_version_made_is_published_with_what_its_intervals_are(publisher, hub):
    pair = publisher.exported.parent
    new = ("prompts", "optimism", "gain_pointwise_low", "gain_pointwise_high")
    edit(pair / "best.json", lambda best: [best.pop(name, None) for name in new])
    edit(pair / "best.json", lambda best: best.update(reason="largest mean reward of 3 alphas"))
    (pair / "certificate.json").unlink()
    publisher.publish()
    _, body = publisher.card()
    assert (
        "The run that made this model wrote no certificate: the intervals below ignore that other alphas"
        in body
    )
    assert "at once" not in body
    assert "answered 24 prompts (`dev`, a file)" in body


def test_parents_are_compared_again_where_they_lie(publisher, run_once, hub):
    """A parent that has changed on the disk is seen; one that is gone is not asked for."""
    models = publisher.project / "results/models"
    parent = publisher.user.folder / "parent"
    shutil.copytree(json.loads((models / "sft.json").read_text())["folder"], parent)
    edit(models / "sft.json", lambda manifest: manifest.update(folder=str(parent)))
    edit(parent / "config.json", lambda config: config.update(hidden_size=8))
    assert "hidden_size" in publisher.refused()
    assert hub.requests == []
    shutil.rmtree(parent)
    publisher.publish()


def test_another_model_is_left_alone_unless_it_is_to_be_replaced(publisher, hub, checkpoint):
    hub.add(NEW, checkpoint("theirs", shards=1))
    theirs = publisher.there()
    assert "holds another model (" in (line := publisher.refused())
    assert "replace that model with --replace" in line
    assert publisher.there() == theirs
    hub.repos[NEW].commit(theirs | {".gitattributes": b"theirs"})
    publisher.publish("--replace")
    assert "model.safetensors" not in publisher.there()


def test_a_changed_file_of_the_same_name_is_another_model_too(publisher, hub):
    publisher.publish()
    hub.repos[NEW].commit(publisher.there() | {SHARDS[0]: b"others"})
    assert f"holds another model ({SHARDS[0]})" in publisher.refused()


def test_a_private_repository(publisher, hub):
    publisher.publish("--private")
    assert hub.repos[NEW].private
    publisher.publish("--private")
    hub.repos[NEW].private = False
    assert "exists and is public; make it private in its settings" in publisher.refused("--private")


def test_one_of_several_pairs_is_named(publisher, hub):
    shutil.copytree(publisher.exported.parent, publisher.project / "results/pairs/other")
    assert "has the pairs other, tiny; choose one with --pair" in publisher.refused()
    assert "no exported model of pair 'absent'; there are other, tiny" in publisher.refused(
        "--pair", "absent"
    )
    assert "the config has no pair 'other'; give this run's config: --config FILE" in publisher.refused(
        "--pair", "other"
    )
    (publisher.project / "config.yaml").rename(publisher.project / "mine.yaml")
    publisher.publish("--pair", "tiny", "--config", str(publisher.project / "mine.yaml"))


@pytest.mark.parametrize("repo", ["new", "https://huggingface.co/org/new", "org/new/x", "org/a..b"])
def test_a_repository_is_named_as_the_hub_names_it(repo, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["publish", str(tmp_path), "--repo", repo])
    assert f"argument --repo: {repo!r} is not ORG/NAME" in capsys.readouterr().err
