"""Rate-distortion training: objective (Eq. 3 of the cryoTWIN paper), epochs, checkpoints and exact resumption."""

from cryotwin_nb.training.config import TrainingConfig
from cryotwin_nb.training.fitting import fit
from cryotwin_nb.training.objective import has_bfloat16, objective
from cryotwin_nb.training.warm_start import warm_start

__all__ = ["TrainingConfig", "fit", "has_bfloat16", "objective", "warm_start"]
