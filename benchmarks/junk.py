"""Junk among good images: python benchmarks/junk.py [--sets adk ...] [--cases both ...] [--seeds 3] [--folder F].

Images of AdK and GluA3 from `outside.py`, which must be in the folder, and of `assembly`. A share of them is replaced
by junk of the same grey values and noise (`junk_images`): "recurring", another molecule of the same mass (8 %);
"mixed", noise, two particles, random poses and carbon edges (2 % each); "both". In "rare", 2 % of the images are a true
state that lacks a domain, and in "conformation" a true conformation has 2 %; both also contain all junk.

Each set is trained with the defaults and judged with `outlier_scores`. AUC: area under the ROC curve against good
images; `earlier` is the score before (residual and correlation), `density` the negative log prior density. The cut is
the default. "both" is trained again on the images that are kept. No number was chosen on GluA3.

Writes benchmarks/results/junk.json.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine, write_results
from junk_images import MIXED, GoodSet, JunkSet, adk, assembly, rare_conformation, spoiled
from sklearn.metrics import roc_auc_score

import cryotwin_nb as ct
from cryotwin_nb.evaluation.outliers import OutlierScores, standardised
from cryotwin_nb.pathways.states import assign

NUMBER = {"adk": 12_000, "glua3": 4000, "assembly": 4000}
RECURRING, EACH = {"recurring": 0.08}, dict.fromkeys(MIXED, 0.02)
CASES: dict[str, dict[str, float]] = {
    "clean": {},
    "recurring": RECURRING,
    "mixed": EACH,
    "both": RECURRING | EACH,
    "rare": RECURRING | EACH | {"rare": 0.02},
    "conformation": RECURRING | EACH,
}
_LEAST = 0.02  # share of the images of a true state whose losses are counted
_BINS = 12  # of the motions of AdK and GluA3, as true states


def good_images(name: str, folder: Path, seed: int) -> GoodSet:
    """Return the good images of a set; a random part of those that exist."""
    n = NUMBER[name]
    if name == "assembly":
        return assembly(n, seed)
    every = adk(folder / name, "base" if name == "adk" else "particles")
    rows = np.random.default_rng(seed).choice(len(every.frame), n, replace=False)
    return every.take(np.sort(rows))


def trained(particles: ct.Particles, seed: int) -> ct.CryoTwin:
    model = ct.CryoTwin(particles.box_size, seed=seed)
    ct.fit(model, particles, ct.TrainingConfig(seed=seed), progress=False)
    return model


def auc(found: np.ndarray, junk: np.ndarray, good: np.ndarray) -> float:
    rows = junk | good
    return round(float(roc_auc_score(junk[rows], found[rows])), 4)


def scored(junk: JunkSet, model: ct.CryoTwin, scores: OutlierScores, true_state: np.ndarray) -> dict[str, Any]:
    """Return AUCs, losses at the default cut, and which states are marked."""
    z = model.embed(junk.particles)
    density = -model.prior.log_prob(z.double()).detach().numpy()
    earlier = standardised(scores.residual) - standardised(scores.correlation)
    good, lost = ~junk.junk, np.ones(len(z), bool)
    lost[scores.kept] = False
    row: dict[str, Any] = {"good images lost": round(float(lost[good].mean()), 4)}
    parts = [true_state == state for state in np.unique(true_state[good])]
    row["largest loss of a true state"] = round(
        max(float(lost[part & good].mean()) for part in parts if (part & good).mean() >= _LEAST), 4
    )
    for kind in sorted(set(junk.kind[junk.junk].tolist())):
        own = junk.kind == kind
        named = {"AUC": scores.score, "earlier": earlier, "density": density}
        row[kind] = {name: auc(found, own, good) for name, found in named.items()}
        row[kind]["left out"] = round(float(lost[own].mean()), 4)
    if junk.junk.any():
        row["all junk"] = {
            "AUC": auc(scores.score, junk.junk, good),
            "left out": round(float(lost[junk.junk].mean()), 4),
        }
    states = assign(model.prior, scores.states, z)
    shares = [float(junk.junk[states == i].mean()) for i in range(len(scores.states))]
    row["states"] = len(shares)
    pairs = list(zip(scores.states, shares, strict=True))
    row["junk states"] = sum(share > 0.5 for share in shares)
    row["junk states marked"] = sum(state.junk and share > 0.5 for state, share in pairs)
    row["true states marked"] = sum(state.junk and share <= 0.5 for state, share in pairs)
    return row


def run(name: str, case: str, seed: int, folder: Path) -> dict[str, Any]:
    good = good_images(name, folder, seed)
    rare = np.zeros(len(good.frame), bool)
    if case == "conformation":
        good, rare = rare_conformation(good, seed)
    junk = spoiled(good, CASES[case], seed)
    moves = len(np.unique(good.masses, axis=0)) == 1
    states = good.frame * _BINS // len(good.structures) if moves else good.frame
    started = time.perf_counter()
    model = trained(junk.particles, seed)
    fitted = time.perf_counter()
    scores = ct.outlier_scores(model, junk.particles)
    seconds = [round(fitted - started, 1), round(time.perf_counter() - fitted, 1)]
    row = {"dimensions": model.latent_dim, "seconds to fit, to judge": seconds}
    row |= scored(junk, model, scores, states)
    lost = np.isin(np.arange(len(rare)), scores.kept, invert=True)
    for own in (junk.kind == "rare", rare & (junk.kind == "good")):
        if own.any():
            row["rare images lost"] = round(float(lost[own].mean()), 4)
    if case == "both":
        kept = junk.particles[scores.kept]
        again = trained(kept, seed)
        states = ct.find_states(again.prior, latents=again.embed(kept))
        row["trained again"] = {"dimensions": again.latent_dim, "states": len(states)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=NUMBER, default=list(NUMBER))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("outside"))
    options = parser.parse_args()
    stored = RESULTS / "junk.json"
    results: dict = json.loads(stored.read_text()) if stored.exists() else {}
    results["machine"] = machine()
    warnings.simplefilter("ignore")
    for seed in range(options.seeds):
        for name in options.sets:
            for case in options.cases:
                row = run(name, case, seed, options.folder)
                print(name, case, seed, row, flush=True)
                results.setdefault(name, {}).setdefault(case, {})[f"seed {seed}"] = row
                write_results("junk", results)


if __name__ == "__main__":
    main()
