from . import data as data, evaluation as evaluation, plotting as plotting, simulate as simulate, training as training
from .errors import InputError as InputError, MissingExtraError as MissingExtraError
from .evaluation import PathwaySupport as PathwaySupport, embed_tsne as embed_tsne, isometry as isometry
from .evaluation import kl_divergence as kl_divergence, outlier_scores as outlier_scores
from .evaluation import pathway_support as pathway_support
from .exchange import CryodrgnRun as CryodrgnRun, read_cryodrgn as read_cryodrgn, read_latents as read_latents
from .exchange import select_near as select_near, select_state as select_state, write_pathway as write_pathway
from .exchange import write_selection as write_selection, write_states as write_states
from .explorer import PathwayExplorer as PathwayExplorer, name_components as name_components
from .formats import read_map as read_map, write_map as write_map
from .imaging import CTF as CTF, FscCurve as FscCurve, fsc as fsc
from .mixture import GaussianMixture as GaussianMixture
from .models import CryoTwin as CryoTwin, History as History
from .particles import Particles as Particles
from .particles import Quality as Quality
from .particles import image_quality as image_quality
from .pathways import Pathway as Pathway, bootstrap_path as bootstrap_path, find_routes as find_routes
from .pathways import MeasuredBarrier as MeasuredBarrier, measure_barrier as measure_barrier
from .pathways import find_states as find_states, max_flux as max_flux, ridgeline as ridgeline
from .pathways import ridgeline_chain as ridgeline_chain
from .preparation import Finding as Finding, FirstLook as FirstLook, Preparation as Preparation
from .preparation import first_look as first_look, prepare as prepare
from .reconstruction import Reconstruction as Reconstruction, reconstruct as reconstruct
from .training import TrainingConfig as TrainingConfig, fit as fit, warm_start as warm_start

__version__: str
