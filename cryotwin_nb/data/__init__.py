"""Named data sets, simulated or downloaded once and verified by checksum."""

from cryotwin_nb.data.fetching import download, fetch, missing, truth_hash
from cryotwin_nb.data.manifest import UNVERIFIED, DataFile, Dataset, datasets, manifest_path

__all__ = [
    "UNVERIFIED",
    "DataFile",
    "Dataset",
    "datasets",
    "download",
    "fetch",
    "manifest_path",
    "missing",
    "truth_hash",
]
