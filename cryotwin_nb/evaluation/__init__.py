"""How good is a model? Isometry, fit of the prior, a map of the latents, scores against a ground truth.

Every function takes arrays, a mixture or a decode function, so that it also works on another program's results.
"""

from cryotwin_nb.evaluation.density import held_out_log_likelihood, kl_divergence, kl_lower_bound, kl_neighbours
from cryotwin_nb.evaluation.embedding import Embedding, embed_tsne
from cryotwin_nb.evaluation.intervals import Interval, interval
from cryotwin_nb.evaluation.labels import components_of_labels, confusion, label_components, read_labels, write_labels
from cryotwin_nb.evaluation.metric import (
    Decode,
    Isometry,
    isometry,
    metric_tensors,
    principal_axes,
    relaxed_distortion,
)
from cryotwin_nb.evaluation.path_scores import (
    CurveDistance,
    RouteScores,
    curve_distance,
    kendall_tau,
    latents_at,
    path_block_order,
    route_scores,
)
from cryotwin_nb.evaluation.truth_scores import (
    block_occupancies,
    block_order,
    component_of_state,
    coordinate_r2,
    fsc_of_images,
    fsc_to_truth,
    passing_step,
    r2_interval,
    true_block_orders,
)

__all__ = [
    "CurveDistance",
    "Decode",
    "Embedding",
    "Interval",
    "Isometry",
    "RouteScores",
    "block_occupancies",
    "block_order",
    "component_of_state",
    "components_of_labels",
    "confusion",
    "coordinate_r2",
    "curve_distance",
    "embed_tsne",
    "fsc_of_images",
    "fsc_to_truth",
    "held_out_log_likelihood",
    "interval",
    "isometry",
    "kendall_tau",
    "kl_divergence",
    "kl_lower_bound",
    "kl_neighbours",
    "label_components",
    "latents_at",
    "metric_tensors",
    "passing_step",
    "path_block_order",
    "principal_axes",
    "r2_interval",
    "read_labels",
    "relaxed_distortion",
    "route_scores",
    "true_block_orders",
    "write_labels",
]
