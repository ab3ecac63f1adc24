//! Records to Arrow columns, in the order of the schema.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Float64Builder, ListBuilder, StringArray, StringBuilder, StructBuilder, UInt32Array,
    UInt64Array,
};

use super::SampleRow;
use crate::score::Score;
use crate::sink::schema::{organ_fields, organs_item};
use crate::sink::{FaultRecord, Outcome, QualityRecord, ScanRecord};
use crate::synth::Geometry;

fn text<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(get)))
}

fn maybe_text<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<StringArray>())
}

fn u64s<R>(rows: &[R], get: impl Fn(&R) -> Option<u64>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<UInt64Array>())
}

fn u32s<R>(rows: &[R], get: impl Fn(&R) -> Option<u32>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<UInt32Array>())
}

fn f64s<R>(rows: &[R], get: impl Fn(&R) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<Float64Array>())
}

pub(super) fn samples(rows: &[SampleRow]) -> Vec<ArrayRef> {
    let geometry = |get: fn(&Geometry) -> f64| f64s(rows, |r| r.record.geometry.as_ref().map(get));
    // A CT scan has far fewer than 2³² voxels along an axis; NIfTI-1 ends at 2¹⁵.
    let site = |axis: usize| u32s(rows, |r| r.record.geometry.as_ref().map(|g| g.site_voxel[axis] as u32));
    let mut columns = vec![
        text(rows, |r| &r.record.sample_id),
        text(rows, |r| &r.record.scan_id),
        text(rows, |r| &r.record.scan_digest),
        text(rows, |r| &r.record.patient_key),
        text(rows, |r| &r.record.dataset),
        u64s(rows, |r| Some(r.record.epoch)),
        u64s(rows, |r| Some(r.record.seed)),
        text(rows, |r| &r.record.stage),
        u32s(rows, |r| Some(r.record.variant)),
        u32s(rows, |r| Some(r.record.attempt)),
        text(rows, |r| &r.record.organ),
        text(rows, |r| r.record.split.name()),
        text(rows, |r| match r.record.outcome {
            Outcome::Accepted => "accepted",
            Outcome::Rejected { .. } => "rejected",
        }),
        maybe_text(rows, |r| match &r.record.outcome {
            Outcome::Accepted => None,
            Outcome::Rejected { reason } => Some(reason),
        }),
        maybe_text(rows, |r| r.record.geometry.as_ref().map(|g| &g.size_class[..])),
        site(0),
        site(1),
        site(2),
        geometry(|g| g.site_mm[0]),
        geometry(|g| g.site_mm[1]),
        geometry(|g| g.site_mm[2]),
        geometry(|g| g.radii_mm[0]),
        geometry(|g| g.radii_mm[1]),
        geometry(|g| g.radii_mm[2]),
        geometry(|g| g.volume_mm3),
        geometry(|g| g.diameter_mm),
        geometry(|g| g.sphericity),
        geometry(|g| g.clipped_fraction),
        geometry(|g| g.boundary_distance_mm),
    ];
    columns.extend(Score::ALL.iter().map(|&score| f64s(rows, |r| r.record.scores.get(score))));
    columns.extend([
        text(rows, |r| &r.record.pipeline_digest),
        text(rows, |r| &r.record.model),
        maybe_text(rows, |r| r.placement.image_path.as_deref()),
        maybe_text(rows, |r| r.placement.image_sha256.as_deref()),
        maybe_text(rows, |r| r.placement.label_path.as_deref()),
        maybe_text(rows, |r| r.placement.label_sha256.as_deref()),
        maybe_text(rows, |r| r.placement.shard.as_deref()),
        u64s(rows, |r| r.placement.shard_offset_bytes),
        u64s(rows, |r| r.placement.shard_length_bytes),
    ]);
    columns
}

pub(super) fn scans(rows: &[ScanRecord]) -> Vec<ArrayRef> {
    let shape = |axis: usize| u32s(rows, |r| r.shape.map(|shape| shape[axis]));
    let spacing = |axis: usize| f64s(rows, |r| r.spacing_mm.map(|spacing| spacing[axis]));
    vec![
        text(rows, |r| &r.scan_id),
        maybe_text(rows, |r| r.scan_digest.as_deref()),
        text(rows, |r| &r.patient_key),
        text(rows, |r| &r.dataset),
        text(rows, |r| &r.source),
        u64s(rows, |r| Some(r.epoch)),
        text(rows, |r| r.split.name()),
        text(rows, |r| &r.status),
        maybe_text(rows, |r| r.duplicate_of.as_deref()),
        u64s(rows, |r| Some(r.bytes)),
        shape(0),
        shape(1),
        shape(2),
        spacing(0),
        spacing(1),
        spacing(2),
        maybe_text(rows, |r| r.orientation.as_deref()),
        f64s(rows, |r| r.hu_min),
        f64s(rows, |r| r.hu_max),
        organs(rows),
        u32s(rows, |r| Some(r.accepted)),
        u32s(rows, |r| Some(r.rejected)),
    ]
}

fn organs(rows: &[ScanRecord]) -> ArrayRef {
    let each =
        StructBuilder::new(organ_fields(), vec![Box::new(StringBuilder::new()), Box::new(Float64Builder::new())]);
    let mut lists = ListBuilder::new(each).with_field(Arc::new(organs_item()));
    for row in rows {
        for (organ, volume_ml) in &row.organs {
            let each = lists.values();
            // Both builders were put there a few lines above.
            if let Some(names) = each.field_builder::<StringBuilder>(0) {
                names.append_value(organ);
            }
            if let Some(volumes) = each.field_builder::<Float64Builder>(1) {
                volumes.append_value(*volume_ml);
            }
            each.append(true);
        }
        lists.append(true);
    }
    let lists = lists.finish();
    debug_assert_eq!(lists.len(), rows.len());
    Arc::new(lists)
}

pub(super) fn quality(rows: &[QualityRecord]) -> Vec<ArrayRef> {
    vec![
        text(rows, |r| &r.dataset),
        text(rows, |r| &r.organ),
        maybe_text(rows, |r| Some(r.size_class.as_str()).filter(|class| !class.is_empty())),
        text(rows, |r| if r.reason.is_none() { "accepted" } else { "rejected" }),
        maybe_text(rows, |r| r.reason.as_deref()),
        u64s(rows, |r| Some(r.count)),
    ]
}

pub(super) fn faults(rows: &[FaultRecord]) -> Vec<ArrayRef> {
    vec![
        text(rows, |r| &r.scan_id),
        text(rows, |r| &r.dataset),
        text(rows, |r| &r.source),
        u64s(rows, |r| Some(r.epoch)),
        text(rows, |r| r.fault.stage.name()),
        text(rows, |r| r.fault.kind.name()),
        text(rows, |r| &r.fault.message),
        maybe_text(rows, |r| r.fault.node.as_deref()),
    ]
}
