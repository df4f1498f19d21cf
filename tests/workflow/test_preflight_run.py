"""The rule preflight: what it says of a pair's weights, before anything is generated."""

import json

import pytest
import yaml
from expoflow.miniature import model
from tree import Tree

pytestmark = pytest.mark.workflow
PREFLIGHT = "results/pairs/apart/preflight.json"


@pytest.fixture
def apart(tmp_path, store) -> Tree:
    """A pair of two models that were made apart."""
    for seed, name in enumerate(("one", "other")):
        model.save(model.new(seed), tmp_path / "tree" / name)
    config = {
        "models": {name: {"path": name} for name in ("one", "other")},
        "pairs": {"apart": {"sft": "one", "aligned": "other", "alphas": [1]}},
        "prompts": {"dev": {"miniature": "dev"}},
    }
    (tmp_path / "tree/config.yaml").write_text(yaml.safe_dump(config))
    return Tree(tmp_path / "tree", store)


def test_a_pair_that_was_trained_apart_is_refused_unless_it_is_meant_so(apart):
    said = apart.snakemake("--cores", "1", PREFLIGHT, check=False)
    words = (
        "this aligned model does not look trained from this SFT model: no likeness in any layer (correlation"
    )
    assert f"pairs.apart: {words}" in said  # before any job
    assert not (apart.folder / PREFLIGHT).exists()
    apart.edit(lambda config: config["pairs"]["apart"].update(unrelated=True))
    assert f"apart: warning: {words}" in apart.snakemake("--cores", "1", PREFLIGHT)
    result = json.loads((apart.folder / PREFLIGHT).read_text())
    assert [(each["level"], each["check"]) for each in result["findings"]] == [("warning", "likeness")]
    figures = result["likeness"]
    assert abs(figures["correlation"]) < 0.1
    assert 1.3 < figures["delta_norm_ratio"] < 1.5
    assert list(figures["layers"]) == ["model.layers, first half", "model.layers, second half"]
    assert set(figures["kinds"]) == {"attention", "embeddings", "mlp"}
