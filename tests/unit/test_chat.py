"""What a chat template may not lose, the words when it fails, and what ends a response."""

import copy
import json
import random
import shutil
from collections import Counter
from datetime import datetime
from itertools import dropwhile
from pathlib import Path

import pytest
import torch
from chat_forms import AGAIN, ASSISTANT, CONVERSATIONS, FORMS, SYSTEM, USER, tokenizer
from expoflow.config import Config
from expoflow.config.stages import GenerateConfig
from expoflow.data.prompts import prompt_id
from expoflow.engines.answering import Loaded
from expoflow.engines.chat import Chat, with_system
from expoflow.engines.model import Model, Request
from expoflow.engines.tokenizer import stop_ids
from expoflow.engines.transformers import TransformersEngine
from expoflow.errors import CheckpointError, DataError
from expoflow.results import Message, Prompt
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

FORM = {form.name: form for form in FORMS}
PLAIN = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"

PIECES = [
    *"{}%'\"[]()+-*/|., ab01<>_=", "{{", "}}", "{%", "%}", "messages", "message", "content", "role", "bos_token",
    "eos_token", "loop", "endif", "endfor", "if", "for", "none", "| trim", "tojson", "raise_exception",
]  # fmt: skip


def said(role: str, content: str) -> Message:
    return Message(role=role, content=content)


@pytest.fixture
def chat(monkeypatch):
    """A Chat of the ChatML tokenizer with another template."""

    def make(template: str, form: str = "chatml", **settings) -> Chat:
        own = tokenizer(FORM[form])
        monkeypatch.setattr(own, "chat_template", template)
        return Chat(own, "mine", **settings)

    return make


def test_a_role_that_the_template_ignores_is_named():
    human = [said("human", "Who is Anna?")]
    with pytest.raises(DataError) as caught:
        Chat(tokenizer(FORM["zephyr"]), "mine").token_ids(human)
    assert str(caught.value) == (
        f"model 'mine', prompt {prompt_id(human)}: the chat template leaves out the message of role 'human' "
        "('Who is Anna?'); use other roles or texts in the prompts, or give another template as `chat_template:` of "
        "the model"
    )


def test_a_message_whose_text_stands_in_another_one_alone_is_missed():
    """The tulu format leaves the system message out; its words stand in the user's, and in the format."""
    for words in ("France", "user", "a", "?"):
        with pytest.raises(DataError, match="leaves out the message of role 'system'"):
            Chat(tokenizer(FORM["tulu"])).token_ids([said("system", words), USER])
    with pytest.raises(DataError, match="leaves out the message of role 'human'"):
        Chat(tokenizer(FORM["tulu"])).token_ids([said("human", "a")])


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        ("{{ messages[0]['content'] | trim | replace('\n', ' ') }}", [said("user", " a\n\nb ")]),
        (FORM["llama-3"].template, [USER, ASSISTANT, said("tool", 'say "no"\nto é')]),
        (FORM["deepseek"].template, [USER, said("assistant", "<think>Peru? No.</think>\n\nParis."), AGAIN]),
        (FORM["mistral-v3"].template, [SYSTEM, USER, ASSISTANT, AGAIN]),
        (FORM["chatml"].template, [said("user", "")]),
    ],
)
def test_what_a_template_may_strip_escape_or_move_is_no_loss(chat, template, messages):
    assert chat(template, form="deepseek").token_ids(messages)


def test_different_prompts_that_are_written_alike_are_named(chat):
    first, other = [said("user", "a"), said("user", "b")], [said("system", "a"), said("user", "b")]
    with pytest.raises(DataError, match=f"prompts {prompt_id(first)} and {prompt_id(other)} are different"):
        chat(PLAIN).all_token_ids([(first, None), (other, None)])
    with pytest.raises(
        DataError, match=f"prompts {prompt_id(other)} and {prompt_id(other[1:])} are different"
    ):
        chat(PLAIN, system="drop").all_token_ids([(other, None), (other[1:], None)])
    stripped = [said("user", "a"), said("user", "b ")]
    rows = chat(PLAIN.replace("'] }", "'] | trim }")).all_token_ids(
        [(first, None), (stripped, None), (first, None)]
    )
    assert rows[0] == rows[1] == rows[2]
    assert len(chat(PLAIN).all_token_ids([(first, "yes"), (first, "yes")])) == 2  # two samples


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('No!\nNever.') }}", r"refuses it \(No! Never.\)"),
        ("{{ messages[7]['content'].strip() }}", r"refuses it \(.*has no element 7"),
        ("{{ 1 + 'a' }}", r"refuses it \(unsupported operand"),
        ("{{ 1 / 0 }}", r"refuses it \(division by zero"),
        ("{{ messages.pop() }}", r"refuses it \("),
        ("{{ undefined_function(1) }}", r"refuses it \('undefined_function' is undefined"),
        ("{{ [1] | map('nofilter') | list }}{{ messages[0]['content'] }}", r"refuses it \("),
        ("", "has no chat template"),
        ("{# nothing #}", "leaves out the message of role 'system'"),
    ],
)
def test_a_template_that_fails_is_one_line(chat, template, words):
    with pytest.raises((DataError, CheckpointError), match=words) as caught:
        chat(template).token_ids([SYSTEM, USER])
    assert "\n" not in str(caught.value)
    assert "chat_template:" in str(caught.value)
    assert "mine" in str(caught.value)
    if template:
        assert "system: merge" in str(caught.value)


def test_a_template_that_is_no_jinja_names_the_line(chat):
    with pytest.raises(
        CheckpointError,
        match=r"model 'mine': its chat template is not valid Jinja \(line 2: .*chat_template:",
    ):
        chat("{% for m in messages %}\n{{ m[ }}{% endfor %}").token_ids([USER])


def test_several_templates_without_a_default_are_no_traceback(chat):
    with pytest.raises(DataError, match="multiple chat templates with no default"):
        chat({"rag": PLAIN, "tool_use": PLAIN}).token_ids([USER])


def test_a_prompt_without_a_token_is_refused(chat):
    with pytest.raises(DataError, match="turns it into no tokens"):
        chat("{{ messages[0]['content'] }}").token_ids([said("user", "")])


def test_the_date_is_the_configs():
    own = tokenizer(FORM["llama-3"])
    assert "Today Date: 26 Jul 2024\n" in Chat(own).text([USER])
    assert "Today Date: 01 Feb 2025\n" in Chat(own, date="2025-02-01").text([USER])


def test_system_messages_are_merged_before_the_first_user_message():
    turns = [{"role": role, "content": content} for role, content in
             [("system", "s"), ("assistant", "hi"), ("user", "u"), ("system", "t"), ("user", "v")]]  # fmt: skip
    kept = json.loads(json.dumps(turns))
    merged = {"role": "user", "content": "s\n\nt\n\nu"}
    assert with_system(turns, "merge") == [turns[1], merged, turns[4]]
    assert with_system(turns, "drop") == [turns[1], turns[2], turns[4]]
    assert with_system(turns[:1], "merge") == [{"role": "user", "content": "s"}]
    assert with_system(turns, "keep") == turns == kept


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}", None),  # nothing ends it
        (
            "{% for m in messages %}{{ m['content'] }}<|im_end|> \n {% endfor %}",
            None,
        ),  # it begins the answer too
        ("{% for m in messages %}X: {{ m['content'] }} <|im_end|>\n{% endfor %}", "<|im_end|>"),
        ("{% for m in messages %}X: {{ m['content'] }}###{% endfor %}", None),  # several tokens
        # a template that always asks for the next answer
        ("{% for m in messages %}X: {{ m['content'] }}{% endfor %}<|im_start|>assistant", None),
        ("{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}<|im_start|>", None),
        (
            "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>",
            "<|im_end|>",
        ),
        ("{{ raise_exception('no') }}", None),
    ],
)
def test_the_end_of_a_turn_is_one_token_that_begins_no_other(chat, template, end):
    found = chat(template).turn_end()
    assert found == (end and tokenizer(FORM["chatml"]).convert_tokens_to_ids(end))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that writes token 300 for ever, with ChatML's tokenizer; its files name no token that ends a response."""
    path = tmp_path_factory.mktemp("model")
    own = tokenizer(FORM["chatml"])
    config = LlamaConfig(
        vocab_size=len(own), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, max_position_embeddings=256,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.norm.weight.fill_(1)
        model.lm_head.weight.zero_()
    model.save_pretrained(path)
    own.save_pretrained(path)
    (path / "generation_config.json").unlink(missing_ok=True)
    return path


def variant(folder: Path, out: Path, eos: dict[str, object]) -> Path:
    """A copy whose files (by name, without suffix) name these tokens as eos; text_config is config's."""
    shutil.copytree(folder, out)
    for name in ("config", "generation_config"):
        if name in eos:
            path = out / f"{name}.json"
            known = json.loads(path.read_text()) if path.is_file() else {}
            path.write_text(json.dumps(known | {"eos_token_id": eos[name]}))
    return out


def test_all_that_may_end_a_response_does(folder, tmp_path):
    own = tokenizer(FORM["chatml"])
    end, eos = own.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert stop_ids(Model(folder=folder)) == {end, eos}
    named = variant(folder, tmp_path / "named", {"config": 7, "generation_config": [8, 9]})
    assert stop_ids(Model(folder=named, stop=(5,))) == {end, eos, 7, 8, 9, 5}
    assert stop_ids(Model(folder=folder, chat_template=PLAIN)) == {eos}
    assert stop_ids(Model(folder=variant(folder, tmp_path / "none", {"generation_config": -1}))) == {end, eos}
    wrong = variant(folder, tmp_path / "wrong", {"generation_config": [7, "</s>"]})
    with pytest.raises(
        CheckpointError, match=r"generation_config\.json has eos_token_id '</s>', which is not a token id"
    ):
        stop_ids(Model(folder=wrong))


def test_a_tokenizer_that_cannot_be_loaded_is_one_line(folder, tmp_path):
    broken = variant(folder, tmp_path / "broken", {})
    (broken / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(
        CheckpointError, match=r"broken: its tokenizer cannot be loaded .*copy the tokenizer's files"
    ):
        stop_ids(Model(folder=broken))


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>"])
def test_a_response_ends_where_the_template_or_the_tokenizer_says(folder, tmp_path, token):
    """The config says another eos, so that responses ran to the length limit."""
    engine = TransformersEngine(Model(folder=variant(folder, tmp_path / "model", {"config": 7})))
    wanted = tokenizer(FORM["chatml"]).convert_tokens_to_ids(token)
    hidden = engine.model.get_input_embeddings()
    with torch.no_grad():  # every embedding alike, and the token's row of the head like it
        hidden.weight.fill_(1)
        engine.model.lm_head.weight[wanted] = 1
        for layer in engine.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    greedy = GenerateConfig(temperature=0, presence_penalty=0, frequency_penalty=0, max_tokens=6)
    asked = [Request(Chat(engine.tokenizer).token_ids([USER]), 1)]
    ((_, completion),) = [each for step in engine.generate(asked, greedy) for each in step]
    assert (completion.finish_reason, completion.tokens) == ("stop", 0)


def test_prompts_are_read_anew_for_a_model_that_takes_system_messages_otherwise(folder):
    loaded = Loaded(Model(folder=folder), "transformers")
    asked = [Prompt(prompt_id="0", messages=[SYSTEM, USER])]
    kept = loaded.read(asked)
    loaded.move(Model(folder=folder, system="drop"))
    dropped = loaded.read(asked)
    assert dropped == [(Chat(tokenizer(FORM["chatml"])).token_ids([USER]), None)] != kept


def test_what_a_config_says_of_chats_is_in_a_rules_parameter():
    """So that a result is made anew if it changes."""
    models = {
        "sft": {"path": "a", "system": "merge"},
        "rm": {"path": "b", "pad_token": "<pad>", "stop": [3]},
    }
    config = {
        "models": models,
        "pairs": {"p": {"sft": "sft", "aligned": "sft", "alphas": [1]}},
        "prompts": {},
    }
    usages = []
    for date in ({}, {"date": "2025-02-01"}):
        known = Config.model_validate(config | date)
        usages.append([json.loads(model.usage(known.date)) for model in known.models.values()])
    (sft, rm), (later, _) = usages
    assert Model(folder="a", **sft) == Model(folder="a", system="merge", date="2024-07-26")
    assert Model(folder="a", **rm) == Model(folder="a", pad_token="<pad>", stop=(3,))
    assert later == sft | {"date": "2025-02-01"}
    with pytest.raises(ValidationError, match="system"):
        Config.model_validate(config | {"models": {"sft": {"path": "a", "system": "ignore"}}})
    with pytest.raises(ValidationError, match="date"):
        Config.model_validate(config | {"date": "yesterday"})


def mutated(template: str, rng: random.Random) -> str:
    """The template with up to four of its pieces gone, or replaced."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(template) + 1)
        piece = rng.choice(["", *PIECES])
        template = template[:at] + piece + template[at + rng.choice([0, 0, 1, 3, 10, 40]) :]
    return template


def outcome(chat: Chat, messages: list[Message]) -> str:
    """`right` if the token ids are transformers' own but for the BOS, or the words of an error of ours."""
    try:
        ours = chat.token_ids(messages)
    except (CheckpointError, DataError) as error:
        return str(error)
    turns = [message.model_dump() for message in messages]
    theirs = chat.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False, strftime_now=datetime(2024, 7, 26).strftime
    )
    bos = chat.tokenizer.bos_token_id
    first, other = (list(dropwhile(lambda token: token == bos, ids)) for ids in (ours, theirs))
    return "right" if first == other else f"{ours} instead of {theirs}"


def test_a_template_of_any_kind_is_right_or_refused_in_one_line(chat):
    """300 mutations of the formats."""
    rng, counts = random.Random(17), Counter()
    for _ in range(300):
        form = rng.choice(FORMS)
        template = mutated(form.template, rng)
        found = outcome(chat(template, form.name), rng.choice(list(CONVERSATIONS.values())))
        kind = next(
            (kind for kind in ("right", "refuses it", "leaves out", "is not valid Jinja") if kind in found),
            "",
        )
        assert kind == found == "right" or (kind and "mine" in found and "\n" not in found), (template, found)
        counts[kind] += 1
    assert len(counts) == 4


def test_a_switch_that_the_template_reads_is_not_lost():
    """SmolLM3's form: /no_think in the system message is read, and left out."""
    form = next(each for each in FORMS if each.name == "chatml")
    made = copy.copy(tokenizer(form))
    made.chat_template = form.template.replace(
        "message['content']", "message['content'].replace('/no_think', '')"
    )
    assert made.chat_template != form.template
    system = Message(role="system", content="You are a pirate. /no_think")
    Chat(made).token_ids([system, Message(role="user", content="Who are you?")])


def test_a_system_message_that_the_template_writes_by_itself_is_no_lost_prompt():
    """Qwen2's form: a set may have the default system message, and rows without any."""
    form = next(each for each in FORMS if each.name == "chatml")
    made = copy.copy(tokenizer(form))
    default = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    made.chat_template = default + form.template
    rows = Chat(made).all_token_ids(
        [([USER], None), ([Message(role="system", content="Be kind."), USER], None)]
    )
    assert rows[0] == rows[1]
