//! The plan of a run: a checked graph whose stages are built.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::digest::StageDigests;
use super::{Edge, Port, Role, SplitShares};
use crate::attempt::AttemptLoop;
use crate::error::Result;
use crate::id::{FieldHasher, MaskDigest, PatientKey, SampleId, ScanDigest, StageDigest};
use crate::inference::Inference;
use crate::ingest::{HeldOutPaths, PatientSecret, Source};
use crate::mask::{Mask, Organ};
use crate::random::Key;
use crate::record::{ExpectationConfig, Split};
use crate::sink::Output;
use crate::synth::TumorNumbers;

/// A checked graph whose stages are built.
///
/// The inputs of a stage are indices. A scan of source `s` goes to every mask of [`Plan::masks_of`], each masked scan to every
/// synthesis of [`Plan::syntheses_of`], where an [`AttemptLoop`] makes its tumors.
///
/// ```no_run
/// # use freetumor::graph::Plan;
/// # use std::sync::Arc;
/// use freetumor::mask::MaskedScan;
///
/// # fn example(plan: Plan) -> Result<(), Box<dyn std::error::Error>> {
/// for (index, node) in plan.sources.iter().enumerate() {
///     for entry in node.source.list()? {
///         let scan = Arc::new(node.source.read(&entry)?);
///         for (index, node) in plan.masks_of(index) {
///             let masked = MaskedScan { scan: scan.clone(), mask: node.mask.mask(&scan)? };
///             let mask_digest = masked.mask.digest();
///             for synthesis in plan.syntheses_of(index) {
///                 let organs: Vec<_> = synthesis.organs_in(&masked.mask.organs).collect();
///                 for request in synthesis.requests(plan.seed, scan.digest, &organs) {
///                     let organ = organs[request.organ];
///                     let tumor = synthesis.tumor(plan.seed, scan.digest, mask_digest, organ, request.variant);
///                     let key = tumor.numbered(request.number).key();
///                     let accepted = synthesis.attempts.first_accepted(&masked, organ, key)?;
///                     // composed with the other tumors of its sample, to the sinks of `synthesis.branches`
/// #                   drop(accepted);
///                 }
///             }
///         }
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Scans per commit.
    pub epoch_scans: usize,
    /// Size of the files of the scans of a commit in bytes.
    pub epoch_bytes: u64,
    /// Shares of patients in each split.
    pub split: SplitShares,
    /// Largest share of the scans of a source that may be gone since the last run.
    pub max_missing: f64,
    /// The held-out scans, which are never in a training set.
    pub never_train: HeldOutPaths,
    /// The expectations on the tables.
    pub expectations: Vec<ExpectationConfig>,
    /// SHA-256 of [`Plan::resolved`] without the expectations, 64 hexadecimal digits: equal for files of equal meaning.
    pub digest: String,
    /// The resolved file as JSON: defaults filled in, paths as written, keys sorted.
    pub resolved: serde_json::Value,
    /// The folder of the graph file. Relative paths in the graph file start at this folder.
    pub folder: PathBuf,
    /// The sources, in the order of the file.
    pub sources: Vec<SourceNode>,
    /// The mask stages, in the order of the file.
    pub masks: Vec<MaskNode>,
    /// The synthesis stages, in the order of the file.
    pub syntheses: Vec<SynthesisNode>,
    /// The sinks, in the order of the file.
    pub sinks: Vec<SinkNode>,
    /// Every node with its inputs, in topological order: for drawing and counting.
    pub nodes: Vec<Node>,
}

/// A source.
#[derive(Clone)]
pub struct SourceNode {
    /// The name in the graph file.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// The built source.
    pub source: Arc<dyn Source>,
}

/// A mask stage.
#[derive(Clone)]
pub struct MaskNode {
    /// The name in the graph file.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// The built stage.
    pub mask: Arc<dyn Mask>,
    /// The sources of the scans: indices into [`Plan::sources`].
    pub sources: Vec<usize>,
}

/// The sources and masks of a pipeline without its other stages and sinks, whose weights and programs need not exist.
#[derive(Clone, Debug, Default)]
pub struct ScanStages {
    /// The sources.
    pub sources: Vec<SourceNode>,
    /// The mask stages; [`MaskNode::sources`] are indices into [`ScanStages::sources`].
    pub masks: Vec<MaskNode>,
}

/// A synthesis stage with the score stages and quality tests after it.
#[derive(Clone, Debug)]
pub struct SynthesisNode {
    /// The loop from synthesis to verdict; each branch is a quality test.
    pub attempts: AttemptLoop,
    /// The masks of the scans: indices into [`Plan::masks`].
    pub masks: Vec<usize>,
    /// The digests of the settings and weights.
    pub digests: StageDigests,
    /// The model that makes the tumors: a digest of weights, or `rules` with a version.
    pub model: String,
    /// The organs that get tumors, a subset of the organs of the masks.
    pub organs: Vec<Organ>,
    /// Requested samples per scan; without [`SynthesisNode::numbers`], per organ and scan.
    pub variants: u32,
    /// The numbers of tumors of samples; `None` if every tumor is a separate sample.
    pub numbers: Option<TumorNumbers>,
    /// Share of scans that are negatives too, 0 to 1.
    pub negatives: f64,
    /// The digest of each stage in [`AttemptLoop::scorers`], in the same order.
    pub score_digests: Vec<StageDigest>,
    /// The outputs of each branch in [`AttemptLoop::branches`], in the same order.
    pub branches: Vec<BranchNode>,
}

/// The outputs of a quality test.
#[derive(Clone, Debug)]
pub struct BranchNode {
    /// The digest of the conditions.
    pub test_digest: StageDigest,
    /// The sinks that the quality test feeds.
    pub feeds: Vec<Feed>,
}

/// An edge from a quality test to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feed {
    /// Index into [`Plan::sinks`].
    pub sink: usize,
    /// [`Port::Main`] for accepted candidates, [`Port::Rejected`] for rejected ones.
    pub port: Port,
}

/// A sink.
#[derive(Clone)]
pub struct SinkNode {
    /// The name in the graph file.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// The output that writes the samples.
    pub output: Output,
    /// The organs whose labels the files may contain.
    pub organs: Arc<[Organ]>,
}

/// A node of the graph, for drawings and listings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// The name in the graph file.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// The role.
    pub role: Role,
    /// The inputs, in the order of the file.
    pub inputs: Vec<NodeInput>,
}

/// One input of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeInput {
    /// Index of the node that produces the input, in the same list.
    pub from: usize,
    /// The output of that node.
    pub port: Port,
    /// The type of the edge.
    pub edge: Edge,
}

impl Plan {
    /// Iterates over the masks with this source as input, with their indices.
    pub fn masks_of(&self, source: usize) -> impl Iterator<Item = (usize, &MaskNode)> {
        self.masks.iter().enumerate().filter(move |(_, node)| node.sources.contains(&source))
    }

    /// Iterates over the syntheses with this mask as input.
    pub fn syntheses_of(&self, mask: usize) -> impl Iterator<Item = &SynthesisNode> {
        self.syntheses.iter().filter(move |synthesis| synthesis.masks.contains(&mask))
    }

    /// Iterates over the quality tests whose accepted tumors are used for training: each synthesis with the index of the branch.
    pub fn training_branches(&self) -> impl Iterator<Item = (&SynthesisNode, usize)> {
        let trains = |feed: &Feed| feed.port == Port::Main && matches!(self.sinks[feed.sink].output, Output::Trainer);
        self.syntheses.iter().flat_map(move |synthesis| {
            let branches = synthesis.branches.iter().enumerate();
            branches
                .filter(move |(_, branch)| branch.feeds.iter().any(trains))
                .map(move |(index, _)| (synthesis, index))
        })
    }

    /// Iterates over the nodes that run a network, each once, in topological order.
    pub fn inferences(&self) -> impl Iterator<Item = (&str, &Inference)> {
        let masks = self.masks.iter().map(|node| (node.name.as_str(), node.mask.inference()));
        let syntheses = self.syntheses.iter().flat_map(|node| {
            let scores = node.attempts.scorers.iter().map(|scorer| (scorer.name.as_str(), scorer.stage.inference()));
            std::iter::once((node.attempts.name.as_str(), node.attempts.synthesize.inference())).chain(scores)
        });
        let mut listed = BTreeSet::new();
        masks
            .chain(syntheses)
            .filter_map(|(name, inference)| Some((name, inference?)))
            .filter(move |(name, _)| listed.insert(*name))
    }

    /// Returns the split of a patient; see [`SplitShares::of`].
    pub fn split_of(&self, patient_key: PatientKey) -> Split {
        self.split.of(patient_key)
    }

    /// Returns the secret for patient keys; `None` if no source needs one.
    ///
    /// # Errors
    /// If the secret cannot be read.
    pub fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        let secrets = self.sources.iter().map(|node| node.source.patient_secret());
        Ok(secrets.collect::<Result<Vec<_>>>()?.into_iter().flatten().next())
    }

    /// Keys the digest with the secret for patient keys: tables contain the digest, and the settings contain paths.
    ///
    /// # Errors
    /// If the secret cannot be read.
    pub fn with_keyed_digest(mut self) -> Result<Self> {
        if let Some(secret) = self.patient_secret()? {
            self.digest = secret.pipeline_digest(&digested_text(&self.resolved));
        }
        Ok(self)
    }

    /// Returns the class of the kernels that compute the networks; `None` if the pipeline has no network.
    pub fn kernel_class(&self) -> Option<String> {
        self.inferences().next().map(|(_, inference)| inference.kernel_class())
    }
}

impl SinkNode {
    /// Returns the splits in which the users of the training set expect samples: those with a share, and for nnU-Net validation, without
    /// which a fold cannot be trained. A stream has one split of its own.
    pub fn expected_splits(&self, shares: SplitShares) -> Vec<Split> {
        let Output::Layout(_) = self.output else { return Vec::new() };
        let is_expected = |split: &Split| match split {
            Split::Train => shares.train > 0.0,
            Split::Validation => shares.validation > 0.0 || self.kind == "nnunet",
            Split::Test => shares.test > 0.0,
        };
        Split::ALL.into_iter().filter(is_expected).collect()
    }
}

impl SynthesisNode {
    /// Iterates over the organs of a masked scan that get tumors.
    pub fn organs_in<'m>(&self, masked: &'m [Organ]) -> impl Iterator<Item = &'m Organ> {
        masked.iter().filter(|organ| self.organs.contains(organ))
    }

    /// Returns the identity of one requested tumor in an organ of a scan.
    pub fn tumor<'a>(
        &self,
        seed: u64,
        scan_digest: ScanDigest,
        mask_digest: MaskDigest,
        organ: &'a Organ,
        variant: u32,
    ) -> TumorIdentity<'a> {
        TumorIdentity { seed, digests: self.digests, scan_digest, mask_digest, organ, variant, number: 0 }
    }
}

/// Returns the text of a resolved file that its digest covers: expectations do not change results.
pub(super) fn digested_text(resolved: &serde_json::Value) -> String {
    let mut resolved = resolved.clone();
    if let Some(file) = resolved.as_object_mut() {
        file.remove("expectations");
    }
    resolved.to_string()
}

/// The identity of a tumor, from which the ids of its candidates and the key of their random numbers are derived.
///
/// Names of stages and sources, inputs, sinks, thresholds and the number of tumors and attempts are not part of the identity. The ids of
/// merged organs are part of the sample id, because the labels of a candidate contain them. The key depends on the ids only through
/// the digest of the mask, whose voxels contain the ids of all organs of the stage.
#[derive(Clone, Copy, Debug)]
pub struct TumorIdentity<'a> {
    seed: u64,
    digests: StageDigests,
    scan_digest: ScanDigest,
    mask_digest: MaskDigest,
    organ: &'a Organ,
    variant: u32,
    number: u32,
}

impl TumorIdentity<'_> {
    /// Returns the identity of the tumor with this number among those of a sample in the same organ, from 0. The first tumor has
    /// the identity of a separate sample.
    #[must_use]
    pub fn numbered(self, number: u32) -> Self {
        Self { number, ..self }
    }

    /// Returns the key of all random numbers of the tumor's attempts.
    pub fn key(&self) -> Key {
        let key = Key::root(self.seed)
            .with("stage", &self.digests.random.to_string())
            .with("scan", &self.scan_digest.to_string())
            .with("mask", &self.mask_digest.to_string())
            .with("organ", &self.organ.name)
            .number("variant", u64::from(self.variant));
        if self.number == 0 { key } else { key.number("tumor", u64::from(self.number)) }
    }

    /// Returns the id of the candidate of one attempt.
    pub fn sample_id(&self, attempt: u32) -> SampleId {
        let hash = FieldHasher::new("sample")
            .add_field(self.seed.to_le_bytes())
            .add_field(self.digests.results.as_bytes())
            .add_field(self.scan_digest.as_bytes())
            .add_field(self.mask_digest.as_bytes())
            .add_field(&self.organ.name)
            .add_field([self.organ.label, self.organ.tumor_label])
            .add_field(self.variant.to_le_bytes())
            .add_field(attempt.to_le_bytes());
        let hash = if self.number == 0 { hash } else { hash.add_field(self.number.to_le_bytes()) };
        SampleId::from_hash(&hash.finish())
    }
}

impl fmt::Debug for SourceNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind)
    }
}

impl fmt::Debug for MaskNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) of sources {:?}", self.name, self.kind, self.sources)
    }
}

impl fmt::Debug for SinkNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind)
    }
}
