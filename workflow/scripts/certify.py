"""Judge a pair's choice on prompts that took no part in it."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import SelectConfig
    from expoflow.files.records import read_json, read_jsonl, write_json
    from expoflow.paths import RESULTS
    from expoflow.reporting.words import certificate_words
    from expoflow.results import BenchmarkResult, Best, Scored, read_prompts
    from expoflow.selection import certificate, tables

    params, inputs = snakemake.params, snakemake.input
    best = read_json(inputs.best, Best)
    config = SelectConfig.model_validate_json(params.config)
    chose, held_out = {prompt.prompt_id for prompt in read_prompts(inputs.chose)}, None
    if inputs.get("expo"):
        rows = [read_jsonl(path, Scored) for path in (inputs.expo, inputs.aligned)]
        gain = read_json(inputs.compared, BenchmarkResult).metric("reward").value
        held_out = certificate.on_test(gain, *rows, chose, config, params.seed)
    elif inputs.get("rewards"):
        swept = tables.read_swept(best.pair, inputs.rewards, inputs.get("likelihoods", []), ("0", best.alpha))
        held_out = certificate.on_part(best.pair, best.alpha, *swept, config, params.seed)
    names = (params.chosen_on, params.judged_on)
    found = certificate.certify(best, held_out, chose, RESULTS.looks(best.pair), config, *names)
    if params.get("rehearsal"):
        found = found.model_copy(update={"rehearsal": params.rehearsal, "certified": False})
    write_json(Path(snakemake.output.certificate), found)
    say(f"{best.pair}: {certificate_words(found)}")
