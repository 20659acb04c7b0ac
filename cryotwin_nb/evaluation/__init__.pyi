from .blends import Blend as Blend
from .class_averages import ClassAverages as ClassAverages, class_averages as class_averages
from .density import (
    held_out_log_likelihood as held_out_log_likelihood,
    kl_divergence as kl_divergence,
    kl_lower_bound as kl_lower_bound,
    kl_neighbours as kl_neighbours,
)
from .differences import DensityDifference as DensityDifference
from .embedding import Embedding as Embedding, embed_tsne as embed_tsne
from .intervals import Interval as Interval, interval as interval
from .labels import (
    components_of_labels as components_of_labels,
    confusion as confusion,
    label_components as label_components,
    read_labels as read_labels,
    write_labels as write_labels,
)
from .metric import (
    Decode as Decode,
    Isometry as Isometry,
    isometry as isometry,
    metric_tensors as metric_tensors,
    principal_axes as principal_axes,
    relaxed_distortion as relaxed_distortion,
)
from .outliers import OutlierScores as OutlierScores, outlier_scores as outlier_scores
from .path_scores import (
    CurveDistance as CurveDistance,
    RouteScores as RouteScores,
    curve_distance as curve_distance,
    kendall_tau as kendall_tau,
    latents_at as latents_at,
    path_block_order as path_block_order,
    route_scores as route_scores,
)
from .support import pathway_support as pathway_support
from .support_result import PathwaySupport as PathwaySupport
from .truth_scores import (
    block_occupancies as block_occupancies,
    block_order as block_order,
    component_of_state as component_of_state,
    coordinate_r2 as coordinate_r2,
    fsc_of_images as fsc_of_images,
    fsc_to_truth as fsc_to_truth,
    passing_step as passing_step,
    r2_interval as r2_interval,
    true_block_orders as true_block_orders,
)
