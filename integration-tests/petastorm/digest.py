"""The form in which rows are compared: of an array dtype, shape and SHA-256 of its bytes in C order, little-endian, of a
scalar dtype and value."""

import decimal
import hashlib
import json

import numpy as np


def digest(value):
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"))).reshape(value.shape)
        found = {
            "dtype": little.dtype.str,
            "shape": list(value.shape),
            "sha256": hashlib.sha256(little.tobytes()).hexdigest(),
        }
        if value.dtype.kind in "US":
            items = [item.decode("latin1") if isinstance(item, bytes) else item for item in value.ravel().tolist()]
            found["values"] = items
        return found
    if isinstance(value, decimal.Decimal):
        return {"dtype": "decimal", "value": str(value)}
    scalar = np.asarray(value)
    if scalar.dtype.kind == "M":
        return {"dtype": scalar.dtype.str, "value": str(value)}
    plain = scalar.item()
    if isinstance(plain, bytes):
        plain = plain.decode("latin1")
    return {"dtype": "U" if scalar.dtype.kind == "U" else scalar.dtype.str, "value": plain}


def write(rows, path):
    rows = sorted(({name: digest(value) for name, value in row.items()} for row in rows), key=lambda row: row["id"]["value"])
    with open(path, "w") as out:
        for row in rows:
            print(json.dumps(row, sort_keys=True), file=out)
