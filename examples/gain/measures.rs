//! The measures of finished networks: one file for each network while the experiment runs, one table afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::UInt64Type;
use freetumor::error::{Error, Result};
use freetumor::evaluate::metrics::{CaseMeasures, CaseRow};
use freetumor::record::parquet::encode_batch;
use freetumor::record::schema::{Column, ColumnType, schema_of};
use freetumor::store::canonical;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arms::ArmData;
use super::config::{Training, TumorSelection};
use super::workspace::Workspace;

/// The measures of one network on the test set.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkMeasures {
    pub arm: String,
    pub seed: u64,
    /// A digest of the settings that all networks of the experiment share.
    pub settings_sha256: String,
    /// The settings of the arm.
    pub tumors: TumorSelection,
    pub weights_sha256: String,
    /// The synthetic tumors of the training.
    #[serde(rename = "made")]
    pub arm_data: ArmData,
    pub cases: Vec<CaseRow>,
}

/// The measures of all finished networks, by arm and seed.
pub struct FinishedNetworks(BTreeMap<(String, u64), NetworkMeasures>);

impl FinishedNetworks {
    /// Reads the table and the files of networks that finished after it was written.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let mut networks = Vec::new();
        let table = table_path(workspace);
        if table.exists() {
            networks = decode(&std::fs::read(&table).map_err(|cause| Error::io("cannot read", &table, cause))?)
                .map_err(|error| Error::new(format!("{}: {error}", table.display())))?;
        }
        let arms = workspace.experiment.trainings(&[]);
        for path in arms.iter().map(|training| path(workspace, training)).filter(|path| path.exists()) {
            let bytes = std::fs::read(&path).map_err(|cause| Error::io("cannot read", &path, cause))?;
            networks.push(canonical::parse(&bytes, &path.display().to_string())?);
        }
        Ok(Self(networks.into_iter().map(|network| ((network.arm.clone(), network.seed), network)).collect()))
    }

    /// Returns whether the network of an arm and seed was measured.
    pub fn contains(&self, training: &Training<'_>) -> bool {
        self.0.contains_key(&(training.arm.name.clone(), training.seed))
    }

    /// Returns the measures of all arms, or of the named arms.
    ///
    /// # Errors
    /// Returns an error if a network is not finished, or belongs to another experiment.
    pub fn of_arms(mut self, workspace: &Workspace, names: &[String]) -> Result<Vec<NetworkMeasures>> {
        let settings = workspace.experiment.digest()?;
        let take = |training: Training<'_>| {
            let (arm, seed) = (training.arm, training.seed);
            let Some(mut measures) = self.0.remove(&(arm.name.clone(), seed)) else {
                return Err(Error::new(format!("arm {}, seed {seed}, is not finished", arm.name))
                    .with_hint("resume with `--stage arms`, or select finished arms with `--arm`"));
            };
            if measures.settings_sha256 != settings || measures.tumors != arm.tumors {
                let message = format!("the measures of arm {}, seed {seed}, are from other settings", arm.name);
                return Err(Error::new(message).with_hint("use another folder with `--out`"));
            }
            // The index of the arm changes if arms were added.
            for row in &mut measures.cases {
                (row.arm, row.seed) = (training.arm_index, training.seed_index);
            }
            Ok(measures)
        };
        workspace.experiment.trainings(names).into_iter().map(take).collect()
    }
}

/// Returns the path of the file with the measures of one network.
pub fn path(workspace: &Workspace, training: &Training<'_>) -> PathBuf {
    workspace.out.join("measures").join(format!("{}-{}.json", training.arm.name, training.seed))
}

/// Returns the path of the table with the measures of all networks.
pub fn table_path(workspace: &Workspace) -> PathBuf {
    workspace.out.join("measures.parquet")
}

const COLUMNS: [Column; 9] = {
    const fn column(id: i32, name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
        Column { id, name, kind, nullable: false, unit: "", doc }
    }
    [
        column(1, "arm", ColumnType::Text, "The name of the arm."),
        column(2, "seed", ColumnType::U64, "The seed of the training."),
        column(3, "settings_sha256", ColumnType::Text, "A digest of the settings that all networks share."),
        column(4, "tumors", ColumnType::Text, "The settings of the arm, as JSON."),
        column(5, "weights_sha256", ColumnType::Text, "The digest of the weights."),
        column(6, "made", ColumnType::Text, "The synthetic tumors of the training, as JSON."),
        column(7, "case", ColumnType::Text, "The name of the case."),
        column(8, "patient", ColumnType::Text, "The patient of the case."),
        column(9, "measures", ColumnType::Text, "The measures with every lesion and false positive, as JSON."),
    ]
};

/// Encodes one row for every case and network as a Parquet file. Values with parts are JSON, so that every number keeps its bits.
///
/// # Errors
/// Returns an error if the table cannot be encoded.
pub fn encode(networks: &[NetworkMeasures]) -> Result<Vec<u8>> {
    let mut texts: [Vec<String>; 8] = Default::default();
    let mut seeds = Vec::new();
    for network in networks {
        let (tumors, made) = (json(&network.tumors)?, json(&network.arm_data)?);
        for row in &network.cases {
            seeds.push(network.seed);
            let values = [&network.arm, &network.settings_sha256, &tumors, &network.weights_sha256, &made];
            let values = values.into_iter().cloned();
            let values = values.chain([row.case.clone(), row.patient.clone(), json(&row.measures)?]);
            texts.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
    }
    let mut columns: Vec<ArrayRef> =
        texts.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef).collect();
    columns.insert(1, Arc::new(UInt64Array::from(seeds)));
    let doc = "One row for every case of the test set and every network.";
    let batch = RecordBatch::try_new(schema_of("measures", doc, &COLUMNS), columns);
    encode_batch(&batch.map_err(|cause| Error::new(format!("cannot write the measures: {cause}")))?)
}

/// Decodes a table of [`encode`].
///
/// # Errors
/// Returns an error if the bytes are not such a table.
pub fn decode(bytes: &[u8]) -> Result<Vec<NetworkMeasures>> {
    let failed = |cause: &dyn std::fmt::Display| Error::new(format!("expected a table of measures: {cause}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes))
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|cause| failed(&cause))?;
    let mut networks: Vec<NetworkMeasures> = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|cause| failed(&cause))?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| failed(&format!("no column {name}")));
        let text = |name: &str| {
            column(name)?.as_string_opt::<i32>().ok_or_else(|| failed(&format!("column {name} is not text")))
        };
        let seeds =
            column("seed")?.as_primitive_opt::<UInt64Type>().ok_or_else(|| failed(&"column seed is not u64"))?;
        let [arm, settings, tumors, weights] =
            [text("arm")?, text("settings_sha256")?, text("tumors")?, text("weights_sha256")?];
        let [made, case, patient, measures] = [text("made")?, text("case")?, text("patient")?, text("measures")?];
        for index in 0..batch.num_rows() {
            let (name, seed) = (arm.value(index), seeds.value(index));
            if networks.last().is_none_or(|last| (last.arm.as_str(), last.seed) != (name, seed)) {
                networks.push(NetworkMeasures {
                    arm: name.to_owned(),
                    seed,
                    settings_sha256: settings.value(index).to_owned(),
                    tumors: parse(tumors.value(index))?,
                    weights_sha256: weights.value(index).to_owned(),
                    arm_data: parse(made.value(index))?,
                    cases: Vec::new(),
                });
            }
            let row = CaseRow {
                arm: 0,
                seed: 0,
                case: case.value(index).to_owned(),
                patient: patient.value(index).to_owned(),
                organ: 0,
                measures: parse::<CaseMeasures>(measures.value(index))?,
            };
            if let Some(network) = networks.last_mut() {
                network.cases.push(row);
            }
        }
    }
    Ok(networks)
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(String::from_utf8_lossy(&canonical::line(value)?).trim_end().to_owned())
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    canonical::parse(text.as_bytes(), "a value of the table of measures")
}
