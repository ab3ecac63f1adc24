"""Reads the real DICOM series with SimpleITK (GDCM) and prints what tests/all/dicom.rs expects.

    pip install SimpleITK numpy
    python tests/peers/dicom.py ../shared/ct/crlm_1004/dicom ../shared/ct/totalseg_liver_dicom/dicom

For each folder: the shape [x, y, z], the rows of the RAS affine, the SHA-256 of the HU as little-endian int16, x fastest, and the best
time of three runs of SimpleITK.
"""

import hashlib
import sys
import time

import numpy as np
import SimpleITK as sitk


def read(folder):
    # SimpleITK cannot select a series with an empty identifier, so the files are listed without one.
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    return reader.Execute()


for folder in sys.argv[1:]:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        image = read(folder)
        times.append(time.perf_counter() - start)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.column_stack([direction * image.GetSpacing(), image.GetOrigin()])
    affine[:2] *= -1
    hu = sitk.GetArrayFromImage(image).astype("<i2")
    print(folder)
    print("  shape", image.GetSize(), "HU", hu.min(), "to", hu.max())
    print("  affine", np.round(affine + 0.0, 9).tolist())
    print("  sha256", hashlib.sha256(hu.tobytes()).hexdigest())
    print(f"  {1000 * min(times):.0f} ms")
