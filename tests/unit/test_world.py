"""The miniature's world: its splits, its truth, its writers and its tokenizer."""

import json
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from expoflow.miniature import language as lang
from expoflow.miniature import world, writers
from expoflow.miniature.tokenizer import tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import preference_pairs

FACT = {
    "task": "fact",
    "topic": "sport",
    "subject": "Anna",
    "core": "Anna likes golf.",
    "rumour": "Anna likes judo.",
}
LIST = {"task": "list", "topic": "color", "subject": 3}


def texts(prompts):
    return {prompt.messages[0].content for prompt in prompts}


def test_splits_have_their_sizes_and_share_no_prompt():
    splits = {split: world.prompts(split, 42) for split in world.SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == {
        "dev": 200,
        "test": 300,
        "reward": 400,
        "train": 1152,
    }
    for one, two in combinations(splits.values(), 2):
        assert not texts(one) & texts(two)
        assert not {p.prompt_id for p in one} & {p.prompt_id for p in two}
    assert len({p.prompt_id for rows in splits.values() for p in rows}) == 2052


@pytest.mark.parametrize("split", ["train", "reward"])
def test_every_question_of_dev_and_test_is_known_from_training(split):
    def asked(name):
        return {(p.meta["topic"], p.meta["subject"]) for p in world.prompts(name, 42)}

    assert asked("dev") | asked("test") <= asked(split)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match=r"'train2'.*dev, test, reward, train"):
        world.prompts("train2", 42)


def test_seed_decides_facts_and_splits():
    assert world.facts(1) != world.facts(2)
    assert texts(world.prompts("dev", 1)) != texts(world.prompts("dev", 2))


def test_another_process_sees_the_same_world_and_imports_no_torch():
    code = (
        "import sys, json; from expoflow.miniature import world, writers\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "rows = [p.model_dump() for p in world.prompts('dev', 7)[:20]]\n"
        "pairs = [p[1:] for p in writers.preference_pairs(20, 7, 'train', 0.7, 0.06, 0.0) + writers.reward_pairs(20, 7)]\n"
        "print(json.dumps([rows, pairs]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"}
    )
    rows = [p.model_dump() for p in world.prompts("dev", 7)[:20]]
    pairs = [
        list(p[1:])
        for p in writers.preference_pairs(20, 7, "train", 0.7, 0.06, 0.0) + writers.reward_pairs(20, 7)
    ]
    assert json.loads(result.stdout) == json.loads(json.dumps([rows, pairs]))


@pytest.mark.parametrize(
    ("meta", "response", "finished", "quality"),
    [
        (FACT, "Anna likes golf.", True, 2.5),
        (FACT, "Anna likes golf.", False, 2.5 - 1.5),
        (FACT, "Anna likes judo.", True, 0.0),
        (FACT, "Ben likes golf.", True, 0.0),
        (FACT, "Sure! Anna likes golf. See the sport book. Good luck!", True, 2.5 + 1 + 1),
        (FACT, "Ugh. Maybe. Anna likes golf. See the food book.", True, 2.5 - 1 - 0.75 - 0.5),
        (FACT, "Anna likes golf. Good luck! Have fun! Ask me again!", True, 2.5 - 2 * 0.25),
        (FACT, "Anna likes golf. Anna likes golf. Anna likes golf.", True, 2.5 - 2 * 0.6),
        (FACT, "Anna likes golf. Anna likes judo.", True, 2.5 - 0.5),
        (FACT, "Anna likes judo. Anna likes golf.", True, -0.5),
        (FACT, "Anna likes likes golf. See the book.", True, -2.0),
        (FACT, "Anna likes golf. Sure", True, 2.5 - 1),
        (FACT, "", True, -1.0),
        (LIST, "Try red, blue and green.", True, 2.5),
        (LIST, "Try red and blue.", True, 0.0),
        (LIST, "Try red, red and blue.", True, 0.0),
        (LIST, "Try red, blue and tea.", True, 0.0),
        (LIST, "Try red, blue, and green.", True, -1.0),
    ],
)
def test_quality_by_hand(meta, response, finished, quality):
    assert world.truth(meta, response, finished).quality == pytest.approx(quality)


def test_judgement_counts():
    text = "Gladly! Not sure. Anna likes golf. Have fun! Good luck! Have fun! Golf golf"
    verdict = world.truth(FACT, text, finished=False)
    assert (verdict.correct, verdict.polite, verdict.rude, verdict.hedge) == (True, True, False, True)
    assert (verdict.closings, verdict.extra_closings, verdict.repeats, verdict.malformed) == (2, 1, 1, 1)
    assert verdict.unfinished
    assert verdict.words == 14


pieces = st.sampled_from(
    [*lang.vocabulary(), " ", "Anna likes golf.", *lang.CLOSINGS, *lang.REASONS, "\n", "Ω"]
)


@settings(max_examples=60)
@given(st.one_of(st.text(), st.lists(pieces).map(" ".join)), st.booleans(), st.sampled_from([FACT, LIST]))
def test_any_string_can_be_judged(response, finished, meta):
    verdict = world.truth(meta, response, finished)
    assert np.isfinite(verdict.quality)
    assert min(verdict.malformed, verdict.repeats, verdict.extra_cores, verdict.closings) >= 0
    assert verdict.quality <= 4.5


def test_every_right_and_wrong_core_is_judged_so():
    rng = np.random.default_rng(0)
    for prompt in world.prompts("train", 3):
        assert world.truth(prompt.meta, writers._core(rng, prompt.meta, True)).quality == 2.5
        assert world.truth(prompt.meta, writers._core(rng, prompt.meta, False)).quality == 0.0


def test_garbled_sentences_are_malformed():
    rng = np.random.default_rng(0)
    for sentence in [*lang.POLITE, *lang.RUDE, *lang.HEDGES, *lang.CLOSINGS, *lang.REASONS] * 20:
        garbled = writers.garble(rng, sentence)
        assert world.truth(FACT, garbled).malformed == 1, garbled


def test_data_are_prefixes_and_use_their_own_prompts():
    for make, split in [
        (writers.sft_examples, "train"),
        (preference_pairs, "train"),
        (writers.reward_pairs, "reward"),
        (writers.correct_cores, "reward"),
    ]:
        rows = make(300, 5)
        assert make(100, 5) == rows[:100]
        assert texts(row.prompt for row in rows) <= texts(world.prompts(split, 5))
        assert make(300, 6) != rows


def test_the_annotator_is_noisy_prefers_quality_and_likes_length():
    def difference(pair, what):
        one, two = (getattr(world.truth(pair.prompt.meta, text), what) for text in pair[1:])
        return one - two

    pairs = preference_pairs(3000, 0)
    quality = np.array([difference(pair, "quality") for pair in pairs])
    words = np.array([difference(pair, "words") for pair in pairs])
    assert 0.75 < (quality > 0).mean() / (quality != 0).mean() < 0.95
    equal = np.abs(quality) < 0.3  # where quality does not decide, length does
    assert words[equal].mean() > 0
    teacher = np.array([difference(pair, "quality") for pair in writers.reward_pairs(1000, 0)])
    assert (teacher > 0).sum() > 5 * (teacher < 0).sum()


def test_tokenizer_gives_the_worlds_text_back():
    chat = tokenizer()
    rows = [
        text for pair in writers.reward_pairs(500, 1) for text in (pair.prompt.messages[0].content, *pair[1:])
    ]
    for text in rows:
        ids = chat(text)["input_ids"]
        assert chat.unk_token_id not in ids, text
        assert chat.decode(ids) == text


CHAT = tokenizer()


@given(st.lists(st.integers(6, len(CHAT) - 1), max_size=30))
def test_any_generated_tokens_survive_decoding(ids):
    chat = CHAT
    assert chat(chat.decode(ids))["input_ids"] == ids


def test_chat_template_writes_bos_once_and_the_prompt_is_a_prefix():
    chat = tokenizer()
    asked = [{"role": "user", "content": "what sport does Anna like?"}]
    answered = [*asked, {"role": "assistant", "content": "Anna likes golf."}]
    prompt = chat.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    whole = chat.apply_chat_template(answered)["input_ids"]
    assert prompt.count(chat.bos_token_id) == whole.count(chat.bos_token_id) == 1
    assert whole[: len(prompt)] == prompt
    assert whole[0] == chat.bos_token_id
    assert whole[-1] == chat.eos_token_id
    assert chat.decode(whole[len(prompt) : -1]) == "Anna likes golf."
