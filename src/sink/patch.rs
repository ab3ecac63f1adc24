//! A patch: the box of a scan that a candidate changed.
//!
//! A sample is a scan plus a patch: outside the patch's box every voxel equals that of the scan. In a tar shard a patch has four members:
//!
//! ```text
//! ID.after.nii.gz    HU of the box with the tumor
//! ID.before.nii.gz   HU of the box in the scan
//! ID.json            PatchDescription: scan, digests, position of the box, rows of `samples`
//! ID.label.nii.gz    merged labels of the box with the tumor
//! ```
//!
//! The affines of the images define their position in the patient; `origin_voxel` defines it on the grid of the scan.

use std::io::{Cursor, Read};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::tar::TarWriter;
use super::volume_files::{Overlay, gzip_member};
use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::id::{CandidateDigest, MaskDigest, SampleId, ScanDigest, ScanId};
use crate::ingest::nifti::{self, Datatype, Limits, encode_header};
use crate::mask::MaskedScan;
use crate::record::SampleRecord;
use crate::store::canonical;
use crate::synth::Candidate;
use crate::volume::{Array3, Region, Voxels};

/// Patches are small, so a high compression level is cheap.
const GZIP_LEVEL: u32 = 6;

const DESCRIPTION: &str = "part of a CT with a synthetic tumor, freetumor";

/// `ID.json`: the sample, scan and position of a patch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchDescription {
    /// The id of the candidate.
    pub sample_id: SampleId,
    /// The id of the scan.
    pub scan_id: ScanId,
    /// Digest of the scan's voxels: a patch is valid only for this scan.
    pub scan_digest: ScanDigest,
    /// Digest of the organ mask's voxels.
    pub mask_digest: MaskDigest,
    /// Digest of the patch's box, voxels and labels.
    pub candidate_digest: CandidateDigest,
    /// The first voxel of the box on the scan's grid, [x, y, z].
    pub origin_voxel: [usize; 3],
    /// The shape of the box in voxels.
    pub shape_voxels: [usize; 3],
    /// The candidate's rows of `samples`, one for each quality test that decided on the candidate. Epoch and pipeline digest are left
    /// out, so that a candidate has the same patch in every epoch.
    pub rows: Vec<serde_json::Map<String, Json>>,
}

/// A decoded patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// The sample, scan and position.
    pub description: PatchDescription,
    /// HU of the box in the scan.
    pub before: Array3<f32>,
    /// HU of the box with the tumor.
    pub after: Array3<f32>,
    /// Merged labels of the box with the tumor.
    pub labels: Array3<u8>,
}

impl Patch {
    /// Returns the box on the grid of the scan.
    pub fn region(&self) -> Region {
        Region { start: self.description.origin_voxel, shape: self.description.shape_voxels }
    }
}

impl<'a> From<&'a Patch> for Overlay<'a> {
    fn from(patch: &'a Patch) -> Self {
        Self { region: patch.region(), after: &patch.after, labels: &patch.labels }
    }
}

/// Encodes the members of a candidate's patch, without the end of an archive. `rows` are the candidate's rows, at least one.
///
/// # Errors
/// A fault of stage `sink` if NIfTI-1 cannot store the box.
pub fn encode_patch(masked: &MaskedScan, candidate: &Candidate, rows: &[SampleRecord]) -> Result<Vec<u8>, Fault> {
    let Some(first) = rows.first() else {
        return Err(Fault::new(Stage::Sink, FaultKind::Mismatch, "expected at least one row of a patch, got none"));
    };
    let description = PatchDescription {
        sample_id: first.sample_id,
        scan_id: first.scan_id,
        scan_digest: first.scan_digest,
        mask_digest: first.mask_digest,
        candidate_digest: candidate.digest(),
        origin_voxel: candidate.region.start,
        shape_voxels: candidate.region.shape,
        rows: rows.iter().map(row_of_candidate).collect(),
    };
    let grid = masked.scan.volume.grid.cut(candidate.region);
    let image = |array: &Array3<f32>| -> Result<Vec<u8>, Fault> {
        let (datatype, bytes): (_, Vec<u8>) = match masked.scan.volume.voxels {
            Voxels::I16(_) => {
                (Datatype::I16, array.as_slice().iter().flat_map(|&hu| (hu as i16).to_le_bytes()).collect())
            }
            Voxels::F32(_) => (Datatype::F32, array.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect()),
        };
        compressed(&encode_header(&grid, datatype, DESCRIPTION)?, &bytes)
    };
    let (after, before) = (image(&candidate.after)?, image(&candidate.before)?);
    let labels = compressed(&encode_header(&grid, Datatype::U8, DESCRIPTION)?, candidate.labels.as_slice())?;
    let json = canonical::pretty(&description).map_err(|error| unwritable(&error.to_string()))?;
    let mut part = TarWriter::new(Vec::new());
    for (suffix, bytes) in
        [("after.nii.gz", &after), ("before.nii.gz", &before), ("json", &json), ("label.nii.gz", &labels)]
    {
        let name = format!("{}.{suffix}", first.sample_id);
        part.append(&name, bytes.len() as u64, &mut &bytes[..]).map_err(|error| unwritable(&error.to_string()))?;
    }
    Ok(part.into_inner())
}

/// Returns a row without epoch and pipeline digest.
fn row_of_candidate(row: &SampleRecord) -> serde_json::Map<String, Json> {
    let Ok(Json::Object(mut row)) = serde_json::to_value(row) else { return serde_json::Map::new() };
    row.retain(|name, _| !["epoch", "pipeline_digest"].contains(&name.as_str()));
    row
}

fn compressed(header: &[u8], voxels: &[u8]) -> Result<Vec<u8>, Fault> {
    gzip_member(&[header, voxels], GZIP_LEVEL).map_err(|error| unwritable(&error.to_string()))
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
    let (mut description, mut before, mut after, mut labels) = (None, None, None, None);
    let mut archive = tar::Archive::new(part);
    for member in archive.entries().map_err(|error| invalid(error.to_string()))? {
        let mut member = member.map_err(|error| invalid(error.to_string()))?;
        let path = member.path().map_err(|error| invalid(error.to_string()))?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|error| invalid(error.to_string()))?;
        let volume = |bytes: &[u8]| {
            nifti::read_volume_from(Cursor::new(bytes), bytes.len() as u64, &Limits::default())
                .map(|volume| volume.voxels.hu_of(volume.grid.region()))
                .map_err(|fault| invalid(fault.to_string()))
        };
        match path.split_once('.').map_or("", |(_, suffix)| suffix) {
            "json" => description = Some(canonical::parse::<PatchDescription>(&bytes, &path)?),
            "before.nii.gz" => before = Some(volume(&bytes)?),
            "after.nii.gz" => after = Some(volume(&bytes)?),
            "label.nii.gz" => {
                let read = nifti::read_labels_from(Cursor::new(&bytes), bytes.len() as u64, &Limits::default());
                labels = Some(read.map_err(|fault| invalid(fault.to_string()))?.ids.map(|&id| id as u8));
            }
            _ => return Err(invalid(format!("unexpected member {path}"))),
        }
    }
    let missing = |part: &str| invalid(format!("expected a {part}, got none"));
    let patch = Patch {
        description: description.ok_or_else(|| missing("description"))?,
        before: before.ok_or_else(|| missing("box before the change"))?,
        after: after.ok_or_else(|| missing("box after the change"))?,
        labels: labels.ok_or_else(|| missing("label box"))?,
    };
    let digest = crate::synth::voxels_digest(patch.region(), &patch.before, &patch.after, &patch.labels);
    if digest != patch.description.candidate_digest {
        let expected = patch.description.candidate_digest;
        return Err(invalid(format!(
            "sample {}: expected digest {expected}, got {digest}",
            patch.description.sample_id
        )));
    }
    Ok(patch)
}
