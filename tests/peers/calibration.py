"""Compares the density ratios of `freetumor calibrate` with a logistic regression of scikit-learn.

    freetumor calibrate GRAPH --labeled MASK --out reference.json --tumors tumors.csv
    python tests/peers/calibration.py reference.json tumors.csv

Needs numpy, pandas and scikit-learn.
"""

import json
import sys

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

TOLERANCE = 1e-6
MAX_DEVIATIONS = 3.0
MIN_DEVIATION = 1e-6


def values(table, scores):
    """Returns the scores of tumors, the diameter as its logarithm."""
    columns = [np.log(table["diameter_mm"]) if name == "diameter_mm" else table[name] for name in scores]
    return np.stack(columns, axis=1)


def standardized(column, real):
    """Standardizes a column by the real tumors."""
    deviation = max(real.std(), MIN_DEVIATION)
    return np.clip((column - real.mean()) / deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)


def features(rows, real, scores):
    """Returns z, z² − 1, the products of two scores, and |ΔHU|, |ΔHU|² − 1."""
    z = np.stack([standardized(rows[:, k], real[:, k]) for k in range(rows.shape[1])], axis=1)
    products = [z[:, i] * z[:, j] for i in range(z.shape[1]) for j in range(i + 1, z.shape[1])]
    columns = [*z.T, *(z**2 - 1).T, *products]
    if "delta_hu" in scores:
        k = scores.index("delta_hu")
        absolute = standardized(np.abs(rows[:, k]), np.abs(real[:, k]))
        columns += [absolute, absolute**2 - 1]
    return np.stack(columns, axis=1)


def main(reference_path, tumors_path):
    with open(reference_path, encoding="utf-8") as file:
        reference = json.load(file)
    tumors = pd.read_csv(tumors_path)
    failed = False
    for organ, fitted in reference["organs"].items():
        scores = [scaled["score"] for scaled in fitted["features"]["scores"]]
        own = tumors[(tumors["organ"] == organ) & tumors["meets_conditions"]].dropna(subset=reference["scores"])
        real, made = (own[own["kind"] == kind] for kind in ("real", "candidate"))
        real_rows, made_rows = values(real, scores), values(made, scores)
        rows = np.concatenate([real_rows, made_rows])
        x = features(rows, real_rows, scores)
        y = np.arange(len(rows)) < len(real_rows)
        model = LogisticRegression(C=1.0, class_weight="balanced", solver="newton-cholesky", tol=1e-12, max_iter=1000)
        model.fit(x, y)
        ours = np.array([*fitted["weights"], fitted["intercept"]])
        theirs = np.array([*model.coef_[0], model.intercept_[0]])
        ratio = np.exp(model.decision_function(x))
        likeness = own.loc[[*real.index, *made.index], "likeness"].to_numpy()
        maximum = min(reference["cap"], np.sort(ratio[len(real_rows) :])[int(np.ceil(0.95 * len(made_rows))) - 1])
        errors = {
            "weights": np.abs(ours - theirs).max(),
            "density ratios": np.abs(likeness / ratio - 1).max(),
            "maximum": abs(fitted["maximum"] / maximum - 1),
        }
        for name, error in errors.items():
            print(f"{organ}: {len(real)} real tumors, {len(made)} candidates: {name} differ by {error:.1e}")
            failed |= error > TOLERANCE
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
