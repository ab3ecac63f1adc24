//! A checked graph with its stages built: what a dataflow or a loop runs.

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
use crate::ingest::{PatientSecret, Source};
use crate::mask::{Mask, Organ};
use crate::random::Key;
use crate::record::Split;
use crate::sink::Output;

/// A checked graph with its stages built.
///
/// Each stage refers by index to the stages before it. A scan of source `s` goes to every mask of [`Plan::masks_of`], each masked scan
/// to every synthesis of [`Plan::syntheses_of`], and there its tumors are made by an [`AttemptLoop`].
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
///                 for organ in synthesis.organs_in(&masked.mask.organs) {
///                     for variant in 0..synthesis.variants {
///                         let tumor = synthesis.tumor(plan.seed, scan.digest, mask_digest, organ, variant);
///                         let accepted = synthesis.attempts.first_accepted(&masked, organ, tumor.key())?;
///                         // to the sinks of `synthesis.branches`
/// #                       drop(accepted);
///                     }
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
    /// What all randomness is derived from.
    pub seed: u64,
    /// Scans per commit.
    pub epoch_scans: usize,
    /// Shares of patients in each part of the training set.
    pub split: SplitShares,
    /// SHA-256 of [`Plan::resolved`], 64 hexadecimal digits: equal for files of equal meaning.
    pub digest: String,
    /// What the file means, defaults filled in, paths as they were written; keys sorted.
    pub resolved: serde_json::Value,
    /// The folder of the graph file, to which its relative paths belong.
    pub folder: PathBuf,
    /// Where scans come from, in the order of the file.
    pub sources: Vec<SourceNode>,
    /// How organs are found, in the order of the file.
    pub masks: Vec<MaskNode>,
    /// How tumors are made, in the order of the file.
    pub syntheses: Vec<SynthesisNode>,
    /// Where samples go, in the order of the file.
    pub sinks: Vec<SinkNode>,
    /// Every node with its inputs, each after those it takes from: for drawing and counting.
    pub nodes: Vec<Node>,
}

/// A source.
#[derive(Clone)]
pub struct SourceNode {
    /// Its name in the graph file.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The built source.
    pub source: Arc<dyn Source>,
}

/// A mask stage.
#[derive(Clone)]
pub struct MaskNode {
    /// Its name in the graph file.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The built stage.
    pub mask: Arc<dyn Mask>,
    /// The sources that it takes scans from: indices into [`Plan::sources`].
    pub sources: Vec<usize>,
}

/// A synthesis stage with the score stages and quality tests behind it.
#[derive(Clone, Debug)]
pub struct SynthesisNode {
    /// The loop from synthesis to verdict: its branches are the quality tests.
    pub attempts: AttemptLoop,
    /// The masks that it takes scans from: indices into [`Plan::masks`].
    pub masks: Vec<usize>,
    /// The digests of its settings and weights.
    pub digests: StageDigests,
    /// The model that makes the tumors: a digest of weights, or `rules` with its version.
    pub model: String,
    /// The organs that get tumors, of those that the masks may give.
    pub organs: Vec<Organ>,
    /// Tumors asked for in each organ of each scan.
    pub variants: u32,
    /// The digests of [`AttemptLoop::scorers`].
    pub score_digests: Vec<StageDigest>,
    /// What follows each of [`AttemptLoop::branches`].
    pub branches: Vec<BranchNode>,
}

/// What follows a quality test.
#[derive(Clone, Debug)]
pub struct BranchNode {
    /// The digest of its conditions.
    pub test_digest: StageDigest,
    /// The sinks that take from it.
    pub feeds: Vec<Feed>,
}

/// An edge from a quality test to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feed {
    /// Index into [`Plan::sinks`].
    pub sink: usize,
    /// [`Port::Main`] for accepted candidates, [`Port::Rejected`] for those that were turned down.
    pub port: Port,
}

/// A sink.
#[derive(Clone)]
pub struct SinkNode {
    /// Its name in the graph file.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Where its samples go.
    pub output: Output,
    /// The organs whose labels its files may hold.
    pub organs: Arc<[Organ]>,
}

/// Any node of the graph, as drawings and listings need it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Its name in the graph file.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it does.
    pub role: Role,
    /// What it takes, in the order of the file.
    pub inputs: Vec<NodeInput>,
}

/// One input of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeInput {
    /// Index of the node that gives it, in the same list.
    pub from: usize,
    /// Which of its outputs.
    pub port: Port,
    /// What travels.
    pub edge: Edge,
}

impl Plan {
    /// The masks that take scans of a source, with their indices.
    pub fn masks_of(&self, source: usize) -> impl Iterator<Item = (usize, &MaskNode)> {
        self.masks.iter().enumerate().filter(move |(_, node)| node.sources.contains(&source))
    }

    /// The syntheses that take scans of a mask.
    pub fn syntheses_of(&self, mask: usize) -> impl Iterator<Item = &SynthesisNode> {
        self.syntheses.iter().filter(move |synthesis| synthesis.masks.contains(&mask))
    }

    /// The quality tests whose accepted tumors are trained on: each synthesis with the index of the branch.
    pub fn training_branches(&self) -> impl Iterator<Item = (&SynthesisNode, usize)> {
        let trains = |feed: &Feed| feed.port == Port::Main && matches!(self.sinks[feed.sink].output, Output::Trainer);
        self.syntheses.iter().flat_map(move |synthesis| {
            let branches = synthesis.branches.iter().enumerate();
            branches
                .filter(move |(_, branch)| branch.feeds.iter().any(trains))
                .map(move |(index, _)| (synthesis, index))
        })
    }

    /// The nodes that look with networks, each once, in the order of the way.
    pub fn viewers(&self) -> impl Iterator<Item = (&str, &Inference)> {
        let masks = self.masks.iter().map(|node| (node.name.as_str(), node.mask.inference()));
        let syntheses = self.syntheses.iter().flat_map(|node| {
            let scores = node.attempts.scorers.iter().map(|scorer| (scorer.name.as_str(), scorer.stage.viewer()));
            std::iter::once((node.attempts.name.as_str(), node.attempts.synthesize.viewer())).chain(scores)
        });
        let mut listed = BTreeSet::new();
        masks
            .chain(syntheses)
            .filter_map(|(name, viewer)| Some((name, viewer?)))
            .filter(move |(name, _)| listed.insert(*name))
    }

    /// The part of the training set that a patient belongs to; see [`SplitShares::of`].
    pub fn split_of(&self, patient_key: PatientKey) -> Split {
        self.split.of(patient_key)
    }

    /// The secret behind patient keys; `None` where no source needs one.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        let secrets = self.sources.iter().map(|node| node.source.patient_secret());
        Ok(secrets.collect::<Result<Vec<_>>>()?.into_iter().flatten().next())
    }

    /// The plan with its digest keyed with the patients' secret: rows show it, and the settings hold paths.
    ///
    /// # Errors
    /// Where the secret cannot be read.
    pub fn with_keyed_digest(mut self) -> Result<Self> {
        if let Some(secret) = self.patient_secret()? {
            self.digest = secret.pipeline_digest(&self.resolved.to_string());
        }
        Ok(self)
    }

    /// The kernels that compute the pipeline's networks; `None` where it has none.
    pub fn kernel_class(&self) -> Option<String> {
        self.viewers().next().map(|(_, viewer)| viewer.kernel_class())
    }
}

impl SynthesisNode {
    /// Those organs of a masked scan that get tumors here.
    pub fn organs_in<'m>(&self, masked: &'m [Organ]) -> impl Iterator<Item = &'m Organ> {
        masked.iter().filter(|organ| self.organs.contains(organ))
    }

    /// One of the tumors asked for in an organ of a scan.
    pub fn tumor<'a>(
        &self,
        seed: u64,
        scan_digest: ScanDigest,
        mask_digest: MaskDigest,
        organ: &'a Organ,
        variant: u32,
    ) -> TumorIdentity<'a> {
        TumorIdentity { seed, digests: self.digests, scan_digest, mask_digest, organ, variant }
    }
}

/// What names a tumor and its candidates and keys their random numbers. Names of stages and sources, inputs, sinks, thresholds and
/// the number of tumors and attempts are no part of it. The ids of merged organs are part of the name, as the labels of a candidate hold
/// them. The key has them only through the digest of the mask, whose voxels hold the ids of all organs of the stage.
#[derive(Clone, Copy, Debug)]
pub struct TumorIdentity<'a> {
    seed: u64,
    digests: StageDigests,
    scan_digest: ScanDigest,
    mask_digest: MaskDigest,
    organ: &'a Organ,
    variant: u32,
}

impl TumorIdentity<'_> {
    /// The key of all random numbers of its attempts.
    pub fn key(&self) -> Key {
        Key::root(self.seed)
            .with("stage", &self.digests.random.to_string())
            .with("scan", &self.scan_digest.to_string())
            .with("mask", &self.mask_digest.to_string())
            .with("organ", &self.organ.name)
            .number("variant", u64::from(self.variant))
    }

    /// The id of the candidate of one attempt.
    pub fn sample_id(&self, attempt: u32) -> SampleId {
        let hash = FieldHasher::new("sample")
            .field(self.seed.to_le_bytes())
            .field(self.digests.results.as_bytes())
            .field(self.scan_digest.as_bytes())
            .field(self.mask_digest.as_bytes())
            .field(&self.organ.name)
            .field([self.organ.label, self.organ.tumor_label])
            .field(self.variant.to_le_bytes())
            .field(attempt.to_le_bytes());
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
