//! Series of slices: listing the series of a folder, and reading the volume of one series.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};

use super::Limits;
use super::decoder::{DEFAULT_THREADS, Decoder};
use super::elements::Elements;
use super::geometry::{self, FEWEST_SLICES, SAME_POSITION_MM, SlicePose, SliceStack};
use super::pixels::VoxelAssembly;
use super::slice::{Image, Slice};
use super::structure::FrameOfReference;
use crate::error::{Fault, FaultKind};
use crate::ingest::ScanHeader;
use crate::volume::Volume;

/// Slices with a larger difference in a direction cosine belong to different stacks.
const SAME_ORIENTATION: f64 = 0.01;
/// Memory of a decoder for one pixel: its 32-bit copies and the result.
const DECODING_BYTES_PER_PIXEL: u64 = 16;

/// An image and its file.
type ImageFile<'a> = (&'a Path, &'a Image);

/// The slices of one scan in a folder, with their headers.
pub struct Series {
    id: String,
    localizer: bool,
    slices: Vec<Slice>,
}

impl Series {
    /// Returns 16 hexadecimal digits that identify the series within its folder: a hash that does not reveal the series identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the number of files.
    pub fn files(&self) -> usize {
        self.slices.len()
    }

    /// Returns the bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.slices.iter().map(|slice| slice.bytes).sum()
    }

    /// Returns the time of the last modification of a file of the series, in seconds since 1970.
    pub fn modified_s(&self) -> i64 {
        self.slices.iter().map(|slice| slice.modified_s).max().unwrap_or(0)
    }

    /// Returns whether every file of the series states a modality other than CT: a PET, a dose, a segmentation. Archives of CT skip
    /// such series; reading one is a fault that names the modality.
    pub fn is_other_modality(&self) -> bool {
        self.slices.iter().all(|slice| slice.other_modality)
    }

    /// Returns whether the series is a localizer: by its image type, or because it has only one or two valid slices. Archives skip
    /// localizers.
    pub fn is_localizer(&self) -> bool {
        self.localizer || (self.slices.len() < FEWEST_SLICES && self.slices.iter().all(|slice| slice.image.is_ok()))
    }

    /// Returns the images and their files, in file order, or the first fault among them.
    fn images(&self) -> Result<Vec<ImageFile<'_>>, Fault> {
        if self.localizer {
            return Err(Fault::read(FaultKind::Geometry, "expected a volume of parallel slices, got a localizer"));
        }
        let first = self.slices.iter().find_map(|slice| slice.image.as_ref().err());
        match first {
            None => {
                Ok(self.slices.iter().filter_map(|slice| Some((&*slice.path, slice.image.as_ref().ok()?))).collect())
            }
            Some(first) => {
                let count = self.slices.iter().filter(|slice| slice.image.as_ref().err() == Some(first)).count();
                let mut fault = first.clone();
                if self.slices.len() > 1 {
                    fault.message = format!("{} ({count} of {} slices)", fault.message, self.slices.len());
                }
                Err(fault)
            }
        }
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

/// Lists the series among the files of `folder`, without its subfolders, sorted by [`Series::id`].
///
/// Files are recognised by content; files that are not DICOM images (directories, reports, text) are counted in the log
/// and skipped. A file that cannot be read is part of its series, or a separate series if its series is unknown,
/// and reading that series is a fault. Within one series identifier, stacks of different orientation, shape or
/// acquisition and localizers are separate series.
///
/// # Errors
/// Returns `io` if the folder cannot be listed.
pub fn list_series(folder: &Path) -> Result<Vec<Series>, Fault> {
    let failed =
        |error: std::io::Error| Fault::read(FaultKind::Io, format!("cannot list a DICOM folder: {}", error.kind()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut ignored = 0usize;
    let mut by_identifier: BTreeMap<[u8; 32], Vec<Slice>> = BTreeMap::new();
    for path in paths {
        match Slice::open(&path) {
            Some(slice) => by_identifier.entry(slice.series).or_default().push(slice),
            None => ignored += 1,
        }
    }
    let mut series: Vec<Series> = by_identifier.into_values().flat_map(split_series).collect();
    series.sort_by(|a, b| a.id.cmp(&b.id));
    tracing::debug!(series = series.len(), ignored, "listed a DICOM folder");
    Ok(series)
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
    let slice_bytes = series.slices.iter().map(|slice| slice.bytes).max().unwrap_or(0);
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
/// HU, see the [module documentation](super).
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

/// Returns the PatientID of the series. The PatientID identifies a person: hash it with a secret, store and print only the hash.
///
/// # Errors
/// Returns a fault if the first file can no longer be read.
pub fn patient_id(series: &Series) -> Result<Option<String>, Fault> {
    let Some(slice) = series.slices.first() else { return Ok(None) };
    let Some(elements) = Elements::open(&slice.path, &[tags::PATIENT_ID]) else { return Ok(None) };
    if let (Some(fault), None) = (&elements.fault, elements.bytes(tags::PATIENT_ID)) {
        return Err(fault.clone());
    }
    // Independent of the character set of the file, different bytes are different strings.
    let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
    let number = elements.bytes(tags::PATIENT_ID).map(|bytes| text(bytes).trim_matches([' ', '\0']).to_owned());
    Ok(number.filter(|number| !number.is_empty()))
}

/// Returns the frame of reference of the series, if its first file states one.
pub fn frame_of_reference(series: &Series) -> Option<FrameOfReference> {
    let elements = Elements::open(&series.slices.first()?.path, &[tags::FRAME_OF_REFERENCE_UID])?;
    elements.text(tags::FRAME_OF_REFERENCE_UID).map(FrameOfReference::of)
}

/// Splits the slices of one series identifier into series.
fn split_series(slices: Vec<Slice>) -> Vec<Series> {
    let identifier = slices.first().map_or([0; 32], |slice| slice.series);
    let (valid, invalid): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.image.is_ok());
    let (localizers, invalid): (Vec<_>, Vec<_>) = invalid.into_iter().partition(|slice| slice.localizer);
    let mut groups: Vec<Vec<Slice>> = Vec::new();
    for slice in valid {
        let parallel = groups.iter_mut().find(|group| is_same_stack(&group[0], &slice));
        match parallel {
            Some(group) => group.push(slice),
            None => groups.push(vec![slice]),
        }
    }
    let mut groups: Vec<Vec<Slice>> = groups.into_iter().flat_map(by_shape).flat_map(by_acquisition).collect();
    // The stack of an unreadable file is unknown: the largest stack fails.
    match groups.iter_mut().rev().max_by_key(|group| group.len()) {
        Some(largest) => largest.extend(invalid),
        None => groups.push(invalid),
    }
    groups.push(localizers);
    groups.retain(|group| !group.is_empty());
    let mut counts = BTreeMap::new();
    groups
        .into_iter()
        .map(|slices| {
            let hash = stack_hash(&identifier, &slices[0]);
            let count = counts.entry(hash).and_modify(|count| *count += 1).or_insert(0u64);
            let digest = Sha256::new_with_prefix(hash).chain_update(count.to_le_bytes()).finalize();
            let id = hex::encode(&digest[..8]);
            Series { id, localizer: slices.iter().all(|slice| slice.localizer), slices }
        })
        .collect()
}

/// Returns whether two slices are both localizers or both not, and parallel.
fn is_same_stack(first: &Slice, slice: &Slice) -> bool {
    let (Ok(a), Ok(b)) = (&first.image, &slice.image) else { return false };
    first.localizer == slice.localizer && a.pose.is_parallel_to(&b.pose, SAME_ORIENTATION)
}

/// Splits a stack by shape: reconstructions with different matrices are separate scans, but a single deviating slice is a fault.
fn by_shape(group: Vec<Slice>) -> Vec<Vec<Slice>> {
    split(group, |slice| slice.image.as_ref().ok().map(|image| image.pose.shape)).unwrap_or_else(|group| vec![group])
}

/// Splits a stack by acquisition if slices overlap. A scanner that counts one acquisition for every slice has no overlap.
fn by_acquisition(group: Vec<Slice>) -> Vec<Vec<Slice>> {
    if !overlaps(&group) {
        return vec![group];
    }
    let mut group = group;
    for index in 0..2 {
        match split(group, |slice| slice.acquisition[index]) {
            Ok(parts) if !parts.iter().any(|part| overlaps(part)) => return parts,
            Ok(parts) => group = parts.into_iter().flatten().collect(),
            Err(unsplit) => group = unsplit,
        }
    }
    group.sort_by(|a, b| a.path.cmp(&b.path));
    vec![group]
}

/// Splits a group by a key, in the order of the key, unless a part has too few slices for a volume.
fn split<K: Ord>(group: Vec<Slice>, key: impl Fn(&Slice) -> K) -> Result<Vec<Vec<Slice>>, Vec<Slice>> {
    let mut sizes: BTreeMap<K, usize> = BTreeMap::new();
    for slice in &group {
        *sizes.entry(key(slice)).or_default() += 1;
    }
    if sizes.values().any(|&size| size < FEWEST_SLICES) {
        return Err(group);
    }
    let mut parts: BTreeMap<K, Vec<Slice>> = BTreeMap::new();
    for slice in group {
        parts.entry(key(&slice)).or_default().push(slice);
    }
    Ok(parts.into_values().collect())
}

/// Returns whether different slices are at the same position.
fn overlaps(group: &[Slice]) -> bool {
    let mut poses: Vec<_> =
        group.iter().filter_map(|slice| slice.image.as_ref().ok()).map(|image| &image.pose).collect();
    let Some(normal) = poses.first().map(|pose| pose.normal()) else { return false };
    let along = |pose: &&SlicePose| geometry::dot(pose.position_mm, normal);
    poses.sort_by(|a, b| along(a).total_cmp(&along(b)));
    poses
        .windows(2)
        .any(|pair| along(&pair[1]) - along(&pair[0]) <= SAME_POSITION_MM && pair[0].instance != pair[1].instance)
}

/// Returns the hash of a stack within its folder, which does not change when slices are added.
fn stack_hash(identifier: &[u8; 32], first: &Slice) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(identifier).chain_update([u8::from(first.localizer)]);
    if let Ok(image) = &first.image {
        for cosine in image.pose.along_row.iter().chain(&image.pose.along_column) {
            hash.update(((cosine * 10.0).round() as i64).to_le_bytes());
        }
        for length in image.pose.shape {
            hash.update((length as u64).to_le_bytes());
        }
    }
    hash.finalize().into()
}
