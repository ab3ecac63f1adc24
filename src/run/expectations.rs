//! The check of expectations on the tables of a run folder.

use super::RunFolder;
use crate::error::{ConfigError, Error, ErrorKind, Result};
use crate::record::parquet::{Row, decode_part};
use crate::record::{
    ExpectationCheck, ExpectationConfig, ExpectationResult, ExpectationTable, FaultRecord, SampleRow, ScanRecord,
};
use crate::store::canonical;

impl RunFolder {
    /// Checks expectations on the tables after the last commit; returns the result of each measure, in the order of the expectations. One
    /// part of a table is in memory at a time.
    ///
    /// # Errors
    /// If a table cannot be read, or the settings of an expectation are invalid.
    pub fn check_expectations(&self, expectations: &[ExpectationConfig]) -> Result<Vec<ExpectationResult>> {
        let mut results = vec![Vec::new(); expectations.len()];
        self.check_table::<SampleRow>(expectations, ExpectationTable::Samples, &mut results)?;
        self.check_table::<ScanRecord>(expectations, ExpectationTable::Scans, &mut results)?;
        self.check_table::<FaultRecord>(expectations, ExpectationTable::Faults, &mut results)?;
        Ok(results.concat())
    }

    fn check_table<R: Row>(
        &self,
        expectations: &[ExpectationConfig],
        table: ExpectationTable,
        results: &mut [Vec<ExpectationResult>],
    ) -> Result<()> {
        let mut checks = Vec::new();
        for (index, config) in expectations.iter().enumerate().filter(|(_, config)| config.table == table) {
            let check = ExpectationCheck::<R>::new(config).map_err(|errors| invalid(&config.name, errors))?;
            checks.push((index, check));
        }
        if checks.is_empty() {
            return Ok(());
        }
        for file in self.files(R::TABLE.name(), None)? {
            for row in decode_part::<R>(self.read_verified(&file)?)? {
                checks.iter_mut().for_each(|(_, check)| check.add(&row));
            }
        }
        for (index, check) in checks {
            results[index] = check.results();
        }
        Ok(())
    }

    /// Checks the expectations of the graph by which the last epoch was processed.
    ///
    /// # Errors
    /// A refusal with all failed expectations; also if the tables or the graph cannot be read.
    pub(super) fn require_expectations(&self) -> Result<()> {
        let manifest = self.current_manifest()?;
        let Some(recorded) = manifest.pipeline.get("expectations") else { return Ok(()) };
        let text = canonical::pretty(recorded)?;
        let expectations: Vec<ExpectationConfig> = canonical::parse(&text, &self.store().display_path("run.json"))?;
        let results = self.check_expectations(&expectations)?;
        let failed: Vec<String> =
            results.iter().filter(|result| !result.is_met).map(|result| format!("\n  {result}")).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let message = format!("{} of {} expectations failed:{}", failed.len(), results.len(), failed.concat());
        Err(Error::new(message).with_kind(ErrorKind::Refused).with_hint(
            "a state that fails its expectations gets no tag: correct its cause or the expectations, and run the pipeline again",
        ))
    }
}

fn invalid(name: &str, errors: Vec<ConfigError>) -> Error {
    let ConfigError { field, message, hint } =
        errors.into_iter().next().unwrap_or_else(|| ConfigError::new("", "invalid settings"));
    let error = Error::new(format!("the expectation `{name}` cannot be checked: `{field}`: {message}"));
    hint.into_iter().fold(error, Error::with_hint)
}
