"""Compares every decoder and format with other readers, voxel by voxel: files that GDCM, pydicom, OpenJPEG, SimpleITK, nibabel and highdicom write
are read by `freetumor run`, which writes its scans and masks unchanged as samples without a tumor.

    pip install numpy pydicom python-gdcm imagecodecs pylibjpeg pylibjpeg-openjpeg SimpleITK nibabel highdicom
    python tests/peers/decoders.py [BINARY]

BINARY is the program, by default target/debug/freetumor. Compared are: DICOM, uncompressed in four transfer syntaxes, RLE, JPEG lossless
of GDCM with both processes and of libjpeg-turbo with all predictors (which GDCM reads, too), JPEG 2000 and HTJ2K; NRRD and MetaImage of SimpleITK in every
type, raw and compressed, with oblique axes; and the masks of a DICOM SEG (binary and fractional) and of an RT Structure Set, which
SimpleITK and highdicom read in their own way. The exit code is 1 if a voxel, an affine or a mask differs.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import gdcm
import highdicom as hd
import imagecodecs
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    RLELossless,
    generate_uid,
)

BINARY = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "target/debug/freetumor").resolve()
COLUMNS, ROWS, SLICES = 48, 40, 12
SPACING = (1.5, 1.25, 2.5)
ORIGIN = (-30.0, -20.0, 100.0)
failures = []

PIPELINE = """
[pipeline]
name = "decoders"
seed = 1
split = {{ train = 1.0 }}
[sources.archive]
kind = "folder"
root = "archive"
include = ["*/scan*"]
[stages.organs]
kind = "labels"
inputs = ["archive"]
pattern = "{pattern}"
scheme = "custom"
organs = {organs}
[stages.tumors]
kind = "rules"
inputs = ["organs"]
negatives = 1.0
diameter_mm = [3.0, 4.0]
min_diameter_voxels = 1.0
{priors}
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
attempts = 1
accept = ["delta_hu < -5000 HU"]
[sinks.set]
kind = "decathlon"
inputs = ["test"]
"""


def hounsfield():
    """HU as [z, y, x]: a body with a structure in every direction."""
    z, y, x = np.mgrid[:SLICES, :ROWS, :COLUMNS]
    body = ((x - 24) / 20.0) ** 2 + ((y - 20) / 16.0) ** 2 < 1
    return np.where(body, (x * 7 + y * 13 + z * 29) % 300 - 100, -1000).astype(np.int16)


HU = hounsfield()


def affine_of(image):
    """The RAS affine of a SimpleITK image."""
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction, image.GetOrigin()
    affine[:2] *= -1
    return affine


def samples(folder, pattern="labels.nii.gz", organs="{ liver = { ids = [1], tumor_ids = [2] } }", priors=""):
    """Runs the program on `folder/archive`; returns image and label of the only sample as (affine, array), or the faults."""
    (folder / "a.toml").write_text(PIPELINE.format(pattern=pattern, organs=organs, priors=priors))
    environment = dict(os.environ, FREETUMOR_PATIENT_KEY="0123456789abcdef0123456789abcdef")
    run = subprocess.run([BINARY, "run", "a.toml", "--out", "run"], cwd=folder, env=environment, capture_output=True, text=True)
    images = sorted((folder / "run/layouts/set").glob("images*/*.nii.gz"))
    if len(images) != 1:
        return None, run.stderr[-1500:]
    label = pathlib.Path(str(images[0]).replace("/images", "/labels"))
    found = []
    for path in (images[0], label):
        image = nib.load(path)
        found.append((image.affine, np.asarray(image.dataobj)))
    return found, run.stderr


def compare(name, write, affine, hu_xyz, mask_xyz=None, **settings):
    """Writes a scan with `write(FOLDER)`, and compares the sample with the expected voxels on their grid."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        case = folder / "archive/case"
        case.mkdir(parents=True)
        write(case)
        if mask_xyz is None:
            mask = np.zeros(hu_xyz.shape, np.uint8)
            mask[20:28, 16:24, 4:8] = 1
            nib.save(nib.Nifti1Image(mask, affine), case / "labels.nii.gz")
        else:
            mask = mask_xyz
        found, text = samples(folder, **settings)
    if found is None:
        failures.append(name)
        print(f"{name}: REFUSED\n{text}")
        return
    (image_affine, image), (_, label) = found
    differences = []
    if not np.allclose(image_affine, affine, atol=1e-4):
        differences.append(f"affine {image_affine.tolist()}, expected {affine.tolist()}")
    if image.shape != hu_xyz.shape or not np.array_equal(image, hu_xyz):
        differences.append(f"voxels, shape {image.shape}, {image.min()} to {image.max()}")
    if label.shape != mask.shape or not np.array_equal(label, mask):
        differences.append(f"{(label != mask).sum() if label.shape == mask.shape else label.shape} voxels of the mask")
    if differences:
        failures.append(name)
    print(f"{name}: {'equal' if not differences else 'DIFFERENT: ' + '; '.join(differences)}")


def slices(signed=True):
    """The slices of the scan as pydicom data sets, uncompressed."""
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    made = []
    for z in range(SLICES):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "decoders", "Decoders^", "", ""
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.StudyID, ds.AccessionNumber, ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName = "1", "", "", "", ""
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, z + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[2] * z]
        ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16 if signed else 12, 15 if signed else 11
        ds.PixelRepresentation = int(signed)
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0 if signed else -1024
        ds.PixelData = (HU[z] - np.int16(ds.RescaleIntercept)).astype("<i2").tobytes()
        made.append(ds)
    return made


def write_series(case, made):
    (case / "scan").mkdir()
    for z, ds in enumerate(made):
        ds.save_as(case / "scan" / f"{(z * 5) % SLICES:03}.dcm", enforce_file_format=True)


def in_syntax(syntax, signed=True):
    def write(case):
        made = slices(signed)
        for ds in made:
            if syntax in (RLELossless, JPEG2000Lossless):
                ds.compress(syntax)
            elif syntax == ExplicitVRBigEndian:
                ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
                ds["PixelData"].VR = "OW"
                ds.file_meta.TransferSyntaxUID = syntax
            else:
                ds.file_meta.TransferSyntaxUID = syntax
        (case / "scan").mkdir()
        for z, ds in enumerate(made):
            path = case / "scan" / f"{(z * 5) % SLICES:03}.dcm"
            pydicom.dcmwrite(path, ds, enforce_file_format=True)

    return write


def with_gdcm(name, signed=True):
    """Transcodes the slices with GDCM."""

    def write(case):
        in_syntax(ExplicitVRLittleEndian, signed)(case)
        for path in (case / "scan").iterdir():
            reader = gdcm.ImageReader()
            reader.SetFileName(str(path))
            assert reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFileName(str(path))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()

    return write


def with_codestream(syntax, encode, signed=False):
    def write(case):
        made = slices(signed)
        for z, ds in enumerate(made):
            stored = (HU[z] - np.int16(ds.RescaleIntercept)).astype(np.int16 if signed else np.uint16)
            stream = encode(np.ascontiguousarray(stored))
            ds.file_meta.TransferSyntaxUID = syntax
            ds.PixelData = encapsulate([bytes(stream)])
            ds["PixelData"].is_undefined_length = True
        write_series(case, made)
        if syntax == JPEGLossless:
            # GDCM, which SimpleITK uses, reads the same values.
            files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(case / "scan"))
            read = sitk.GetArrayFromImage(sitk.ReadImage(files))
            assert np.array_equal(read, HU), "GDCM reads other values"

    return write


def dicom_affine():
    return np.array([[-SPACING[0], 0, 0, -ORIGIN[0]], [0, -SPACING[1], 0, -ORIGIN[1]], [0, 0, SPACING[2], ORIGIN[2]], [0, 0, 0, 1]])


def oblique(dtype):
    """A SimpleITK image of the scan on rotated axes."""
    turn = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.3, 0.4)
    image = sitk.GetImageFromArray(HU.astype(dtype))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(turn.GetMatrix())
    return image


def structures(case, made, kind):
    """Writes the series and a structure file with an organ and a tumor; returns the expected mask as [x, y, z]."""
    write_series(case, made)
    z, y, x = np.mgrid[:SLICES, :ROWS, :COLUMNS]
    liver = ((x - 22) / 9.0) ** 2 + ((y - 20) / 8.0) ** 2 + ((z - 6) / 4.0) ** 2 < 1
    tumor = ((x - 20) / 3.0) ** 2 + ((y - 20) / 3.0) ** 2 + ((z - 6) / 2.0) ** 2 < 1
    mask = np.where(tumor, 2, np.where(liver, 1, 0)).astype(np.uint8)
    if kind == "RTSTRUCT":
        write_structure_set(case, made, {"Liver": liver, "GTV": tumor})
    else:
        write_segmentation(case, made, [("Liver", liver), ("GTV", tumor)], kind)
    return mask.transpose(2, 1, 0)


def write_segmentation(case, made, segments, kind):
    def description(number, label):
        return hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=CodedConcept("10200004", "SCT", "Liver"),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )

    pixels = np.stack([pixels for _, pixels in segments], -1)
    segmentation = hd.seg.Segmentation(
        source_images=made,
        pixel_array=pixels.astype(np.uint8) if kind == "BINARY" else pixels * 0.8 + 0.1,
        segmentation_type=kind,
        segment_descriptions=[description(number, label) for number, (label, _) in enumerate(segments, 1)],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        max_fractional_value=255,
    )
    segmentation.save_as(case / "structures.dcm")


def write_structure_set(case, made, rois):
    """Contours along the edges of the pixels, half a pixel outside of their centres, so that every reader has the same voxels."""
    ds = Dataset()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PatientID, ds.StructureSetLabel = "RTSTRUCT", "decoders", "s"
    ds.StructureSetROISequence, ds.ROIContourSequence = Sequence(), Sequence()
    for number, (name, voxels) in enumerate(rois.items(), 1):
        roi, contours = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, made[0].FrameOfReferenceUID
        contours.ReferencedROINumber, contours.ContourSequence = number, Sequence()
        for z in range(SLICES):
            for y in range(ROWS):
                row = np.flatnonzero(voxels[z, y])
                if len(row):
                    # Convex structures: each row is one run of pixels, a rectangle around their centres.
                    left, right = row[0] - 0.5, row[-1] + 0.5
                    corners = [(left, y - 0.5), (right, y - 0.5), (right, y + 0.5), (left, y + 0.5)]
                    contour = Dataset()
                    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
                    points = [(ORIGIN[0] + SPACING[0] * cx, ORIGIN[1] + SPACING[1] * cy, ORIGIN[2] + SPACING[2] * z) for cx, cy in corners]
                    contour.ContourData = [f"{value:.6f}" for point in points for value in point]
                    contours.ContourSequence.append(contour)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(contours)
    ds.save_as(case / "structures.dcm", enforce_file_format=True)


xyz = HU.transpose(2, 1, 0)
for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless):
    for signed in (True, False):
        compare(f"DICOM {syntax.name}, {'signed' if signed else 'unsigned'}", in_syntax(syntax, signed), dicom_affine(), xyz)
for name in ("JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEG2000Lossless", "RLELossless"):
    for signed in (True, False):
        compare(f"GDCM {name}, {'signed' if signed else 'unsigned'}", with_gdcm(name, signed), dicom_affine(), xyz)
for predictor in range(1, 8):
    encode = lambda stored: imagecodecs.jpeg8_encode(stored, lossless=True, predictor=predictor, bitspersample=12)
    compare(f"JPEG lossless of libjpeg-turbo, predictor {predictor}", with_codestream(JPEGLossless, encode), dicom_affine(), xyz)
compare("HTJ2K of OpenJPH", with_codestream(HTJ2KLossless, lambda stored: imagecodecs.htj2k_encode(stored)), dicom_affine(), xyz)

for ending, compressed in (("nrrd", False), ("nrrd", True), ("nhdr", True), ("mha", False), ("mha", True), ("mhd", True)):
    for dtype in (np.int16, np.int32, np.float32, np.float64):
        image = oblique(dtype)
        write = lambda case, image=image: sitk.WriteImage(image, str(case / f"scan.{ending}"), compressed)
        compare(f"{ending}, {'compressed' if compressed else 'raw'}, {np.dtype(dtype)}", write, affine_of(image), xyz)

TUMOR = '{ liver = { structures = ["liver"], tumor_structures = ["gtv"] } }'
for kind in ("BINARY", "FRACTIONAL", "RTSTRUCT"):
    expected = []
    made = slices()
    with tempfile.TemporaryDirectory() as temporary:
        mask = structures(pathlib.Path(temporary), made, kind)
    compare(f"structures, {kind}", lambda case: structures(case, made, kind), dicom_affine(), xyz, mask, pattern="structures.dcm", organs=TUMOR)

print(f"{len(failures)} different" if failures else "all equal")
sys.exit(bool(failures))
