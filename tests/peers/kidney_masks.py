"""Can a classifier tell made kidney tumors from real ones by their masks alone?

    pip install numpy scipy scikit-image scikit-learn nibabel
    python tests/peers/kidney_masks.py [FREETUMOR]

Makes tumors by rules in the kidneys of ../shared/ct/totalseg_abdomen, resampled to 2 mm, and compares their masks with the 113 real tumors of
../shared/reference/kidney_tumor_masks.npz (2 mm, with the kidney). Each real tumor is compared with the made one of the nearest diameter. Prints
the quartiles of every measure and the AUC of cross-fitted classifiers: 0.5 is best. FREETUMOR is the command [default: freetumor].
"""

import pathlib
import subprocess
import sys
import tempfile

import nibabel
import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage.measure import marching_cubes
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))
import read_patches

SPACING_MM, MARGIN_MM, VARIANTS = 2.0, 12.0, 150
GRAPH = """
[pipeline]
name = "kidneys"
seed = 5
split = { train = 1.0, validation = 0.0, test = 0.0 }
[sources.scans]
kind = "folder"
root = "."
include = ["*/ct.nii.gz"]
[stages.organs]
kind = "labels"
inputs = ["scans"]
scheme = "custom"
organs = { kidney = { ids = [1] } }
merged_ids = { kidney = [1, 2] }
[stages.tumors]
kind = "rules"
inputs = ["organs"]
variants = %d
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.filter]
kind = "quality-test"
inputs = ["contrast"]
attempts = 3
accept = ["hu_inside > -1000"]
[sinks.made]
kind = "patches"
inputs = ["filter"]
"""


def measures(box):
    """Measures the tumor (2) of a box with its kidney (1)."""
    tumor = np.pad(box == 2, 2)
    volume = tumor.sum() * SPACING_MM**3
    diameter = (6 * volume / np.pi) ** (1 / 3)
    vertices, faces, _, _ = marching_cubes(tumor.astype(float), 0.5, spacing=(SPACING_MM,) * 3)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    mesh = abs(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)
    depth = ndimage.distance_transform_edt(tumor) * SPACING_MM
    # The largest part that remains after an opening by half of the depth, as a share: necks are cut.
    parts, count = ndimage.label(depth > 0.5 * depth.max())
    largest = max(ndimage.sum_labels(depth > 0, parts, range(1, count + 1)))
    points = np.argwhere(tumor) * SPACING_MM
    axes = 2 * np.sqrt(5 * np.linalg.eigvalsh(np.cov(points.T) + np.eye(3) * SPACING_MM**2 / 12))[::-1]
    faces_of = {0: 0, 1: 0}
    padded = np.pad(box, 1)
    for axis in range(3):
        moved = np.moveaxis(padded, axis, 0)
        for own, other in ((moved[:-1], moved[1:]), (moved[1:], moved[:-1])):
            for label in faces_of:
                faces_of[label] += int(((own == 2) & (other == label)).sum())
    return {
        "diameter_mm": diameter,
        "solidity": mesh / ConvexHull(vertices).volume,
        "sphericity": np.pi ** (1 / 3) * (6 * mesh) ** (2 / 3) / area,
        "thickness": 2 * depth.max() / diameter,
        "without_necks": largest / (depth > 0.5 * depth.max()).sum(),
        "long_over_middle": axes[0] / axes[1],
        "middle_over_short": axes[1] / axes[2],
        "exterior": faces_of[0] / max(faces_of[0] + faces_of[1], 1),
    }


def resample(image, order):
    factor = np.array(image.header.get_zooms()[:3]) / SPACING_MM
    data = ndimage.zoom(np.asanyarray(image.dataobj).astype(np.float32), factor, order=order)
    affine = image.affine @ np.diag([*(1 / factor), 1])
    return data, affine


def made(command):
    folder = pathlib.Path(tempfile.mkdtemp())
    source = ROOT.parent / "shared/ct/totalseg_abdomen"
    hu, affine = resample(nibabel.load(source / "ct.nii.gz"), 1)
    labels = nibabel.load(source / "labels.nii.gz")
    kidneys = nibabel.Nifti1Image(np.isin(np.asanyarray(labels.dataobj), (2, 3)).astype(np.float32), labels.affine, labels.header)
    mask = (resample(kidneys, 1)[0] >= 0.5).astype(np.uint8)
    (folder / "patient").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.round(hu).astype(np.int16), affine), folder / "patient/ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "patient/labels.nii.gz")
    (folder / "kidneys.toml").write_text(GRAPH % VARIANTS)
    subprocess.run([command, "run", folder / "kidneys.toml", "--out", folder / "run"], check=True, capture_output=True)
    margin = round(MARGIN_MM / SPACING_MM)
    for sample in read_patches.patches(folder / "run/layouts/made", "train"):
        whole = np.pad(read_patches.paste(read_patches.read(*sample), np.round(hu).astype(np.int16), mask)[1], margin)
        tumor = np.argwhere(whole == 2)
        low, high = tumor.min(0) - margin, tumor.max(0) + margin + 1
        yield whole[tuple(slice(a, b) for a, b in zip(low, high))]


def main():
    boxes = np.load(ROOT.parent / "shared/reference/kidney_tumor_masks.npz")
    real = [measures(boxes[name]) for name in boxes.files]
    pool = [measures(box) for box in made(sys.argv[1] if len(sys.argv) > 1 else "freetumor")]
    print(f"{len(real)} real tumors, {len(pool)} made ones")
    matched, free = [], set(range(len(pool)))
    for tumor in sorted(real, key=lambda tumor: -tumor["diameter_mm"]):
        nearest = min(free, key=lambda index: abs(np.log(pool[index]["diameter_mm"] / tumor["diameter_mm"])))
        if abs(np.log(pool[nearest]["diameter_mm"] / tumor["diameter_mm"])) < 0.15:
            free.remove(nearest)
            matched.append((tumor, pool[nearest]))
    print(f"{len(matched)} pairs of equal diameter (within 15%)")
    names = list(real[0])
    for name in names:
        quartiles = [np.percentile([pair[which][name] for pair in matched], (25, 50, 75)).round(3) for which in (0, 1)]
        print(f"  {name:18} real {quartiles[0]}, made {quartiles[1]}")
    features = np.array([[pair[which][name] for name in names] for which in (0, 1) for pair in matched])
    truth = np.repeat([0, 1], len(matched))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for model in (make_pipeline(StandardScaler(), LogisticRegression()), GradientBoostingClassifier(random_state=0)):
        score = cross_val_predict(model, features, truth, cv=folds, method="predict_proba")[:, 1]
        print(f"  AUC of {type(model[-1] if hasattr(model, 'steps') else model).__name__}: {roc_auc_score(truth, score):.3f}")


if __name__ == "__main__":
    main()
