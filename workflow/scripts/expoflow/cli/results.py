"""`expoflow benchmark` and `expoflow claims`: tables and pages from finished runs."""

import argparse
from pathlib import Path


def benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=("alpaca_eval",), help="the benchmark")
    parser.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE.csv",
        help="CSV with index (position among the 805 instructions), preference (1 to 2), len_baseline and len_model;"
        " or a result's alpaca_eval.generations.jsonl",
    )
    parser.add_argument(
        "--df-gamed",
        type=Path,
        metavar="FILE.csv",
        help="df_gamed.csv of the dataset tatsu-lab/alpaca_eval, for the length-controlled win rate",
    )
    parser.add_argument(
        "--instruction-difficulty",
        type=Path,
        metavar="FILE.csv",
        help="the dataset's instruction_difficulty.csv; must agree with --df-gamed",
    )


def benchmark(arguments: argparse.Namespace) -> int:
    import json

    from expoflow.benchmarks.alpaca_eval import win_rates

    if arguments.df_gamed and arguments.instruction_difficulty:
        win_rates.check_difficulty(arguments.df_gamed, arguments.instruction_difficulty)
    verdicts = win_rates.read_annotations(arguments.annotations)
    print(json.dumps(win_rates.win_rates(verdicts, arguments.df_gamed), indent=2))
    return 0


def claims_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="a run's folder, with results/claims.csv; one per seed. Without RUN, the page is written again "
        "from measures.csv in the folder with the page's name",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the page; its details, table and figures go into a folder with the same name",
    )
    parser.add_argument(
        "--notes",
        type=Path,
        metavar="FILE",
        help="Markdown for the page; its first paragraph ends the summary, the rest goes before the figures",
    )


def claims(arguments: argparse.Namespace) -> int:
    from expoflow.claims import page

    runs = page.write_page(arguments.runs, arguments.out, arguments.notes)
    print(f"{arguments.out}: the claims over {len(runs)} runs")
    return 0
