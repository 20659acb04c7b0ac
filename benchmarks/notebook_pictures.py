"""Extract the README's pictures from the stored notebooks: python benchmarks/notebook_pictures.py [--run 00 06 ...].

Writes notebooks/figures/<name>.png: the n-th picture, from 0, of a notebook. `--run` first runs the notebooks of these
numbers (all of them if none is given) and stores their outputs, without widget state.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image, ImageChops

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
MOST_CHANGE = 24  # largest change of a colour channel by the reduction to 256 colours, of 255


def pictures(name: str) -> list[bytes]:
    """Return all PNG outputs of a notebook, in order."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return [base64.b64decode(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


def run(path: Path) -> None:
    """Run a notebook from top to bottom in its folder and store its outputs."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=1800, resources=resources, store_widget_state=False, record_timing=False).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
    nbformat.write(notebook, path)


def smaller(encoded: str) -> str:
    """Return a picture with 256 colours if that halves its size and changes no colour much, otherwise without alpha.

    Rendered surfaces have few colours; the markers of a legend could take the colour of their neighbours.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if picture.mode == "P":
        return encoded
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")).convert("RGB")
    methods = Image.Quantize.FASTOCTREE, Image.Quantize.MEDIANCUT
    reduced = min((picture.quantize(256, method) for method in methods), key=lambda tried: change(picture, tried))
    few, many = (_png(image) for image in (reduced, picture))
    return few if 2 * len(few) < len(many) and change(picture, reduced) < MOST_CHANGE else min(many, encoded, key=len)


def change(picture: Image.Image, reduced: Image.Image) -> int:
    """Return the largest change of a colour channel, of 255."""
    return max(high for _, high in ImageChops.difference(picture, reduced.convert("RGB")).getextrema())


def _png(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="*", metavar="NUMBER", help="run these notebooks first; all if none is given")
    numbers = parser.parse_args().run
    for path in sorted(NOTEBOOKS.glob("*.ipynb")) if numbers is not None else []:
        if not numbers or path.name[:2] in numbers:
            run(path)
            print(path.name, flush=True)
    for picture, (name, number) in PICTURES.items():
        (NOTEBOOKS / "figures" / f"{picture}.png").write_bytes(pictures(name)[number])
        print(f"notebooks/figures/{picture}.png")
