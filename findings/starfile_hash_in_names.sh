#!/usr/bin/env bash
# starfile cuts a row at a # inside a name, without an error; RELION reads such names.
#
# Seen with starfile 0.5.13 and pandas 2.3.3: of two micrographs "grid1.mrc" and "grid#2.mrc", the second is read as
# "grid", and the columns after it are NaN. In a STAR file a # opens a comment only at the start of a token, and RELION
# 3.1.3 (relion_star_handler) keeps both rows whole. cryotwin_nb splits rows itself (formats/star_text.py; tested in
# tests/test_formats.py, test_tokens_are_those_that_relion_reads).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet starfile==0.5.13 pandas==2.3.3
cat >"$place/names.star" <<'STAR'
data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnDefocusU #3
000001@stack.mrcs grid1.mrc 15000.0
000002@stack.mrcs grid#2.mrc 16000.0
STAR
"$place/env/bin/python" - "$place/names.star" <<'PY'
import math
import sys

import starfile
from importlib.metadata import version

table = starfile.read(sys.argv[1])
print("starfile", version("starfile"), "pandas", version("pandas"))
print(table.to_string())
assert table["rlnMicrographName"].tolist() == ["grid1.mrc", "grid"], "the name is no longer cut"
assert math.isnan(table["rlnDefocusU"][1]), "the column after it is no longer lost"
print("as described: the name is cut at #, and the defocus after it is NaN")
PY
