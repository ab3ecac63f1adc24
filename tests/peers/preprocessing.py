#!/usr/bin/env python3
"""Compares the result and the speed of preprocessing with MONAI.

    pip install torch monai nibabel numpy
    python tests/peers/preprocessing.py [--scan CT --labels LABELS] [--pairs 7] [--threads N] [--binary BENCH]

Both read a scan and its labels, orient them to RAS, resample them to 1.5 mm, window -175..250 HU to 0..1 and crop to
the foreground, alternately and on the same number of threads. The script prints the ratio of the medians, then each compared
value. Without --binary the benchmark is built with `cargo bench --no-run`. The exit code is 1 if the results differ or the
ratio is below --at-least.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def arguments():
    folder = ROOT / "../shared/ct/totalseg_abdomen"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, default=folder / "ct.nii.gz")
    parser.add_argument("--labels", type=Path, default=folder / "labels.nii.gz")
    parser.add_argument("--pairs", type=int, default=7, help="runs of each, alternately")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--binary", type=Path, help="the built benchmark")
    parser.add_argument("--at-least", type=float, default=8.0, help="the required ratio")
    return parser.parse_args()


def build_benchmark():
    """Builds the benchmark and returns its path."""
    command = ["cargo", "bench", "--bench", "preprocessing", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = (json.loads(line) for line in lines if line.startswith("{"))
    found = [m["executable"] for m in messages if m.get("target", {}).get("name") == "preprocessing" and m.get("executable")]
    return Path(found[-1])


def ours(args, binary, folder=None):
    """Returns the seconds of one run in a new process, without start-up; writes the result to `folder`."""
    command = [binary, args.scan, args.labels, "--json", "--repeat", "1"] + (["--write", folder] if folder else [])
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(line)["seconds"][0]


def main():
    args = arguments()
    if not args.scan.exists():
        print(f"skipped: {args.scan} does not exist")
        return 0
    import numpy as np
    import torch
    from monai.transforms import (Compose, CropForegroundd, EnsureChannelFirstd, LoadImaged, Orientationd,
                                  ScaleIntensityRanged, Spacingd)

    torch.set_num_threads(args.threads)
    keys = ["image", "label"]
    monai = Compose([
        LoadImaged(keys), EnsureChannelFirstd(keys), Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, pixdim=(1.5, 1.5, 1.5), mode=("bilinear", "nearest")),
        ScaleIntensityRanged(["image"], a_min=-175, a_max=250, b_min=0, b_max=1, clip=True),
        CropForegroundd(keys, source_key="image")])
    files = {"image": str(args.scan), "label": str(args.labels)}
    binary = (args.binary or build_benchmark()).resolve()

    monai(dict(files)), ours(args, binary)  # warm up the file cache of both
    seconds = {"MONAI": [], "freetumor": []}
    for _ in range(args.pairs):
        start = time.perf_counter()
        expected = monai(dict(files))
        seconds["MONAI"].append(time.perf_counter() - start)
        seconds["freetumor"].append(ours(args, binary))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name:<10} median {1e3 * medians[name]:8.1f} ms, fastest {1e3 * min(values):8.1f} ms of {len(values)}")
    ratio = medians["MONAI"] / medians["freetumor"]
    print(f"ratio of medians {ratio:.1f} on {args.threads} threads, required {args.at_least}")

    with tempfile.TemporaryDirectory() as folder:
        ours(args, binary, folder)
        grid = json.loads((Path(folder) / "grid.json").read_text())
        shape = grid["shape"]
        image = np.fromfile(Path(folder) / "image.f32", "<f4").reshape(shape[::-1]).transpose()
        labels = np.fromfile(Path(folder) / "labels.u16", "<u2").reshape(shape[::-1]).transpose()
    expected_image, expected_labels = expected["image"][0].numpy(), expected["label"][0].numpy()
    # freetumor also pads to the patch, which does not change larger scans.
    before = [max(0, a - b) // 2 for a, b in zip(shape, expected_image.shape)]
    part = tuple(slice(b, b + n) for b, n in zip(before, expected_image.shape))
    affine = np.array(grid["affine"])
    affine[:, 3] += affine[:, :3] @ before
    difference = float(np.abs(image[part] - expected_image).max())
    checks = {
        "shape": image[part].shape == expected_image.shape,
        "affine": bool(np.allclose(affine, expected["image"].affine.numpy()[:3], atol=1e-6, rtol=0)),
        f"image, maximum difference {difference:.1e} of the window": difference < 1e-4,
        f"labels, {int((labels[part] != expected_labels).sum())} voxels differ": bool((labels[part] == expected_labels).all()),
        "padding": float(np.abs(image).sum(dtype=np.float64)) == float(np.abs(image[part]).sum(dtype=np.float64)),
    }
    for name, agrees in checks.items():
        print(f"{'equal' if agrees else 'DIFFERENT':<10} {name}")
    return 0 if all(checks.values()) and ratio >= args.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
