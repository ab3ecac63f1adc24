//! A patch: the boxes of a scan that a sample changes.
//!
//! A sample is a scan plus a patch: outside the patch's boxes every voxel equals that of the scan. A sample with several tumors has a box
//! for each, a negative has none. In a tar shard a patch has these members:
//!
//! ```text
//! ID.after.nii.gz    HU of the first box with the tumors
//! ID.before.nii.gz   HU of the first box in the scan
//! ID.json            PatchDescription: scan, digests, position of the boxes, rows of `samples`
//! ID.label.nii.gz    merged labels of the first box with the tumors
//! ID.after.1.nii.gz  ID.before.1.nii.gz  ID.label.1.nii.gz   the second box, and so on
//! ```
//!
//! Every box has the voxels of all tumors of the sample, so overlapping boxes may be pasted in any order. The affines of the images define
//! their position in the patient; `origin_voxel` defines it on the grid of the scan.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::tar::{TarWriter, for_each_member};
use super::volume_files::gzip_member;
use crate::compose::{ChangedBox, Overlay, digest, overlays};
use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::id::{CandidateDigest, MaskDigest, SampleId, ScanDigest, ScanId};
use crate::ingest::nifti::{self, Datatype, Limits, encode_header};
use crate::mask::MaskedScan;
use crate::record::SampleRecord;
use crate::store::canonical;
use crate::volume::{Array3, Region, Voxels};

/// Patches are small, so a high compression level is cheap.
const GZIP_LEVEL: u32 = 6;

/// The level for patches that are read again and removed.
const SCRATCH_GZIP_LEVEL: u32 = 1;

const DESCRIPTION: &str = "part of a CT with a synthetic tumor, freetumor";

/// `ID.json`: the sample, scan and position of a patch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchDescription {
    /// The id of the sample.
    pub sample_id: SampleId,
    /// The id of the scan.
    pub scan_id: ScanId,
    /// Digest of the scan's voxels: a patch is valid only for this scan.
    pub scan_digest: ScanDigest,
    /// Digest of the organ mask's voxels.
    pub mask_digest: MaskDigest,
    /// Digest of the patch's boxes, voxels and labels.
    pub candidate_digest: CandidateDigest,
    /// The boxes: one for each tumor, in the order of `tumor_id`; none for a negative.
    pub boxes: Vec<BoxPosition>,
    /// The rows of `samples` with this sample id, one for each tumor and quality test that decided on the tumor. Epoch and pipeline digest
    /// are left out, so that a sample has the same patch in every epoch.
    pub rows: Vec<serde_json::Map<String, Json>>,
}

/// The position of a box on the grid of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxPosition {
    /// The first voxel, [x, y, z].
    pub origin_voxel: [usize; 3],
    /// The shape in voxels.
    pub shape_voxels: [usize; 3],
}

impl BoxPosition {
    fn region(self) -> Region {
        Region { start: self.origin_voxel, shape: self.shape_voxels }
    }
}

impl From<Region> for BoxPosition {
    fn from(region: Region) -> Self {
        Self { origin_voxel: region.start, shape_voxels: region.shape }
    }
}

/// A decoded patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// The sample, scan and positions.
    pub description: PatchDescription,
    /// The boxes, in the order of the description.
    pub boxes: Vec<ChangedBox>,
}

impl Patch {
    /// Borrows the boxes.
    pub fn overlays(&self) -> Vec<Overlay<'_>> {
        overlays(&self.boxes)
    }
}

/// Encodes the members of a sample's patch, without the end of an archive. `rows` are the rows of the sample, at least one.
///
/// # Errors
/// A fault of stage `sink` if NIfTI-1 cannot store a box.
pub fn encode_patch(masked: &MaskedScan, boxes: &[Overlay<'_>], rows: &[SampleRecord]) -> Result<Vec<u8>, Fault> {
    encode(masked, boxes, rows, GZIP_LEVEL)
}

/// Encodes a patch as [`encode_patch`] does, with less time and more bytes, for a patch that is read again soon.
///
/// # Errors
/// The errors of [`encode_patch`].
pub fn encode_scratch_patch(
    masked: &MaskedScan,
    boxes: &[Overlay<'_>],
    rows: &[SampleRecord],
) -> Result<Vec<u8>, Fault> {
    encode(masked, boxes, rows, SCRATCH_GZIP_LEVEL)
}

fn encode(
    masked: &MaskedScan,
    boxes: &[Overlay<'_>],
    rows: &[SampleRecord],
    gzip_level: u32,
) -> Result<Vec<u8>, Fault> {
    let Some(first) = rows.first() else {
        return Err(Fault::new(Stage::Sink, FaultKind::Mismatch, "expected at least one row of a patch, got none"));
    };
    let description = PatchDescription {
        sample_id: first.sample_id,
        scan_id: first.scan_id,
        scan_digest: first.scan_digest,
        mask_digest: first.mask_digest,
        candidate_digest: digest(boxes),
        boxes: boxes.iter().map(|overlay| overlay.region.into()).collect(),
        rows: rows.iter().map(row_of_candidate).collect(),
    };
    let json = canonical::pretty(&description).map_err(|error| unwritable(&error.to_string()))?;
    let mut part = TarWriter::new(Vec::new());
    let mut append = |suffix: &str, bytes: &[u8]| {
        let name = format!("{}.{suffix}", first.sample_id);
        part.append(&name, bytes.len() as u64, &mut &bytes[..]).map_err(|error| unwritable(&error.to_string()))
    };
    if boxes.is_empty() {
        append("json", &json)?;
    }
    for (index, overlay) in boxes.iter().enumerate() {
        let [after, before, label] = encode_box(masked, overlay, gzip_level)?;
        append(&suffix("after", index), &after)?;
        append(&suffix("before", index), &before)?;
        if index == 0 {
            append("json", &json)?;
        }
        append(&suffix("label", index), &label)?;
    }
    Ok(part.into_inner())
}

/// Returns the members of a patch with a description of these rows of its sample instead of the earlier ones.
///
/// # Errors
/// If the bytes are not a patch.
pub fn with_rows(part: &[u8], rows: &[&SampleRecord]) -> Result<Vec<u8>> {
    let invalid = |error: std::io::Error| Error::new(format!("cannot rewrite the description of a patch: {error}"));
    let mut written = TarWriter::new(Vec::new());
    for_each_member(part, &mut |name, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        if name.ends_with(".json") {
            let earlier: PatchDescription = canonical::parse(&bytes, name).map_err(std::io::Error::other)?;
            let rows = rows.iter().map(|row| row_of_candidate(row)).collect();
            bytes = canonical::pretty(&PatchDescription { rows, ..earlier }).map_err(std::io::Error::other)?;
        }
        written.append(name, bytes.len() as u64, &mut &bytes[..])
    })
    .map_err(invalid)?;
    Ok(written.into_inner())
}

/// Returns HU after and before, and labels of a box as `.nii.gz` files.
fn encode_box(masked: &MaskedScan, overlay: &Overlay<'_>, gzip_level: u32) -> Result<[Vec<u8>; 3], Fault> {
    let grid = masked.scan.volume.grid.cut(overlay.region);
    let compressed = |header: &[u8], voxels: &[u8]| {
        gzip_member(&[header, voxels], gzip_level).map_err(|error| unwritable(&error.to_string()))
    };
    let image = |array: &Array3<f32>| -> Result<Vec<u8>, Fault> {
        let (datatype, bytes): (_, Vec<u8>) = match masked.scan.volume.voxels {
            Voxels::I16(_) => {
                (Datatype::I16, array.as_slice().iter().flat_map(|&hu| (hu as i16).to_le_bytes()).collect())
            }
            Voxels::F32(_) => (Datatype::F32, array.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect()),
        };
        compressed(&encode_header(&grid, datatype, DESCRIPTION)?, &bytes)
    };
    let labels = compressed(&encode_header(&grid, Datatype::U8, DESCRIPTION)?, overlay.labels.as_slice())?;
    Ok([image(overlay.after)?, image(overlay.before)?, labels])
}

/// Returns the name of a member of a box after the sample id: the first box has no number.
fn suffix(part: &str, index: usize) -> String {
    if index == 0 { format!("{part}.nii.gz") } else { format!("{part}.{index}.nii.gz") }
}

/// Returns a row without epoch and pipeline digest.
fn row_of_candidate(row: &SampleRecord) -> serde_json::Map<String, Json> {
    let Ok(Json::Object(mut row)) = serde_json::to_value(row) else { return serde_json::Map::new() };
    row.retain(|name, _| !["epoch", "pipeline_digest"].contains(&name.as_str()));
    row
}

fn unwritable(message: &str) -> Fault {
    Fault::new(Stage::Sink, FaultKind::Io, format!("cannot encode a patch: {message}"))
}

/// Decodes the members that [`encode_patch`] wrote.
///
/// # Errors
/// If the bytes are not a patch or the digest does not match the description.
pub fn decode_patch(part: &[u8]) -> Result<Patch> {
    let invalid = |message: String| Error::new(format!("cannot decode a patch: {message}"));
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(part);
    for member in archive.entries().map_err(|error| invalid(error.to_string()))? {
        let mut member = member.map_err(|error| invalid(error.to_string()))?;
        let path = member.path().map_err(|error| invalid(error.to_string()))?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|error| invalid(error.to_string()))?;
        members.insert(path.split_once('.').map_or("", |(_, suffix)| suffix).to_owned(), bytes);
    }
    let mut take =
        |suffix: &str| members.remove(suffix).ok_or_else(|| invalid(format!("expected a member `{suffix}`, got none")));
    let description: PatchDescription = canonical::parse(&take("json")?, "json")?;
    let mut boxes = Vec::with_capacity(description.boxes.len());
    for (index, position) in description.boxes.iter().enumerate() {
        let mut volume = |part: &str| {
            let bytes = take(&suffix(part, index))?;
            nifti::read_volume_from(Cursor::new(&bytes), bytes.len() as u64, &Limits::default())
                .map(|volume| volume.voxels.hu_of(volume.grid.region()))
                .map_err(|fault| invalid(fault.to_string()))
        };
        let (before, after) = (volume("before")?, volume("after")?);
        let bytes = take(&suffix("label", index))?;
        let labels = nifti::read_labels_from(Cursor::new(&bytes), bytes.len() as u64, &Limits::default())
            .map_err(|fault| invalid(fault.to_string()))?
            .ids
            .map(|&id| id as u8);
        let region = position.region();
        if [before.shape(), after.shape(), labels.shape()].iter().any(|shape| *shape != region.shape) {
            return Err(invalid(format!(
                "expected images of {:?} voxels in box {index}, got another shape",
                region.shape
            )));
        }
        boxes.push(ChangedBox { region, before, after, labels });
    }
    if let Some(member) = members.keys().next() {
        return Err(invalid(format!("unexpected member {member}")));
    }
    let got = digest(&overlays(&boxes));
    if got != description.candidate_digest {
        let expected = description.candidate_digest;
        return Err(invalid(format!("sample {}: expected digest {expected}, got {got}", description.sample_id)));
    }
    Ok(Patch { description, boxes })
}
