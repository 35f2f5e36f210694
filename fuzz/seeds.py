#!/usr/bin/env python3
"""Writes the first inputs of the fuzz targets: what real programs wrote, every variant, and small attacks.

    python fuzz/seeds.py [CORPUS]

writes CORPUS/<target>/<name> for each target; CORPUS is fuzz/corpus unless told. It needs petastorm 0.13, pyspark 3.5,
pyarrow, numpy and opencv-python. The corpus that is kept is smaller: at most 150 inputs a target, which together reach most
of what these and a run of the fuzzer reached. Their names are digests; those with another name once broke a property. It is
made by

    cargo fuzz run <target> -- -set_cover_merge=1 -use_counters=0 <empty folder> <folder of inputs>...
"""
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "integration-tests" / "fixtures"
CORPUS = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "fuzz" / "corpus"
# The longest input that the targets are given: see xtask/src/fuzz.rs.
LONGEST = 16 << 10

# Run in processes of their own: whether named tuples are patched is decided when pyspark is imported.
UNISCHEMAS = """
import sys, pickle, io
from decimal import Decimal
import numpy as np
from pyspark.sql.types import IntegerType, StringType, DecimalType, TimestampType, BooleanType
from petastorm.codecs import ScalarCodec, NdarrayCodec, CompressedNdarrayCodec, CompressedImageCodec
from petastorm.unischema import Unischema, UnischemaField
schema = Unischema('Seed', [
    UnischemaField('id', np.int32, (), ScalarCodec(IntegerType()), False),
    UnischemaField('name', np.str_, (), ScalarCodec(StringType()), True),
    UnischemaField('flag', np.bool_, (), ScalarCodec(BooleanType()), False),
    UnischemaField('price', Decimal, (), ScalarCodec(DecimalType(10, 2)), False),
    UnischemaField('when', np.datetime64, (), ScalarCodec(TimestampType()), False),
    UnischemaField('image', np.uint8, (32, None, 3), CompressedImageCodec('png'), False),
    UnischemaField('photo', np.uint8, (None, None, 3), CompressedImageCodec('jpeg', 90), True),
    UnischemaField('matrix', np.float32, (2, 3), NdarrayCodec(), False),
    UnischemaField('sparse', np.uint16, (None,), CompressedNdarrayCodec(), False),
    UnischemaField('words', np.bytes_, (None,), NdarrayCodec(), False),
])
for protocol in range(6):
    sys.stdout.buffer.write(pickle.dumps(pickle.dumps(schema, protocol)))
"""


def write(target, name, data):
    if len(data) > LONGEST:
        print(f"{target}/{name}: left out, {len(data)} bytes", file=sys.stderr)
        return
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def fixtures():
    for common in sorted(FIXTURES.glob("petastorm-*/_common_metadata")):
        name = common.parent.name
        data = common.read_bytes()
        length = struct.unpack("<I", data[-8:-4])[0]
        write("footer", name, data[-8 - length : -8])
        for key, value in (pq.read_metadata(common).metadata or {}).items():
            if b"unischema" in key or b"index" in key:
                write("pickle", f"{name}-{key.decode()}", value)
    for dataset in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
        files = sorted(dataset.rglob("*.parquet"))
        data = files[0].read_bytes()
        write("footer", f"{dataset.name}-part", data[-8 - struct.unpack("<I", data[-8:-4])[0] : -8])
        for file in files:
            table = pq.read_table(file)
            for column in table.column_names:
                cells = table.column(column)
                if str(cells.type) != "binary":
                    continue
                for cell in (value for value in cells.to_pylist()[:3] if kind(value)):
                    write(kind(cell), f"{dataset.name}-{column}-{zlib.crc32(cell):08x}", cell)


def kind(cell):
    """The target of a cell, or None."""
    magics = {b"\x93NUMPY": "npy", b"PK": "npz", b"\x89PNG": "png", b"\xff\xd8": "jpeg"}
    return next((target for magic, target in magics.items() if (cell or b"").startswith(magic)), None)


def arrays():
    """Arrays of every dtype, byte order and memory order, of no, free and zero dimensions."""
    numbers = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
    for name in numbers:
        for order in "<>":
            yield f"{order}{name}", np.arange(6).reshape(2, 3).astype(order + name)
    grid = np.arange(6, dtype="f4")
    yield "fortran", np.asfortranarray(grid.reshape(2, 3))
    yield "fortran-swapped", np.asfortranarray(grid.reshape(1, 2, 3).astype(">i2"))
    yield "scalar", np.float32(1.5)
    yield "vector", grid[:3]
    yield "empty", np.zeros((0,), "i4")
    yield "empty-dims", np.zeros((2, 0, 3), "u1")
    yield "bytes", np.array([b"ab", b"\0c", b""])
    yield "bytes-grid", np.array([[b"ab", b"c"], [b"d", b""]])
    yield "text", np.array(["a", "é", "日本", ""])
    yield "text-swapped", np.array(["ab", "c"], ">U2")
    yield "text-fortran", np.asfortranarray(np.array([["a", "b"], ["c", "d"]]))
    yield "text-scalar", np.array("word")
    for unit in ["D", "s", "ms", "us", "ns"]:
        yield f"datetime-{unit}", np.array(["2020-01-02", "NaT"], f"M8[{unit}]")
    yield "timedelta", np.array([1, 2], "m8[s]")
    yield "structs", np.zeros(2, [("a", "<i4"), ("b", ">f8", (2,))])
    yield "void", np.zeros(2, "V3")


def npy(array, version=None):
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asanyarray(array), version=version)
    return out.getvalue()


def header(dict_text, data=b"", version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(dict_text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + dict_text + data


def cells():
    for name, array in arrays():
        write("npy", name, npy(array))
        for save in [np.savez, np.savez_compressed]:
            out = io.BytesIO()
            save(out, arr=array)
            write("npz", f"{save.__name__}-{name}", out.getvalue())
    for version in [(2, 0), (3, 0)]:
        write("npy", f"version-{version[0]}", npy(np.arange(3), version))
    python2 = b"{'descr': '<i8', 'fortran_order': False, 'shape': (2L, 1L), }\n"
    write("npy", "python2", header(python2, bytes(16)))
    shapes = {
        "2^60": b"(1152921504606846976,)",
        "product": b"(4294967296, 4294967296)",
        "zero-times": b"(4611686018427387904, 0)",
        "negative": b"(-1,)",
        "dims": b"(" + b"1," * 500 + b")",
    }
    for name, shape in shapes.items():
        for descr in [b"<f8", b"|S0", b"<U0", b"|S1"]:
            text = b"{'descr': '%s', 'fortran_order': True, 'shape': %s, }\n" % (descr, shape)
            write("npy", f"hostile-{name}-{descr[1:].decode()}", header(text, bytes(8)))
    write("npy", "hostile-length", b"\x93NUMPY\x02\0\xff\xff\xff\xff{'descr': '<f8'}")


def archives():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"a comment"
        archive.writestr("other.npy", npy(np.zeros(2)))
        archive.writestr("arr.npy", npy(np.arange(4, dtype="f4")))
    good = out.getvalue()
    write("npz", "two-entries", good)
    at = good.rindex(b"PK\x01\x02")
    for name, place, value in [
        ("size", at + 24, b"\xff\xff\xff\xff"),
        ("compressed", at + 20, b"\xff\xff\xff\x7f"),
        ("offset", at + 42, struct.pack("<I", at)),
        ("method", at + 10, b"\x0e\0"),
        ("count", good.rindex(b"PK\x05\x06") + 10, b"\xff\xff"),
    ]:
        write("npz", f"hostile-{name}", good[:place] + value + good[place + len(value) :])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr.npy", npy(np.zeros(1 << 16, "u1")))
    write("npz", "hostile-zeros", out.getvalue())


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, colour=0, interlace=0, rows=b"", extra=b""):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def images():
    ramp = np.arange(7 * 5 * 3).reshape(7, 5, 3)
    pictures = {
        "grey": ramp[:, :, 0].astype("u1"),
        "colour": ramp.astype("u1"),
        "grey-16": (ramp[:, :, 0] * 500).astype("u2"),
        "colour-16": (ramp * 500).astype("u2"),
        "alpha": np.dstack([ramp, ramp[:, :, :1]]).astype("u1"),
    }
    for name, picture in pictures.items():
        for level in [0, 9]:
            write("png", f"{name}-{level}", cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes())
        if picture.dtype == np.uint8:
            flags = {
                "baseline": [],
                "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
                "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 1],
                "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_QUALITY, 20],
            }
            for sampling in ["411", "420", "422", "440", "444"]:
                flags[sampling] = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")]
            for flag, values in flags.items():
                write("jpeg", f"{name}-{flag}", cv2.imencode(".jpg", picture[:, :, :3] if picture.ndim == 3 else picture, values)[1].tobytes())
    # Palettes, few bits, interlacing, transparency, filters: by hand, for opencv writes none of them.
    palette = chunk(b"PLTE", bytes(range(12)))
    write("png", "palette", png(4, 2, 2, 3, rows=b"\0\x1b\0\xe4", extra=palette))
    write("png", "palette-alpha", png(4, 2, 2, 3, rows=b"\0\x1b\0\xe4", extra=palette + chunk(b"tRNS", b"\0\x80")))
    write("png", "bits", png(8, 2, 1, 0, rows=b"\0\xaa\1\x55"))
    write("png", "grey-key", png(2, 2, 8, 0, rows=b"\0ab\0cd", extra=chunk(b"tRNS", b"\0a")))
    write("png", "interlaced", png(2, 2, 8, 0, interlace=1, rows=b"\0a\0b\0cd"))
    filters = b"".join(bytes([kind]) + bytes([1, 2, 3]) for kind in range(5))
    write("png", "filters", png(3, 5, 8, 0, rows=filters))
    write("png", "grey-alpha", png(1, 1, 8, 4, rows=b"\0ab"))
    write("png", "hostile-size", png(60000, 60000))
    write("png", "hostile-wide", png(0x7FFFFFFF, 1, 16, 2))
    bomb = zlib.compress(bytes(1 << 18), 9)
    write("png", "hostile-rows", png(2, 2, rows=bytes(1 << 18)))
    write("png", "hostile-text", png(2, 2, rows=b"\0ab\0cd", extra=chunk(b"zTXt", b"a\0\0" + bomb)))
    write("png", "hostile-profile", png(2, 2, rows=b"\0ab\0cd", extra=chunk(b"iCCP", b"a\0\0" + bomb)))
    good = cv2.imencode(".jpg", pictures["colour"], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    frame = good.index(b"\xff\xc2")
    write("jpeg", "hostile-size", good[: frame + 5] + struct.pack(">HH", 65500, 65500) + good[frame + 9 :])
    scan = good.rindex(b"\xff\xda")
    write("jpeg", "hostile-scans", good[:-2] + good[scan:-2] * 40 + b"\xff\xd9")


class Reduced:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickles():
    for patched in ["0", "1"]:
        environment = dict(os.environ, PYSPARK_ENABLE_NAMEDTUPLE_PATCH=patched)
        out = io.BytesIO(subprocess.run([sys.executable, "-c", UNISCHEMAS], env=environment, stdout=subprocess.PIPE, check=True).stdout)
        for protocol in range(6):
            write("pickle", f"unischema-{protocol}-patched-{patched}", pickle.load(out))
    values = [None, True, -1, 300, 1 << 40, 1 << 100, 1.5, "é", b"\xff", bytearray(b"a"), [1], (1, 2, 3, 4), {"a": {1}}, frozenset([2])]
    index = {"by": {np.int64(3): {0, 1}, np.str_("a"): {2}}}
    for protocol in range(6):
        write("pickle", f"values-{protocol}", pickle.dumps(values, protocol))
        write("pickle", f"index-{protocol}", pickle.dumps(index, protocol))
        write("pickle", f"hostile-system-{protocol}", pickle.dumps(Reduced(os.system, "true"), protocol))
    field = b"cpetastorm.unischema\nUnischemaField\n(Vx\ncnumpy\nuint8\n(I2\nNtcpetastorm.codecs\nNdarrayCodec\n(tRI00\ntR"
    schema = b"cpetastorm.unischema\nUnischema\n(VT\n(l%s" % field
    write("pickle", "constructor", schema + b"atR.")
    write("pickle", "hostile-fields", schema + b"p1\na" + b"g1\na" * 50 + b"tR.")
    write("pickle", "hostile-lists", b"]q\0" + b"".join(b"(" + bytes([104, i]) * 10 + bytes([108, 113, i + 1]) for i in range(20)) + b".")
    write("pickle", "hostile-names", b"\x80\x04\x8c\xff" + b"a" * 255 + b"\x94" + b"h\0h\0\x93" * 50 + b".")
    write("pickle", "hostile-put", b"Np18446744073709551615\n.")
    for name, operation in [("inst", b"(ios\nsystem\n."), ("obj", b"(cos\nsystem\no."), ("ext", b"\x82\1."), ("persid", b"Pa\n."), ("long4", b"\x8b\0\0\0\x80a.")]:
        write("pickle", f"hostile-{name}", operation)


def metadata():
    field = lambda name, **more: {"name": name, "dtype": "int64", **more}
    stored = {
        "created_by": "squall 0.1.0",
        "fingerprint": "00112233445566778899aabbccddeeff",
        "schema": [
            field("id"),
            field("image", dtype="uint8", shape=[None, 28, 3], nullable=True, codec="png"),
            field("price", dtype="decimal(10, 2)"),
            field("when", dtype="datetime64[us, UTC]", nullable=True),
            field("words", dtype="str", shape=[None]),
            field("matrix", dtype="float32", shape=[2, 3], codec="npz"),
            field("p", dtype="str"),
        ],
        "partition_by": ["p"],
        "files": [
            {
                "path": f"p={p}/part-0.parquet",
                "size": 1234,
                "partition": {"p": p},
                "row_groups": [{"rows": 10, "compressed_bytes": 100, "uncompressed_bytes": 200}],
            }
            for p in ["a", None]
        ],
    }
    write("metadata", "plain", json.dumps(stored).encode())
    write("metadata", "least", b'{"created_by":"","fingerprint":"","schema":[],"files":[]}')
    text = json.dumps(stored)
    for name, old, new in [
        ("rows", '"rows": 10', '"rows": 18446744073709551616'),
        ("dims", "[2, 3]", "[9223372036854775807, 3, 3]"),
        ("twice", '"name": "id"', '"name": "image"'),
        ("text", '"size": 1234', '"size": "1234"'),
        ("deep", "[2, 3]", "[" * 200 + "]" * 200),
        ("unknown", '"npz"', '"zstd \\u0000 npy"'),
    ]:
        write("metadata", f"hostile-{name}", text.replace(old, new).encode())


def footers():
    pair = b"\x18\x03key\x18\x02\xff\x80\0"
    write("footer", "least", b"\x15\x02\x29\x1c\0\x29\x1c" + pair + b"\0")
    write("footer", "types", b"\x11\x12\x13\x01\x14\x02\x15\x03\x16\x04\x17" + bytes(8) + b"\x18\x01a\x1b\x01\x88\x01b\x01c\x1a\x11\x01\0")
    write("footer", "hostile-list", b"\x29\xfc\xff\xff\xff\xff\x07\x18\x01k\0\0")
    write("footer", "hostile-binary", b"\x29\x1c\x18\xff\xff\xff\xff\x07k\0\0")
    write("footer", "hostile-deep", b"\x1c" * 100 + bytes(101))


if __name__ == "__main__":
    for part in [fixtures, cells, archives, images, pickles, metadata, footers]:
        part()
