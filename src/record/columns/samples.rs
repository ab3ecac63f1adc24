//! Columns of `samples`.

use super::{access, descriptors, optional};
use crate::attempt::Outcome;
use crate::error::Error;
use crate::record::SampleRow as Row;
use crate::record::column::{Access, Column, ColumnType, Descriptor};
use crate::score::Score;
use crate::synth::Geometry;

/// Access to a number of the geometry; the geometry exists if any of its columns has a value.
macro_rules! geometry {
    ($($field:tt)+) => {
        Access::F64(
            Box::new(|row: &Row| row.record.geometry.as_ref().map(|geometry| geometry.$($field)+)),
            Box::new(|row: &mut Row, value| { geometry_mut(row).$($field)+ = value; Ok(()) }),
        )
    };
}

/// Access to an optional number of the inner structure.
macro_rules! structure {
    ($field:ident) => {
        Access::F64(
            Box::new(|row: &Row| row.record.geometry.as_ref().and_then(|geometry| geometry.structure.$field)),
            Box::new(|row: &mut Row, value| {
                geometry_mut(row).structure.$field = Some(value);
                Ok(())
            }),
        )
    };
}

fn geometry_mut(row: &mut Row) -> &mut Geometry {
    row.record.geometry.get_or_insert_default()
}

/// Access to an index of the voxel at the centre. A CT scan has far fewer than 2³² voxels along an axis.
fn site_voxel(axis: usize) -> Access<Row> {
    Access::U32(
        Box::new(move |row| row.record.geometry.as_ref().map(|geometry| geometry.site_voxel[axis] as u32)),
        Box::new(move |row, value| {
            geometry_mut(row).site_voxel[axis] = value as usize;
            Ok(())
        }),
    )
}

fn verdict() -> Access<Row> {
    let name = |row: &Row| Some(if row.record.outcome.is_accepted() { "accepted" } else { "rejected" }.to_owned());
    // The column `reason` sets the outcome of a rejected row.
    let check = |value: String| match value.as_str() {
        "accepted" | "rejected" => Ok(()),
        _ => Err(Error::new(format!("expected accepted or rejected, got {value:?}"))),
    };
    Access::Text(Box::new(name), Box::new(move |_, value| check(value)))
}

fn reason() -> Access<Row> {
    Access::Text(
        Box::new(|row| row.record.outcome.reason().map(str::to_owned)),
        Box::new(|row, reason| {
            row.record.outcome = Outcome::Rejected { reason };
            Ok(())
        }),
    )
}

fn size_class() -> Access<Row> {
    Access::Text(
        Box::new(|row| row.record.geometry.as_ref().map(|geometry| geometry.size_class.clone())),
        Box::new(|row, value| {
            geometry_mut(row).size_class = value;
            Ok(())
        }),
    )
}

fn drawn_contrast() -> Access<Row> {
    Access::F64(
        Box::new(|row| row.record.geometry.as_ref().and_then(|geometry| geometry.drawn_contrast_hu)),
        Box::new(|row, value| {
            geometry_mut(row).drawn_contrast_hu = Some(value);
            Ok(())
        }),
    )
}

fn steering_factor() -> Access<Row> {
    Access::F64(
        Box::new(|row| row.record.geometry.as_ref().and_then(|geometry| geometry.steering_factor)),
        Box::new(|row, value| {
            geometry_mut(row).steering_factor = Some(value);
            Ok(())
        }),
    )
}

fn organ() -> Access<Row> {
    Access::Text(
        Box::new(|row| Some(row.record.organ.clone()).filter(|organ| !organ.is_empty())),
        Box::new(|row, value| {
            row.record.organ = value;
            Ok(())
        }),
    )
}

/// Access to the kind of growth. The values are `displacing` and `infiltrating`.
fn growth() -> Access<Row> {
    let name = |geometry: &Geometry| if geometry.infiltrating { "infiltrating" } else { "displacing" };
    Access::Text(
        Box::new(move |row| row.record.geometry.as_ref().map(|geometry| name(geometry).to_owned())),
        Box::new(|row, value| {
            geometry_mut(row).infiltrating = match value.as_str() {
                "infiltrating" => true,
                "displacing" => false,
                _ => return Err(Error::new(format!("expected displacing or infiltrating, got {value:?}"))),
            };
            Ok(())
        }),
    )
}

fn tumor_label() -> Access<Row> {
    Access::U32(
        Box::new(|row| Some(row.record.tumor_label.into()).filter(|label| *label != 0)),
        Box::new(|row, value| {
            row.record.tumor_label = u8::try_from(value).map_err(|cause| {
                crate::error::Error::new(format!("expected a label from 0 to 255, got {value}")).with_source(cause)
            })?;
            Ok(())
        }),
    )
}

fn score_stages() -> Access<Row> {
    Access::Stages(
        Box::new(|row| {
            Some(row.record.score_stages.iter().map(|(stage, digest)| (stage.clone(), digest.to_string())).collect())
        }),
        Box::new(|row, value| {
            let parsed = value.into_iter().map(|(stage, digest)| Ok((stage, digest.parse()?)));
            row.record.score_stages = parsed.collect::<crate::error::Result<_>>()?;
            Ok(())
        }),
    )
}

fn score(score: Score) -> Access<Row> {
    Access::F64(
        Box::new(move |row| row.record.scores.get(score)),
        Box::new(move |row, value| {
            row.record.scores.set(score, value);
            Ok(())
        }),
    )
}

pub(in crate::record) fn descriptors() -> Vec<Descriptor<Row>> {
    let mut columns = descriptors! {
        1 "sample_id" Text always "" "16 hexadecimal digits: the id of the only tumor's candidate, or a hash of the ids of several; unique together with branch and tumor_id." => access!(parsed record.sample_id);
        18 "kind" Text always "" "synthetic, or negative: an unchanged scan, without values of tumors." => access!(parsed record.kind);
        19 "tumor_id" U32 always "" "Index of the tumor among those requested for the sample, from 0." => access!(U32 record.tumor_id);
        2 "scan_id" Text always "" "Id of the scan: a keyed hash of source and path; RUN/private maps the id to the path." => access!(parsed record.scan_id);
        3 "scan_digest" Text always "" "SHA-256 of the scan's voxels, shape and spacing, independent of the file format." => access!(parsed record.scan_digest);
        15 "mask_digest" Text always "" "SHA-256 of the organ mask's voxels." => access!(parsed record.mask_digest);
        4 "patient_key" Text always "" "Keyed hash of the patient." => access!(parsed record.patient_key);
        5 "dataset" Text always "" "Name of the data set." => access!(text record.dataset);
        6 "epoch" U64 always "" "The commit that added the row." => access!(U64 record.epoch);
        7 "seed" U64 always "" "Seed of the pipeline." => access!(U64 record.seed);
        8 "stage" Text always "" "Name of the synthesis stage in the graph file." => access!(text record.stage);
        16 "branch" Text always "" "Name of the quality test in the graph file." => access!(text record.branch);
        9 "variant" U32 always "" "Index of the tumor among the tumors requested in this organ, or of the sample among those of the scan with tumors_per_scan, from 0." => access!(U32 record.variant);
        10 "attempt" U32 always "" "Index of the attempt at the tumor, from 0." => access!(U32 record.attempt);
        11 "organ" Text maybe "" "Name of the organ in the graph file." => organ();
        17 "tumor_label" U32 maybe "" "Label of the organ's tumors in label maps." => tumor_label();
        12 "split" Text always "" "train, validation or test: the same for all scans of a patient." => access!(parsed record.split);
        13 "verdict" Text always "" "accepted or rejected." => verdict();
        14 "reason" Text maybe "" "Reason for the rejection: the first condition that failed, without its unit, or a code: no_site and others of the synthesis, unlike_real and not_drawn of the calibration, or overlaps, a tumor that passes the quality test but overlaps an earlier tumor of its sample." => reason();
        20 "size_class" Text maybe "" "tiny (diameter below 8 mm), small (below 16), medium (below 32) or large." => size_class();
        21 "site_x_voxel" U32 maybe "voxel" "First index of the voxel nearest to the centre, on the scan's grid." => site_voxel(0);
        22 "site_y_voxel" U32 maybe "voxel" "Second index of the voxel nearest to the centre." => site_voxel(1);
        23 "site_z_voxel" U32 maybe "voxel" "Third index of the voxel nearest to the centre." => site_voxel(2);
        24 "site_right_mm" F64 maybe "mm" "World coordinate of the centre towards the patient's right." => geometry!(site_mm[0]);
        25 "site_anterior_mm" F64 maybe "mm" "World coordinate of the centre towards the front." => geometry!(site_mm[1]);
        26 "site_superior_mm" F64 maybe "mm" "World coordinate of the centre towards the head." => geometry!(site_mm[2]);
        27 "radius_long_mm" F64 maybe "mm" "Longest semi-axis before deformation." => geometry!(radii_mm[0]);
        28 "radius_middle_mm" F64 maybe "mm" "Middle semi-axis before deformation." => geometry!(radii_mm[1]);
        29 "radius_short_mm" F64 maybe "mm" "Shortest semi-axis before deformation." => geometry!(radii_mm[2]);
        30 "volume_mm3" F64 maybe "mm3" "Volume of the labeled voxels." => geometry!(volume_mm3);
        31 "diameter_mm" F64 maybe "mm" "Diameter of the sphere of equal volume." => geometry!(diameter_mm);
        32 "sphericity" F64 maybe "" "Sphericity of the surface of the labeled voxels: 1 for a sphere." => geometry!(sphericity);
        33 "clipped_fraction" F64 maybe "" "Fraction of the sampled shape that is not part of the tumor, because it is outside of the voxels that the tumor may occupy." => geometry!(clipped_fraction);
        34 "boundary_distance_mm" F64 maybe "mm" "Distance from the centre to the nearest voxel outside the organ; 0 if the centre is outside." => geometry!(boundary_distance_mm);
        35 "drawn_contrast_hu" F64 maybe "HU" "Sampled change of HU of the solid tumor, before texture and soft edge; absent if a network or program makes the tumor." => drawn_contrast();
        36 "exterior_fraction" F64 maybe "" "Fraction of the tumor's surface that does not face its organ, by the faces of voxels." => geometry!(exterior_fraction);
        37 "support_mm3" F64 maybe "mm3" "Volume of the voxels whose HU or label may differ from the scan: the tumor and the tissue that it displaces." => geometry!(support_mm3);
        38 "mass_effect" F64 maybe "" "Fraction of its radius by which the tumor displaces its surroundings where no bone or air is near; 0 without displacement." => geometry!(mass_effect);
        39 "growth" Text maybe "" "displacing, or infiltrating: vessels continue into the tumor." => growth();
        40 "rim_hu" F64 maybe "HU" "HU of the rim minus the median of the organ; absent without a rim." => structure!(rim_hu);
        41 "capsule_hu" F64 maybe "HU" "HU of the capsule minus the median of the organ; absent without a capsule." => structure!(capsule_hu);
        42 "core_fraction" F64 maybe "" "Fraction of the tumor's volume within its necrotic core; absent without a core." => structure!(core_fraction);
        43 "core_hu" F64 maybe "HU" "HU of the necrotic core minus those of the rest of the tumor; absent without a core." => structure!(core_hu);
        44 "calcification_hu" F64 maybe "HU" "HU that the densest calcification adds; absent without calcifications." => structure!(calcification_hu);
        45 "fat_fraction" F64 maybe "" "Fraction of the tumor's volume that is fat; absent without fat." => structure!(fat_fraction);
        46 "steering_factor" F64 maybe "" "Factor by which a steered synthesis sampled tumors of this size and contrast more often; absent without steering." => steering_factor();
    };
    columns.extend(Score::ALL.iter().map(|&score_kind| Descriptor {
        column: Column {
            id: score_id(score_kind),
            name: score_kind.name(),
            kind: ColumnType::F64,
            nullable: true,
            unit: score_kind.unit(),
            doc: score_kind.doc(),
        },
        access: score(score_kind),
    }));
    columns.extend(descriptors! {
        150 "likeness" F64 maybe "" "Estimated density of real tumors over that of synthetic tumors at the scores of the calibration; absent without calibration or one of these scores." => optional!(F64 record.likeness);
        151 "acceptance" F64 maybe "" "Probability with which the calibration accepts the candidate; absent without calibration." => optional!(F64 record.acceptance);
        200 "pipeline_digest" Text always "" "Digest of the resolved pipeline of the run." => access!(text record.pipeline_digest);
        201 "model" Text always "" "Synthesis model: the digest of the weights, or `rules` with the version." => access!(text record.model);
        202 "stage_digest" Text always "" "Digest of the synthesis stage: kind, version, settings, weights and, for networks, the kernel class." => access!(parsed record.stage_digest);
        203 "score_stages" Stages always "" "Score stages of the branch, each with the digest of its settings and weights." => score_stages();
        204 "test_digest" Text always "" "Digest of the quality test's conditions." => access!(parsed record.test_digest);
        205 "candidate_digest" Text maybe "" "SHA-256 of the sample's boxes, voxels and labels, the same for all of its tumors; absent if there is no candidate." => access!(optional_parsed record.candidate_digest);
        206 "candidate_id" Text maybe "" "16 hexadecimal digits: a hash of all inputs of the attempt; equals sample_id in a sample of one tumor." => access!(optional_parsed record.candidate_id);
        210 "image_path" Text maybe "" "Image file, relative to the run folder; present if a sink receives the sample from any branch." => access!(optional_text placement.image_path);
        211 "image_sha256" Text maybe "" "SHA-256 of the image file, or of the image inside the shard." => access!(optional_text placement.image_sha256);
        212 "label_path" Text maybe "" "Label file, relative to the run folder; present if a sink receives the sample from any branch." => access!(optional_text placement.label_path);
        213 "label_sha256" Text maybe "" "SHA-256 of the label file, or of the label inside the shard." => access!(optional_text placement.label_sha256);
        214 "shard" Text maybe "" "Tar shard with image and label, relative to the run folder; present if a sink receives the sample from any branch." => access!(optional_text placement.shard);
        215 "shard_offset_bytes" U64 maybe "byte" "Offset of the sample's first tar header in the shard." => optional!(U64 placement.shard_offset_bytes);
        216 "shard_length_bytes" U64 maybe "byte" "Bytes of the sample in the shard, headers and padding included." => optional!(U64 placement.shard_length_bytes);
        220 "patch_shard" Text maybe "" "Tar shard with the patch of the sample, relative to the run folder." => access!(optional_text placement.patch_shard);
        221 "patch_offset_bytes" U64 maybe "byte" "Offset of the patch's first tar header in the shard." => optional!(U64 placement.patch_offset_bytes);
        222 "patch_length_bytes" U64 maybe "byte" "Bytes of the patch in the shard, headers and padding included." => optional!(U64 placement.patch_length_bytes);
    });
    columns
}

/// Returns the field id of a score. A new score gets the next free id, independent of its position in the list.
fn score_id(score: Score) -> i32 {
    match score {
        Score::HuInside => 100,
        Score::HuRing => 101,
        Score::HuBefore => 102,
        Score::DeltaHu => 103,
        Score::Cnr => 104,
        Score::InvisibleFraction => 105,
        Score::OrganMedianHu => 106,
        Score::OrganHuDeviation => 107,
        Score::FoundFraction => 108,
        Score::TumorProbability => 109,
        Score::RightClassFraction => 110,
        Score::Dice => 111,
        Score::NewFalsePositiveMm3 => 112,
        Score::Realness => 113,
        Score::HeldOutFoundFraction => 114,
        Score::Disagreement => 115,
        Score::SuspectedRealTumorMm3 => 116,
        Score::TumorHuDeviation => 117,
    }
}
