//! Series of slices: which there are in a folder, and the volume of one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};

use super::Limits;
use super::decoder::{Decoder, USUAL_THREADS};
use super::elements::Elements;
use super::geometry::{self, FEWEST_SLICES, SAME_PLACE_MM, SlicePose, SliceStack};
use super::pixels::VoxelAssembly;
use super::slice::{Image, Slice};
use crate::error::{Fault, FaultKind};
use crate::ingest::ScanHeader;
use crate::volume::Volume;

/// Slices of different series-wide orientation differ by more than this in some direction cosine.
const SAME_ORIENTATION: f64 = 0.01;
/// What decoders hold for a pixel: their own 32-bit copies, and the result.
const DECODING_BYTES_PER_PIXEL: u64 = 16;

/// An image and its file.
type ImageFile<'a> = (&'a Path, &'a Image);

/// The slices of one scan in a folder, known by their headers.
pub struct Series {
    id: String,
    localizer: bool,
    slices: Vec<Slice>,
}

impl Series {
    /// 16 hexadecimal digits that name the series within its folder: a hash, without the identifier in it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.slices.len()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.slices.iter().map(|slice| slice.bytes).sum()
    }

    /// When a file of it changed last, in seconds since 1970.
    pub fn modified_s(&self) -> i64 {
        self.slices.iter().map(|slice| slice.modified_s).max().unwrap_or(0)
    }

    /// Whether every file of it says that it is of another modality: a PET, a dose, a segmentation. Archives of CT pass
    /// over these; reading one is a fault that names the modality.
    pub fn is_other_modality(&self) -> bool {
        self.slices.iter().all(|slice| slice.other_modality)
    }

    /// Whether this is a scout view: called so by the scanner, or one or two sound slices. Archives pass over these.
    pub fn is_localizer(&self) -> bool {
        self.localizer || (self.slices.len() < FEWEST_SLICES && self.slices.iter().all(|slice| slice.image.is_ok()))
    }

    /// The images and their files, in file order, or the first fault among them.
    fn images(&self) -> Result<Vec<ImageFile<'_>>, Fault> {
        if self.localizer {
            return Err(Fault::read(FaultKind::Geometry, "a localizer; expected a volume of parallel slices"));
        }
        let first = self.slices.iter().find_map(|slice| slice.image.as_ref().err());
        match first {
            None => {
                Ok(self.slices.iter().filter_map(|slice| Some((&*slice.path, slice.image.as_ref().ok()?))).collect())
            }
            Some(first) => {
                let alike = self.slices.iter().filter(|slice| slice.image.as_ref().err() == Some(first)).count();
                let mut fault = first.clone();
                if self.slices.len() > 1 {
                    fault.message = format!("{} ({alike} of {} slices)", fault.message, self.slices.len());
                }
                Err(fault)
            }
        }
    }

    /// The images from the first slice to the last, and their grid.
    fn stack(&self) -> Result<(Vec<ImageFile<'_>>, SliceStack), Fault> {
        let images = self.images()?;
        let stack = geometry::stack(&images.iter().map(|(_, image)| image.place).collect::<Vec<_>>())?;
        Ok((stack.order.iter().map(|&index| images[index]).collect(), stack))
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").field("id", &self.id).field("files", &self.files()).finish_non_exhaustive()
    }
}

/// The series among the files of `folder`, without its subfolders, sorted by [`Series::id`].
///
/// Files are recognised by content; those that are no DICOM images (directories, reports, text) are counted in the log
/// and left out. A file that cannot be read is part of its series, or a series of its own where it does not say which,
/// and makes the reading of that series a fault. Within one series identifier, stacks of another orientation, shape or
/// acquisition and localizers are kept apart.
///
/// # Errors
/// `io` where the folder cannot be listed.
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
    let mut series: Vec<Series> = by_identifier.into_values().flat_map(stacks).collect();
    series.sort_by(|a, b| a.id.cmp(&b.id));
    tracing::debug!(series = series.len(), ignored, "listed a DICOM folder");
    Ok(series)
}

/// What the headers of a series promise.
///
/// # Errors
/// Every fault that can be told from headers: see [`read_series`].
pub fn read_header(series: &Series) -> Result<ScanHeader, Fault> {
    let (images, stack) = series.stack()?;
    let voxels = stack.grid.voxels() as u64;
    let whole = images.iter().all(|(_, image)| image.stored.is_whole(image.rescale));
    let safe = images.iter().all(|(_, image)| image.stored.fits_i16(image.rescale));
    let volume_bytes = voxels * if whole { 2 } else { 4 };
    // Values beyond i16 would turn a volume of whole numbers into floats on the way.
    let promotion_bytes = if whole && !safe { 4 * voxels } else { 0 };
    let slice_bytes = series.slices.iter().map(|slice| slice.bytes).max().unwrap_or(0);
    let pixels = (stack.grid.shape[0] * stack.grid.shape[1]) as u64;
    let decoding_bytes = match images.iter().any(|(_, image)| image.syntax.is_compressed()) {
        true => USUAL_THREADS as u64 * (slice_bytes + DECODING_BYTES_PER_PIXEL * pixels),
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
/// HU, see the [module's text](super).
///
/// # Errors
/// `unsupported` (another modality, colour, several frames, transfer syntax), `missing` (tags, slices), `geometry`
/// (localizer, mixed shapes, spacings or orientations, two slices at one place, uneven gaps, tilted gantry),
/// `truncated`, `corrupt`, `too_large`, `io`, and `panic` where a decoder died.
pub fn read_series(series: &Series, decoder: &Decoder, limits: &Limits) -> Result<Volume, Fault> {
    let header = read_header(series)?;
    if header.volume_bytes > limits.volume_bytes {
        let [x, y, z] = header.grid.shape;
        return Err(Fault::read(
            FaultKind::TooLarge,
            format!(
                "{x} × {y} × {z} voxels take {} bytes; expected {} at most",
                header.volume_bytes, limits.volume_bytes
            ),
        ));
    }
    let (images, stack) = series.stack()?;
    let whole = images.iter().all(|(_, image)| image.stored.is_whole(image.rescale));
    let mut assembly = VoxelAssembly::new(stack.grid.voxels(), whole)?;
    let mut session = decoder.session();
    for run in images.chunk_by(|(_, a), (_, b)| a.syntax.is_compressed() == b.syntax.is_compressed()) {
        let compressed = run[0].1.syntax.is_compressed();
        for batch in run.chunks(if compressed { decoder.threads() } else { 1 }) {
            let stored: Result<Vec<_>, Fault> = batch.iter().map(|(path, image)| image.read(path)).collect();
            let frames = match compressed {
                true => {
                    session.decode(batch.iter().zip(stored?).map(|((_, image), bytes)| image.frame(bytes)).collect())?
                }
                false => stored?,
            };
            for ((_, image), frame) in batch.iter().zip(frames) {
                assembly.push(&frame, image.stored, image.syntax, image.rescale)?;
            }
        }
    }
    Ok(assembly.finish(stack.grid))
}

/// The patient's number as the series has it. It names a person: hash it with a secret, store and print only the hash.
///
/// # Errors
/// Where the first file cannot be read any more.
pub fn patient_id(series: &Series) -> Result<Option<String>, Fault> {
    let Some(slice) = series.slices.first() else { return Ok(None) };
    let Some(elements) = Elements::open(&slice.path, &[tags::PATIENT_ID]) else { return Ok(None) };
    if let (Some(fault), None) = (&elements.fault, elements.bytes(tags::PATIENT_ID)) {
        return Err(fault.clone());
    }
    // Whatever the file's character set, different bytes stay different texts.
    let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
    let number = elements.bytes(tags::PATIENT_ID).map(|bytes| text(bytes).trim_matches([' ', '\0']).to_owned());
    Ok(number.filter(|number| !number.is_empty()))
}

/// Takes apart what shares a series identifier.
fn stacks(slices: Vec<Slice>) -> Vec<Series> {
    let identifier = slices.first().map_or([0; 32], |slice| slice.series);
    let (sound, broken): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.image.is_ok());
    let (scouts, broken): (Vec<_>, Vec<_>) = broken.into_iter().partition(|slice| slice.localizer);
    let mut groups: Vec<Vec<Slice>> = Vec::new();
    for slice in sound {
        let same = groups.iter_mut().find(|group| belongs(&group[0], &slice));
        match same {
            Some(group) => group.push(slice),
            None => groups.push(vec![slice]),
        }
    }
    let mut groups: Vec<Vec<Slice>> = groups.into_iter().flat_map(by_shape).flat_map(by_acquisition).collect();
    // A broken file cannot say which stack it belongs to: it spoils the largest.
    match groups.iter_mut().rev().max_by_key(|group| group.len()) {
        Some(largest) => largest.extend(broken),
        None => groups.push(broken),
    }
    groups.push(scouts);
    groups.retain(|group| !group.is_empty());
    let mut names = BTreeMap::new();
    groups
        .into_iter()
        .map(|slices| {
            let name = name(&identifier, &slices[0]);
            let again = names.entry(name).and_modify(|count| *count += 1).or_insert(0u64);
            let digest = Sha256::new_with_prefix(name).chain_update(again.to_le_bytes()).finalize();
            let id = hex::encode(&digest[..8]);
            Series { id, localizer: slices.iter().all(|slice| slice.localizer), slices }
        })
        .collect()
}

fn belongs(first: &Slice, slice: &Slice) -> bool {
    let (Ok(a), Ok(b)) = (&first.image, &slice.image) else { return false };
    first.localizer == slice.localizer && a.place.is_parallel_to(&b.place, SAME_ORIENTATION)
}

/// Two reconstructions of different matrix are two scans; a stray slice is a fault of the one it lies in.
fn by_shape(group: Vec<Slice>) -> Vec<Vec<Slice>> {
    split(group, |slice| slice.image.as_ref().ok().map(|image| image.place.shape)).unwrap_or_else(|group| vec![group])
}

/// Acquisitions that lie in the same places are separate scans; a scanner that counts one for every slice is not.
fn by_acquisition(group: Vec<Slice>) -> Vec<Vec<Slice>> {
    if !overlaps(&group) {
        return vec![group];
    }
    let mut group = group;
    for which in 0..2 {
        match split(group, |slice| slice.acquisition[which]) {
            Ok(parts) if !parts.iter().any(|part| overlaps(part)) => return parts,
            Ok(parts) => group = parts.into_iter().flatten().collect(),
            Err(whole) => group = whole,
        }
    }
    group.sort_by(|a, b| a.path.cmp(&b.path));
    vec![group]
}

/// Splits a group by a key, in the key's order, unless a part would be no volume.
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

/// Whether different slices lie at the same place.
fn overlaps(group: &[Slice]) -> bool {
    let mut places: Vec<_> =
        group.iter().filter_map(|slice| slice.image.as_ref().ok()).map(|image| &image.place).collect();
    let Some(normal) = places.first().map(|place| place.normal()) else { return false };
    let along = |place: &&SlicePose| geometry::dot(place.position_mm, normal);
    places.sort_by(|a, b| along(a).total_cmp(&along(b)));
    places
        .windows(2)
        .any(|pair| along(&pair[1]) - along(&pair[0]) <= SAME_PLACE_MM && pair[0].instance != pair[1].instance)
}

/// Names a stack within its folder: the same whatever is added to it.
fn name(identifier: &[u8; 32], first: &Slice) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(identifier).chain_update([u8::from(first.localizer)]);
    if let Ok(image) = &first.image {
        for cosine in image.place.along_row.iter().chain(&image.place.along_column) {
            hash.update(((cosine * 10.0).round() as i64).to_le_bytes());
        }
        for length in image.place.shape {
            hash.update((length as u64).to_le_bytes());
        }
    }
    hash.finalize().into()
}
