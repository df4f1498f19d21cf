"""The client of judges against a scripted endpoint: real HTTP, every call counted."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from expoflow.benchmarks.judge import verdicts
from expoflow.benchmarks.judge.judge import Judge
from expoflow.benchmarks.judge.verdicts import text
from expoflow.checks import parse
from expoflow.config.benchmarks import JudgeConfig, MtBenchBenchmark
from expoflow.errors import ConfigError, JudgeError
from expoflow.system import progress
from judge_server import EMPTY, GARBAGE, NO_CHOICES, Fault, JudgeServer, completion

SMALL = {
    "models": {name: {"path": name} for name in ("sft", "dpo", "rm")},
    "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [1]}},
    "prompts": {"dev": {"miniature": "dev"}},
    "reward_model": "rm",
}
PRICES = {"judge": {"input": 1000, "output": 1000}}  # a call of 100 + 10 tokens costs 0.11 USD


def echo(body: dict) -> str:
    return "said " + body["messages"][0]["content"]


@pytest.fixture
def server():
    with JudgeServer(echo) as server:
        yield server


def config(server, **settings) -> JudgeConfig:
    return JudgeConfig(
        **{"base_url": server.url, "model": "judge", "api_key_env": "", "backoff": 0.01} | settings
    )


def requests(count: int, **body) -> list[dict]:
    return [
        {"messages": [{"role": "user", "content": f"question {i}"}], "max_tokens": 10, **body}
        for i in range(count)
    ]


def texts(replies) -> list[str | None]:
    return [reply and text(reply) for reply in replies]


SAID = [f"said question {i}" for i in range(20)]


def test_replies_are_in_order_and_bodies_are_those_of_the_requests(server):
    asked = requests(20, temperature=0, logprobs=True, top_logprobs=5, seed=3)
    assert texts(Judge(config(server)).ask(asked)) == SAID
    received = sorted(server.calls, key=echo)
    assert received == sorted(({**request, "model": "judge"} for request in asked), key=echo)


def test_a_rerun_makes_no_call_and_a_lost_third_exactly_that_third(server):
    Judge(config(server)).ask(requests(9))
    again = Judge(config(server, concurrency=1, retries=9, timeout=3, max_cost=1, prices=PRICES))
    assert again.bill(requests(9)).calls == 0
    assert texts(again.ask(requests(9))) == SAID[:9]
    assert len(server.calls) == 9
    for request in requests(9)[::3]:
        verdicts.path(config(server), request).unlink()
    assert again.bill(requests(9)).calls == 3
    assert texts(again.ask(requests(9))) == SAID[:9]
    assert sorted(map(echo, server.calls[9:])) == [SAID[0], SAID[3], SAID[6]]


def test_verdicts_are_counted_as_they_come_and_those_that_are_kept_too(server, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0)
    Judge(config(server)).ask(requests(3))
    heard = []
    with progress.heard_by(lambda *said: heard.append(said[:3])):
        Judge(config(server)).ask(requests(9))
    assert heard == [(done, 9, "verdicts") for done in range(3, 10)]


def test_another_model_or_body_is_another_verdict(server):
    Judge(config(server)).ask(requests(2))
    Judge(config(server, model="other")).ask(requests(2))
    Judge(config(server)).ask(requests(2, temperature=1))
    assert len(server.calls) == 6


def test_a_broken_verdict_file_is_asked_again(server):
    Judge(config(server)).ask(requests(2))
    verdicts.path(config(server), requests(2)[1]).write_text('{"base_url": ')
    assert texts(Judge(config(server)).ask(requests(2))) == SAID[:2]
    assert len(server.calls) == 3


def test_equal_requests_are_asked_once(server):
    assert texts(Judge(config(server)).ask([*requests(2), *requests(2)])) == SAID[:2] * 2
    assert len(server.calls) == 2


FAULTS = {
    "rate limited": Fault(status=429, headers={"Retry-After": "0"}),
    "server error": Fault(status=500),
    "garbage": GARBAGE,
    "empty choice": EMPTY,
    "timeout": Fault(hang=30),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_counted_and_tried_again(server, name):
    server.faults = {0: FAULTS[name], 2: FAULTS[name]}
    said = []
    judge = Judge(config(server, concurrency=1, timeout=0.5), say=said.append)
    assert texts(judge.ask(requests(3))) == SAID[:3]
    assert judge.counts == {"calls": 5, name: 2}
    assert said[-1] == f"judge judge: 5 calls; {name} 2"


def test_no_choices_is_an_empty_choice_too(server):
    server.faults = {0: NO_CHOICES}
    judge = Judge(config(server))
    assert texts(judge.ask(requests(1))) == SAID[:1]
    assert judge.counts == {"calls": 2, "empty choice": 1}


@pytest.mark.parametrize("name", FAULTS)
def test_what_stays_away_is_missing_and_reported(server, name):
    server.always = FAULTS[name]
    said = []
    judge = Judge(config(server, retries=1, timeout=0.2), say=said.append)
    assert judge.ask(requests(1)) == [None]
    tries = 21 if name == "rate limited" else 2
    assert judge.counts == {"calls": tries, name: tries}
    assert judge.summary(requests(1), [None])["missing"] == 1
    assert said[-1] == f"judge judge: {tries} calls; {name} {tries}; 1 of 1 verdicts are missing"
    assert said[-2].startswith(f"judge judge: a request got no reply ({name}")
    server.always = None
    assert texts(Judge(config(server)).ask(requests(1))) == SAID[:1]


def test_retry_after_holds_up_every_worker(server):
    server.faults = {0: Fault(status=429, headers={"Retry-After": "0.6"})}
    started = time.monotonic()
    Judge(config(server, concurrency=1)).ask(requests(3))
    assert time.monotonic() - started > 0.6
    assert [echo(body) for body in server.calls] == [SAID[0], *SAID[:3]]


def test_a_reply_that_is_not_accepted_is_kept_and_asked_for_again(server):
    heard = []

    def answer(body):
        heard.append(body)
        return "no verdict" if len(heard) < 3 else "[[7]]"

    server.answer = answer
    judge = Judge(config(server))
    assert texts(judge.ask(requests(1), accept=lambda reply: "[[" in text(reply))) == ["[[7]]"]
    assert judge.counts == {"calls": 3, "not accepted": 2}
    again = Judge(config(server))
    assert texts(again.ask(requests(1), accept=lambda reply: "[[" in text(reply))) == ["[[7]]"]
    assert again.counts == {}


def test_replies_that_are_never_accepted_cost_a_rerun_nothing(server):
    for _ in range(2):
        judge = Judge(config(server, retries=2))
        assert judge.ask(requests(1), accept=lambda reply: False) == [None]
    assert len(server.calls) == 3
    assert Judge(config(server, retries=3)).bill(requests(1), lambda reply: False).calls == 1


def test_concurrency_is_used_and_kept(server):
    server.delay = 0.1
    Judge(config(server, concurrency=4)).ask(requests(12))
    assert server.most_at_a_time == 4


def test_a_request_that_is_refused_is_not_tried_again(server):
    server.faults = {0: Fault(status=400)}
    judge = Judge(config(server, concurrency=1))
    assert texts(judge.ask(requests(2))) == [None, SAID[1]]
    assert judge.counts == {"calls": 2, "refused": 1}


def test_a_dead_endpoint_ends_it_soon():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    dead = JudgeConfig(base_url=url, model="judge", api_key_env="", backoff=0, retries=1, concurrency=1)
    judge = Judge(dead)
    with pytest.raises(JudgeError, match=r"8 requests in a row without a reply, .*no connection"):
        judge.ask(requests(20))
    assert judge.counts["calls"] == 16


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(server, monkeypatch, store):
    secret = "sk-very-secret"
    monkeypatch.setenv("MY_KEY", secret)
    server.answer = lambda body: f"your key is {secret}"
    assert texts(Judge(config(server, api_key_env="MY_KEY")).ask(requests(1))) == ["your key is ***"]
    assert server.keys == [f"Bearer {secret}"]
    assert not [path for path in store.rglob("*.json") if secret in path.read_text()]
    error = json.dumps({"error": {"message": f"Incorrect API key provided: {secret}"}})
    server.always = Fault(status=401, body=error)
    with pytest.raises(JudgeError, match=r"401 .*\*\*\*.*account of \$MY_KEY") as told:
        Judge(config(server, api_key_env="MY_KEY")).ask(requests(2))
    assert secret not in str(told.value)


def test_no_key_no_call(server, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(JudgeError, match=r"\$MY_KEY is not set; export MY_KEY=KEY"):
        Judge(config(server, api_key_env="MY_KEY")).ask(requests(1))
    assert not server.calls


def test_a_quota_that_is_used_up_is_no_rate_limit(server):
    body = json.dumps({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
    server.faults = {1: Fault(status=429, body=body)}
    with pytest.raises(JudgeError, match="exceeded your current quota"):
        Judge(config(server, concurrency=1)).ask(requests(5))
    assert len(server.calls) == 2


def test_the_bill_is_said_before_the_first_call(server):
    said = []
    server.on_call = lambda index: said.append(f"call {index}")
    judge = Judge(config(server, concurrency=1, prices=PRICES), say=said.append)
    judge.ask(requests(2))
    # 10 characters: 4 tokens, 8 for the message; replies of 10 tokens at most
    assert said[0] == (
        "judge judge: 2 calls, 0 verdicts are kept; about 24 tokens of prompts, at most 20 of replies,"
        " at most 0.04 USD"
    )
    assert said[1:] == ["call 0", "call 1", "judge judge: 2 calls"]
    assert judge.summary(requests(2), judge.ask(requests(2)))["cost"] == 0.22


@pytest.mark.parametrize("concurrency", [1, 3])
def test_max_cost_stops_before_it_is_passed_and_the_rerun_goes_on(server, tmp_path, concurrency):
    """Calls cost 0.11 and may cost 0.12: of 0.57 four are spent, and a fifth may cost 0.44 + 0.12."""
    ledger = tmp_path / "ledger.json"
    server.answer = lambda body: completion(echo(body), usage=(102, 10))  # 0.112
    asked = [
        {"messages": [{"role": "user", "content": f"{i:03}" + 300 * "x"}], "max_tokens": 10} for i in range(8)
    ]  # 303 characters: 101 + 8 + 10 tokens, 0.119 at most
    limited = config(server, concurrency=concurrency, max_cost=0.57, prices=PRICES)
    with pytest.raises(JudgeError, match=r"0.5600 USD have been spent and the next call may cost 0.1190"):
        Judge(limited, ledger).ask(asked)
    assert len(server.calls) == 5  # 4 x 0.112 + 0.119 = 0.567 fits, 5 x 0.112 + 0.119 does not
    with pytest.raises(JudgeError, match=r"5 of 8 verdicts are kept: raise max_cost"):
        Judge(limited, ledger).ask(asked)
    assert len(server.calls) == 5
    raised = config(server, concurrency=concurrency, max_cost=1, prices=PRICES)
    assert None not in Judge(raised, ledger).ask(asked)
    assert len(server.calls) == 8
    assert json.loads(ledger.read_text())["spent"] == pytest.approx(8 * 0.112)


def test_what_is_not_charged_does_not_count(server, tmp_path):
    server.faults = {0: FAULTS["server error"], 1: FAULTS["rate limited"], 2: EMPTY}
    Judge(config(server, max_cost=9, prices=PRICES), tmp_path / "ledger").ask(requests(1))
    assert json.loads((tmp_path / "ledger").read_text())["spent"] == pytest.approx(0.10 + 0.11)


KILLED = """
    import json, sys
    from pathlib import Path
    from expoflow.config.benchmarks import JudgeConfig
    from expoflow.benchmarks.judge.judge import Judge
    settings, requests = json.load(sys.stdin)
    Judge(JudgeConfig(**settings), Path("ledger.json")).ask(requests)
"""


def test_killed_after_7_of_20_the_rerun_makes_13_calls(server, tmp_path):
    """SIGKILL while the answer to the eighth call is under way; what was sent before is kept."""
    asked = requests(20)
    settings = config(server, concurrency=1, prices=PRICES).model_dump(mode="json")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED)], cwd=tmp_path, stdin=subprocess.PIPE, text=True
    )
    server.on_call = lambda index: os.kill(process.pid, signal.SIGKILL) if index == 7 else None
    process.communicate(json.dumps([settings, asked]))
    assert process.returncode == -signal.SIGKILL
    server.on_call = lambda index: None
    before = len(server.calls)
    judge = Judge(config(server, concurrency=1), tmp_path / "ledger.json")
    assert texts(judge.ask(asked)) == SAID
    assert before == 8
    assert len(server.calls) - before == 13
    # the call under way stays counted with what it might have cost
    assert json.loads((tmp_path / "ledger.json").read_text())["spent"] == pytest.approx(7 * 0.11 + 0.022)


BAD = {
    "a ceiling without a price": (
        {"model": "mine", "max_cost": 1},
        "judge: max_cost needs the price of 'mine'; add prices: {'mine': {input: USD, output: USD}}",
    ),
    "a password in the address": (
        {"base_url": "https://me:secret@host/v1"},
        "judge.base_url: an endpoint is an address such as",
    ),
    "no address": ({"base_url": "localhost"}, "judge.base_url: an endpoint is an address such as"),
    "a key instead of its variable": (
        {"api_key_env": "sk-secret"},
        "judge.api_key_env: names an environment variable such as OPENAI_API_KEY; do not put the key itself here",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_judge_is_told_with_its_remedy(case):
    settings, expected = BAD[case]
    section = {"mt_bench": {"data": "files", "judge": settings}}
    with pytest.raises(ConfigError) as told:
        parse(SMALL | {"benchmarks": section})
    assert told.value.problems[0].startswith(f"benchmarks.mt_bench.{expected}")
    assert "secret" not in str(told.value)


def test_a_result_does_not_depend_on_costs_and_patience():
    plain = MtBenchBenchmark(data="files")
    changed = JudgeConfig(api_key_env="MINE", max_cost=3, concurrency=1, timeout=1, retries=0, backoff=9)
    assert MtBenchBenchmark(data="files", judge=changed).identity() == plain.identity()
    assert MtBenchBenchmark(data="files", judge=JudgeConfig(model="other")).identity() != plain.identity()
    assert MtBenchBenchmark(data="files", max_tokens=9).identity() != plain.identity()
