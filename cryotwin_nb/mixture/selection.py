"""Search for the best mixture for a set of latents, and for its number of components by held-out likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from cryotwin_nb.mixture.clusters import clusters
from cryotwin_nb.mixture.components import Components, halves
from cryotwin_nb.mixture.em import Latents, expectation_maximisation
from cryotwin_nb.mixture.groups import arrange

_STRENGTHS = (0.5, 2.0, 8.0, 32.0)  # strengths to try for the covariance prior, in units of d latents
_BROAD = 1e-3  # share of a broad Gaussian in held-out densities, which limits the influence of a single latent

Score = Callable[[int, int], Tensor]
"""Maps a rung of the ladder and a level of strength to the held-out log-likelihood of each group (m,), nats."""


@dataclass(frozen=True)
class Search:
    """Search for the best mixture for a set of latents."""

    deviation: Tensor  # standard deviations (d,) of the latents along the axes of x
    generator: torch.Generator
    n_init: int
    max_iter: int
    tol: float

    def best(self, latents: Latents, count: int, strength: float) -> Components:
        """Return the best mixture from several starts: run each briefly, then the most likely one to convergence.

        Half of the starts use k-means in the original coordinates, the other half in whitened coordinates.
        """
        results, brief = [], max(1, self.max_iter // 10)
        for k in range(self.n_init):
            start = clusters(latents, count, self.deviation ** (k % 2), strength, self.generator)
            results.append(expectation_maximisation(latents, start, strength, brief, 10 * self.tol))
        best = max(results, key=lambda result: result[1])[0]
        best = _revive(best, float(latents.weights.sum()))
        return expectation_maximisation(latents, best, strength, self.max_iter, self.tol)[0]

    def select(self, latents: Latents, number: Tensor, bound: int, progress: bool) -> tuple[int, float]:
        """Return the smallest number of components within one standard error of the best, and the prior strength.

        Latents of one group, by its `number` (n,), are held out together.

        First the number of components increases at a fixed strength until two successive steps bring no improvement.
        Then the number and the strength are varied until no neighbour on the grid is better. The result is the most
        parsimonious choice within one standard error (Breiman et al. 1984) of this best one: the smallest number, and
        with it the largest strength, whose held-out log-likelihoods are lower by at most the standard error of the mean
        difference between groups.
        """
        n = int(number.max()) + 1
        if n < 8:
            return 1, _STRENGTHS[1]
        rungs = _ladder(min(bound, n // 2))
        score = cache(self._score(latents, number, rungs, progress))

        def mean(rung: int, level: int) -> float:
            inside = 0 <= rung < len(rungs) and 0 <= level < len(_STRENGTHS)
            return float(score(rung, level).mean()) if inside else -math.inf

        best, level = 0, 1
        for rung in range(len(rungs)):
            best = max(best, rung, key=lambda r: mean(r, level))
            if rung == best + 2:
                break
        while True:
            steps = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1))
            top = max(((best + i, level + j) for i, j in steps), key=lambda place: mean(*place))
            if top == (best, level):
                break
            best, level = top
        rung, level = _parsimonious(score, best, level)
        return rungs[rung], _STRENGTHS[level]

    def _score(self, latents: Latents, number: Tensor, rungs: list[int], progress: bool) -> Score:
        """Return the function that fits mixtures to most groups and scores them on the others."""
        n = int(number.max()) + 1
        rows, place = (t.to(latents.x.device) for t in arrange(number, torch.randperm(n, generator=self.generator)))
        fold, n_folds = place % 4, min(4, max(1, round(10_000 / n)))
        folds = [(rows[fold == i], place[fold == i], latents.subset(rows[fold != i])) for i in range(n_folds)]
        brief = replace(self, n_init=max(2, self.n_init // 2), max_iter=max(1, self.max_iter // 3), tol=10 * self.tol)
        dim = latents.x.shape[1]
        broad = math.log(_BROAD) - 0.5 * (latents.x.square().sum(1) + dim * math.log(2 * math.pi))
        jacobian = float(self.deviation.log().sum())

        def score(rung: int, level: int) -> Tensor:
            count, strength = rungs[rung], _STRENGTHS[level]
            parts = []
            for held_out, group, train in folds:
                test, mixture = latents.subset(held_out), brief.best(train, count, strength)
                log_prob = torch.logaddexp(test.log_prob(mixture) + math.log1p(-_BROAD), broad[held_out]) - jacobian
                sums = log_prob.new_zeros(2, n).index_add_(1, group, torch.stack([log_prob, torch.ones_like(log_prob)]))
                parts.append(sums[:, sums[1] > 0])
            sums = torch.cat(parts, dim=1)
            values = sums[0] / sums[1].mean()
            if progress:
                trial = f"{count} components, prior strength {strength:g}"
                print(f"{trial}: held-out log-likelihood {float(values.mean()):.3f} nats per latent")
            return values

        return score


def _parsimonious(score: Score, best: int, level: int) -> tuple[int, int]:
    """Return the lowest rung, and on it the highest level, within one standard error of the best choice."""
    top, chosen = score(best, level), (best, level)

    def close(rung: int, at: int) -> bool:
        lost = top - score(rung, at)
        return float(lost.mean()) <= float(lost.std()) / len(lost) ** 0.5

    for rung in range(best - 1, -1, -1):
        levels = [at for at in (chosen[1], chosen[1] + 1) if at < len(_STRENGTHS) and close(rung, at)]
        if not levels:
            break
        chosen = rung, levels[-1]
    while chosen[1] + 1 < len(_STRENGTHS) and close(chosen[0], chosen[1] + 1):
        chosen = chosen[0], chosen[1] + 1
    return chosen


def _ladder(bound: int) -> list[int]:
    """Return the numbers of components to try: 1, 2, 3, 4, 6, 8, 11, 16, ... and the bound."""
    rungs = sorted({round(2 ** (k / 2)) for k in range(64)})
    return [count for count in rungs if count < bound] + [bound]


def _revive(mixture: Components, n: float) -> Components:
    """Replace each component whose mass is below one latent by half of the component with the largest weight."""
    weights, means, covariances = mixture.weights.clone(), mixture.means.clone(), mixture.covariances.clone()
    for dead in (weights * n < 1).nonzero().flatten().tolist():
        heaviest = int(weights.argmax())
        weights[[heaviest, dead]] = (weights[heaviest] + weights[dead]) / 2
        means[[heaviest, dead]], narrower = halves(means[heaviest], covariances[heaviest], 0.5)
        covariances[[heaviest, dead]] = narrower
    return Components(weights, means, covariances)
