#!/usr/bin/env python3
"""Reads samples with a PyTorch loader while freetumor makes them.

    pip install webdataset nibabel torch
    python tests/peers/stream.py [--binary freetumor]

Runs `pipelines/quickstart.toml` with a sink of kind `stream` through a pipe, like a trainer, and reads 150 samples: more than one pass
over the accepted samples of the run. The exit code is 1 if a sample lacks its image or label, or their shapes differ.
"""
import argparse
import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import webdataset

ROOT = Path(__file__).resolve().parents[2]
STREAM = """
[sinks.stream]
kind = "stream"
inputs = ["visible", "dense"]
"""


def volume(bytes_):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(bytes_))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", default="freetumor")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "streamed.toml"
        text = (ROOT / "pipelines/quickstart.toml").read_text()
        graph.write_text(text.replace("networks/", f"{ROOT}/pipelines/networks/") + STREAM)
        command = f"{args.binary} run {graph} --out {folder}/run --sink stream 2>/dev/null"
        samples = webdataset.WebDataset(f"pipe:{command}", shardshuffle=False, handler=webdataset.warn_and_stop)
        count, keys = 0, set()
        for sample in samples:
            image, label = volume(sample["image.nii.gz"]), volume(sample["label.nii.gz"])
            if image.shape != label.shape or not (image.affine == label.affine).all():
                sys.exit(f"{sample['__key__']}: image {image.shape} and label {label.shape} are on different grids")
            count += 1
            keys.add(sample["__key__"])
            if count == 150:
                break
        print(f"{count} samples, {len(keys)} of them different, read through a pipe")
        sys.exit(count < 150 or len(keys) == count)


if __name__ == "__main__":
    main()
