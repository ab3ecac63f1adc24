//! The samples that each sink receives.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::graph::{Plan, Port};
use crate::record::SampleRecord;
use crate::run::seal::LayoutInput;
use crate::sink::{Layout, LayoutReport, Output};

/// Maximum number of files in a message.
const MAX_LISTED_FILES: usize = 5;

/// The outputs of a plan with the samples that each of them receives.
pub(super) struct SinkSelections {
    outputs: Vec<Output>,
    /// For each output: synthesis stage, quality test, and whether accepted or rejected.
    selections: Vec<HashSet<(String, String, bool)>>,
}

impl SinkSelections {
    /// Returns the selections of the sinks of a plan.
    pub fn of(plan: &Plan) -> Self {
        let outputs: Vec<_> = plan.sinks.iter().map(|node| node.output.clone()).collect();
        let mut selections = vec![HashSet::new(); outputs.len()];
        for synthesis in &plan.syntheses {
            for (branch, node) in synthesis.attempts.branches.iter().zip(&synthesis.branches) {
                for feed in &node.feeds {
                    let stage = synthesis.attempts.name.clone();
                    selections[feed.sink].insert((stage, branch.name.clone(), feed.port == Port::Main));
                }
            }
        }
        Self { outputs, selections }
    }

    /// Iterates over the layouts.
    pub fn layouts(&self) -> impl Iterator<Item = &dyn Layout> {
        self.outputs.iter().filter_map(Output::layout)
    }

    /// Calls `work` with the layouts and their selections.
    pub fn with_inputs<T>(&self, work: impl FnOnce(&[LayoutInput<'_>]) -> T) -> T {
        let selections: Vec<_> = self
            .selections
            .iter()
            .map(|selections| {
                move |row: &SampleRecord| {
                    selections.contains(&(row.stage.clone(), row.branch.clone(), row.outcome.is_accepted()))
                }
            })
            .collect();
        let inputs: Vec<_> = self
            .outputs
            .iter()
            .zip(&selections)
            .filter_map(|(output, selects)| Some(LayoutInput { layout: output.layout()?, selects }))
            .collect();
        work(&inputs)
    }
}

/// Checks that the layouts contain only files of the run.
pub(super) fn check_foreign(folder: &Path, projected: &[LayoutReport]) -> Result<()> {
    let foreign: Vec<&str> = projected.iter().flat_map(|layout| &layout.foreign).map(String::as_str).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let mut names = foreign[..foreign.len().min(MAX_LISTED_FILES)].join(", ");
    if foreign.len() > MAX_LISTED_FILES {
        names += &format!(" and {} more", foreign.len() - MAX_LISTED_FILES);
    }
    Err(Error::new(format!("expected only files of the run in the layouts of {}, got {names}", folder.display()))
        .with_hint(
            "move these files out of the layout, whose training set would contain them; the run does not delete them",
        ))
}
