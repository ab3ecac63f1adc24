"""Compares the tumors that three filters accept with real ones: all candidates, the published filter and the calibrated test.

    freetumor calibrate GRAPH --labeled FILE --out reference.json --tumors tumors.csv
    python tests/peers/filters.py tumors.csv [sheet.png REAL POOL PUBLISHED CALIBRATED]

Prints the distance of Kolmogorov and Smirnov of each score and the area under the curve of a classifier on held-out patients. With folders of
images and labels (`imagesTr`, `labelsTr`) of each group, draws eight tumors of each. Needs numpy, pandas, scikit-learn; the sheet also needs
nibabel and matplotlib.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from calibration import features, values
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

SCORES = ["diameter_mm", "delta_hu", "held_out_found_fraction"]
FILTERS = {
    "all candidates": lambda made: np.ones(len(made)),
    "`found_fraction > 0.7`": lambda made: (made["found_fraction"] > 0.7).to_numpy(float),
    "calibrated": lambda made: made["acceptance"].fillna(0).to_numpy(),
}
CAP, FLOOR = 5.0, 0.02
COLUMNS = 8
TUMOR_LABEL = 2
HALF_MM = 60.0
WINDOW_HU = (-100.0, 200.0)


def distance(real, made, weights):
    """Returns the maximum difference of the two distribution functions."""
    grid = np.sort(np.concatenate([real, made]))
    order = np.argsort(made)
    sums = np.concatenate([[0], np.cumsum(weights[order])])
    ours = sums[np.searchsorted(made[order], grid, side="right")] / weights.sum()
    theirs = np.searchsorted(np.sort(real), grid, side="right") / len(real)
    return np.abs(ours - theirs).max()


def auc(real, made, weights):
    """Returns the mean area under the curve of a logistic regression over five folds of patients."""
    rows = np.concatenate([values(real, SCORES), values(made, SCORES)])
    y = np.arange(len(rows)) < len(real)
    weights = np.concatenate([np.ones(len(real)), weights])
    patients = pd.concat([real["patient_key"], made["patient_key"]])
    areas = []
    for train, test in GroupKFold(5).split(rows, y, patients):
        reference = rows[train][y[train]]
        x = features(rows, reference, SCORES)
        balance = np.where(y[train], weights[train][~y[train]].sum() / y[train].sum(), 1.0)
        model = LogisticRegression(max_iter=1000).fit(x[train], y[train], sample_weight=weights[train] * balance)
        areas.append(roc_auc_score(y[test], model.decision_function(x[test]), sample_weight=weights[test]))
    return np.mean(areas)


def acceptance(real, made, others):
    """Returns the probabilities of acceptance of `others` by a ratio that is estimated from real and made tumors of other patients."""
    rows = np.concatenate([values(real, SCORES), values(made, SCORES)])
    y = np.arange(len(rows)) < len(real)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(features(rows, values(real, SCORES), SCORES), y)
    ratio = lambda table: np.exp(model.decision_function(features(values(table, SCORES), values(real, SCORES), SCORES)))
    maximum = min(CAP, np.quantile(ratio(made), 0.95))
    own = ratio(others)
    return np.where(others["meets_conditions"] & (own >= FLOOR), np.minimum(1, own / maximum), 0)


def auc_of_calibrated(real, made):
    """Returns the area for accepted candidates: one half of the patients decides on the candidates of the other half."""
    half = lambda table: pd.factorize(table["patient_key"], sort=True)[0] % 2
    areas = []
    for k in (0, 1):
        (own, other) = ([table[half(table) == h] for table in (real, made)] for h in (k, 1 - k))
        meets = other[1][other[1]["meets_conditions"]]
        areas.append(auc(own[0], own[1], acceptance(other[0], meets, own[1])))
    return np.mean(areas)


def table(path):
    """Prints the comparison of each filter."""
    tumors = pd.read_csv(path).dropna(subset=SCORES)
    real, made = (tumors[tumors["kind"] == kind] for kind in ("real", "candidate"))
    real = real[real["meets_conditions"]]
    print("| filter | accepted | " + " | ".join(f"`{name}`" for name in SCORES) + " | AUC | mean found fraction |")
    print("|---" * (len(SCORES) + 4) + "|")
    for name, weigh in FILTERS.items():
        weights = weigh(made)
        distances = [distance(values(real, [s])[:, 0], values(made, [s])[:, 0], weights) for s in SCORES]
        found = (made["held_out_found_fraction"] * weights).sum() / weights.sum()
        area = auc_of_calibrated(real, made) if name == "calibrated" else auc(real, made, weights)
        cells = [f"{100 * weights.mean():.0f}%", *(f"{d:.2f}" for d in distances), f"{area:.2f}"]
        print(f"| {name} | " + " | ".join(cells) + f" | {found:.2f} |")
    print(f"| real tumors | | | | | | {real['held_out_found_fraction'].mean():.2f} |")


def crops(folder):
    """Returns axial crops around the largest slice of the tumors of a folder, each with the outline of the label."""
    import nibabel

    for label_path in sorted(Path(folder, "labelsTr").glob("*.nii.gz")):
        image_path = next(Path(folder, "imagesTr").glob(label_path.name.replace(".nii.gz", "*.nii.gz")))
        label = nibabel.load(label_path)
        ids, hu = np.asarray(label.dataobj), nibabel.load(image_path).get_fdata()
        areas = (ids == TUMOR_LABEL).sum(axis=(0, 1))
        if areas.max() == 0:
            continue
        k = int(areas.argmax())
        i, j = (int(np.mean(axis)) for axis in np.nonzero(ids[:, :, k] == TUMOR_LABEL))
        half = [int(round(HALF_MM / mm)) for mm in label.header.get_zooms()[:2]]
        window = np.s_[max(i - half[0], 0) : i + half[0], max(j - half[1], 0) : j + half[1], k]
        yield hu[window].T, (ids[window] == TUMOR_LABEL).T


def sheet(path, folders):
    """Draws eight tumors of each group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ["real tumors", *(name.strip("`") for name in FILTERS)]
    figure, axes = pyplot.subplots(len(folders), COLUMNS, figsize=(1.5 * COLUMNS, 1.6 * len(folders)))
    for row, name, folder in zip(axes, names, folders):
        found = list(crops(folder))
        # Evenly spaced: names of samples are hashes.
        picked = [found[int(k)] for k in np.linspace(0, len(found) - 1, COLUMNS)]
        for axis, (image, tumor) in zip(row, picked):
            axis.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], origin="lower")
            axis.contour(tumor, levels=[0.5], colors="tab:orange", linewidths=0.6)
            axis.set_axis_off()
        row[0].set_title(name, fontsize=9, loc="left")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    table(sys.argv[1])
    if len(sys.argv) > 2:
        sheet(sys.argv[2], sys.argv[3:])
