"""Writes tests/data/dicom: small artificial slices in every transfer syntax, encoded by GDCM and pydicom.

    pip install pydicom python-gdcm pylibjpeg-openjpeg numpy
    python tests/peers/dicom_fixtures.py

`syntaxes` is one series of slices at a distance of 2.5 mm, each in another encoding; `lossy` is a series in lossy JPEG 2000.
The pixels are the functions `hounsfield` and `smooth`, which tests/all/dicom.rs repeats. No data come from patients.
"""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000,
    RLELossless,
)

OUT = Path(__file__).parent.parent / "data" / "dicom"
COLUMNS, ROWS = 40, 36

# name, transfer syntax or its name in GDCM, signed
SYNTAXES = [
    ("implicit", ImplicitVRLittleEndian, True),
    ("explicit", ExplicitVRLittleEndian, False),
    ("big-endian", ExplicitVRBigEndian, True),
    ("deflated", DeflatedExplicitVRLittleEndian, True),
    ("rle", RLELossless, True),
    ("jpeg-lossless-14", "JPEGLosslessProcess14", False),
    ("jpeg-lossless-14-sv1", "JPEGLosslessProcess14_1", False),
    ("jpeg-2000-unsigned", "JPEG2000Lossless", False),
    ("jpeg-2000-signed", "JPEG2000Lossless", True),
]


def hounsfield(z):
    y, x = np.mgrid[:ROWS, :COLUMNS]
    return (x * x * 7 + y * 13 * (z + 1)) % 3000 - 1000


def smooth(z):
    y, x = np.mgrid[:ROWS, :COLUMNS]
    return 10 * x - 5 * y + 40 * z - 100


def slice_of(hu, z, signed, series):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"2.25.{series}{z}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice = Dataset()
    slice.file_meta = meta
    slice.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    slice.SOPClassUID = CTImageStorage
    slice.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    slice.Modality = "CT"
    slice.PatientName = "Made^Up"
    slice.PatientID = "MADE-UP"
    slice.StudyInstanceUID = "2.25.1"
    slice.SeriesInstanceUID = f"2.25.{series}"
    slice.InstanceNumber = 100 - z
    slice.ImagePositionPatient = [-10, -20, 30 + 2.5 * z]
    slice.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    slice.SamplesPerPixel = 1
    slice.PhotometricInterpretation = "MONOCHROME2"
    slice.Rows, slice.Columns = ROWS, COLUMNS
    slice.PixelSpacing = [0.75, 0.5]
    slice.BitsAllocated = 16
    slice.BitsStored = 16 if signed else 12
    slice.HighBit = slice.BitsStored - 1
    slice.PixelRepresentation = int(signed)
    slice.RescaleSlope = 1
    slice.RescaleIntercept = -24 if signed else -1048
    slice.PixelData = (hu - slice.RescaleIntercept).astype("<i2" if signed else "<u2").tobytes()
    return slice


def write(slice, syntax, path):
    if syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        slice.file_meta.TransferSyntaxUID = syntax
        slice.save_as(path, enforce_file_format=True)
    elif syntax == ExplicitVRBigEndian:
        slice.file_meta.TransferSyntaxUID = syntax
        slice.PixelData = np.frombuffer(slice.PixelData, "<u2").byteswap().tobytes()
        slice["PixelData"].VR = "OW"
        slice.save_as(path, enforce_file_format=True)
    elif syntax == JPEG2000:
        slice.compress(JPEG2000, j2k_psnr=[80], generate_instance_uid=False)
        slice.save_as(path, enforce_file_format=True)
    elif syntax == RLELossless:
        slice.compress(RLELossless, generate_instance_uid=False)
        slice.save_as(path, enforce_file_format=True)
    else:
        # Imported late: its zlib and OpenJPEG conflict with those of other packages.
        import gdcm

        slice.save_as(path, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


for folder, series, slices in [
    ("lossy", 8, [(f"slice-{z}", JPEG2000, False, smooth(z)) for z in range(4)]),
    ("syntaxes", 7, [(name, syntax, signed, hounsfield(z)) for z, (name, syntax, signed) in enumerate(SYNTAXES)]),
]:
    (OUT / folder).mkdir(parents=True, exist_ok=True)
    for z, (name, syntax, signed, hu) in enumerate(slices):
        path = OUT / folder / f"{name}.dcm"
        write(slice_of(hu, z, signed, series), syntax, path)
        decoded = pydicom.dcmread(path)
        read = decoded.pixel_array * float(decoded.RescaleSlope) + float(decoded.RescaleIntercept)
        print(f"{folder}/{path.name}: {decoded.file_meta.TransferSyntaxUID.name}, maximum difference {abs(read - hu).max():.0f} HU")
