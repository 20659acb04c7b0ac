"""Extract the README's pictures from the executed notebooks: python benchmarks/notebook_pictures.py.

Writes notebooks/figures/<name>.png: the n-th picture, from 0, of a notebook.
"""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PICTURES = {
    "fig1_training": ("01_images_and_training", 3),
    "fig2ab_tsne": ("02_latent_space", 0),
    "fig2c_structures": ("03_fsc_against_cryodrgn", 1),
    "fig2d_fsc": ("03_fsc_against_cryodrgn", 2),
    "fig3_short_paths": ("04_pathways", 1),
    "fig4_isometry": ("02_latent_space", 1),
    "fig5_cryodrgn_prior": ("02_latent_space", 2),
    "fig6_routes": ("04_pathways", 4),
    "theory": ("01_images_and_training", 6),
}


def pictures(name: str) -> list[bytes]:
    """Return all PNG outputs of a notebook, in order."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return [base64.b64decode(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


if __name__ == "__main__":
    for picture, (name, number) in PICTURES.items():
        (NOTEBOOKS / "figures" / f"{picture}.png").write_bytes(pictures(name)[number])
        print(f"notebooks/figures/{picture}.png")
