#!/usr/bin/env python3
"""Trains a small segmentation network on tumors that freetumor makes while the training runs.

    pip install numpy torch
    train_stream.py [--binary freetumor] [--steps 20]      train
    train_stream.py --read 10                              read ten samples and stop; needs the standard library alone

The pipeline has a sink of kind `stream`: an endless tar of `KEY.image.nii.gz`, `KEY.json`, `KEY.label.nii.gz`. The same pipe works
in webdataset: `webdataset.WebDataset("pipe:freetumor run GRAPH --out RUN --sink stream")`.
"""

import argparse
import gzip
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

GRAPH = """
[pipeline]
name = "stream"
seed = 1

[sources.phantoms]
kind = "phantom"
count = 8
shape = [80, 80, 56]
spacing_mm = [4.5, 4.5, 5]

[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]

[stages.tumors]
kind = "rules"
inputs = ["organs"]
diameter_mm = [25, 60]

[stages.contrast]
kind = "intensity"
inputs = ["tumors"]

[stages.test]
kind = "quality-test"
inputs = ["contrast"]
attempts = 10
accept = ["delta_hu < -20 HU"]

[sinks.stream]
kind = "stream"
inputs = ["test"]
"""


def samples(pipe):
    """Yields (key, members) for each sample; members are the bytes of its files by extension."""
    key, members = None, {}
    with tarfile.open(fileobj=pipe, mode="r|") as archive:
        for member in archive:
            name, extension = member.name.split(".", 1)
            if name != key and members:
                yield key, members
                members = {}
            key = name
            members[extension] = archive.extractfile(member).read()
    if members:
        yield key, members


def nifti_shape(data):
    """Voxels along [x, y, z] of a compressed NIfTI-1 file, and the offset of its first voxel."""
    data = gzip.decompress(data)
    return struct.unpack("<3h", data[42:48]), int(struct.unpack("<f", data[108:112])[0]), data


def volume(data, dtype):
    import numpy

    shape, offset, data = nifti_shape(data)
    return numpy.frombuffer(data, dtype, shape[0] * shape[1] * shape[2], offset).reshape(shape, order="F")


def train(pipe, steps):
    import numpy
    import torch

    layer = lambda a, b: torch.nn.Sequential(torch.nn.Conv3d(a, b, 3, padding=1), torch.nn.InstanceNorm3d(b), torch.nn.ReLU())
    network = torch.nn.Sequential(layer(1, 8), layer(8, 8), torch.nn.Conv3d(8, 2, 1))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for step, (key, members) in zip(range(steps), samples(pipe)):
        hu = volume(members["image.nii.gz"], numpy.int16).astype("f4")
        tumor = volume(members["label.nii.gz"], numpy.uint8) == 2
        image = torch.from_numpy(numpy.clip((hu + 175) / 425, 0, 1))[None, None]
        loss = torch.nn.functional.cross_entropy(network(image), torch.from_numpy(tumor.astype("i8"))[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: sample {key}, loss {loss.item():.4f}")


def read(pipe, count):
    for _, (key, members) in zip(range(count), samples(pipe)):
        image, label = (nifti_shape(members[name])[0] for name in ("image.nii.gz", "label.nii.gz"))
        if image != label:
            sys.exit(f"{key}: the image has the shape {image} and the label {label}")
        print(f"{key}: {image[0]} x {image[1]} x {image[2]} voxels")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="freetumor")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--read", type=int, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "stream.toml"
        graph.write_text(GRAPH)
        command = [args.binary, "run", graph, "--out", f"{folder}/run", "--sink", "stream"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            if args.read is None:
                train(process.stdout, args.steps)
            else:
                read(process.stdout, args.read)
            # The stream ends when its reader leaves.
            process.stdout.close()


if __name__ == "__main__":
    main()
