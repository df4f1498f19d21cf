"""The theory's measurements on tiny real models: slopes, sizes, angles, planes."""

import json
import math
import shutil

import numpy as np
import pytest
import small_models
import torch
from expoflow.config.stages import GenerateConfig, ScoreConfig, SelectConfig
from expoflow.config.theory import PlaneConfig, TheoryConfig
from expoflow.data.preferences import Preference
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model, Request
from expoflow.engines.transformers import TransformersEngine
from expoflow.errors import CheckpointError, PairError
from expoflow.extrapolation.preflight import open_pair
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.miniature.model import new, save
from expoflow.miniature.world import prompts
from expoflow.theory import deltas, first_order, plane, question
from expoflow.theory.corners import Corners
from expoflow.theory.first_order import Along
from expoflow.theory.result import Point
from loops import preference_pairs
from transformers import AutoModelForCausalLM

SELECT = SelectConfig(resamples=200)
STEP = 0.02  # of the finite differences here


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """sft, and three models near it: a and b in directions of their own, ab in the sum of both."""
    root = tmp_path_factory.mktemp("models")
    model = new(0)
    save(model, root / "sft")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step = {}
    for number, name in enumerate("ab"):
        torch.manual_seed(number)
        step[name] = {key: 0.01 * torch.randn_like(tensor) for key, tensor in start.items()}
    step["ab"] = {key: step["a"][key] + step["b"][key] for key in start}
    step["back"] = {key: -step["a"][key] for key in start}
    for name, delta in step.items():
        for key, tensor in model.state_dict().items():
            if key != "lm_head.weight":  # tied
                tensor.copy_(start[key] + delta[key])
        save(model, root / name)
    return root


def streamed(folders, name: str) -> Model:
    parents = {"sft": folders / "sft", "aligned": folders / name}
    return Model(folder=folders / name, streamed=Streamed(**parents, alpha=0))


def corners(folders, name: str = "a") -> Corners:
    model = streamed(folders, name)
    return Corners(model, question.parents(model))


def rows(engine) -> list[tuple[list[int], list[int]]]:
    made = []
    for pair in preference_pairs(5, 0, "test"):
        ids = Chat(engine.tokenizer).token_ids(pair.prompt.messages)
        for response in (pair.chosen, pair.rejected):
            made.append((ids, Chat(engine.tokenizer).token_ids(pair.prompt.messages, response)[len(ids) :]))
    return made


def in_order(found) -> np.ndarray:
    return np.array([value for _, value in sorted(each for some in found for each in some)])


def test_slope_is_the_gradient_along_delta(folders):
    """Forward-mode derivatives of every row against autograd's gradient, backward in float64, times delta."""
    made = corners(folders)
    made.at(0, 1)
    given = rows(made.engine)
    slopes = in_order(made.slopes(given, (-1, 1)))

    theta0, theta1 = (AutoModelForCausalLM.from_pretrained(folders / name).double() for name in ("sft", "a"))
    delta = [one - zero for one, zero in zip(theta1.parameters(), theta0.parameters(), strict=True)]
    for (prompt, response), slope in zip(given, slopes, strict=True):
        logits = theta1(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum()
        gradient = torch.autograd.grad(logp, list(theta1.parameters()))
        expected = sum((one * other).sum() for one, other in zip(gradient, delta, strict=True)).item()
        assert slope == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert np.abs(slopes).max() > 0.1


def test_slope_is_the_finite_difference(folders):
    made = corners(folders)
    given = rows(made.engine)
    values = {}
    for alpha in (-STEP, STEP):
        made.at(-alpha, 1 + alpha)
        values[alpha] = in_order(made.engine.logps(given))
    made.at(0, 1)
    difference = (values[STEP] - values[-STEP]) / (2 * STEP)
    slopes = in_order(made.slopes(given, (-1, 1)))
    assert slopes == pytest.approx(difference, rel=0.01, abs=0.01 * np.abs(slopes).max())


def test_slope_turns_round_with_delta(folders):
    made = corners(folders)
    made.at(0, 1)
    given = rows(made.engine)
    forth, back = in_order(made.slopes(given, (-1, 1))), in_order(made.slopes(given, (1, -1)))
    assert back == pytest.approx(-forth, rel=1e-6)
    assert np.abs(forth).min() > 0


def test_a_share_of_one_is_the_checkpoint_itself(folders):
    model = streamed(folders, "a")
    made = Corners(model, (*question.parents(model), question.parents(streamed(folders, "b"))[1]))
    made.at(0.3, 0.3, 0.4)
    for shares, name in (((1, 0, 0), "sft"), ((0, 1, 0), "a"), ((0, 0, 1), "b")):
        made.at(*shares)
        whole = AutoModelForCausalLM.from_pretrained(folders / name).state_dict()
        assert all(torch.equal(tensor, whole[key]) for key, tensor in made.engine.model.state_dict().items())
    made.at(-1, 1, 1)
    sum_of_both = AutoModelForCausalLM.from_pretrained(folders / "ab").state_dict()
    for key, tensor in made.engine.model.state_dict().items():
        assert torch.allclose(tensor, sum_of_both[key], atol=1e-6)


@pytest.mark.parametrize("hub", [True, False])
def test_weights_that_the_files_have_under_other_names_stay_nowhere(tmp_path, hub):
    """As transformers saves it a Mixtral has the hub's names: its experts and gates would not move."""
    model = small_models.model_of("mixtral")
    for role in ("sft", "a"):
        small_models.save(model, tmp_path / role)
        model.save_pretrained(tmp_path / role, save_original_format=hub)
        small_models.trained(model)
    if hub:
        with pytest.raises(CheckpointError, match="under another name or in another layout"):
            corners(tmp_path)
        return
    made = corners(tmp_path)
    made.at(1, 0)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "sft").state_dict()
    assert all(torch.equal(tensor, whole[key]) for key, tensor in made.engine.model.state_dict().items())


def test_a_tied_weight_that_the_files_have_as_the_head_moves(folders, tmp_path):
    def as_head(state):
        return {name.replace("model.embed_tokens.", "lm_head."): each for name, each in state.items()}

    for name in ("sft", "a"):
        small_models.change_tensors(shutil.copytree(folders / name, tmp_path / name), as_head)
    made = corners(tmp_path)
    made.at(1, 0)
    whole = AutoModelForCausalLM.from_pretrained(folders / "sft").state_dict()
    assert all(torch.equal(tensor, whole[key]) for key, tensor in made.engine.model.state_dict().items())
    given = rows(made.engine)
    expected = corners(folders)
    expected.at(1, 0)
    assert in_order(made.slopes(given, (-1, 1))) == pytest.approx(in_order(expected.slopes(given, (-1, 1))))


def test_written_tokens_are_the_engines_answers(folders):
    engine = TransformersEngine(Model(folder=folders / "a"))
    config = GenerateConfig(temperature=1, top_k=0, top_p=1, max_tokens=9)
    requests = [
        Request(Chat(engine.tokenizer).token_ids(each.messages), seed)
        for seed, each in enumerate(prompts("dev", 0)[:4])
    ]
    written = dict(each for some in engine.written(requests, config) for each in some)
    answers = dict(each for some in engine.generate(requests, config) for each in some)
    for index, tokens in written.items():
        ended = tokens[-1] in engine.stop
        kept = tokens[:-1] if ended else tokens
        assert engine.tokenizer.decode(kept, skip_special_tokens=True) == answers[index].text
        assert (len(kept), "stop" if ended else "length") == (
            answers[index].tokens,
            answers[index].finish_reason,
        )
    assert len(written) == 4


def test_sizes_and_cosines_of_known_deltas(folders):
    opened = {name: open_pair(folders / "sft", folders / name) for name in ("a", "b", "ab", "back")}
    states = {name: AutoModelForCausalLM.from_pretrained(folders / name) for name in ("sft", "a", "b", "ab")}
    flat = {
        name: torch.cat([each.detach().double().flatten() for each in model.parameters()])
        for name, model in states.items()
    }
    small = deltas.smallness(opened["a"], ["-1", "0", "2.5"])
    delta, theta1 = (flat["a"] - flat["sft"]).norm().item(), flat["a"].norm().item()
    assert small.overall.elements == len(flat["a"]) == sum(each.elements for each in small.kinds.values())
    assert (small.overall.delta, small.overall.theta1) == pytest.approx((delta, theta1))
    assert sum(each.delta**2 for each in small.kinds.values()) == pytest.approx(delta**2)
    assert small.alphas == pytest.approx({"-1": delta / theta1, "0": 0, "2.5": 2.5 * delta / theta1})

    table = deltas.cosines({"sft": opened})
    of_all = {(row["pair_a"], row["pair_b"]): row["cosine"] for row in table if row["kind"] == "all"}
    assert of_all["a", "back"] == pytest.approx(-1, abs=1e-4)
    assert abs(of_all["a", "b"]) < 0.02  # random directions
    expected = torch.cosine_similarity(flat["a"] - flat["sft"], flat["ab"] - flat["sft"], dim=0).item()
    assert of_all["a", "ab"] == pytest.approx(expected, abs=1e-9)
    assert expected == pytest.approx(math.sqrt(0.5), abs=0.02)
    assert {row["kind"] for row in table} == {"all", *small.kinds}


def test_first_order_of_the_margin_on_real_models(folders):
    config = TheoryConfig(examples=20)
    held_out = first_order.held_out(config, 0)
    assert isinstance(held_out[0], Preference)
    found = first_order.along(streamed(folders, "a"), held_out, [], None, config, 42, 4.0, ScoreConfig())
    result = first_order.judged(found["margin"], 0.04, 4.0, config, SELECT)
    assert set(found) == {"margin"}
    assert result.slope == pytest.approx(result.difference, rel=0.01)
    assert result.slope_low < result.slope < result.slope_high
    assert [point.alpha for point in result.curve][-1] == 4.0
    first = result.curve[0]
    assert first.holds
    assert first.change == pytest.approx(first.predicted, rel=0.1)
    assert result.holds_to in [point.alpha for point in result.curve]
    turned = Along(found["margin"].values, -found["margin"].slopes, 1)
    against = first_order.judged(turned, 0.04, 4.0, config, SELECT)
    assert (against.slope, against.holds_to) == (-result.slope, None)


def test_policy_gradient_is_the_derivative_of_the_expected_reward():
    """A softmax policy over three answers, of which everything is known."""
    rng = np.random.default_rng(0)
    logits, direction, reward = (
        np.array([0.3, -0.2, 0.1]),
        np.array([1.0, -0.5, 0.2]),
        np.array([2.0, 1.0, -1.0]),
    )
    probability = np.exp(logits) / np.exp(logits).sum()
    score = direction - probability @ direction  # d/dalpha log p
    drawn = rng.choice(3, p=probability, size=(4000, 4))
    gradient = first_order.policy_gradient(reward[drawn], score[drawn])
    expected = (probability * score) @ reward
    error = gradient.std() / math.sqrt(len(gradient))
    assert abs(gradient.mean() - expected) < 4 * error < 0.3 * abs(expected)


def curve(*holds: bool | None) -> list[Point]:
    fixed = {"value": 0, "change": 0, "change_low": 0, "change_high": 0, "predicted": 0}
    return [Point(alpha=alpha, holds=each, **fixed) for alpha, each in enumerate(holds, start=1)]


@pytest.mark.parametrize(
    ("holds", "to", "words"),
    [
        ((True, True, False, True), 2, "holds to alpha 2, no longer at 3"),
        ((True, None, True), 1, "sampling error leaves open whether the first order holds beyond alpha 1"),
        ((None, True), None, "from the first alpha on"),
        ((False,), None, "does not hold even at alpha 1"),
        ((True, True), 2, "to the grid's end, alpha 2"),
    ],
)
def test_how_far_the_first_order_holds(holds, to, words):
    held, reason = first_order.reach(curve(*holds))
    assert held == to
    assert words in reason


def test_sampling_error_decides_what_is_not_known():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    config = TheoryConfig()

    def judged(spread: float, samples: int):
        values = {alpha: 5.0 + alpha * (2 + spread * noise) for alpha in (0.0, -1.0, 1.0, 2.0)}
        return first_order.judged(Along(values, np.full(400, 2.0), samples), 1.0, 2.0, config, SELECT)

    assert [point.holds for point in judged(0.1, 4).curve] == [True, True]
    assert [point.holds for point in judged(20, 4).curve] == [None, None]
    assert judged(20, 4).holds_to is None


def test_axes_of_a_plane():
    found = deltas.Products(10, np.array([[4.0, 3.0], [3.0, 9.0]]), np.ones(2))
    axes = plane.Axes.of(found)
    assert axes.place(1, 0) == pytest.approx((2, 0))
    assert np.linalg.norm(axes.place(0, 1)) == pytest.approx(3)
    assert np.dot(axes.place(1, 0), axes.place(0, 1)) == pytest.approx(3)
    assert axes.point(*axes.place(0.3, -1.7)) == pytest.approx((0.3, -1.7))
    where = plane.points(axes, (5, 4), 3)
    assert where[:3] == [(0, 0), (1, 0), (0, 1)]
    places = np.array([axes.place(*each) for each in where[3:]])
    assert len(where) == 3 + 9
    for end in (axes.place(5, 0), axes.place(0, 4)):
        assert (places.min(axis=0) < end).all()
        assert (end < places.max(axis=0)).all()


def test_two_deltas_in_one_direction_are_no_plane():
    with pytest.raises(PairError, match=r"cosine 1\.000000 span no plane"):
        plane.Axes.of(deltas.Products(10, np.array([[1.0, 2.0], [2.0, 4.0]]), np.ones(2)))


def test_plane_config_needs_two_pairs():
    with pytest.raises(ValueError, match="at least 2 items"):
        PlaneConfig(pairs=["one"])
    assert json.loads(PlaneConfig(pairs=["one", "two"]).canonical())["points"] == 6
