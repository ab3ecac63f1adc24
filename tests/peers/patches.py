"""Compares the volumes of examples/read_patches.py with those of `freetumor export`, voxel by voxel, from exported patches.

    pip install nibabel numpy
    python tests/peers/patches.py RUN [FREETUMOR]

RUN is a run folder of `freetumor run` on NIfTI scans with label files next to them (other scans are counted and skipped). FREETUMOR is
the command [default: freetumor]. The exit code is 0 if all volumes are equal.
"""

import pathlib
import subprocess
import sys
import tempfile

import nibabel
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import read_patches


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


def merged(source, label, boxes):
    """Returns the merged labels of a whole scan. The map from ids of the label file is derived from the exported label outside of the boxes."""
    outside = np.ones(source.shape, bool)
    for box in boxes:
        outside[box] = False
    pairs = np.unique(np.stack([source[outside], label[outside]]), axis=1)
    assert len(set(pairs[0])) == pairs.shape[1], "one id of the label file has two merged ids"
    table = np.zeros(int(source.max()) + 1, np.uint8)
    table[pairs[0]] = pairs[1]
    return table[source]


def main():
    run = pathlib.Path(sys.argv[1])
    command = sys.argv[2] if len(sys.argv) > 2 else "freetumor"
    scans = read_patches.scans(run)
    compared = skipped = 0
    with tempfile.TemporaryDirectory() as scratch:
        folders = {layout: pathlib.Path(scratch) / layout for layout in ("patches", "decathlon")}
        for layout, folder in folders.items():
            subprocess.run([command, "export", run, "--to", folder, "--layout", layout], check=True)
        for split, part in (("train", "Tr"), ("validation", "Tr"), ("test", "Ts")):
            for sample in read_patches.patches(folders["patches"], split):
                patch = read_patches.read(*sample)
                scan = scans.get(patch[0]["scan_id"])
                source = scan and scan.parent / "labels.nii.gz"
                if not source or not source.exists():
                    skipped += 1
                    continue
                image = voxels(folders["decathlon"] / f"images{part}" / f"{sample[3]}.nii.gz")
                label = voxels(folders["decathlon"] / f"labels{part}" / f"{sample[3]}.nii.gz")
                boxes = [box for box, *_ in patch[1]]
                hu, labels = read_patches.paste(patch, voxels(scan), merged(voxels(source), label, boxes))
                np.testing.assert_array_equal(hu, image)
                np.testing.assert_array_equal(labels, label)
                assert all((labels[box] != 0).any() for box in boxes), "a tumor is labeled"
                assert (hu != voxels(scan)).any() == bool(boxes), "a tumor changes something, and a negative nothing"
                compared += 1
    print(f"{compared} volumes are equal voxel by voxel, {skipped} of other scans were skipped")
    return 0 if compared else 1


if __name__ == "__main__":
    sys.exit(main())
