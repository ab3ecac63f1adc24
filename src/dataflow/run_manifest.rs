//! The run manifest of a plan.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::graph::Plan;
use crate::run::{FORMAT_VERSION, RunManifest, without_paths};
use crate::sink::{BUCKETS, PATCHES};

/// The version of freetumor.
pub(super) const CODE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the run manifest of a plan.
pub(super) fn manifest(plan: &Plan) -> Result<RunManifest> {
    let secret = plan.patient_secret()?;
    let pipeline =
        secret.as_ref().map_or_else(|| plan.resolved.clone(), |secret| without_paths(&plan.resolved, secret));
    let models = plan.syntheses.iter().map(|node| (node.attempts.name.clone(), node.model.clone()));
    Ok(RunManifest {
        format: FORMAT_VERSION,
        pipeline,
        pipeline_digest: plan.digest.clone(),
        seed: plan.seed,
        code_version: CODE_VERSION.into(),
        shard_buckets: BTreeMap::from([(PATCHES.to_owned(), BUCKETS)]),
        kernel_class: plan.kernel_class(),
        patient_secret: secret.map(|secret| secret.fingerprint()),
        models: models.collect(),
        graphs: plan.source_graphs(),
    })
}
