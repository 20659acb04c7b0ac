"""Random damage of small files, with and without knowledge of their format, for `fuzz_readers.py`."""

from __future__ import annotations

import io
import random
import re
import struct
import sys
import tempfile
import warnings
from pathlib import Path

import mrcfile
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from test_fuzz_readers import TOKENS, mutated, star_31

CHANGES = (1, 1, 1, 2, 3, 4)  # changes per file, one of these
WORDS = "nan -nan inf -inf 0 -0 -1 1e-320 1e308 -1e308 9e15 1e19 99999999999999999999 0.0.0 1,5 0x1F 1_000 --1 +"
EXTREMES = [word.encode() for word in f"{WORDS} <NA> None null true ½ ٣ 1e".split()]
NUMBERS = [0, 1, -1, 0.5, -1e-30, 1e-300, 1e38, -1e39, 1e300, 2.0**31, 2.0**40, 2.0**62, 2.0**63, 360, 7]
NUMBERS += [np.inf, -np.inf, np.nan]
MORE = "PhaseShift ImagePixelSize OriginX OriginYAngst CtfBfactor MagMat00 OddZernike TomoName ImageDimensionality "
MORE += "CtfDataArePhaseFlipped ClassNumber DetectorPixelSize Magnification"
LABELS = [*re.findall(rb"_rln\w+", star_31().encode()), *(f"_rln{name}".encode() for name in MORE.split())]
LABELS += [b"_cryotwinWhitened", b"_cryotwinContrastSign"]
DTYPES = ["<f4", ">f8", "<u4", "<i8", ">u8", "S0", "S9", "<U3", "?", "<f2", "<c8", "<M8[s]", "<m8", "V4"]
FIELDS = "uid blob/path blob/idx blob/shape blob/psize_A blob/sign alignments3D/pose alignments3D/shift "
FIELDS += "alignments3D/psize_A alignments3D_multi/pose alignments3D_multi/class_posterior alignments3D_multi/shift "
FIELDS += "alignments_class_0/pose alignments_class_1/pose alignments_class_0/shift alignments_class_0/class_posterior "
FIELDS += (
    "alignments_class_1/class_posterior ctf/phase_shift_rad ctf/amp_contrast ctf/df1_A ctf/exp_group_id ctf/tilt_A "
)
FIELDS += "ctf/anisomag ctf/accel_kv"


def general(content: bytes, rng: random.Random) -> bytes:
    """Change a file without knowledge of its format."""
    kinds = ["flip", "byte", "token", "replace", "cut", "repeat", "truncate", "move"]
    for _ in range(rng.choice(CHANGES)):
        content = mutated(content, rng.choice(kinds), rng.random(), rng.random(), rng.randrange(2**16))
    return content


def text(content: bytes, rng: random.Random) -> bytes:
    """Change the lines and words of a text file."""
    for _ in range(rng.choice(CHANGES)):
        lines = content.split(b"\n")
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(8)
        if kind == 0:
            lines.insert(j, lines[i])
        elif kind == 1:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 2:
            del lines[i]
        elif kind == 3:
            lines[i] = rng.choice(LABELS) + rng.choice([b"", b" #3", b" 7"])
        else:
            words = re.split(rb"(\s+|[{}\[\]:,@])", lines[i])
            k, m = rng.randrange(len(words)), rng.randrange(len(words))
            if kind == 4:
                words[k], words[m] = words[m], words[k]
            elif kind == 5:
                words.insert(k, rng.choice(TOKENS))
            else:
                words[k] = rng.choice([*EXTREMES, b"", b"'a b'", b'"', b"#"])
            lines[i] = b"".join(words)
        content = b"\n".join(lines)
    return content


def either(content: bytes, rng: random.Random) -> bytes:
    """Change a file by the knowledge of its format: .cs, .star, or another."""
    known = {b"\x93NUMPY": table, b"data_": columns}
    return next((change for start, change in known.items() if content.startswith(start)), text)(content, rng)


def columns(content: bytes, rng: random.Random) -> bytes:
    """Change labels, columns and values of a STAR file, keeping the lengths of its rows consistent."""
    blocks = content.split(b"loop_\n")
    for _ in range(rng.choice(CHANGES)):
        which = rng.randrange(1, len(blocks))
        lines = blocks[which].split(b"\n")
        labels = [i for i, line in enumerate(lines) if line.startswith(b"_")]
        rows = [i for i, line in enumerate(lines[: labels[-1] + 6]) if line.strip() and i > labels[-1]]
        rows = [i for i in rows if not lines[i].startswith((b"data_", b"#"))]
        column, kind, value = rng.randrange(len(labels)), rng.randrange(5), rng.choice([*EXTREMES, b'""', b"'a b'"])
        if kind == 0:
            lines[labels[column]] = rng.choice(LABELS)
        elif kind == 1:
            lines[labels[-1]] += b"\n" + rng.choice(LABELS)
            for row in rows:
                lines[row] += b" " + value
        else:
            for row in rows if kind == 2 else rng.sample(rows, min(1, len(rows))):
                words = lines[row].split()
                words[column % len(words)] = value
                lines[row] = b" ".join(words)
        blocks[which] = b"\n".join(lines)
    return b"loop_\n".join(blocks)


def table(content: bytes, rng: random.Random) -> bytes:
    """Change the fields, types and values of a .cs file, or of each array in an .npz file."""
    rows = np.load(io.BytesIO(content), allow_pickle=False)
    if not rows.dtype.names:
        return general(content, rng)
    for _ in range(rng.choice(CHANGES)):
        names = list(rows.dtype.names)
        fields = {name: rows[name] for name in names}
        name, kind = rng.choice(names), rng.randrange(7)
        if kind == 0:
            del fields[name]
        elif kind == 1:
            fields = {(rng.choice(FIELDS.split()) if key == name else key): value for key, value in fields.items()}
        elif kind == 2:
            shape = rng.choice([(), (), (0,), (1,), (2,), (3,), (3, 3), (3, 2), (0, 3)])
            fields[rng.choice(FIELDS.split())] = numbers((len(rows), *shape), rng)
        elif kind == 3:
            fields[name] = recast(rows[name], rng.choice(DTYPES))
        elif kind == 4:
            order = [rng.randrange(len(rows) or 1) for _ in range(rng.randrange(6))]
            fields = {key: value[order] for key, value in fields.items()} if len(rows) else fields
        elif rows[name].dtype.kind in "iuf" and rows[name].size:
            values = rows[name].copy()
            values.reshape(-1)[rng.randrange(values.size)] = numbers((1,), rng).astype(values.dtype)[0]
            fields[name] = values
        if not fields:
            break
        count = len(next(iter(fields.values())))
        rows = np.zeros(count, [(key, value.dtype, value.shape[1:]) for key, value in fields.items()])
        for key, value in fields.items():
            rows[key] = value
    buffer = io.BytesIO()
    np.save(buffer, rows)
    changed = buffer.getvalue()
    return general(changed, rng) if rng.random() < 0.2 else changed


def numbers(shape: tuple[int, ...], rng: random.Random) -> np.ndarray:
    if rng.random() < 0.5:
        return np.full(shape, rng.choice(NUMBERS), dtype=np.float64)
    return np.random.default_rng(rng.randrange(2**32)).normal(size=shape)


def recast(values: np.ndarray, dtype: str) -> np.ndarray:
    try:
        return values.astype(dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # NumPy raises any of them
        return np.zeros(values.shape, dtype)


def archive(content: bytes, rng: random.Random) -> bytes:
    """Change the arrays of an .npz file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as given:
        arrays = dict(given)
    for _ in range(rng.choice(CHANGES)):
        name = rng.choice(list(arrays))
        values, kind = arrays[name], rng.randrange(6)
        if kind == 0 and len(arrays) > 1:
            del arrays[name]
        elif kind == 1:
            arrays[rng.choice([*arrays, "more"])] = values
        elif kind == 2:
            arrays[name] = recast(values, rng.choice(DTYPES))
        elif kind == 3:
            arrays[name] = numbers(rng.choice([(), (0,), (1,), (4,), (5,), (4, 2), (4, 0), (1, 8), (2, 8)]), rng)
        elif values.dtype.kind in "iuf" and values.size:
            changed = values.copy()
            changed.reshape(-1)[rng.randrange(values.size)] = numbers((1,), rng).astype(values.dtype)[0]
            arrays[name] = changed
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def mrc(content: bytes, rng: random.Random) -> bytes:
    """Change header fields, the data type, the byte order and single pixels of an MRC file."""
    words = [0, 1, -1, 2, 3, 4, 6, 7, 8, 9, 12, 16, 101, 401, 2**31 - 1, -(2**31), 2**16, 2**15 - 1]
    content = rng.choice([content, retyped(content, rng)])
    changed = bytearray(content)
    for _ in range(rng.choice(CHANGES)):
        at, kind = 4 * rng.randrange(56), rng.randrange(4)
        order = rng.choice("<<<>")
        if kind == 0:
            at = 4 * rng.choice(
                [0, 1, 2, 3, 7, 8, 9, 16, 17, 18, 22, 23, 53]
            )  # dimensions, mode, axes, extended header
        if kind < 3:
            changed[at : at + 4] = struct.pack(f"{order}i", rng.choice(words))
        else:
            changed[at : at + 4] = struct.pack(
                f"{order}f", rng.choice([0, -1, 1e38, 1e-40, np.nan, np.inf, 127, 255, 2.5])
            )
    if rng.random() < 0.3 and len(changed) > 1028:
        at = rng.randrange(1024, len(changed) - 4)
        changed[at : at + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, 3e38, 0]))
    return general(bytes(changed), rng) if rng.random() < 0.3 else bytes(changed)


def retyped(content: bytes, rng: random.Random) -> bytes:
    """Return the file with another data type, perhaps big-endian, perhaps with an extended header."""
    extended = bytes(rng.randrange(256) for _ in range(rng.choice([0, 0, 16, 768])))
    with tempfile.NamedTemporaryFile(suffix=".mrc") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = np.frombuffer(content[1024:], "<f4")[: 4 * 64].reshape(4, 8, 8)
        kind = rng.choice([np.int8, np.int16, np.uint16, np.float16, ">f4", ">i2"])
        with mrcfile.new(file.name, overwrite=True) as written:
            written.set_data((20 * data).astype(kind))
            written.set_extended_header(np.frombuffer(extended, "V1"))
        return Path(file.name).read_bytes()


def tensors(content: bytes, rng: random.Random) -> bytes:
    """Change the JSON header of a .safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    header = (text if rng.random() < 0.5 else general)(content[8 : 8 + length], rng)
    stated = len(header) if rng.random() < 0.9 else rng.choice([0, 1, 2**40, len(header) // 2, len(header) + 8])
    return struct.pack("<Q", stated) + header + content[8 + length :]
