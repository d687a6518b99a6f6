"""Makes the golden files in this directory, with NumPy itself: python3 make.py"""

import numpy as np

a = np.arange(12, dtype="<f8").reshape(3, 4) / 8
np.save("c_order.npy", a)
np.save("one_axis.npy", a[0])
np.save("no_axis.npy", np.float64(2.5))
np.save("no_rows.npy", a[:0])
np.save("no_columns.npy", a[:, :0])
np.save("fortran_order.npy", np.asfortranarray(a))
np.save("big_endian.npy", a.astype(">f8"))
np.save("float32.npy", a.astype("<f4"))
np.save("uint8.npy", a.astype("|u1"))
np.save("object.npy", np.array([None, 1], dtype=object), allow_pickle=True)
np.save("structured.npy", np.zeros(2, dtype=[("x", "<f8"), ("y", "<i4", (2,))]))
for major in (2, 3):
    with open(f"version_{major}.npy", "wb") as f:
        np.lib.format.write_array(f, a, version=(major, 0))
with open("c_order.npy", "rb") as f:
    whole = f.read()
with open("truncated.npy", "wb") as f:
    f.write(whole[:-1])
