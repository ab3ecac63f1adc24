//! Tumors that are made while an arm is trained: by a pool's stages, with attempts until one is found.

use std::sync::Arc;

use freetumor::attempt::AttemptLoop;
use freetumor::error::{Error, Result};
use freetumor::filter::{QualityTest, QualityTestConfig};
use freetumor::graph::Plan;
use freetumor::score::Score;
use freetumor::train::segmentation::Tumors;

use super::lab::refused;

/// The synthesis of a pool's graph with a quality test of its own: the found fraction is above `above` within `attempts` attempts.
/// Score stages that do not give the found fraction are left out.
///
/// # Errors
/// Returns an error if the graph has no synthesis, or there is no such test.
pub fn tumors(plan: &Plan, above: f64, attempts: u32) -> Result<Tumors> {
    let synthesis = plan.syntheses.first().ok_or_else(|| Error::new("the graph makes no tumors"))?;
    let scorers = synthesis.attempts.scorers.iter().filter(|node| node.stage.gives().contains(&Score::FoundFraction));
    let scorers = scorers.map(|node| Arc::clone(&node.stage)).collect();
    let accept = vec![format!("found_fraction > {above}")];
    let test = QualityTest::new(QualityTestConfig { attempts, accept });
    let test = test.map_err(|problems| refused("the test of fresh tumors", problems))?;
    let attempts = AttemptLoop::new(Arc::clone(&synthesis.attempts.synthesize), scorers, test);
    Ok(Tumors { attempts, organs: synthesis.organs.clone() })
}
