"""Writes the images of this folder and expected.json: what OpenCV makes of each.

    python -m venv venv && venv/bin/pip install numpy==1.26.4 opencv-python-headless==4.11.0.86
    venv/bin/python generate.py

Petastorm decodes with cv2.imdecode(IMREAD_UNCHANGED) and turns BGR to RGB; so does this script. Beside each undamaged
jpeg lie its pixels as a png of the same name, for bounds on decoders that are not bit-equal.
"""

import hashlib
import json
import os
import struct
import zlib

import cv2
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
expected = {"opencv": cv2.__version__, "images": {}, "encoded": {}}


def picture(height, width):
    """Gradients, an edge and noise: all that a codec can get wrong."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [127 + 90 * np.sin(x / 5 + k) + 38 * np.cos(y / (3 + k)) for k in range(3)]
    image = np.stack(waves, axis=-1)
    image[height // 2 :, : width // 3] = (250, 20, 40)
    image += np.random.default_rng(height * 1000 + width).normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def decode(data):
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # More pixels than its limit.
        return None
    if image is not None and image.ndim == 3 and image.shape[2] == 3:
        image = np.ascontiguousarray(image[:, :, ::-1])
    return image


def encode(extension, image, *options):
    if image.ndim == 3:
        image = np.ascontiguousarray(image[:, :, ::-1])
    done, data = cv2.imencode(extension, image, list(options))
    assert done
    return data.tobytes()


def write(name, data):
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)


def add(name, data, damaged=False):
    write(name, data)
    image = decode(data)
    if image is None:
        expected["images"][name] = None
        return
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    expected["images"][name] = {"dtype": str(image.dtype), "shape": list(image.shape), "sha256": digest}
    if name.endswith(".jpeg") and not damaged:
        write(name.replace(".jpeg", ".pixels.png"), encode(".png", image, cv2.IMWRITE_PNG_COMPRESSION, 9))


def png(width, height, depth, color, rows, extra=b"", interlaced=False):
    """A png of kinds that OpenCV reads and does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rows(image):
    return b"".join(b"\0" + row.tobytes() for row in image)


def interlaced(image):
    """Adam7: seven smaller images, one after the other."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    return b"".join(rows(image[y::dy, x::dx]) for y, x, dy, dx in passes)


def solid(components, ids=None, segments=b"", value=0):
    """A jpeg of one block per component by hand: the colour spaces that OpenCV does not write."""

    def segment(marker, data):
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    ids = ids or range(1, components + 1)
    tables = segment(0xDB, b"\0" + bytes([1] * 64))
    frame = segment(0xC0, struct.pack(">BHHB", 8, 8, 8, components) + b"".join(bytes([i, 0x11, 0]) for i in ids))
    # One code for each of two lengths of a DC difference, none and 8 bits; one code that ends a block.
    tables += segment(0xC4, b"\0" + bytes([0, 2] + [0] * 14) + bytes([0, 8]))
    tables += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
    scan = segment(0xDA, bytes([components]) + b"".join(bytes([i, 0]) for i in ids) + b"\0\x3f\0")
    bits = ("01" + format(value, "08b") if value else "00") + "0" + "000" * (components - 1)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + segments + tables + frame + scan + data + b"\xff\xd9"


def main():
    colour = picture(33, 47)
    grey = colour[:, :, 1].copy()
    odd = picture(13, 17)
    deep = (colour.astype(np.uint16) * 257) ^ np.arange(33 * 47 * 3, dtype=np.uint16).reshape(33, 47, 3)

    add("colour.png", encode(".png", colour))
    add("grey.png", encode(".png", grey))
    add("odd.png", encode(".png", odd))
    add("colour-16-bits.png", encode(".png", deep[:13, :17].copy()))
    add("grey-16-bits.png", encode(".png", deep[:13, :17, 0].copy()))
    add("one-pixel.png", encode(".png", odd[:1, :1].copy()))
    add("interlaced.png", png(17, 13, 8, 2, interlaced(odd), interlaced=True))
    palette = zlib.crc32(b"PLTE" + bytes(range(48)))
    palette = struct.pack(">I", 48) + b"PLTE" + bytes(range(48)) + struct.pack(">I", palette)
    indices = odd[:, :16, 0] % 16
    add("palette.png", png(16, 13, 8, 3, rows(indices), palette))
    add("palette-4-bits.png", png(16, 13, 4, 3, rows(indices[:, ::2] << 4 | indices[:, 1::2]), palette))
    add("grey-1-bit.png", png(17, 13, 1, 0, rows(np.packbits(odd[:, :, 0] > 127, axis=1))))
    add("grey-4-bits.png", png(16, 13, 4, 0, rows(indices[:, ::2] << 4 | indices[:, 1::2])))
    alpha = np.concatenate([odd, odd[:, :, :1]], axis=-1)
    add("alpha.png", png(17, 13, 8, 6, rows(alpha)))
    add("grey-alpha.png", png(17, 13, 8, 4, rows(odd[:, :, :2].copy())))
    transparent = struct.pack(">I", 2) + b"tRNS\0\x10" + struct.pack(">I", zlib.crc32(b"tRNS\0\x10"))
    add("grey-transparent.png", png(17, 13, 8, 0, rows(odd[:, :, 0].copy()), transparent))
    whole = encode(".png", odd)
    add("cut.png", whole[: len(whole) // 2])
    add("without-end.png", whole[:-12])
    add("flipped.png", whole[:200] + bytes([whole[200] ^ 4]) + whole[201:])

    quality, sampling = cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR
    for q in (30, 80, 95, 100):
        add(f"colour-q{q}.jpeg", encode(".jpeg", colour, quality, q))
        add(f"grey-q{q}.jpeg", encode(".jpeg", grey, quality, q))
    factors = {"444": 0x111111, "422": 0x211111, "420": 0x221111, "440": 0x121111, "411": 0x411111}
    for name, factor in factors.items():
        add(f"odd-{name}.jpeg", encode(".jpeg", odd, quality, 90, sampling, factor))
        options = [quality, 85, sampling, factor, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
        add(f"progressive-{name}.jpeg", encode(".jpeg", colour, *options))
    add("progressive-grey.jpeg", encode(".jpeg", grey, quality, 80, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    add("one-pixel.jpeg", encode(".jpeg", odd[:1, :1].copy(), quality, 80))
    add("optimized.jpeg", encode(".jpeg", colour, quality, 80, cv2.IMWRITE_JPEG_OPTIMIZE, 1))
    restart = encode(".jpeg", colour, quality, 80, cv2.IMWRITE_JPEG_RST_INTERVAL, 3)
    assert b"\xff\xd0" in restart
    add("restart.jpeg", restart)
    options = [quality, 80, cv2.IMWRITE_JPEG_RST_INTERVAL, 2, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    add("progressive-restart.jpeg", encode(".jpeg", colour, *options))
    whole = encode(".jpeg", odd, quality, 80)
    # TIFF with one tag: orientation 6, a quarter turn.
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + b"\0\0\0\0"
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    add("exif-turned.jpeg", whole[:2] + exif + whole[2:])
    add("trailing.jpeg", whole + b"what follows the image is not looked at")
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
    add("solid.jpeg", solid(3, value=200))
    add("rgb.jpeg", solid(3, ids=b"RGB", value=200))
    add("rgb-adobe.jpeg", solid(3, segments=adobe, value=200))
    add("cmyk.jpeg", solid(4, value=200))
    add("two-components.jpeg", solid(2, value=200))

    whole = encode(".jpeg", colour, quality, 80)
    begin = whole.index(b"\xff\xda") + 14
    middle = begin + (len(whole) - begin) // 2
    while 0xFF in whole[middle - 2 : middle + 2]:
        middle += 1
    add("cut.jpeg", whole[:middle], damaged=True)
    add("without-end.jpeg", whole[:-2], damaged=True)
    # Half of the entropy-coded data, and an end: OpenCV fills the rest with grey.
    add("cut-with-end.jpeg", whole[:middle] + b"\xff\xd9", damaged=True)
    add("cut-in-tables.jpeg", whole[:100], damaged=True)
    add("zeroed.jpeg", whole[:middle] + bytes(len(whole) - middle - 2) + b"\xff\xd9", damaged=True)
    add("bytes-between.jpeg", whole[:2] + b"abc" + whole[2:], damaged=True)
    frame = whole.index(b"\xff\xc0")
    add("no-height.jpeg", whole[: frame + 5] + b"\0\0" + whole[frame + 7 :], damaged=True)
    add("too-wide.jpeg", whole[: frame + 5] + b"\xea\x60\xea\x60" + whole[frame + 9 :], damaged=True)
    add("12-bits.jpeg", whole[: frame + 4] + b"\x0c" + whole[frame + 5 :], damaged=True)
    add("arithmetic.jpeg", whole[: frame + 1] + b"\xc9" + whole[frame + 2 :], damaged=True)
    add("no-huffman-table.jpeg", whole.replace(b"\xff\xc4", b"\xff\xfe"), damaged=True)
    marker = restart.index(b"\xff\xd1")
    add("restart-lost.jpeg", restart[:marker] + restart[marker + 2 :], damaged=True)
    add("restart-renamed.jpeg", restart[: marker + 1] + b"\xd5" + restart[marker + 2 :], damaged=True)

    for name, image in (("colour", colour), ("grey", grey), ("odd", odd)):
        encoded = (encode(".jpeg", image, quality, q) for q in range(1, 101))
        expected["encoded"][name] = [hashlib.sha256(data).hexdigest()[:16] for data in encoded]

    with open(os.path.join(HERE, "expected.json"), "w") as file:
        json.dump(expected, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
