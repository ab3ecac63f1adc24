#!/usr/bin/env python3
"""Reads patches (a sink of kind "patches", RUN/layouts/NAME, or `freetumor export --layout patches`) and pastes them onto their scans.

A sample is a scan plus a patch: outside the boxes of the patch every voxel is that of the scan. A patch has a box for each tumor, and none if
the sample is a negative, an unchanged scan. Requires numpy and nibabel.

    read_patches.py PATCHES RUN OUT    write each sample whose scan is a NIfTI file as OUT/ID.nii.gz
"""

import gzip
import io
import json
import os
import pathlib
import sys
import tarfile

import nibabel
import numpy as np


def patches(folder, split):
    """Lists the samples of a split: path of the shard, offset and length in the shard, id. Ranks and workers can split the list by index."""
    index = pathlib.Path(folder) / f"{split}.json"
    if not index.is_file():
        raise SystemExit(f"{folder} has no {index.name}: use a sink of kind patches, or `freetumor export --layout patches`")
    for shard in json.loads(index.read_text())["shardlist"]:
        for sample in shard["samples"]:
            yield pathlib.Path(folder) / shard["url"], sample["offset"], sample["length"], sample["key"]


def read(shard, offset, length, key):
    """Reads one patch: its description, and a list with the box (slices of the scan), HU with and without the tumors, and labels of each box; axes
    [x, y, z]."""
    with open(shard, "rb") as file:
        file.seek(offset)
        part = file.read(length) + bytes(1024)  # a part of an archive, and an end of archive
    members = {}
    with tarfile.open(fileobj=io.BytesIO(part)) as archive:
        for member in archive:
            members[member.name.removeprefix(f"{key}.")] = archive.extractfile(member).read()
    image = lambda name: np.asanyarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(members[name])).dataobj)
    description, boxes = json.loads(members["json"]), []
    for number, position in enumerate(description["boxes"]):
        box = tuple(slice(a, a + n) for a, n in zip(position["origin_voxel"], position["shape_voxels"]))
        suffix = f".{number}.nii.gz" if number else ".nii.gz"
        boxes.append((box, image("after" + suffix), image("before" + suffix), image("label" + suffix)))
    return description, boxes


def paste(patch, hu, labels=None):
    """Returns the scan with the tumors, and the labels with the labels of the tumors. `hu` and `labels` (the merged organ labels of the scan, or
    zeros) are on the grid of the scan. Fails on a scan with other voxels in a box; `description["scan_digest"]` identifies whole scans. Every
    box has the voxels of all tumors, so the order of the boxes has no effect."""
    description, boxes = patch
    if not all(np.array_equal(hu[box], before) for box, _, before, _ in boxes):
        raise ValueError(f"{description['sample_id']} belongs to another scan, or to another orientation of the scan")
    hu, labels = hu.copy(), np.zeros(hu.shape, np.uint8) if labels is None else labels.copy()
    for box, after, _, label in boxes:
        hu[box], labels[box] = after, label
    return hu, labels


def scans(run):
    """Returns the path of each NIfTI scan of a run by scan_id; reads RUN/private, which only the owner of the run can read."""
    run = pathlib.Path(run)
    private = json.loads((run / "private/pipeline.json").read_text())
    sources, base = private["pipeline"]["sources"], pathlib.Path(private["folder"])
    source_of = {e["scan_id"]: e["source"] for f in (run / "ingest").glob("*.json") for e in json.loads(f.read_text())["entries"]}
    lines = [json.loads(line) for f in (run / "private").glob("*.jsonl") for line in f.read_text().splitlines()]
    roots = {name: base / os.path.expandvars(source["root"]) for name, source in sources.items() if "root" in source}
    paths = {e["scan_id"]: roots[source_of[e["scan_id"]]] / e["key"] for e in lines if source_of[e["scan_id"]] in roots}
    return {scan: path for scan, path in paths.items() if path.name.endswith((".nii", ".nii.gz"))}


# PyTorch: one sample per index, for any sampler and any number of workers.
#
#   class Patches(torch.utils.data.Dataset):
#       def __init__(self, folder, split, paths):
#           self.samples, self.paths = list(patches(folder, split)), paths
#       def __len__(self):
#           return len(self.samples)
#       def __getitem__(self, index):
#           patch = read(*self.samples[index])
#           hu = np.asanyarray(nibabel.load(self.paths[patch[0]["scan_id"]]).dataobj)
#           hu, labels = paste(patch, hu)
#           return torch.from_numpy(hu[None].astype("f4")), torch.from_numpy(labels[None])
#
# MONAI: a transform after LoadImaged, before any transform that changes the grid. The data is [{"image": scan, "label": mask, "patch": s}].
#
#   class PasteTumord(monai.transforms.MapTransform):
#       def __init__(self, image="image", label="label", patch="patch"):
#           super().__init__([image, label, patch])
#       def __call__(self, data):
#           image, label, patch = self.keys
#           data = dict(data)
#           hu, labels = paste(read(*data[patch]), data[image].numpy(), data[label].numpy())
#           data[image].copy_(torch.from_numpy(hu)), data[label].copy_(torch.from_numpy(labels))
#           return data


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    folder, run, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    paths, written, skipped = scans(run), 0, 0
    for split in ("train", "validation", "test"):
        for sample in patches(folder, split):
            patch = read(*sample)
            if (path := paths.get(patch[0]["scan_id"])) is None:
                skipped += 1
                continue
            scan = nibabel.load(path)
            hu, _ = paste(patch, np.asanyarray(scan.dataobj))
            nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), scan.affine), f"{out}/{sample[3]}.nii.gz")
            written += 1
    print(f"{out}: {written} samples written, {skipped} skipped whose scans are not NIfTI files")
    sys.exit(0 if written else "no sample has a scan that is a NIfTI file")
