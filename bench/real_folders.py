"""Compare expoflow and mergekit on folders as they really occur.

They have ties that only the class knows, old names, leftover files, or adapters.

    python bench/real_folders.py --mergekit VENV [--only NAME ...]

Prints a Markdown table like that of bench/hazards.py. A cell has "error: ..." with the last line of
the message, or says how the output, as plain transformers loads it, compares with the formula in
float64. mergekit merges by task_arithmetic with the weight 1.5, in float32.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/architectures"))
import trials
from folders import FOLDERS, State, loaded, made


def outcome(name: str, root: Path, command: list[str], pair: tuple[State, State]) -> str:
    environment = {
        **os.environ,
        "EXPOFLOW_STORE": str(root / "store"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    lines = [line.strip(" │╰╯─") for line in (done.stdout + done.stderr).splitlines() if line.strip(" │╰╯─")]
    if done.returncode:
        told = lines[0] if lines[0].startswith("expoflow: ") else lines[-1]
        return f"error: {told.removeprefix('expoflow: ').replace(f'{root}/', '')[:300]}"
    try:
        theta2, random = loaded(FOLDERS[name][0], root / "out")
    except Exception as error:
        return f"writes what cannot be loaded: {str(error).splitlines()[0][:100]}"
    if random:
        return f"writes a model of which {random}"
    far = trials.differing(*pair, theta2, rounding=2**-18)  # mergekit adds an adapter in float32
    return f"far from the formula: {far}" if far else "the formula"


def command_of(tool: str, root: Path, venv: Path) -> list[str]:
    sft, aligned, out = (str(root / name) for name in ("sft", "aligned", "out"))
    if tool == "expoflow":
        where = ["--sft", sft, "--aligned", aligned, "--out", out]
        return [sys.executable, "-m", "expoflow.cli", "extrapolate", "--alpha", str(trials.ALPHA), *where]
    adapter = (root / "aligned/adapter_config.json").exists()
    recipe = root / "merge.yaml"
    recipe.write_text(
        f"merge_method: task_arithmetic\nbase_model: {sft}\ndtype: float32\n"
        f"models:\n- model: {f'{sft}+' * adapter}{aligned}\n  parameters: {{weight: {1 + trials.ALPHA}}}\n"
    )
    cache = str(root / "merged-adapters")
    return [str(venv / "bin/mergekit-yaml"), str(recipe), out, "--quiet", "--lora-merge-cache", cache]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mergekit", type=Path, help="a venv that has mergekit; expoflow alone without it")
    parser.add_argument("--only", nargs="+", choices=FOLDERS)
    arguments = parser.parse_args()
    tools = ["expoflow", "mergekit"] if arguments.mergekit else ["expoflow"]
    print(f"| what a folder has | {' | '.join(tools)} |\n|{' --- |' * (len(tools) + 1)}")
    for name in arguments.only or FOLDERS:
        cells = []
        for tool in tools:
            with (
                tempfile.TemporaryDirectory() as folder,
                redirect_stdout(io.StringIO()),
                redirect_stderr(io.StringIO()),
            ):
                root = Path(folder)
                pair = made(name, root)
                cells.append(outcome(name, root, command_of(tool, root, arguments.mergekit), pair))
        print(f"| {name} | {' | '.join(cell.replace('|', '/') for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
