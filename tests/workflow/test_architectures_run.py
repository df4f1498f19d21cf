"""From the pair to the report on architectures that are no plain decoders, two of them with images in their prompts."""

import base64
import csv
import json
from pathlib import Path

import pytest
import yaml
from tiny_decoders import picture, save, save_reward_model
from tree import Tree, write_prompts

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]

TEXT, SEEN = ("jamba", "mamba2", "mixtral", "gemma3"), ("llava", "qwen2_vl")
ALPHAS = {"-1", "0", "0.5", "1"}


def write_seen(folder: Path, name: str, first: int, asked: tuple[str, str]) -> None:
    """Prompts with an image as a file of its own, as base64, with two, and with none: those are `asked`."""
    folder.joinpath("pictures").mkdir(exist_ok=True)
    rows = []
    for at in range(8):
        path = folder / f"pictures/{name}{at}.png"
        path.write_bytes(picture(first + at, (16 + 8 * at, 24)))
        images = [f"pictures/{path.name}", base64.b64encode(picture(first + 50 + at, kind="JPEG")).decode()]
        rows.append({"prompt": "what is anna ?", "images": [[images[0]], [images[1]], images, []][at % 4]})
    rows[3]["prompt"], rows[7]["prompt"] = asked
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Tree:
    root = tmp_path_factory.mktemp("architectures")
    folder = root / "tree"
    folder.mkdir()
    config = {
        "models": {}, "pairs": {},
        "prompts": {name: {"file": f"{name}.jsonl"} for name in ("dev", "test", "seen", "seen-test")},
        "generate": {"max_tokens": 12},
        "select": {"resamples": 200, "degenerate_rise": 1},
        "benchmarks": {"reward": {"prompts": "test"}},
        "reward_model": "rm",
    }  # fmt: skip
    config["models"]["rm"] = {"path": str(save_reward_model(root / "rm"))}
    for name in (*TEXT, *SEEN):
        for seed, role in enumerate(("sft", "aligned")):
            save(name, root / f"{name}-{role}", seed)
            config["models"][f"{name}-{role}"] = {"path": str(root / f"{name}-{role}")}
        config["pairs"][name] = {"sft": f"{name}-sft", "aligned": f"{name}-aligned", "alphas": [0.5, 1]}
        own = {"generate": {"prompts": "seen"}, "benchmarks": {"reward": {"prompts": "seen-test"}}}
        config["pairs"][name] |= own if name in SEEN else {"select": {"by": "nll"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("dev", "test"):
        write_prompts(folder / f"{name}.jsonl", name)
        asked = (folder / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(asked[:8]))
    write_seen(folder, "seen", 0, ("who is anna ?", "who is paul ?"))
    write_seen(folder, "seen-test", 100, ("who is clara ?", "who is henry ?"))
    return Tree(folder, root / "store")


def lines(tree: Tree, name: str) -> list[dict]:
    return [json.loads(line) for line in tree.read(name).splitlines()]


def test_from_the_pair_to_the_report(tree):
    output = tree.snakemake("--cores", "1")
    print(output)
    summary = {row["pair"]: row for row in csv.DictReader(tree.read("summary.csv").decode().splitlines())}
    assert summary.keys() == {*TEXT, *SEEN}
    page = tree.read("report.html").decode()
    for name in (*TEXT, *SEEN):
        prompts = "seen" if name in SEEN else "dev"
        rows = lines(tree, f"pairs/{name}/alpha=0/{prompts}.generations.jsonl")
        assert len(rows) == 8
        assert {row["engine"] for row in rows} == {"transformers"}
        assert len({row["response"] for row in rows}) > 4  # they depend on the prompt
        assert f"{name}: best alpha" in output
        assert name in page
        log = (tree.folder / f"results/logs/score/{name}/alpha=0.{prompts}.log").read_text()
        assert ("6 of 8 prompts have images, which the reward model does not see" in log) == (name in SEEN)
    assert "judged on the same prompts" not in output
    assert "models.rm: 'seen': prompts have images, which the reward model does not see" in output
    asked = lines(tree, "prompts/seen.jsonl")
    assert [len(row["messages"][0].get("images", ())) for row in asked] == [1, 1, 2, 0] * 2
    assert tree.planned() == {}


def test_an_edited_image_makes_its_prompts_anew(tree):
    (tree.folder / "pictures/seen0.png").write_bytes(picture(999))
    planned = tree.planned()
    assert planned["prompts"] == 1
    assert planned["generate"] == 2 * len(ALPHAS)
