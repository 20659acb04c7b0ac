"""Which rows of which file a selection lists, and whether it can be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.formats.fingerprints import fingerprints
from cryotwin_nb.formats.origins import Chain, chain_of, record_of
from cryotwin_nb.formats.outputs import refuse_inputs
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.writing import inputs_of, refuse_foreign_records


def listed_rows(
    path: Path, particles: Particles, source_rows: np.ndarray, original: bool = True
) -> tuple[Path | None, Chain]:
    """Return the file whose rows a selection in `path` lists (None: in memory), and where these rows come from.

    Raises
    ------
    InputError
        If `path` is an input or cannot hold these rows, the record beside it is a file of the user's own, or a file was
        changed since the particles were read.
    """
    source, chain = particles.source, chain_of(particles.source, source_rows)
    refuse_inputs([path, record_of(path)], [*inputs_of(particles), *(link.source for link in chain)])
    refuse_foreign_records([record_of(path)])
    is_list = path.suffix.lower() == ".pkl"
    if original and chain:
        chain = _back(chain, through_copies=is_list)
        source = chain[0].source
    if not is_list and (source is None or source.suffix.lower() != path.suffix.lower()):
        found = f"particles read from {source or 'no file'}"
        remedy = "Use the suffix of the file that they were read from, or .pkl for a list of row numbers."
        sentence = f"{path} cannot be written: it needs particles read from a {path.suffix} file, not {found}."
        raise InputError(path, found, f"particles read from a {path.suffix} file", remedy, sentence)
    return source, chain


def _back(chain: Chain, through_copies: bool) -> Chain:
    """Return the chain from the original file on, which must be as it was when the particles were read from it."""
    first = 0
    while first + 1 < len(chain) and (through_copies or not chain[first].is_copy):
        first += 1
    if first:
        link = chain[first]
        source = require_file(link.source, "original particle file")
        now = fingerprints(source)
        if len(now) <= link.rows.max() or not np.array_equal(now[link.rows], link.fingerprint):
            found = f"other rows than those that {chain[0].source} was made from"
            remedy = "Restore the original file, or pass original=False for rows of the file that was read."
            sentence = f"{source} was sorted, filtered or replaced: it has {found}."
            raise InputError(source, found, "the original file", remedy, sentence)
    return chain[first:]
