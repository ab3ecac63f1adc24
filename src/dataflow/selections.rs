//! The samples that each sink receives.

use std::collections::HashSet;

use crate::graph::{Plan, Port};
use crate::record::SampleRecord;
use crate::run::seal::LayoutInput;
use crate::sink::{Layout, Output};

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
