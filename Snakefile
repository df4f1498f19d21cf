# expoflow: SFT + aligned checkpoint -> extrapolate -> generate -> score -> choose alpha -> export ->
# benchmark -> report. The keys of a config: config/example.yaml and config/schema.json.
import os
import shutil
import sys

from snakemake.utils import min_version

min_version("9.27")


# A config given by --configfile is used alone: the miniature's pairs are not merged into it.
if not workflow.overwrite_configfiles:

    configfile:
        "config/config.yaml"
        if os.path.exists("config/config.yaml")
        else f"{workflow.basedir}/config/config.yaml"


include: "rules/common.smk"
include: "rules/models.smk"
include: "rules/prompts.smk"
include: "rules/extrapolate.smk"
include: "rules/generate.smk"
include: "rules/score.smk"
include: "rules/select.smk"
include: "rules/benchmark.smk"
include: "rules/answers.smk"
include: "rules/report.smk"
include: "rules/claims.smk"


if CONFIG.limit:

    include: "rules/rehearsal.smk"


if CONFIG.theory:

    include: "rules/theory.smk"


# These rules are too small to wait for a node. On a cluster they run beside Snakemake.
localrules:
    all,
    prompts,
    preflight,
    tables,
    certify,
    benchmark_table,
    paper_tables,
    appendices,
    report,


rule all:
    default_target: True
    input:
        RESULTS_OF_ALL,


onstart:
    begin_run()


onsuccess:
    shutil.rmtree("results/partial", ignore_errors=True)
    kept.forget()
    print(last_screen(), file=sys.stderr)
    if words := tracking.send(CONFIG):
        print(words, file=sys.stderr)


# With --keep-going a failed benchmark leaves a gap in the tables, then made in results/partial.
onerror:
    if not WORDS.interrupted:
        print(words_of_failure(), file=sys.stderr)


report: "rules/captions/workflow.rst"
