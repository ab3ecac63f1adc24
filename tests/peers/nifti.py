"""Compares the NIfTI reader and header writer with nibabel: affines exactly, every voxel, and the time.

    pip install nibabel numpy
    python tests/peers/nifti.py ../shared/ct

Reads every NIfTI file below the folder, and files that nibabel writes here: every type, both byte orders, NIfTI-1 and 2,
slopes, qform or sform or neither, extensions, several gzip members. Then nibabel reads files that the crate wrote. The exit
code is 1 if a result differs. The cargo profile is `bench`, or that of CARGO_PROFILE.
"""

import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import nibabel as nib
import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def bench(*arguments):
    profile = os.environ.get("CARGO_PROFILE", "bench")
    command = ["cargo", "bench", "--quiet", "--profile", profile, "--bench", "nifti", "--", *map(str, arguments)]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def digest(array, dtype):
    # Adding zero converts -0 to 0.
    return hashlib.sha256((array.astype(dtype) + np.zeros((), dtype)).tobytes(order="F")).hexdigest()


def generate(folder):
    rng = np.random.default_rng(7)
    turn = nib.quaternions.angle_axis2mat(0.4, [1, 2, 3])
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 0.8, 2.5]
    affine[:3, 3] = [-100, 50, 7]
    for kind, version in [(nib.Nifti1Image, 1), (nib.Nifti2Image, 2)]:
        for code in TYPES:
            for order in "<>":
                values = rng.integers(0, 100, (5, 4, 3)) if code[0] in "ui" else rng.normal(0, 300, (5, 4, 3))
                header = kind.header_class(endianness=order)
                header.set_data_dtype(np.dtype(code).newbyteorder(order))
                image = kind(values.astype(code), affine, header, dtype=np.dtype(code).newbyteorder(order))
                nib.save(image, folder / f"type-{version}-{code}-{'little' if order == '<' else 'big'}.nii")
        for name, sform, qform in [("sform", 2, 0), ("qform", 0, 1), ("both", 1, 1), ("neither", 0, 0)]:
            for mirror in [1, -1]:
                placed = affine @ np.diag([1, 1, mirror, 1])
                image = kind(rng.integers(-1000, 1000, (5, 4, 3)).astype("i2"), None)
                image.header.set_zooms([0.7, 0.8, 2.5])
                image.set_sform(placed, sform)
                image.set_qform(placed, qform)
                # The two transforms differ in the origin, which shows the one that was used.
                image.header["qoffset_x"] += 11
                image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
                nib.save(image, folder / f"transform-{version}-{name}-{mirror}.nii.gz")
        for name, slope, intercept in [("whole", 1, -1024), ("fraction", 0.1, -3.3), ("two", 2, 5)]:
            image = kind(np.zeros((5, 4, 3), "i2"), affine)
            image.header.set_slope_inter(slope, intercept)
            path = folder / f"scale-{version}-{name}.nii"
            nib.save(image, path)
            raw = bytearray(path.read_bytes())
            raw[-120:] = rng.integers(0, 4096, 60).astype("<i2").tobytes()
            offset = 112 if version == 1 else 176
            raw[offset : offset + (8 if version == 1 else 16)] = np.array([slope, intercept], "<f4" if version == 1 else "<f8").tobytes()
            path.write_bytes(raw)
    whole = (folder / "type-1-i2-little.nii").read_bytes()
    (folder / "members.nii.gz").write_bytes(b"".join(gzip.compress(whole[at : at + 100]) for at in range(0, len(whole), 100)))


def best_ms(task, rounds=5):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


differences = 0


def expect(same, file, subject, *values):
    global differences
    if not same:
        differences += 1
        print("DIFFERS", file, subject, *values)


with tempfile.TemporaryDirectory() as made:
    made = pathlib.Path(made)
    generate(made)
    files = sorted(pathlib.Path(sys.argv[1]).resolve().rglob("*.nii.gz")) + sorted(made.iterdir())
    for ours in bench(*files):
        file = pathlib.Path(ours["file"])
        name = "/".join(file.parts[-2:])
        if "fault" in ours:
            expect(False, name, "fault", ours["fault"], ours["message"])
            continue
        image = nib.load(file)
        values = image.get_fdata(dtype=np.float64, caching="unchanged")
        affine = np.array(ours["affine"])
        # The rotation matrix of a quaternion is computed in another order; other values are stored numbers.
        exact = image.header["sform_code"] != 0
        close = np.array_equal(affine, image.affine[:3]) if exact else np.allclose(affine, image.affine[:3], rtol=0, atol=2e-6)
        expect(close, name, "affine", affine, image.affine)
        expect(tuple(ours["shape"]) == image.shape, name, "shape", ours["shape"], image.shape)
        expect(ours["sha256"] == digest(values, np.float32), name, "voxels")
        whole = np.all((values == np.rint(values)) & (np.abs(values) <= 32767))
        expect((ours["voxels"] == "i16") == whole, name, "type", ours["voxels"])
        labels = np.all((values == np.rint(values)) & (values >= 0) & (values <= 65535))
        expect((ours["labels_sha256"] or "") == (digest(values, np.uint16) if labels else ""), name, "labels")
        if not file.is_relative_to(made) and file.stat().st_size > 100_000:
            theirs = best_ms(lambda: np.asarray(nib.load(file).dataobj))
            print(
                f"{name}: read {ours['read_ms']:.1f} ms (inflating only {ours['inflate_ms']:.1f} ms, nibabel {theirs:.1f} ms),"
                f" digest {ours['digest_ms']:.1f} ms"
            )
    with tempfile.TemporaryDirectory() as written:
        for ours in bench("--encode", written):
            image = nib.load(ours["file"])
            name = pathlib.Path(ours["file"]).name
            rows = np.array(ours["affine"]).astype(np.float32)
            expect(np.array_equal(image.affine[:3], rows), name, "affine as written")
            qform, code = image.get_qform(coded=True)
            expect((code == 0) == ours["sheared"], name, "qform code", code)
            expect(ours["sheared"] or np.allclose(qform[:3], rows, atol=1e-5), name, "qform", qform)
            expect(not np.any(image.get_fdata()) and image.shape == (7, 6, 5), name, "voxels as written")
            files.append(name)

print(f"{len(files)} files, {differences} differences")
sys.exit(differences > 0)
