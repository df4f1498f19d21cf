"""Measure how often a certified gain is false, by replaying the choice of alpha without any effect.

    python bench/null.py [--draws 1000] [--figures docs]
    python bench/null.py --make --results results --work DIR

The first command prints the tables of docs/certificate.md, and with `--figures` draws its two
figures, which also show how often a true gain is found. The second makes the worlds
(tests/sweeps.csv) again: the sweeps of a finished default run in `--results`, and one with noise as
its delta, of the same size in every tensor as the real one.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

import replay  # noqa: E402

PAIR, SFT, ALIGNED = "mini20", "mini-sft", "mini-dpo20"
LABELS = {
    "pointwise": "the chosen alpha's own interval",
    "simultaneous": "on the same prompts: for all alphas at once",
    "certificate": "the certificate: on other prompts",
}
STYLES = {
    "pointwise": ("#999999", "s", ":"),
    "simultaneous": ("#0072B2", "D", "--"),
    "certificate": ("#D55E00", "^", "-"),
}
GRIDS = (1, 2, 3, 5, 10, 20)
EFFECTS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


def make(results: Path, work: Path) -> None:
    """Write tests/sweeps.csv, with a row per prompt of every sweep and a column per alpha."""
    import pandas as pd

    noise = _noise(results.resolve(), work)
    table = pd.concat([pd.read_csv(path / "rewards.csv", dtype={"alpha": str}) for path in (results, noise)])
    means = table.groupby(["pair", "prompt_id", "alpha"], sort=False)["reward"].mean().unstack()
    columns = sorted((alpha for alpha in means.columns if float(alpha) >= 0), key=float)
    means[columns].reset_index(level="pair").to_csv(replay.TABLES, index=False, float_format="%.4f")


def _noise(results: Path, work: Path) -> Path:
    """Return the results of a sweep along noise: the SFT model is the aligned model minus noise."""
    import shutil

    import torch
    import yaml
    from safetensors.torch import load_file, save_file

    models = results / "models"
    aligned = load_file(models / ALIGNED / "model.safetensors")
    before = load_file(models / SFT / "model.safetensors")
    random = torch.Generator().manual_seed(1)
    work.mkdir(parents=True, exist_ok=True)
    shutil.copytree(models / ALIGNED, work / "noisy", dirs_exist_ok=True)
    for name, tensor in aligned.items():
        size = (tensor - before[name]).norm() / tensor.numel() ** 0.5
        before[name] = tensor - size * torch.randn(tensor.shape, generator=random)
    save_file(before, work / "noisy/model.safetensors", {"format": "pt"})
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    made = {
        "models": {
            "noisy": {"path": "noisy"},
            "aligned": {"path": str(models / ALIGNED)},
            "reward": {"path": str(models / config["reward_model"])},
        },
        "pairs": {"noise": {"sft": "noisy", "aligned": "aligned", "alphas": config["pairs"][PAIR]["alphas"]}},
        "prompts": {"dev": config["prompts"]["dev"]},
        "reward_model": "reward",
        "generate": config["generate"],
    }
    (work / "noise.yaml").write_text(yaml.safe_dump(made))
    command = [*(sys.executable, "-m", "snakemake", "--cores", "all", "--configfile", "noise.yaml")]
    command += ["--snakefile", REPOSITORY / "Snakefile", "--directory", ".", "results/rewards.csv"]
    subprocess.run(
        command, cwd=work, check=True, env=os.environ | {"EXPOFLOW_STORE": str(work.resolve() / "store")}
    )
    return work / "results"


def grid_world(alphas: int) -> replay.World:
    """Return a world without effect that has `alphas` alphas.

    The first real table has few alphas, so those in between are mixtures of their neighbours.
    """
    world = replay.read()[PAIR].scaled(0)
    places = np.linspace(1, len(world.alphas) - 1, alphas) if alphas > 1 else np.array([2.0])
    rng = np.random.default_rng(0)
    columns = [world.rewards[:, 0]]
    for place in places:
        lower = min(int(place), len(world.alphas) - 2)
        share = place - lower
        mixed = rng.random(len(world.rewards)) < share
        columns.append(np.where(mixed, world.rewards[:, lower + 1], world.rewards[:, lower]))
    rewards = np.stack(columns, axis=1)
    names = tuple(str(number) for number in range(alphas + 1))
    return replay.World(f"{alphas} alphas", names, rewards).scaled(0)


def measure(draws: int) -> None:
    """Print false certificates and coverage as Markdown tables."""
    worlds = replay.read()
    print(f"\n{draws} draws each; nominal {replay.NOMINAL:.1%}, at most {replay.most(draws):.1%} by chance\n")
    _row("without effect", "extrapolates", "gain looks better by", "bootstrap's estimate", *replay.WAYS)
    _row(*["---"] * 7)
    for kind, own in replay.without_effect(worlds).items():
        found = replay.replay(own, draws)
        rates = replay.certified(found)
        chosen = np.mean([draw.chosen > 0 for draw in found])
        _row(kind, f"{chosen:.0%}", *_bias(found), *(f"{rates[way]:.1%}" for way in replay.WAYS))
    print()
    _row(
        "real gains",
        "coverage, all alphas at once",
        "coverage, certificate",
        "gain looks better by",
        "estimate",
    )
    _row(*["---"] * 5)
    for name, world in worlds.items():
        if name != "noise":
            found = replay.replay([world], draws)
            _row(name, *(f"{share:.1%}" for share in replay.coverage(found)), *_bias(found))
    shares = replay.looking_again(grid_world(10), draws, 10)
    print("\nlooking again at the same test prompts, one more alpha each time, no effect:")
    print(", ".join(f"{share:.1%}" for share in shares), flush=True)


def _bias(found: list[replay.Draw]) -> tuple[str, str]:
    """Print how much the choice's gain is overestimated, and the bootstrap's estimate of that."""
    bias = np.mean([draw.gain - draw.true for draw in found])
    return f"{bias:.3f}", f"{np.mean([draw.optimism for draw in found]):.3f}"


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def figures(draws: int, folder: Path) -> None:
    """Draw certificate-false.png and certificate-power.png.

    They show false certificates against the number of alphas, and certificates against the true
    gain.
    """
    import matplotlib.pyplot as plt
    from expoflow.reporting.figures.style import STYLE, WIDTH

    plt.rcParams |= STYLE
    false = {alphas: replay.certified(replay.replay([grid_world(alphas)], draws)) for alphas in GRIDS}
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    for way, (colour, marker, dashes) in STYLES.items():
        shares = [100 * false[alphas][way] for alphas in GRIDS]
        axis.plot(GRIDS, shares, color=colour, marker=marker, ls=dashes, ms=5, label=LABELS[way])
    axis.axhline(100 * replay.NOMINAL, color="black", lw=0.8)
    axis.annotate(
        "what was promised: 2.5 %",
        (GRIDS[-1], 100 * replay.NOMINAL),
        ha="right",
        va="top",
        xytext=(0, -14),
        textcoords="offset points",
    )
    axis.set(
        xlabel="alphas tried (none of them is better than the aligned model)",
        ylabel="runs that certify\na gain (%)",
        xscale="log",
        ylim=(0, None),
    )
    axis.set_xticks(GRIDS, [str(alphas) for alphas in GRIDS])
    axis.minorticks_off()
    axis.legend(loc="upper left")
    figure.savefig(folder / "certificate-false.png", dpi=200)
    world = replay.read()[PAIR]
    gain = world.gains.max()
    power = {effect: replay.certified(replay.replay([world.scaled(effect)], draws)) for effect in EFFECTS}
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    for way, (colour, marker, dashes) in STYLES.items():
        shares = [100 * power[effect][way] for effect in EFFECTS]
        axis.plot(
            [effect * gain for effect in EFFECTS],
            shares,
            color=colour,
            marker=marker,
            ls=dashes,
            ms=5,
            label=LABELS[way],
        )
    axis.set(
        xlabel="true gain of the best alpha (reward, logit)",
        ylabel="runs that certify\na gain (%)",
        ylim=(0, 103),
    )
    axis.legend(loc="lower right")
    figure.savefig(folder / "certificate-power.png", dpi=200)
    print()
    _row("true gain", *replay.WAYS)
    _row(*["---"] * 4)
    for effect in EFFECTS:
        _row(f"{effect * gain:.2f}", *(f"{power[effect][way]:.0%}" for way in replay.WAYS))
    print()
    _row("alphas", *replay.WAYS)
    _row(*["---"] * 4)
    for alphas in GRIDS:
        _row(str(alphas), *(f"{false[alphas][way]:.1%}" for way in replay.WAYS))


def main() -> None:
    """Make the worlds, or measure in them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.make:
        make(options.results, options.work)
        return
    measure(options.draws)
    if options.figures:
        figures(options.draws, options.figures)


if __name__ == "__main__":
    main()
