"""Time to evaluate 20,000 latents: python benchmarks/evaluation_speed.py.

The latents are samples of the stored model of assembly-small. Writes benchmarks/results/evaluation_speed.json.
"""

from __future__ import annotations

import time
from pathlib import Path

from common import machine, write_results

import cryotwin_nb as ct
from cryotwin_nb import evaluation

N = 20_000


def main() -> None:
    model = ct.CryoTwin.load(Path(__file__).parents[1] / "notebooks" / "models" / "assembly-small.safetensors")
    z, prior = model.prior.sample(N), model.prior
    parts = {
        "KL by KLIEP": lambda: ct.kl_divergence(z, prior),
        "KL by neighbours": lambda: evaluation.kl_neighbours(z, prior),
        "isometry": lambda: ct.isometry(model, z, progress=True),
        "t-SNE": lambda: ct.embed_tsne(z, prior, progress=True),
    }
    seconds = {}
    for name, part in parts.items():
        began = time.perf_counter()
        part()
        seconds[name] = round(time.perf_counter() - began, 1)
    results = {"machine": machine(), "latents": N, "seconds": seconds, "in all": round(sum(seconds.values()), 1)}
    write_results("evaluation_speed", results)
    print(results)


if __name__ == "__main__":
    main()
