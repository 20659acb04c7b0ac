"""Search for the best mixture for a set of latents, and for its number of components by held-out likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from cryotwin_nb.mixture.clusters import clusters
from cryotwin_nb.mixture.components import Components, halves
from cryotwin_nb.mixture.em import Latents, expectation_maximisation
from cryotwin_nb.mixture.groups import arrange

_STRENGTHS = (0.5, 2.0, 8.0, 32.0)  # strengths to try for the covariance prior, in units of d latents


@dataclass(frozen=True)
class Search:
    """Search for the best mixture for a set of latents."""

    deviation: Tensor  # standard deviations (d,) of the latents along the axes of x, as in `_Frame`
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
        """Return the number of components and the prior strength with the highest held-out likelihood.

        Latents of one group, by its `number` (n,), are held out together.

        First the number of components increases at a fixed strength until two successive steps bring no improvement.
        Then the number and the strength are varied until no neighbour on the grid is better.
        """
        n = int(number.max()) + 1
        if n < 8:
            return 1, _STRENGTHS[1]
        rows, place = (t.to(latents.x.device) for t in arrange(number, torch.randperm(n, generator=self.generator)))
        fold, n_folds = place % 4, min(4, max(1, round(10_000 / n)))
        folds = [(latents.subset(rows[fold == i]), latents.subset(rows[fold != i])) for i in range(n_folds)]
        brief = replace(self, n_init=max(2, self.n_init // 2), max_iter=max(1, self.max_iter // 3), tol=10 * self.tol)
        rungs = _ladder(min(bound, n // 2))
        jacobian = float(self.deviation.log().sum())

        @cache
        def score(rung: int, level: int) -> float:
            if not (0 <= rung < len(rungs) and 0 <= level < len(_STRENGTHS)):
                return -math.inf
            count, strength = rungs[rung], _STRENGTHS[level]
            scores = [test.expect(brief.best(train, count, strength))[1] for test, train in folds]
            mean = sum(scores) / len(scores) - jacobian
            if progress:
                trial = f"{count} components, prior strength {strength:g}"
                print(f"{trial}: held-out log-likelihood {mean:.3f} nats per latent")
            return mean

        best, level = 0, 1
        for rung in range(len(rungs)):
            best = max(best, rung, key=lambda r: score(r, level))
            if rung == best + 2:
                break
        while True:
            steps = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1))
            top = max(((best + i, level + j) for i, j in steps), key=lambda place: score(*place))
            if top == (best, level):
                return rungs[best], _STRENGTHS[level]
            best, level = top


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
