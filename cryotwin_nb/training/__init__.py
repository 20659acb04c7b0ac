"""Rate-distortion training (Eq. 3 of the cryoTWIN paper): the objective, epochs, checkpoints, exact resume."""

from cryotwin_nb.training.config import TrainingConfig
from cryotwin_nb.training.fitting import fit
from cryotwin_nb.training.objective import has_bfloat16, objective
from cryotwin_nb.training.warm_start import warm_start

__all__ = ["TrainingConfig", "fit", "has_bfloat16", "objective", "warm_start"]
