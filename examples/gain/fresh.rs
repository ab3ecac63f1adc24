//! Fresh tumors, made by the stages of a pool during the training of an arm.

use std::sync::Arc;

use freetumor::attempt::AttemptLoop;
use freetumor::error::{Error, Result};
use freetumor::filter::{QualityTest, QualityTestConfig};
use freetumor::graph::Plan;
use freetumor::score::Score;
use freetumor::train::segmentation::TumorMaker;

use super::workspace::settings_error;

/// Returns the synthesis of the graph of a pool with a separate quality test: a found fraction above `above` within `attempts` attempts.
/// Scorers that do not compute the found fraction are omitted.
///
/// # Errors
/// Returns an error if the graph has no synthesis, or the test is invalid.
pub fn tumors(plan: &Plan, above: f64, attempts: u32) -> Result<TumorMaker> {
    let synthesis = plan.syntheses.first().ok_or_else(|| Error::new("expected a graph with a synthesis, got none"))?;
    let scorers = synthesis.attempts.scorers.iter().filter(|node| node.stage.scores().contains(&Score::FoundFraction));
    let scorers = scorers.map(|node| Arc::clone(&node.stage)).collect();
    let accept = vec![format!("found_fraction > {above}")];
    let test = QualityTest::new(QualityTestConfig { attempts: Some(attempts), accept, ..QualityTestConfig::default() });
    let test = test.map_err(|problems| settings_error("the test of fresh tumors", problems))?;
    let attempts = AttemptLoop::new(Arc::clone(&synthesis.attempts.synthesize), scorers, test);
    Ok(TumorMaker { attempts, organs: synthesis.organs.clone(), per_scan: 1 })
}
