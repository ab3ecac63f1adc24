//! Series of slices: their headers and volumes.

use std::fmt;
use std::path::Path;

use dicom_dictionary_std::tags;

use super::Limits;
use super::decoder::{DEFAULT_THREADS, Decoder};
use super::elements::Elements;
use super::extent::SeriesExtent;
use super::geometry::{self, FEWEST_SLICES, SliceStack};
use super::pixels::VoxelAssembly;
use super::slice::{Image, Slice};
use super::stack::Stack;
use super::structure::FrameOfReference;
use crate::error::{Fault, FaultKind};
use crate::ingest::{FileState, ScanHeader};
use crate::volume::Volume;

/// Memory of a decoder for one pixel: its 32-bit copies and the result.
const DECODING_BYTES_PER_PIXEL: u64 = 16;

/// An image and its file.
type ImageFile<'a> = (&'a Path, &'a Image);

/// The slices of one scan in a folder, with their headers.
pub struct Series {
    pub(super) id: String,
    pub(super) stack: Stack,
    /// Files that cannot be read and may contain a slice of this scan.
    pub(super) unreadable: Vec<Slice>,
}

impl Series {
    /// Returns 16 hexadecimal digits that identify the series within its folder: a hash that does not reveal the series identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the number of files, with copies of slices and files that cannot be read.
    pub fn files(&self) -> usize {
        self.slices().count()
    }

    /// Returns the files that cannot be read and may contain a slice of this scan. Their names may name a person.
    pub fn unreadable_files(&self) -> impl Iterator<Item = &Path> {
        self.unreadable.iter().map(|slice| &*slice.path)
    }

    /// Returns the paths of all files of the series. Their names may name a person.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.slices().map(|slice| &*slice.path)
    }

    /// Returns the bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.slices().map(|slice| slice.bytes).sum()
    }

    /// Returns the time of the last modification of a file of the series, in seconds since 1970.
    pub fn modified_s(&self) -> i64 {
        self.slices().map(|slice| slice.modified_s).max().unwrap_or(0)
    }

    /// Returns the states of the files of the series, sorted.
    pub fn file_states(&self) -> Vec<FileState> {
        let mut states: Vec<_> = self.slices().map(|slice| slice.state).collect();
        states.sort_unstable();
        states
    }

    /// Returns the place and identity of the series, to find its continuation in another folder; `None` without a readable slice.
    pub fn extent(&self) -> Option<SeriesExtent> {
        SeriesExtent::of(&self.stack)
    }

    /// Returns whether every file of the series states a modality other than CT: a PET, a dose, a segmentation. Archives of CT skip
    /// such series; reading one is a fault that names the modality.
    pub fn is_other_modality(&self) -> bool {
        self.slices().all(|slice| slice.other_modality)
    }

    /// Returns whether the series is a localizer: by its image type, or because it has only one or two slices. Archives skip localizers.
    pub fn is_localizer(&self) -> bool {
        let is_small = self.stack.slices.len() < FEWEST_SLICES && !self.stack.is_part && self.stack.fault.is_none();
        self.is_localizer_by_type() || (is_small && self.unreadable.is_empty())
    }

    pub(super) fn is_localizer_by_type(&self) -> bool {
        self.slices().all(|slice| slice.localizer)
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.stack.slices.iter().chain(&self.stack.copies).chain(&self.unreadable)
    }

    /// Returns the images and their files, in file order, or the fault of the stack.
    fn images(&self) -> Result<Vec<ImageFile<'_>>, Fault> {
        if self.is_localizer_by_type() {
            return Err(Fault::read(FaultKind::Geometry, "expected a volume of parallel slices, got a localizer"));
        }
        if let Some(fault) = self.unreadable.iter().find_map(|slice| slice.image.as_ref().err()) {
            let (count, files) = (self.unreadable.len(), self.files());
            let mut fault = fault.clone();
            if files > 1 {
                fault.message = format!("{} ({count} of {files} slices)", fault.message);
            }
            let is_other = |slice: &&Slice| slice.image.as_ref().err().is_some_and(|other| other.kind != fault.kind);
            let others = self.unreadable.iter().filter(is_other).count();
            if others > 0 {
                fault.message += &format!(", {others} of them for other reasons");
            }
            return Err(fault);
        }
        if let Some(fault) = &self.stack.fault {
            return Err(fault.clone());
        }
        let images = self.stack.slices.iter().filter_map(|slice| Some((&*slice.path, slice.image.as_ref().ok()?)));
        Ok(images.collect())
    }

    /// Returns the images from the first slice to the last, and their grid.
    fn stack(&self) -> Result<(Vec<ImageFile<'_>>, SliceStack), Fault> {
        let images = self.images()?;
        let stack = geometry::stack(&images.iter().map(|(_, image)| image.pose).collect::<Vec<_>>())?;
        Ok((stack.order.iter().map(|&index| images[index]).collect(), stack))
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").field("id", &self.id).field("files", &self.files()).finish_non_exhaustive()
    }
}

/// Computes grid and memory cost of a series from the headers of its slices.
///
/// # Errors
/// Returns every fault of [`read_series`] that the headers show.
pub fn read_header(series: &Series) -> Result<ScanHeader, Fault> {
    let (images, stack) = series.stack()?;
    let voxels = stack.grid.voxels() as u64;
    let integer_hu = images.iter().all(|(_, image)| image.rescale.maps_to_integer_hu());
    let fits_i16 = images.iter().all(|(_, image)| image.format.fits_i16(image.rescale));
    let volume_bytes = voxels * if integer_hu { 2 } else { 4 };
    // A value beyond i16 converts a volume of integer HU to floats during reading.
    let promotion_bytes = if integer_hu && !fits_i16 { 4 * voxels } else { 0 };
    let slice_bytes = series.slices().map(|slice| slice.bytes).max().unwrap_or(0);
    let pixels = (stack.grid.shape[0] * stack.grid.shape[1]) as u64;
    let decoding_bytes = match images.iter().any(|(_, image)| image.syntax.is_compressed()) {
        true => DEFAULT_THREADS as u64 * (slice_bytes + DECODING_BYTES_PER_PIXEL * pixels),
        false => slice_bytes,
    };
    Ok(ScanHeader { grid: stack.grid, read_bytes: volume_bytes + promotion_bytes + decoding_bytes, volume_bytes })
}

/// Decodes a series.
///
/// # Shapes
/// x runs along the slices' rows, y along their columns, z along their normal.
///
/// # Units
/// The voxels are HU, as the [module documentation](super) describes.
///
/// # Errors
/// Returns `unsupported` (another modality, colour, several frames, transfer syntax), `missing` (tags, slices), `geometry`
/// (localizer, mixed shapes, spacings or orientations, two slices at one position, uneven gaps, tilted gantry),
/// `truncated`, `corrupt`, `too_large`, `io`, or `panic` if a decoder process crashed.
pub fn read_series(series: &Series, decoder: &Decoder, limits: &Limits) -> Result<Volume, Fault> {
    let header = read_header(series)?;
    if header.volume_bytes > limits.volume_bytes {
        let [x, y, z] = header.grid.shape;
        return Err(Fault::read(
            FaultKind::TooLarge,
            format!(
                "expected at most {} bytes, {x} × {y} × {z} voxels need {}",
                limits.volume_bytes, header.volume_bytes
            ),
        ));
    }
    let (images, stack) = series.stack()?;
    let integer_hu = images.iter().all(|(_, image)| image.rescale.maps_to_integer_hu());
    let mut assembly = VoxelAssembly::new(stack.grid.voxels(), integer_hu)?;
    let mut session = decoder.session();
    for group in images.chunk_by(|(_, a), (_, b)| a.syntax.is_compressed() == b.syntax.is_compressed()) {
        let compressed = group[0].1.syntax.is_compressed();
        for batch in group.chunks(if compressed { decoder.threads() } else { 1 }) {
            let stored: Result<Vec<_>, Fault> = batch.iter().map(|(path, image)| image.read(path)).collect();
            let frames = match compressed {
                true => {
                    session.decode(batch.iter().zip(stored?).map(|((_, image), bytes)| image.frame(bytes)).collect())?
                }
                false => stored?,
            };
            for ((_, image), frame) in batch.iter().zip(frames) {
                assembly.push(&frame, image.format, image.syntax, image.rescale)?;
            }
        }
    }
    Ok(assembly.finish(stack.grid))
}

/// Returns the PatientID of the series, or `None` if its first file has none. The PatientID identifies a person: hash it with a secret,
/// store and print only the hash.
///
/// # Errors
/// Returns a fault if the first file can no longer be read.
pub fn patient_id(series: &Series) -> Result<Option<String>, Fault> {
    let Some(slice) = series.slices().next() else { return Ok(None) };
    let Some(elements) = Elements::open(&slice.path, &[tags::PATIENT_ID]) else { return Ok(None) };
    if let (Some(fault), None) = (&elements.fault, elements.bytes(tags::PATIENT_ID)) {
        return Err(fault.clone());
    }
    // Independent of the character set of the file, different bytes are different strings.
    let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
    let number = elements.bytes(tags::PATIENT_ID).map(|bytes| text(bytes).trim_matches([' ', '\0']).to_owned());
    Ok(number.filter(|number| !number.is_empty()))
}

/// Returns the frame of reference of the series, or `None` if its first file states none.
pub fn frame_of_reference(series: &Series) -> Option<FrameOfReference> {
    let elements = Elements::open(&series.slices().next()?.path, &[tags::FRAME_OF_REFERENCE_UID])?;
    elements.text(tags::FRAME_OF_REFERENCE_UID).map(FrameOfReference::of)
}
