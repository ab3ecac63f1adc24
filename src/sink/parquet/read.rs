//! Arrow columns back to records.

use arrow::array::{
    Array, ArrayRef, Float64Array, ListArray, RecordBatch, StringArray, StructArray, UInt32Array, UInt64Array,
};
use serde::de::DeserializeOwned;

use super::SampleRow;
use crate::error::{Error, Fault, Result};
use crate::score::{Score, Scores};
use crate::sink::{FaultRecord, Outcome, Placement, QualityRecord, SampleRecord, ScanRecord};
use crate::synth::Geometry;

/// One row of a batch.
#[derive(Clone, Copy)]
struct Cells<'a> {
    batch: &'a RecordBatch,
    row: usize,
}

impl<'a> Cells<'a> {
    /// The column's array, `None` where this row has no value in it.
    fn column<A: 'static>(self, name: &str) -> Result<Option<&'a A>> {
        let column: &ArrayRef = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| Error::new(format!("expected a column {name:?}, there is none")))?;
        let typed = column.as_any().downcast_ref::<A>();
        let typed = typed
            .ok_or_else(|| Error::new(format!("column {name:?} has the unexpected type {}", column.data_type())))?;
        Ok(column.is_valid(self.row).then_some(typed))
    }

    fn maybe_text(self, name: &str) -> Result<Option<String>> {
        Ok(self.column::<StringArray>(name)?.map(|a| a.value(self.row).to_owned()))
    }

    fn maybe_f64(self, name: &str) -> Result<Option<f64>> {
        Ok(self.column::<Float64Array>(name)?.map(|a| a.value(self.row)))
    }

    fn maybe_u64(self, name: &str) -> Result<Option<u64>> {
        Ok(self.column::<UInt64Array>(name)?.map(|a| a.value(self.row)))
    }

    fn maybe_u32(self, name: &str) -> Result<Option<u32>> {
        Ok(self.column::<UInt32Array>(name)?.map(|a| a.value(self.row)))
    }

    fn text(self, name: &str) -> Result<String> {
        self.maybe_text(name)?.ok_or_else(|| absent(name))
    }

    fn f64(self, name: &str) -> Result<f64> {
        self.maybe_f64(name)?.ok_or_else(|| absent(name))
    }

    fn u64(self, name: &str) -> Result<u64> {
        self.maybe_u64(name)?.ok_or_else(|| absent(name))
    }

    fn u32(self, name: &str) -> Result<u32> {
        self.maybe_u32(name)?.ok_or_else(|| absent(name))
    }

    /// A word of a closed list.
    fn word<T: DeserializeOwned>(self, name: &str) -> Result<T> {
        let word = self.text(name)?;
        let parsed = serde_json::from_value(word.clone().into());
        parsed.map_err(|e| Error::new(format!("column {name:?} holds the unknown word {word:?}")).with_source(e))
    }
}

fn absent(name: &str) -> Error {
    Error::new(format!("column {name:?} has to have a value in every row"))
}

fn rows<R>(batch: &RecordBatch, read: impl Fn(Cells<'_>) -> Result<R>) -> Result<Vec<R>> {
    (0..batch.num_rows()).map(|row| read(Cells { batch, row })).collect()
}

pub(super) fn samples(batch: &RecordBatch) -> Result<Vec<SampleRow>> {
    rows(batch, |cells| {
        let mut scores = Scores::default();
        for &score in Score::ALL {
            if let Some(value) = cells.maybe_f64(score.name())? {
                scores.set(score, value);
            }
        }
        let outcome = match cells.maybe_text("reason")? {
            Some(reason) => Outcome::Rejected { reason },
            None => Outcome::Accepted,
        };
        let record = SampleRecord {
            sample_id: cells.text("sample_id")?,
            scan_id: cells.text("scan_id")?,
            scan_digest: cells.text("scan_digest")?,
            patient_key: cells.text("patient_key")?,
            dataset: cells.text("dataset")?,
            epoch: cells.u64("epoch")?,
            seed: cells.u64("seed")?,
            stage: cells.text("stage")?,
            variant: cells.u32("variant")?,
            attempt: cells.u32("attempt")?,
            organ: cells.text("organ")?,
            split: cells.word("split")?,
            geometry: geometry(cells)?,
            scores,
            outcome,
            pipeline_digest: cells.text("pipeline_digest")?,
            model: cells.text("model")?,
        };
        let placement = Placement {
            image_path: cells.maybe_text("image_path")?,
            image_sha256: cells.maybe_text("image_sha256")?,
            label_path: cells.maybe_text("label_path")?,
            label_sha256: cells.maybe_text("label_sha256")?,
            shard: cells.maybe_text("shard")?,
            shard_offset_bytes: cells.maybe_u64("shard_offset_bytes")?,
            shard_length_bytes: cells.maybe_u64("shard_length_bytes")?,
        };
        Ok(SampleRow { record, placement })
    })
}

fn geometry(cells: Cells<'_>) -> Result<Option<Geometry>> {
    let Some(size_class) = cells.maybe_text("size_class")? else { return Ok(None) };
    let site = |name| Ok::<_, Error>(cells.u32(name)? as usize);
    Ok(Some(Geometry {
        size_class,
        site_voxel: [site("site_x_voxel")?, site("site_y_voxel")?, site("site_z_voxel")?],
        site_mm: [cells.f64("site_right_mm")?, cells.f64("site_anterior_mm")?, cells.f64("site_superior_mm")?],
        radii_mm: [cells.f64("radius_long_mm")?, cells.f64("radius_middle_mm")?, cells.f64("radius_short_mm")?],
        volume_mm3: cells.f64("volume_mm3")?,
        diameter_mm: cells.f64("diameter_mm")?,
        sphericity: cells.f64("sphericity")?,
        clipped_fraction: cells.f64("clipped_fraction")?,
        boundary_distance_mm: cells.f64("boundary_distance_mm")?,
    }))
}

pub(super) fn scans(batch: &RecordBatch) -> Result<Vec<ScanRecord>> {
    rows(batch, |cells| {
        let shape = match cells.maybe_u32("shape_x_voxels")? {
            Some(x) => Some([x, cells.u32("shape_y_voxels")?, cells.u32("shape_z_voxels")?]),
            None => None,
        };
        let spacing_mm = match cells.maybe_f64("spacing_x_mm")? {
            Some(x) => Some([x, cells.f64("spacing_y_mm")?, cells.f64("spacing_z_mm")?]),
            None => None,
        };
        Ok(ScanRecord {
            scan_id: cells.text("scan_id")?,
            scan_digest: cells.maybe_text("scan_digest")?,
            patient_key: cells.text("patient_key")?,
            dataset: cells.text("dataset")?,
            source: cells.text("source")?,
            epoch: cells.u64("epoch")?,
            split: cells.word("split")?,
            status: cells.text("status")?,
            duplicate_of: cells.maybe_text("duplicate_of")?,
            bytes: cells.u64("bytes")?,
            shape,
            spacing_mm,
            orientation: cells.maybe_text("orientation")?,
            hu_min: cells.maybe_f64("hu_min")?,
            hu_max: cells.maybe_f64("hu_max")?,
            organs: organs(cells)?,
            accepted: cells.u32("accepted")?,
            rejected: cells.u32("rejected")?,
        })
    })
}

fn organs(cells: Cells<'_>) -> Result<Vec<(String, f64)>> {
    let lists = cells.column::<ListArray>("organs")?.ok_or_else(|| absent("organs"))?;
    let list = lists.value(cells.row);
    let unexpected = || Error::new("column \"organs\" has to hold organs with their volumes");
    let each = list.as_any().downcast_ref::<StructArray>().ok_or_else(unexpected)?;
    let names = each.column_by_name("organ").and_then(|a| a.as_any().downcast_ref::<StringArray>());
    let volumes = each.column_by_name("volume_ml").and_then(|a| a.as_any().downcast_ref::<Float64Array>());
    let (names, volumes) = names.zip(volumes).ok_or_else(unexpected)?;
    Ok((0..each.len()).map(|i| (names.value(i).to_owned(), volumes.value(i))).collect())
}

pub(super) fn quality(batch: &RecordBatch) -> Result<Vec<QualityRecord>> {
    rows(batch, |cells| {
        Ok(QualityRecord {
            dataset: cells.text("dataset")?,
            organ: cells.text("organ")?,
            size_class: cells.maybe_text("size_class")?.unwrap_or_default(),
            reason: cells.maybe_text("reason")?,
            count: cells.u64("attempts")?,
        })
    })
}

pub(super) fn faults(batch: &RecordBatch) -> Result<Vec<FaultRecord>> {
    rows(batch, |cells| {
        Ok(FaultRecord {
            scan_id: cells.text("scan_id")?,
            dataset: cells.text("dataset")?,
            source: cells.text("source")?,
            epoch: cells.u64("epoch")?,
            fault: Fault {
                stage: cells.word("stage")?,
                kind: cells.word("kind")?,
                node: cells.maybe_text("node")?,
                message: cells.text("message")?,
            },
        })
    })
}
