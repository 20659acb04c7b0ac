"""Why paths of Algorithm 1 leave the images: how near they can pass, and how far their candidates lie."""

from __future__ import annotations

import itertools
from itertools import product

import numpy as np
import torch
from algorithm1_judge import ENDS, LEAST, OMEGAS, Judge, K, fitted
from algorithm1_latents import simulated

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.pathways.ridgeline import _ridge_points, _shares, equidistant


def geometry(n_grid: int = 7, n_between: int = 4) -> dict:
    """Return bounds for paths of Algorithm 1 if all components have the same covariance.

    Each point is then an average of the means with the weights alpha: the occupancy of each block that C2 lacks and E4
    has lies between alpha_j and 1 - alpha_i. For each omega: the steps at which a block can pass one half, and the
    smallest possible value of the largest distance between path and planted route, in units of the spacing, with the
    blocks as equal and perpendicular edges (minimax over a grid of points in these cubes, by dynamic programming).
    """
    corners = [np.array(route, float) for route in ([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]],
                                                    [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]])]  # fmt: skip
    between = np.linspace(0, 1, n_between + 1)[1:, None, None, None]
    axis = np.linspace(0, 1, n_grid)
    unit = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    found = {}
    for omega in (*OMEGAS, 1000.0):
        cosine = np.cos(np.pi * np.arange(1, K) / (2 * K))
        leaving, arriving = cosine, (1 - cosine) ** omega
        points, cost = [np.zeros((1, 3))], np.zeros(1)
        for low, high in [*zip(arriving, 1 - leaving, strict=True), (1, 1)]:
            points.append(low + (high - low) * (unit if high > low else unit[-1:]))
            here, there = points[-2][None, :, None], points[-1][None, None, :]
            path = here + between * (there - here)
            away = np.min([_distance(path.reshape(-1, 3), route) for route in corners], axis=0)
            away = away.reshape(path.shape[:3]).max(0)
            cost = np.maximum(cost[:, None], away).min(0)
        found[f"{omega:g}"] = {
            "first step at which a block can pass one half": int(np.flatnonzero(1 - leaving >= 0.5)[0]) + 1,
            "last such step": int(np.flatnonzero(np.append(arriving, 1) >= 0.5)[0]) + 1,
            "largest distance from the route, at best": round(float(cost.min()), 3),
        }
    line = np.linspace(0, 1, 201)[:, None] * np.ones(3)
    away = np.min([_distance(line, route) for route in corners], axis=0).max()
    return found | {"straight line": {"largest distance from the route": round(float(away), 3)}}


def _distance(points: np.ndarray, route: np.ndarray) -> np.ndarray:
    """Return the distance (m,) of points (m, 3) from a polyline (k, 3)."""
    away = []
    for start, stop in itertools.pairwise(route):
        share = ((points - start) @ (stop - start) / ((stop - start) @ (stop - start))).clip(0, 1)
        away.append(np.linalg.norm(points - start - share[:, None] * (stop - start), axis=1))
    return np.min(away, axis=0)


def candidates(snr: float = 1.0, components: int = 100) -> dict:
    """Return where the candidates lie, for the means of an EM fit with covariances of a chosen spread of widths.

    Component c gets the isotropic covariance w_c^2 with log w_c normal, of standard deviation `spread` and median equal
    to the noise; a common factor of all widths does not change any candidate. `own` keeps the covariances of the fit.
    Per case, over all steps: the share of start and end in the precision; the number of other components that share
    the rest (inverse participation ratio); the root-mean-square deviation of the candidates from their mean at the same
    step; their median distances from the nearest latent and from the planted routes (all in units of the spacing); and
    the share of candidates with at least 20 latents within the radius.
    """
    latents = simulated(8000, snr, 0)
    judge = Judge(latents)
    fit = fitted(latents, n_components=components, select=False, n_init=1, seed=0)
    ends = [evaluation.component_of_state(fit, latents.z, latents.truth.labels, state) for state in ENDS]
    draw = torch.randn(components, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[: fit.n_components]
    rows = []
    for spread, omega, concentration in product(("own", 0.0, 0.5, 1.0, 2.0), (2.0, 16.0), (1.0, 0.01)):
        prior = fit
        if spread != "own":
            widths = latents.noise * (float(spread) * draw).exp()
            covariances = widths[:, None, None] ** 2 * torch.eye(fit.latent_dim).double()
            prior = ct.GaussianMixture(fit.weights, fit.means, covariances)
        shares = _shares(prior.n_components, *ends, K, omega, 200, 0, concentration)
        points = _ridge_points(prior, shares)
        pull = shares * torch.linalg.inv(prior.covariances).diagonal(dim1=-2, dim2=-1)[:, :5].sum(-1)
        held = pull[..., ends].sum(-1) / pull.sum(-1)
        pull[..., ends] = 0
        others = pull.sum(-1).square() / pull.square().sum(-1)
        flat = points.flatten(0, 1).numpy()
        near = judge.tree.query_ball_point(flat, judge.radius, return_length=True)
        dense = torch.cat([equidistant(route, 200) for route in judge.routes])
        away = torch.cdist(points.flatten(0, 1), dense).amin(1)
        rows.append({
            "spread of log widths": spread,
            "omega": omega,
            "concentration": concentration,
            "share of start and end in the precision": round(float(held.median()), 2),
            "others that share the rest": round(float(others.median()), 1),
            "cloud": round(float((points - points.mean(1, keepdim=True))[..., :5].square().sum(-1).mean().sqrt())
                           / latents.spacing, 3),
            "distance from latents": round(float(np.median(judge.tree.query(flat)[0])) / latents.spacing, 3),
            "distance from routes": round(float(away.median()) / latents.spacing, 3),
            "share with 20 latents": round(float((near >= LEAST).mean()), 3),
        })  # fmt: skip
        print(rows[-1], flush=True)
    scale = latents.spacing, latents.noise, judge.radius
    return {"snr": snr, "spacing, noise, radius": [round(x, 2) for x in scale], "cases": rows}
