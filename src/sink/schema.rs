//! The columns of the tables: names with units, types, and what they mean.
//!
//! A column's id is its number in Parquet's and Delta's and Iceberg's sense: it never changes and is never used again, so
//! that a column may be renamed or moved without old files becoming unreadable.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};

use crate::error::{Error, Result};
use crate::score::Score;

/// A table of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// A row for every attempt at a tumor.
    Samples,
    /// A row for every scan.
    Scans,
    /// A row for everything that spoiled a scan.
    Faults,
    /// A row for every group of attempts that ended alike.
    Quality,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Samples, Self::Scans, Self::Faults, Self::Quality];

    /// The name, which is also that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Scans => "scans",
            Self::Faults => "faults",
            Self::Quality => "quality",
        }
    }

    /// What a row is.
    pub fn doc(self) -> &'static str {
        match self {
            Self::Samples => "One row for every attempt at a synthetic tumor, accepted or rejected.",
            Self::Scans => "One row for every scan that was taken in.",
            Self::Faults => "One row for everything that spoiled a scan.",
            Self::Quality => "One row for every group of attempts that ended alike, over all epochs so far.",
        }
    }

    /// The table of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(format!("there is no table {name:?}")).with_hint(format!("the tables are {names}"))
        })
    }

    /// Its columns, in order.
    pub fn columns(self) -> Vec<Column> {
        match self {
            Self::Samples => samples(),
            Self::Scans => scans(),
            Self::Faults => faults(),
            Self::Quality => quality(),
        }
    }

    /// The Arrow schema: each field carries its `PARQUET:field_id`, `doc` and, where it has one, its `unit`.
    pub fn schema(self) -> Arc<Schema> {
        schema_of(self.name(), self.doc(), &self.columns())
    }
}

/// The Arrow schema of a table that no run folder holds; see [`Table::schema`].
pub fn schema_of(name: &str, doc: &str, columns: &[Column]) -> Arc<Schema> {
    let fields: Vec<Field> = columns.iter().map(Column::field).collect();
    let metadata = HashMap::from([("table".to_owned(), name.to_owned()), ("doc".to_owned(), doc.to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8.
    Text,
    /// u32.
    U32,
    /// u64.
    U64,
    /// f64.
    F64,
    /// True or false.
    Flag,
    /// A list of organs with their volumes in ml.
    Organs,
}

impl ColumnType {
    /// As people and `freetumor schema` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "utf8",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::F64 => "float64",
            Self::Flag => "bool",
            Self::Organs => "list<struct<organ: utf8, volume_ml: float64>>",
        }
    }

    fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::F64 => DataType::Float64,
            Self::Flag => DataType::Boolean,
            Self::Organs => DataType::List(Arc::new(organs_item())),
        }
    }
}

/// One organ in the list of a scan.
pub(super) fn organ_fields() -> Fields {
    Fields::from(vec![
        annotated(Field::new("organ", DataType::Utf8, false), 301, "", "The organ's name in the graph file."),
        annotated(Field::new("volume_ml", DataType::Float64, false), 302, "ml", "Its volume, tumors apart."),
    ])
}

pub(super) fn organs_item() -> Field {
    annotated(Field::new("element", DataType::Struct(organ_fields()), false), 300, "", "One organ that was found.")
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its number; never used again.
    pub id: i32,
    /// Its name, with the unit where that helps.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may be absent.
    pub nullable: bool,
    /// Its unit, `""` for a pure number or text.
    pub unit: &'static str,
    /// One sentence for the reader of the table.
    pub doc: &'static str,
}

impl Column {
    fn field(&self) -> Field {
        annotated(Field::new(self.name, self.kind.arrow(), self.nullable), self.id, self.unit, self.doc)
    }
}

fn annotated(field: Field, id: i32, unit: &str, doc: &str) -> Field {
    let mut metadata = HashMap::from([
        (::parquet::arrow::PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string()),
        ("doc".to_owned(), doc.to_owned()),
    ]);
    if !unit.is_empty() {
        metadata.insert("unit".to_owned(), unit.to_owned());
    }
    field.with_metadata(metadata)
}

/// A table's columns as JSON, for `freetumor schema` and the files in `schemas/`.
///
/// # Errors
/// Where there is no such table.
pub fn table_json(name: &str) -> Result<serde_json::Value> {
    let table = Table::from_name(name)?;
    let columns: Vec<_> = table
        .columns()
        .iter()
        .map(|column| {
            let mut json = serde_json::json!({
                "id": column.id,
                "name": column.name,
                "type": column.kind.name(),
                "nullable": column.nullable,
                "doc": column.doc,
            });
            if !column.unit.is_empty() {
                json["unit"] = column.unit.into();
            }
            json
        })
        .collect();
    Ok(serde_json::json!({ "table": table.name(), "doc": table.doc(), "columns": columns }))
}

macro_rules! columns {
    ($($id:literal $name:literal $kind:ident $need:ident $unit:literal $doc:literal;)*) => {
        vec![$(Column {
            id: $id,
            name: $name,
            kind: ColumnType::$kind,
            nullable: columns!(@$need),
            unit: $unit,
            doc: $doc,
        },)*]
    };
    (@always) => { false };
    (@maybe) => { true };
}

fn samples() -> Vec<Column> {
    let mut columns = columns! {
        1 "sample_id" Text always "" "16 hexadecimal digits, a hash of everything that defines the attempt.";
        2 "scan_id" Text always "" "The scan: a hash of source and place; RUN/private says where it lies.";
        3 "scan_digest" Text always "" "SHA-256 of the scan's voxels, shape and spacing, whatever its file format.";
        4 "patient_key" Text always "" "The patient, as a keyed hash.";
        5 "dataset" Text always "" "The data set's name.";
        6 "epoch" U64 always "" "The commit that added the row.";
        7 "seed" U64 always "" "The pipeline's seed.";
        8 "stage" Text always "" "Name of the synthesis stage in the graph file.";
        9 "variant" U32 always "" "Which of the tumors asked for in this organ, from 0.";
        10 "attempt" U32 always "" "Which try at it, from 0.";
        11 "organ" Text always "" "The organ's name in the graph file.";
        12 "split" Text always "" "train, validation or test: the same for all scans of a patient.";
        13 "verdict" Text always "" "accepted or rejected.";
        14 "reason" Text maybe "" "Why it was rejected: the condition as the graph file has it, or a code such as no_site.";
        20 "size_class" Text maybe "" "tiny, small, medium or large.";
        21 "site_x_voxel" U32 maybe "voxel" "First index of the voxel nearest to the centre, on the scan's grid.";
        22 "site_y_voxel" U32 maybe "voxel" "Second index of it.";
        23 "site_z_voxel" U32 maybe "voxel" "Third index of it.";
        24 "site_right_mm" F64 maybe "mm" "World coordinate of the centre towards the patient's right.";
        25 "site_anterior_mm" F64 maybe "mm" "World coordinate of the centre towards the front.";
        26 "site_superior_mm" F64 maybe "mm" "World coordinate of the centre towards the head.";
        27 "radius_long_mm" F64 maybe "mm" "Longest semi-axis before deformation.";
        28 "radius_middle_mm" F64 maybe "mm" "Middle semi-axis before deformation.";
        29 "radius_short_mm" F64 maybe "mm" "Shortest semi-axis before deformation.";
        30 "volume_mm3" F64 maybe "mm3" "Volume of the labelled voxels.";
        31 "diameter_mm" F64 maybe "mm" "Diameter of the ball of that volume.";
        32 "sphericity" F64 maybe "" "Sphericity of the labelled voxels' surface: 1 for a ball.";
        33 "clipped_fraction" F64 maybe "" "Share of the drawn shape that fell outside the healthy organ.";
        34 "boundary_distance_mm" F64 maybe "mm" "From the centre to the nearest voxel outside the organ.";
    };
    columns.extend(Score::ALL.iter().map(|&score| Column {
        id: score_id(score),
        name: score.name(),
        kind: ColumnType::F64,
        nullable: true,
        unit: score.unit(),
        doc: score.doc(),
    }));
    columns.extend(columns! {
        200 "pipeline_digest" Text always "" "Digest of the pipeline as it was run.";
        201 "model" Text always "" "Digest of the synthesis model: weights, or rules with their version.";
        210 "image_path" Text maybe "" "The image file, below the run folder.";
        211 "image_sha256" Text maybe "" "SHA-256 of the image file, also of the one inside the shard.";
        212 "label_path" Text maybe "" "The label file, below the run folder.";
        213 "label_sha256" Text maybe "" "SHA-256 of the label file, also of the one inside the shard.";
        214 "shard" Text maybe "" "The tar shard, below the run folder.";
        215 "shard_offset_bytes" U64 maybe "byte" "Where the sample's first tar header begins in the shard.";
        216 "shard_length_bytes" U64 maybe "byte" "Bytes of the sample in the shard, headers and padding included.";
    });
    columns
}

/// A new score gets the next number here, wherever it stands in the list.
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
    }
}

fn scans() -> Vec<Column> {
    columns! {
        1 "scan_id" Text always "" "The scan: a hash of source and place; RUN/private says where it lies.";
        2 "scan_digest" Text maybe "" "SHA-256 of its voxels, shape and spacing; absent where it could not be read.";
        3 "patient_key" Text always "" "The patient, as a keyed hash.";
        4 "dataset" Text always "" "The data set's name.";
        5 "source" Text always "" "The source's name in the graph file.";
        6 "epoch" U64 always "" "The commit that added the row.";
        7 "split" Text always "" "train, validation or test: the same for all scans of a patient.";
        8 "status" Text always "" "done, fault or duplicate.";
        9 "duplicate_of" Text maybe "" "For a duplicate, the scan that stands for it.";
        10 "bytes" U64 always "byte" "Bytes on disk.";
        11 "shape_x_voxels" U32 maybe "voxel" "Voxels along the first axis.";
        12 "shape_y_voxels" U32 maybe "voxel" "Voxels along the second axis.";
        13 "shape_z_voxels" U32 maybe "voxel" "Voxels along the third axis.";
        14 "spacing_x_mm" F64 maybe "mm" "Between neighbouring voxels along the first axis.";
        15 "spacing_y_mm" F64 maybe "mm" "Between neighbouring voxels along the second axis.";
        16 "spacing_z_mm" F64 maybe "mm" "Between neighbouring voxels along the third axis.";
        17 "orientation" Text maybe "" "Where the axes point, such as LPS: left, posterior, superior.";
        18 "hu_min" F64 maybe "HU" "Lowest value.";
        19 "hu_max" F64 maybe "HU" "Highest value.";
        20 "organs" Organs always "" "The organs that were found, in the order of the graph file.";
        21 "accepted" U32 always "" "Tumors accepted.";
        22 "rejected" U32 always "" "Attempts rejected.";
    }
}

fn faults() -> Vec<Column> {
    columns! {
        1 "scan_id" Text always "" "The scan: a hash of source and place; RUN/private says where it lies.";
        2 "dataset" Text always "" "The data set's name.";
        3 "source" Text always "" "The source's name in the graph file.";
        4 "epoch" U64 always "" "The commit that added the row.";
        5 "stage" Text always "" "Where on the way it happened: read, mask, synthesize, score or sink.";
        6 "kind" Text always "" "The class of fault, of a closed list.";
        7 "message" Text always "" "What was expected and what came; no paths, no names.";
        8 "node" Text maybe "" "The node of the graph file at which it happened; absent where it was none.";
    }
}

fn quality() -> Vec<Column> {
    columns! {
        1 "dataset" Text always "" "The data set's name.";
        2 "organ" Text always "" "The organ's name in the graph file.";
        3 "size_class" Text maybe "" "tiny, small, medium or large; absent where no site was found.";
        4 "verdict" Text always "" "accepted or rejected.";
        5 "reason" Text maybe "" "Why they were rejected: the condition as the graph file has it, or a code such as no_site.";
        6 "attempts" U64 always "" "How many attempts.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_and_names_are_unique_and_units_are_said() {
        for table in Table::ALL {
            let columns = table.columns();
            let ids: BTreeSet<i32> = columns.iter().map(|c| c.id).collect();
            let names: BTreeSet<&str> = columns.iter().map(|c| c.name).collect();
            assert!(ids.len() == columns.len() && names.len() == columns.len(), "{table:?}");
            for column in columns {
                assert!(column.doc.ends_with('.'), "{}", column.name);
                for (suffix, unit) in [("_mm", "mm"), ("_mm3", "mm3"), ("_bytes", "byte"), ("_voxels", "voxel")] {
                    assert!(
                        !column.name.ends_with(suffix) || column.unit == unit,
                        "{} in {}",
                        column.name,
                        column.unit
                    );
                }
            }
        }
    }

    /// `FREETUMOR_WRITE=1` writes them anew.
    #[test]
    fn the_files_in_schemas_are_what_the_program_says() {
        for table in Table::ALL {
            let place = format!("{}/schemas/{}.schema.json", env!("CARGO_MANIFEST_DIR"), table.name());
            let text = super::super::canonical::pretty(&table_json(table.name()).unwrap()).unwrap();
            if std::env::var_os("FREETUMOR_WRITE").is_some() {
                std::fs::write(&place, &text).unwrap();
            }
            assert_eq!(String::from_utf8(std::fs::read(&place).unwrap()).unwrap(), String::from_utf8(text).unwrap());
        }
    }

    #[test]
    fn an_unknown_table_is_named_with_the_known_ones() {
        let error = table_json("sample").unwrap_err();
        assert!(error.to_string().contains("sample") && error.hint().unwrap().contains("samples, scans, faults"));
    }
}
