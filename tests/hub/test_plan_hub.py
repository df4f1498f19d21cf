"""expoflow plan with sizes from the hub, checked by hand for one 7B pair and the 70B pair of the paper."""

import json
import subprocess
import sys

import yaml
from server import Repo

# Parameters x 2 bytes, and what config.json says of both models.
SEVEN = (
    14_483_464_192,
    {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096},
)
SEVENTY = (
    137_953_296_384,
    {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 8192},
)
CARD = """---
dataset_info:
- config_name: default
  splits: [{name: test_gen, num_examples: 1000}, {name: train, num_examples: 61135}]
---
"""


def add(hub, name, size, config, file="model.safetensors"):
    repo = hub.repos[name] = Repo(sizes={file: size})
    repo.commit({file: b"", "config.json": json.dumps(config).encode()})


def plan(user, config, *options):
    path = user.folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "expoflow.cli", "plan", "--configfile", path, *options],
        cwd=user.folder,
        env=user.environment(),
        text=True,
        capture_output=True,
        timeout=60,
    )
    return (
        done.returncode,
        {line.split("  ")[0].split(": ")[0]: line for line in done.stdout.splitlines()},
        done.stderr,
    )


def config(*names, weights="streamed"):
    models = {name: {"hub": f"org/{name}"} for name in names}
    pairs = {
        f"pair{at}": {"sft": names[at], "aligned": names[at + 1], "alphas": [0.1, 0.3, 0.5]} for at in (0, 2)
    }
    return {
        "models": models | {"rm": {"hub": "org/rm"}},
        "pairs": pairs,
        "prompts": {"dev": {"hub": "org/data", "split": "test_gen"}},
        "reward_model": "rm",
        "extrapolate": {"weights": weights},
    }


def test_the_plan_of_a_7b_and_a_70b_pair(user, hub):
    for name, (size, settings) in {"a": SEVEN, "b": SEVEN, "c": SEVENTY, "d": SEVENTY, "rm": SEVEN}.items():
        add(hub, f"org/{name}", size, settings, "pytorch_model.bin" if name == "c" else "model.safetensors")
    hub.repos["datasets/org/data"] = Repo()
    hub.repos["datasets/org/data"].commit({"README.md": CARD.encode()})
    hub.fault("/api/models/org/a", status=503)
    status, lines, errors = plan(user, config("a", "b", "c", "d"))
    assert status == 2  # the plan is printed, and what a look at the models finds: these have no header
    assert "pairs.pair0: " in errors
    assert "not a safetensors file" in errors
    # 7B: 14.48 GB + 2 GB + 131,072 bytes a token x (1,024 + 2,048) = 16.89 GB; 70B: 137.95 + 2 + 1.01 GB = 140.96 GB.
    assert lines["pair0"].split() == [
        "pair0",
        "0.0",
        "GB",
        "14.5",
        "GB",
        "16.9",
        "GB",
        "1",
        "x",
        "24",
        "GB",
        "5,000",
        "10,240,000",
    ]
    assert lines["pair2"].split() == [
        "pair2",
        "0.0",
        "GB",
        "138.0",
        "GB",
        "141.0",
        "GB",
        "4",
        "x",
        "48",
        "GB",
        "5,000",
        "10,240,000",
    ]
    assert lines["prompts dev"] == "prompts dev: 1,000 (its card)"
    assert lines["reward model"] == "reward model: 16.5 GB of GPU memory, 1 x 24 GB"
    assert lines["downloads"] == "downloads: 319.4 GB"  # 3 x 14.48 + 2 x 137.95
    # and the copy of the pickled model, 137.95, and what is exported, 14.48 + 137.95
    assert lines["disk at the end, hub cache included"].endswith(": 609.7 GB")
    assert lines["responses"] == "responses: 10,000, with at most 20,480,000 tokens"
    assert not any(count for name, count in hub.sent.items() if "safetensors" in name)

    _, lines, _ = plan(user, config("a", "b", "c", "d", weights="stored"))
    assert lines["pair2"].split()[1] == "413.9"  # three alphas


def test_without_the_hub_sizes_are_those_of_the_names(user, hub):
    status, lines, _ = plan(user, config("x-7b", "y", "z-1_8b", "z-70B") | {}, "--offline")
    assert status == 2  # nothing is known of rm
    asked = config("x-7b", "y", "z-1_8b", "z-70B")
    asked["models"]["rm"] = {"hub": "org/rm-8x7b"}
    status, lines, _ = plan(user, asked, "--offline")
    assert status == 0
    assert lines["x-7b"].split() == ["x-7b", "14.0", "GB", "1", "29.0", "GB", "its", "name"]
    assert lines["y"].split() == ["y", "14.0", "GB", "1", "29.0", "GB", "as", "x-7b"]
    assert lines["z-1_8b"].split()[1] == "3.6"
    assert lines["z-70B"].split()[:6] == ["z-70B", "140.0", "GB", "4", "218.0", "GB"]
    assert lines["prompts dev"] == "prompts dev: 1,000 (assumed)"
    assert hub.requests == []


def test_a_model_that_the_hub_lacks_is_an_error(user, hub):
    add(hub, "org/a", *SEVEN)
    status, _, errors = plan(user, config("a", "absent", "a", "absent"))
    assert status == 2
    assert "expoflow: org/absent: " in errors


def test_an_adapter_of_the_hub_is_as_large_as_its_sft_model(user, hub):
    for name in ("a", "b", "c", "rm"):
        add(hub, f"org/{name}", *SEVEN)
    lora = hub.repos["org/d"] = Repo(sizes={"adapter_model.safetensors": 200_000_000})
    lora.commit({"adapter_model.safetensors": b"", "adapter_config.json": b"{}"})
    _, lines, _ = plan(user, config("a", "b", "c", "d"))
    assert lines["d"].split()[:6] == ["d", "0.2", "GB", "1", "29.7", "GB"]
    assert lines["pair2"].split()[1:] == lines["pair0"].split()[1:]
    assert lines["downloads"] == "downloads: 58.1 GB"  # 4 x 14.48 + 0.2
