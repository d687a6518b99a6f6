"""Makes what the fuzz targets begin with, beside tests/data: headers as NumPy writes them, with little data behind them, and their
texts alone, in corpus/seeds beside this script; and the directories for what they find: python3 seeds.py"""

import io
import pathlib

import numpy as np

corpus = pathlib.Path(__file__).parent / "corpus"
for name in ["seeds", "npy_header", "npy_file"]:
    (corpus / name).mkdir(parents=True, exist_ok=True)

DTYPES = ["<f8", "<f4", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1", ">f8", "<f2", "<c16", "<U3", "<M8[ns]"]
SHAPES = [(), (0,), (3,), (2, 3), (0, 5), (5, 0), (2, 1, 3), (1,) * 32]

seeds = {}
for dtype in DTYPES:
    for shape in SHAPES:
        file = io.BytesIO()
        np.save(file, np.ones(shape, dtype))
        seeds[f"{dtype[1:]}-{len(shape)}-{len(seeds)}"] = file.getvalue()
for version in [(1, 0), (2, 0), (3, 0)]:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asfortranarray(np.ones((2, 3))), version=version)
    seeds[f"fortran-{version[0]}"] = file.getvalue()
# As NumPy 1 for Python 2 wrote it, and as rowfork does: all of a page.
text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2L, 3L), }\n"
seeds["long"] = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(48)
text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }"
seeds["page"] = b"\x93NUMPY\x01\x00" + (4086).to_bytes(2, "little") + text.ljust(4085) + b"\n" + bytes(48)
# Texts alone, which the targets put a length before.
for name, whole in list(seeds.items()):
    seeds[f"{name}-text"] = whole[10:]
for name, seed in seeds.items():
    (corpus / "seeds" / name).write_bytes(seed)
print(f"{len(seeds)} seeds in {corpus / 'seeds'}")
