#!/usr/bin/env python3
"""A mask, a synthesis and a score for stages of kind "command"; requires only the standard library.

    nodules.py segment IMAGE OUTPUT                    the lungs: air enclosed by the body
    nodules.py grow IMAGE TUMOR SEED OUTPUT            a nodule of the given shape, filled with tissue
    nodules.py score BEFORE AFTER TUMOR OUTPUT         the visible share of the nodule

Without files, segment and grow use pipes: they read NIfTI from standard input and write NIfTI to standard output.
"""

import array
import gzip
import json
import random
import struct
import sys

CODES = {2: "B", 4: "h", 16: "f"}


def read(source):
    """Returns the header, the shape [x, y, z], and the values of each volume of a little-endian NIfTI-1 image."""
    raw = sys.stdin.buffer.read() if source == "-" else open(source, "rb").read()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    header = bytearray(raw[:352])
    axes, *shape = struct.unpack_from("<8h", header, 40)
    (code,) = struct.unpack_from("<h", header, 70)
    values = array.array(CODES[code], raw[352:])
    voxels = shape[0] * shape[1] * shape[2]
    return header, shape[:3], [values[at : at + voxels] for at in range(0, len(values), voxels)]


def write(target, header, values, code):
    """Writes one volume of the given type on the grid of the header."""
    struct.pack_into("<h", header, 40, 3)
    struct.pack_into("<h", header, 48, 1)
    struct.pack_into("<2h", header, 70, code, 8 * array.array(CODES[code]).itemsize)
    raw = bytes(header) + array.array(CODES[code], values).tobytes()
    if target == "-":
        sys.stdout.buffer.write(raw)
    else:
        open(target, "wb").write(gzip.compress(raw, 1) if target.endswith(".gz") else raw)


def segment(image="-", output="-"):
    header, [nx, ny, nz], [hu] = read(image)
    lungs = bytearray(1 if -1000 < value < -400 else 0 for value in hu)
    air = bytearray(1 if value < -400 else 0 for value in hu)
    # In each slice, air that is connected to the border of the image is outside of the body.
    for z in range(nz):
        first = z * nx * ny
        border = [x + nx * y for y in range(ny) for x in range(nx) if x in (0, nx - 1) or y in (0, ny - 1)]
        pending = [first + at for at in border if air[first + at]]
        while pending:
            at = pending.pop()
            if not air[at]:
                continue
            air[at] = lungs[at] = 0
            x, y = at % nx, at // nx % ny
            pending += [at - 1] * (x > 0) + [at + 1] * (x < nx - 1) + [at - nx] * (y > 0) + [at + nx] * (y < ny - 1)
    write(output, header, lungs, 2)


def grow(image="-", tumor="", seed="0", output="-"):
    header, [nx, ny, nz], volumes = read(image)
    hu, shape = volumes[0], volumes[2] if not tumor else read(tumor)[2][0]
    generator = random.Random(int(seed))
    tissue = generator.uniform(10, 60)
    result = array.array("f", hu)
    steps = [1, nx, nx * ny]
    for at, inside in enumerate(shape):
        if inside:
            # Edge voxels are the mean of tissue and lung (partial volume).
            sides = [at + side * step for step in steps for side in (-1, 1)]
            within = all(0 <= other < len(shape) and shape[other] for other in sides)
            filled = tissue + generator.gauss(0, 8)
            result[at] = filled if within else (filled + hu[at]) / 2
    write(output, header, result, 16)


def score(before, after, tumor, output):
    before, after, tumor = (read(path)[2][0] for path in (before, after, tumor))
    visible = [new - old > 150 for old, new, inside in zip(before, after, tumor) if inside]
    json.dump({"found_fraction": sum(visible) / len(visible)}, open(output, "w"))


if __name__ == "__main__":
    {"segment": segment, "grow": grow, "score": score}[sys.argv[1]](*sys.argv[2:])
