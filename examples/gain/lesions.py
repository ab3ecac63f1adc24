#!/usr/bin/env python3
"""Prints which share of dark and bright tumors each arm finds; the tables of the evaluation only have sizes.

    pip install numpy scipy nibabel polars
    python examples/gain/lesions.py runs/gain

Reads `lesions.parquet` of the experiment, or of `freetumor evaluate`, and matches every lesion with the label maps of the population by centre
and volume. The contrast is the mean HU of the lesion minus the median HU of the liver. The table has the number of lesions and the mean
found share of their voxels over lesions and networks, for every arm. The exit code is 1 if a lesion of the table is not in the population.
"""
import argparse
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
from scipy import ndimage

LIVER, TUMOR = 1, 2
CLASSES = [("dark, < -20 HU", -np.inf, -20.0), ("between", -20.0, 5.0), ("bright, > 5 HU", 5.0, np.inf)]


def lesions(image_path, labels_path):
    """Returns the centre (RAS, mm), the volume (mm3) and the contrast (HU) of each lesion of a case."""
    image, labels = nib.load(image_path), nib.load(labels_path)
    hu, ids = image.get_fdata(), np.asarray(labels.dataobj)
    assert np.allclose(image.affine, labels.affine), f"{image_path.name}: image and labels are on different grids"
    liver = np.median(hu[ids == LIVER])
    parts, count = ndimage.label(ids == TUMOR, np.ones((3, 3, 3)))
    voxel_mm3 = abs(np.linalg.det(labels.affine[:3, :3]))
    for part in range(1, count + 1):
        inside = parts == part
        center = nib.affines.apply_affine(labels.affine, np.argwhere(inside).mean(0))
        yield {
            "case": labels_path.name.removesuffix(".nii.gz"),
            "center": center,
            "volume": inside.sum() * voxel_mm3,
            "contrast_hu": float(hu[inside].mean() - liver),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the experiment")
    parser.add_argument("--lesions", type=Path, help="a table of `freetumor evaluate` [default: OUT/lesions.parquet]")
    parser.add_argument("--part", default="Ts", help="the part of the population: Ts is the test set, Va validation")
    args = parser.parse_args()
    world = args.out / "world"
    table = pl.read_parquet(args.lesions or args.out / "lesions.parquet")
    truth = {}
    for labels in sorted((world / f"labels{args.part}").glob("*.nii.gz")):
        truth[labels.name.removesuffix(".nii.gz")] = list(lesions(world / f"images{args.part}" / labels.name, labels))

    def contrast(row):
        center = np.array([row["center_r_mm"], row["center_a_mm"], row["center_s_mm"]])
        for lesion in truth.get(row["case"], []):
            if np.linalg.norm(lesion["center"] - center) < 0.1 and abs(lesion["volume"] / row["volume_mm3"] - 1) < 0.01:
                return lesion["contrast_hu"]
        sys.exit(f"lesion {row['lesion']} of {row['case']} is not in {world}")

    distinct = table.unique(["case", "lesion"], maintain_order=True)
    contrasts = {(row["case"], row["lesion"]): contrast(row) for row in distinct.iter_rows(named=True)}
    hu = pl.Series("contrast_hu", [contrasts[key] for key in table.select("case", "lesion").iter_rows()])
    table = table.with_columns(hu)
    counts = [sum(low <= value < high for value in contrasts.values()) for _, low, high in CLASSES]
    print("| arm |" + "".join(f" {name} ({count}) |" for (name, *_), count in zip(CLASSES, counts)) + " all |")
    print("|---|" + "---|" * (len(CLASSES) + 1))
    for (arm,), rows in table.group_by(["arm"], maintain_order=True):
        parts = [rows.filter(pl.col("contrast_hu").is_between(low, high, closed="left")) for _, low, high in CLASSES]
        means = [part["covered_fraction"].mean() if len(part) else float("nan") for part in [*parts, rows]]
        print(f"| {arm} |" + "".join(f" {mean:.3f} |" for mean in means))


if __name__ == "__main__":
    main()
