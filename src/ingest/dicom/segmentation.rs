//! Segmentations: structures as frames of pixels.
//!
//! # Source
//! PS3.3, sections C.8.20.2 (Segmentation Image Module) and C.7.6.16 (functional groups); PS3.5, section 8.1.1 (bits of pixels).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::{Dataset, corrupt, missing};
use super::geometry::SlicePose;
use super::structure::{FrameOfReference, Structure, check_frame};
use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};
use crate::volume::{Affine, Grid};

/// Maximum distance of a pixel of a frame from the centre of its voxel, in voxels.
const POSITION_TOLERANCE_VOXELS: f64 = 0.1;

/// The frames of a file and their pixels.
pub(super) struct Segmentation {
    /// Columns and rows of every frame.
    shape: [usize; 2],
    frames: Vec<Frame>,
    pixels: Pixels,
}

/// The structure and the position of a frame.
struct Frame {
    segment: i64,
    pose: SlicePose,
}

enum Pixels {
    /// One bit for each pixel, the lowest bit of a byte first, without padding between frames.
    Bits(Vec<u8>),
    /// One byte for each pixel, and the smallest value of a pixel inside.
    Bytes(Vec<u8>, u8),
}

impl Pixels {
    /// Returns whether the pixel is inside its structure, counted over all frames.
    fn is_inside(&self, index: usize) -> bool {
        match self {
            Self::Bits(bits) => bits[index / 8] >> (index % 8) & 1 == 1,
            Self::Bytes(values, threshold) => values[index] >= *threshold,
        }
    }
}

impl Segmentation {
    /// Returns the fault of a file of type LABELMAP.
    pub fn label_map_fault() -> Fault {
        let message = "expected a Segmentation of type BINARY or FRACTIONAL, got LABELMAP, which is not supported: convert it to BINARY or to a label file";
        Fault::read(FaultKind::Unsupported, message)
    }

    /// Reads the segments with their labels, and the frames.
    pub fn read(
        dataset: &Dataset<'_>,
        syntax: Syntax,
        scan: Option<FrameOfReference>,
    ) -> Result<(Vec<Structure>, Self), Fault> {
        check_frame(dataset.text(tags::FRAME_OF_REFERENCE_UID).as_deref(), scan)?;
        let mut structures = Vec::new();
        for item in dataset.items(tags::SEGMENT_SEQUENCE)? {
            let number = i64::from(item.u16(tags::SEGMENT_NUMBER, "SegmentNumber")?);
            let name = item.text(tags::SEGMENT_LABEL).map(|name| name.into_owned());
            structures.push(Structure { number, name });
        }
        let shape = [dataset.u16(tags::COLUMNS, "Columns")?, dataset.u16(tags::ROWS, "Rows")?].map(usize::from);
        if shape.contains(&0) {
            return Err(corrupt(format!("expected at least one pixel in a frame, got {} × {}", shape[0], shape[1])));
        }
        let count = dataset.integer(tags::NUMBER_OF_FRAMES, "NumberOfFrames")?;
        let items = dataset.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
        if usize::try_from(count) != Ok(items.len()) {
            let items = items.len();
            return Err(corrupt(format!("expected {count} items of functional groups, one per frame, got {items}")));
        }
        let pixels = pixels(dataset, syntax, shape[0] * shape[1] * items.len())?;
        let shared = dataset.first_item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)?;
        let mut frames = Vec::with_capacity(items.len());
        for item in &items {
            let groups = FunctionalGroups { frame: item, shared: shared.as_ref() };
            frames.push(Frame { segment: groups.segment()?, pose: groups.pose(shape)? });
        }
        Ok((structures, Self { shape, frames, pixels }))
    }

    /// Calls `visit` with every voxel of the frames of a segment, as a linear index. Pixels outside of the scan are skipped.
    ///
    /// # Errors
    /// Returns `mismatch` if the pixels of a frame are not voxels of the scan, or all frames are outside of it.
    pub fn for_each_voxel(&self, segment: i64, scan: &Grid, visit: &mut dyn FnMut(usize)) -> Result<(), Fault> {
        let Some(to_voxels) = scan.affine.inverse() else {
            let message = format!("expected a scan with three independent axes, got the affine {:?}", scan.affine.0);
            return Err(Fault::read(FaultKind::Geometry, message));
        };
        let [columns, rows] = self.shape;
        let (mut frames, mut is_within) = (0, false);
        for (number, frame) in self.frames.iter().enumerate().filter(|(_, frame)| frame.segment == segment) {
            frames += 1;
            let [start, along_row, along_column] = steps(&frame.pose, &to_voxels)?;
            let first = number * columns * rows;
            for row in 0..rows {
                for column in 0..columns {
                    let at =
                        |axis: usize| start[axis] + column as i64 * along_row[axis] + row as i64 * along_column[axis];
                    let [x, y, z] = [0, 1, 2].map(|axis| usize::try_from(at(axis)).unwrap_or(usize::MAX));
                    if x < scan.shape[0] && y < scan.shape[1] && z < scan.shape[2] {
                        is_within = true;
                        if self.pixels.is_inside(first + row * columns + column) {
                            visit(x + scan.shape[0] * (y + scan.shape[1] * z));
                        }
                    }
                }
            }
        }
        if frames > 0 && !is_within {
            return Err(mismatch("expected frames within the scan, got all frames outside of it".to_owned()));
        }
        Ok(())
    }
}

/// Returns the voxel of the first pixel of a frame, and the steps to the next pixel of its row and of its column.
fn steps(pose: &SlicePose, to_voxels: &Affine) -> Result<[[i64; 3]; 3], Fault> {
    let voxel = |column: f64, row: f64| {
        let position = [0, 1, 2].map(|axis| {
            pose.position_mm[axis]
                + column * pose.spacing_mm[0] * pose.along_row[axis]
                + row * pose.spacing_mm[1] * pose.along_column[axis]
        });
        to_voxels.apply([-position[0], -position[1], position[2]])
    };
    let [last_column, last_row] = pose.shape.map(|length| length as f64 - 1.0);
    let start = voxel(0.0, 0.0);
    let first = start.map(f64::round);
    let step = |next: [f64; 3]| [0, 1, 2].map(|axis| (next[axis] - start[axis]).round());
    let [along_row, along_column] = [step(voxel(1.0, 0.0)), step(voxel(0.0, 1.0))];
    let is_unit = |step: [f64; 3]| step.iter().map(|part| part.abs()).sum::<f64>() == 1.0;
    let is_at_voxel = |column: f64, row: f64| {
        let found = voxel(column, row);
        (0..3).all(|axis| {
            let expected = first[axis] + column * along_row[axis] + row * along_column[axis];
            (found[axis] - expected).abs() <= POSITION_TOLERANCE_VOXELS
        })
    };
    let corners = [[0.0, 0.0], [last_column, 0.0], [0.0, last_row], [last_column, last_row]];
    if is_unit(along_row) && is_unit(along_column) && corners.iter().all(|[column, row]| is_at_voxel(*column, *row)) {
        return Ok([first, along_row, along_column].map(|vector| vector.map(|part| part as i64)));
    }
    Err(mismatch(
        "expected frames with the spacing, orientation and positions of the scan's slices, got another grid: resample the segmentation first"
            .to_owned(),
    ))
}

/// Returns the pixels of all frames.
fn pixels(dataset: &Dataset<'_>, syntax: Syntax, count: usize) -> Result<Pixels, Fault> {
    if syntax.is_compressed() || syntax.is_big_endian() || dataset.is_undefined(tags::PIXEL_DATA) {
        return Err(Fault::read(
            FaultKind::Unsupported,
            "expected a Segmentation with uncompressed little-endian pixels, got another encoding: transcode the file",
        ));
    }
    let bytes = dataset.bytes(tags::PIXEL_DATA).ok_or_else(|| missing("PixelData"))?;
    let bits = dataset.u16(tags::BITS_ALLOCATED, "BitsAllocated")?;
    let kind = dataset.text(tags::SEGMENTATION_TYPE);
    if kind.as_deref() == Some("LABELMAP") {
        return Err(Segmentation::label_map_fault());
    }
    let needed = match (kind.as_deref(), bits) {
        (Some("BINARY"), 1) => count.div_ceil(8),
        (Some("FRACTIONAL"), 8) => count,
        (Some("BINARY" | "FRACTIONAL"), _) => {
            return Err(corrupt(format!("expected 1 bit for BINARY or 8 bits for FRACTIONAL pixels, got {bits}")));
        }
        _ => {
            let message = "expected the SegmentationType BINARY or FRACTIONAL, got another one";
            return Err(Fault::read(FaultKind::Unsupported, message));
        }
    };
    let Some(bytes) = bytes.get(..needed) else {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!("expected {needed} bytes of pixels, got {}", bytes.len()),
        ));
    };
    if bits == 1 {
        return Ok(Pixels::Bits(bytes.to_vec()));
    }
    let maximum = dataset.u16(tags::MAXIMUM_FRACTIONAL_VALUE, "MaximumFractionalValue")?;
    match u8::try_from(maximum.div_ceil(2)) {
        Ok(threshold) if maximum > 0 => Ok(Pixels::Bytes(bytes.to_vec(), threshold)),
        _ => Err(corrupt(format!("expected a MaximumFractionalValue from 1 to 255, got {maximum}"))),
    }
}

/// The functional groups of a frame, and those that all frames share.
struct FunctionalGroups<'a, 'b> {
    frame: &'b Dataset<'a>,
    shared: Option<&'b Dataset<'a>>,
}

impl<'a> FunctionalGroups<'a, '_> {
    /// Returns the item of a group, of the frame itself or shared.
    fn group(&self, tag: Tag, name: &str) -> Result<Dataset<'a>, Fault> {
        if let Some(item) = self.frame.first_item(tag)? {
            return Ok(item);
        }
        self.shared.map(|shared| shared.first_item(tag)).transpose()?.flatten().ok_or_else(|| missing(name))
    }

    fn segment(&self) -> Result<i64, Fault> {
        let item = self.group(tags::SEGMENT_IDENTIFICATION_SEQUENCE, "SegmentIdentificationSequence")?;
        item.u16(tags::REFERENCED_SEGMENT_NUMBER, "ReferencedSegmentNumber").map(i64::from)
    }

    fn pose(&self, shape: [usize; 2]) -> Result<SlicePose, Fault> {
        let position = self.group(tags::PLANE_POSITION_SEQUENCE, "PlanePositionSequence")?;
        let orientation = self.group(tags::PLANE_ORIENTATION_SEQUENCE, "PlaneOrientationSequence")?;
        let measures = self.group(tags::PIXEL_MEASURES_SEQUENCE, "PixelMeasuresSequence")?;
        let [between_rows_mm, between_columns_mm] = measures.required_decimals(tags::PIXEL_SPACING, "PixelSpacing")?;
        SlicePose::new(
            shape,
            position.required_decimals(tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient")?,
            orientation.required_decimals(tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient")?,
            [between_columns_mm, between_rows_mm],
        )
    }
}

fn mismatch(message: String) -> Fault {
    Fault::read(FaultKind::Mismatch, message)
}
