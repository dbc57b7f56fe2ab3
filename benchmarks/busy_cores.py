"""Training beside other programs on the same cores: how OpenMP's threads wait, by its default and by ours.

Run it as ``python benchmarks/busy_cores.py``. A head of RINE's is trained on random features in processes of their
own, in turn by both ways of waiting, beside as many programs that keep a core busy as `--others` says. A ratio is that
of two times measured one after the other, in one round; its median over the rounds is printed with the quartiles.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import click
import numpy as np

from rine_cache.threads import SPINS

BY_DEFAULT, OURS = {}, {"GOMP_SPINCOUNT": str(SPINS)}


def train(steps: int) -> float:
    """Train a head on 12 blocks of width 768, P = 256; return seconds a step."""
    import torch

    from rine_cache.heads.head import FeatureIdentity, build_network
    from rine_cache.losses import bce_sum, supervised_contrastive_loss
    from rine_cache.specs.training import RineHeadSpec

    features = FeatureIdentity(encoder={}, tap="ln_2", block_count=12, token_width=768, embedding_width=None)
    network = build_network(RineHeadSpec(kind="rine", layers=2, width=256), features)
    optimiser = torch.optim.Adam(network.parameters())
    tokens, labels = torch.randn(128, 12, 768), torch.arange(128) % 2  # (B, K, D), (B,)
    for step in range(steps + 1):
        if step == 1:  # the first does not count
            start = time.perf_counter()
        output = network(tokens)
        loss = bce_sum(output.logit, labels) + 0.2 * supervised_contrastive_loss(output.z, labels, 0.07)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (time.perf_counter() - start) / steps


def in_a_process(waiting: dict[str, str], steps: int) -> float:
    """Train in a process that waits so; return seconds a step."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, __file__, "--alone", "--steps", str(steps)]
    return float(subprocess.run(command, env=kept | waiting, check=True, capture_output=True, text=True).stdout)


@click.command()
@click.option("--others", default=os.cpu_count() or 1, show_default=True, help="Programs that keep a core busy each.")
@click.option("--steps", default=20, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--alone", is_flag=True, help="Train once, here, and print seconds a step.")
def main(others: int, steps: int, rounds: int, *, alone: bool) -> None:
    """Print milliseconds a step by both ways of waiting, beside other programs and without, and their ratios."""
    if alone:
        click.echo(train(steps))
        return
    click.echo(f"{os.cpu_count()} CPU cores ({platform.machine()}), {rounds} rounds of {steps} steps")
    for busy in (0, others):
        hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            pairs = [(in_a_process(BY_DEFAULT, steps), in_a_process(OURS, steps)) for _ in range(rounds)]
        finally:
            for hog in hogs:
                hog.kill()
        default, ours = np.array(pairs).T  # (R,) each
        low, middle, high = np.quantile(default / ours, [0.25, 0.5, 0.75])
        click.echo(
            f"beside {busy} busy programs: {1e3 * np.median(default):8.1f} ms a step by default, "
            f"{1e3 * np.median(ours):8.1f} ms by {SPINS} turns: {middle:.2f} x [{low:.2f}, {high:.2f}]"
        )


if __name__ == "__main__":
    main()
