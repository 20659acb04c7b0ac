"""A small network that starts at zero, with its Jacobian: how coefficients may bend away from a linear map."""

from __future__ import annotations

from torch import Tensor, nn


class Curve(nn.Module):
    """A small network R^d -> R^K that starts at zero, and its Jacobian."""

    def __init__(self, n_in: int, width: int, n_out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(n_in, width), nn.Linear(width, width)
        self.last = nn.Linear(width, n_out, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (m, K) and Jacobians (m, K, d) at x (m, d)."""
        h = self.first(x).tanh()
        jacobian = (1 - h.square())[..., None] * self.first.weight
        h = self.second(h).tanh()
        jacobian = (1 - h.square())[..., None] * (self.second.weight @ jacobian)
        return self.last(h), self.last.weight @ jacobian
