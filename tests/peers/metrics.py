#!/usr/bin/env python3
"""Compares Dice and surface Dice with MONAI, and lesions with components of scipy, on random and real label maps, and the time.

    pip install torch monai scipy nibabel numpy polars
    cargo build --release
    python tests/peers/metrics.py [--binary target/release/freetumor] [--cases 40] [--large 512,512,100]

Random blobs on grids of any spacing, and the livers of ../shared/ct with a shifted copy as prediction, are evaluated by
`freetumor evaluate`. The tables are compared with compute_dice and compute_surface_dice of MONAI (with spacing, tolerance
max(2 mm, spacing)), and lesions with the 26-connected components of scipy. Then one pair of --large voxels is timed. The exit code is
1 if a result differs.
"""
import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import torch
from monai.metrics import compute_dice, compute_surface_dice
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
TUMOR = 2


def save(path, ids, spacing):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(ids.astype(np.uint8), np.diag([*spacing, 1.0])), path)


def blobs(rng, shape, share, sigma):
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return noise > np.quantile(noise, 1 - share)


def pairs(count, rng):
    """Yields the name, truth, prediction and spacing of each case."""
    for case in range(count):
        shape = rng.integers(8, 60, 3)
        spacing = np.round(rng.uniform(0.5, 1.2, 3), 2)
        spacing[rng.integers(3)] = round(rng.uniform(0.5, 6.0), 2)
        sigma = rng.uniform(0.7, 3.0)
        truth = blobs(rng, shape, rng.uniform(0, 0.1), sigma)
        found = np.roll(truth, rng.integers(-2, 3, 3), (0, 1, 2)) ^ blobs(rng, shape, rng.uniform(0, 0.03), sigma)
        if case % 10 == 8:
            found[:] = False
        if case % 10 == 9:
            truth[:] = False
        yield f"random-{case:03}", truth, found, spacing
    for name, liver in [("totalseg_abdomen", 5), ("totalseg_liver_dicom", 5), ("crlm_1004", None), ("lung1_001", 4)]:
        path = ROOT / "../shared/ct" / name / ("liver.nii.gz" if liver is None else "labels.nii.gz")
        if not path.exists():
            print(f"skipped: {path.name} of {name} does not exist")
            continue
        image = nib.load(path)
        ids = np.asarray(image.dataobj)
        truth = ids > 0 if liver is None else ids == liver
        found = ndimage.binary_opening(np.roll(truth, (2, -1, 1), (0, 1, 2)))
        yield name, truth, found, np.array(image.header.get_zooms()[:3], float)


def monai(truth, found, spacing):
    maps = [torch.from_numpy(np.ascontiguousarray(a))[None, None] for a in (found, truth)]
    tolerance = float(max(2.0, spacing.max()))
    dice = float(compute_dice(*maps, include_background=True, ignore_empty=False))
    nsd = float(compute_surface_dice(*maps, [tolerance], include_background=True, spacing=[float(s) for s in spacing]))
    return dice, nsd


def lesions(truth, found, spacing):
    """Returns the voxels and the covered share of each lesion, sorted, and the number of false positives."""
    corners = np.ones((3, 3, 3))
    labels, count = ndimage.label(truth, corners)
    own = sorted((int((labels == i).sum()), float(found[labels == i].mean())) for i in range(1, count + 1))
    labels, count = ndimage.label(found, corners)
    outside = [i for i in range(1, count + 1) if not truth[labels == i].any()]
    return own, sum(int((labels == i).sum()) * float(np.prod(spacing)) > 30 for i in outside)


def evaluate(binary, folder, *more):
    start = time.perf_counter()
    command = [binary, "evaluate", "--truth", "truth", "--predictions", "found", "--organ", f"lesion={TUMOR}",
               "--resamples", "100", *more]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    return done.returncode, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/freetumor")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--large", default="512,512,100")
    args = parser.parse_args()
    binary = args.binary.resolve()
    rng = np.random.default_rng(7)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        expected = {}
        for name, truth, found, spacing in pairs(args.cases, rng):
            save(folder / "truth" / f"{name}.nii.gz", TUMOR * truth, spacing)
            save(folder / "found" / f"{name}.nii.gz", TUMOR * found, spacing)
            # The spacing in the file is in single precision.
            spacing = np.array(nib.load(folder / "truth" / f"{name}.nii.gz").header.get_zooms(), float)
            expected[name] = monai(truth, found, spacing), lesions(truth, found, spacing)
        code, _ = evaluate(binary, folder)
        if code != 0:
            print(f"freetumor evaluate failed with exit code {code}")
            return 1
        cases = {row["case"]: row for row in pl.read_parquet(folder / "evaluation/cases.parquet").iter_rows(named=True)}
        rows = pl.read_parquet(folder / "evaluation/lesions.parquet")
        differences = {"dice": 0.0, "nsd": 0.0}
        for name, ((dice, nsd), (own, false_positives)) in expected.items():
            row = cases[name]
            for metric, theirs, ours in [("dice", dice, row["tumor_dice"]), ("nsd", nsd, row["tumor_nsd"])]:
                if ours is None or np.isnan(theirs):
                    # For two empty maps, MONAI returns a Dice of 1 if empty truths are not ignored, and an NSD of NaN.
                    failures += not (ours is None and (np.isnan(theirs) or theirs == 1.0))
                else:
                    differences[metric] = max(differences[metric], abs(theirs - ours))
            of_case = rows.filter(pl.col("case") == name)
            ours = sorted(zip(of_case["voxels"].to_list(), of_case["covered_fraction"].to_list()))
            same = len(own) == len(ours) and all(a == c and abs(b - d) < 1e-12 for (a, b), (c, d) in zip(own, ours))
            if not same or row["false_positives"] != false_positives:
                print(f"{name}: lesions differ from those of scipy")
                failures += 1
        for metric, difference in differences.items():
            print(f"{metric}: maximum difference from MONAI {difference:.1e} over {len(expected)} cases")
            # The results of MONAI are in single precision.
            failures += difference > 1e-6
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shape, spacing = [int(n) for n in args.large.split(",")], np.array([0.8, 0.8, 2.0])
        truth = ndimage.zoom(blobs(rng, [n // 8 for n in shape], 0.02, 1.5).astype(np.uint8), 8, order=0)
        truth = np.pad(truth, [(0, n - m) for n, m in zip(shape, truth.shape)])
        found = np.roll(truth, (2, 1, 1), (0, 1, 2))
        save(folder / "truth/large.nii.gz", TUMOR * truth, spacing)
        save(folder / "found/large.nii.gz", TUMOR * found, spacing)
        start = time.perf_counter()
        theirs = monai(truth > 0, found > 0, spacing)
        seconds = time.perf_counter() - start
        code, ours = evaluate(binary, folder)
        row = pl.read_parquet(folder / "evaluation/cases.parquet").row(0, named=True)
        failures += code != 0 or abs(row["tumor_nsd"] - theirs[1]) > 1e-6
        print(f"{args.large} voxels, {int(truth.sum())} of tumor: freetumor {ours:.2f} s with reading, lesions and "
              f"tables; MONAI {seconds:.2f} s for Dice and NSD only")
    print("equal" if failures == 0 else f"DIFFERENT: {failures}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
