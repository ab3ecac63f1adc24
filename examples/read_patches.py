#!/usr/bin/env python3
"""Reads patches (a sink of kind "patches", RUN/layouts/NAME, or `freetumor export --layout patches`) and pastes them onto their scans.

A sample is a scan plus a patch: outside the patch's box every voxel is the scan's own. numpy and nibabel are all that is needed.

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
    """The samples of a split: path of the shard, place in it, id. Ranks and workers may share them by index."""
    for shard in json.loads((pathlib.Path(folder) / f"{split}.json").read_text())["shardlist"]:
        for sample in shard["samples"]:
            yield pathlib.Path(folder) / shard["url"], sample["offset"], sample["length"], sample["key"]


def read(shard, offset, length, key):
    """One patch: its description, HU of its box with and without the tumor, and the labels of its box; axes [x, y, z]."""
    with open(shard, "rb") as file:
        file.seek(offset)
        part = file.read(length) + bytes(1024)  # a part of an archive, and the end of one
    members = {}
    with tarfile.open(fileobj=io.BytesIO(part)) as archive:
        for member in archive:
            members[member.name.removeprefix(f"{key}.")] = archive.extractfile(member).read()
    image = lambda name: np.asanyarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(members[name])).dataobj)
    return json.loads(members["json"]), image("after.nii.gz"), image("before.nii.gz"), image("label.nii.gz")


def paste(patch, hu, labels=None):
    """The scan with the tumor, and the labels with its label. `hu` and `labels` (the scan's merged organ labels, or zeros) are on the
    scan's own grid; a scan with other voxels in the patch's box is refused. `description["scan_digest"]` tells whole scans apart."""
    description, after, before, label = patch
    box = tuple(slice(a, a + n) for a, n in zip(description["origin_voxel"], description["shape_voxels"]))
    if not np.array_equal(hu[box], before):
        raise ValueError(f"{description['sample_id']} belongs to another scan than this, or to another orientation of it")
    hu, labels = hu.copy(), np.zeros(hu.shape, np.uint8) if labels is None else labels.copy()
    hu[box], labels[box] = after, label
    return hu, labels


def scans(run):
    """The path of each NIfTI scan of a run, by scan_id, from RUN/private."""
    run = pathlib.Path(run)
    private = json.loads((run / "private/pipeline.json").read_text())
    sources, base = private["pipeline"]["sources"], pathlib.Path(private["folder"])
    source_of = {e["scan_id"]: e["source"] for f in (run / "ingest").glob("*.json") for e in json.loads(f.read_text())["entries"]}
    lines = [json.loads(line) for f in (run / "private").glob("*.jsonl") for line in f.read_text().splitlines()]
    roots = {name: base / os.path.expandvars(source["root"]) for name, source in sources.items() if "root" in source}
    places = {e["scan_id"]: roots[source_of[e["scan_id"]]] / e["key"] for e in lines if source_of[e["scan_id"]] in roots}
    return {scan: place for scan, place in places.items() if place.name.endswith((".nii", ".nii.gz"))}


# PyTorch: one sample an index, for any sampler and any number of workers.
#
#   class Patches(torch.utils.data.Dataset):
#       def __init__(self, folder, split, places):
#           self.samples, self.places = list(patches(folder, split)), places
#       def __len__(self):
#           return len(self.samples)
#       def __getitem__(self, index):
#           patch = read(*self.samples[index])
#           hu = np.asanyarray(nibabel.load(self.places[patch[0]["scan_id"]]).dataobj)
#           hu, labels = paste(patch, hu)
#           return torch.from_numpy(hu[None].astype("f4")), torch.from_numpy(labels[None])
#
# MONAI: a transform behind LoadImaged, before anything that changes the grid. The data is [{"image": scan, "label": mask, "patch": s}].
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
    places, written, skipped = scans(run), 0, 0
    for split in ("train", "validation", "test"):
        for sample in patches(folder, split):
            patch = read(*sample)
            if (place := places.get(patch[0]["scan_id"])) is None:
                skipped += 1
                continue
            scan = nibabel.load(place)
            hu, _ = paste(patch, np.asanyarray(scan.dataobj))
            nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), scan.affine), f"{out}/{sample[3]}.nii.gz")
            written += 1
    print(f"{out}: {written} samples written, {skipped} skipped, whose scans are no NIfTI files")
    sys.exit(0 if written else "no sample has a scan that is a NIfTI file")
