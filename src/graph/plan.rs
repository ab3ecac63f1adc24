//! A checked graph with its stages built: what a dataflow or a loop runs.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{Edge, Port, Role, SplitShares};
use crate::filter::QualityTest;
use crate::ingest::Source;
use crate::mask::{Mask, Organ};
use crate::random::Key;
use crate::score::ScoreStage;
use crate::sink::{Sink, Split};
use crate::synth::{AttemptKey, Synthesize};
use crate::view::Viewer;

/// A checked graph with its stages built.
///
/// The stages stand in the order of the way; each says by index from which of the stretch before it takes. A scan of
/// source `s` goes to every mask of [`Plan::masks_of`], each masked scan to every trial of [`Plan::trials_of`], and
/// inside a trial everything happens to one scan: synthesize, score, judge, try again.
///
/// ```no_run
/// # use freetumor::graph::Plan;
/// # use std::sync::Arc;
/// use freetumor::{filter::Verdict, mask::MaskedScan, score::Scores, synth::Attempt};
///
/// # fn example(plan: Plan) -> Result<(), Box<dyn std::error::Error>> {
/// for (index, node) in plan.sources.iter().enumerate() {
///     for entry in node.source.list()? {
///         let scan = Arc::new(node.source.read(&entry)?);
///         for (index, node) in plan.masks_of(index) {
///             let masked = MaskedScan { scan: scan.clone(), mask: node.mask.mask(&scan)? };
///             for trial in plan.trials_of(index) {
///                 for organ in trial.organs_in(&masked.mask.organs) {
///                     let attempts = trial.synthesize.site_plan(&masked, organ)?;
///                     let judges: Vec<_> =
///                         trial.scores.iter().map(|node| node.stage.baseline(&masked, organ)).collect::<Result<_, _>>()?;
///                     for variant in 0..trial.variants {
///                         for attempt in 0..trial.test.attempts() {
///                             let key = trial.key(&plan, &scan.digest, &organ.name, variant, attempt);
///                             let Attempt::Candidate(candidate) = attempts.attempt(key)? else { continue };
///                             let mut scores = Scores::default();
///                             for judge in &judges {
///                                 judge.score(&candidate, &mut scores)?;
///                             }
///                             if trial.test.verdict(&scores) == Verdict::Accepted {
///                                 break; // to the sinks of `trial.feeds`
///                             }
///                         }
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
    /// Where scans come from, in the order of the file.
    pub sources: Vec<SourceNode>,
    /// How organs are found, in the order of the file.
    pub masks: Vec<MaskNode>,
    /// The stretches from synthesis to verdict.
    pub trials: Vec<Trial>,
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

/// A stretch in which everything happens to one scan: synthesize → scores → quality test, and again.
#[derive(Clone)]
pub struct Trial {
    /// The synthesis stage's name; `SYNTHESIS.FILTER` where several quality tests judge the same synthesis. Rows and
    /// sample ids are told apart by it.
    pub name: String,
    /// The synthesis stage's name in the graph file.
    pub synthesis: String,
    /// The quality test's name in the graph file.
    pub filter: String,
    /// The masks that it takes scans from: indices into [`Plan::masks`].
    pub masks: Vec<usize>,
    /// The built synthesis.
    pub synthesize: Arc<dyn Synthesize>,
    /// The model that makes the tumors: a digest of weights, or `rules` with its version.
    pub model: String,
    /// The organs that get tumors, of those that the masks may give.
    pub organs: Vec<Organ>,
    /// Tumors asked for in each organ of each scan.
    pub variants: u32,
    /// The score stages, each after those it takes from.
    pub scores: Vec<ScoreNode>,
    /// The conditions, and how many candidates are made for one tumor.
    pub test: QualityTest,
    /// The sinks that take from it.
    pub feeds: Vec<Feed>,
}

impl Trial {
    /// Whether its accepted tumors go to a training.
    pub fn feeds_training(&self, plan: &Plan) -> bool {
        self.feeds.iter().any(|feed| feed.port == Port::Main && plan.sinks[feed.sink].sink.trains())
    }
}

/// A score stage.
#[derive(Clone)]
pub struct ScoreNode {
    /// Its name in the graph file.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The built stage.
    pub stage: Arc<dyn ScoreStage>,
}

/// An edge from a trial to a sink.
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
    /// The built sink.
    pub sink: Arc<dyn Sink>,
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

    /// The trials that take scans of a mask.
    pub fn trials_of(&self, mask: usize) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(move |trial| trial.masks.contains(&mask))
    }

    /// The nodes that look with networks, each once, in the order of the way.
    pub fn viewers(&self) -> impl Iterator<Item = (&str, &Viewer)> {
        let masks = self.masks.iter().map(|node| (node.name.as_str(), node.mask.viewer()));
        let trials = self.trials.iter().flat_map(|trial| {
            let scores = trial.scores.iter().map(|node| (node.name.as_str(), node.stage.viewer()));
            std::iter::once((trial.synthesis.as_str(), trial.synthesize.viewer())).chain(scores)
        });
        let mut told = BTreeSet::new();
        masks
            .chain(trials)
            .filter_map(|(name, viewer)| Some((name, viewer?)))
            .filter(move |(name, _)| told.insert(*name))
    }

    /// The part of the training set that a patient belongs to; see [`SplitShares::of`].
    pub fn split_of(&self, patient_key: &str) -> Split {
        self.split.of(patient_key)
    }

    /// The key of all randomness.
    pub fn key(&self) -> Key {
        Key::root(self.seed)
    }
}

impl Trial {
    /// Those organs of a masked scan that get tumors here.
    pub fn organs_in<'m>(&self, masked: &'m [Organ]) -> impl Iterator<Item = &'m Organ> {
        masked.iter().filter(|organ| self.organs.contains(organ))
    }

    /// The key that defines one attempt. It holds the synthesis's name and not the quality test's, so that several tests
    /// of one synthesis judge the same candidates.
    pub fn key(&self, plan: &Plan, scan_digest: &str, organ: &str, variant: u32, attempt: u32) -> AttemptKey {
        let tumor = plan
            .key()
            .with("stage", &self.synthesis)
            .with("scan", scan_digest)
            .with("organ", organ)
            .number("variant", u64::from(variant));
        AttemptKey::new(tumor, attempt)
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

impl fmt::Debug for ScoreNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind)
    }
}

impl fmt::Debug for SinkNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind)
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("name", &self.name)
            .field("synthesis", &self.synthesis)
            .field("filter", &self.filter)
            .field("masks", &self.masks)
            .field("model", &self.model)
            .field("organs", &self.organs.iter().map(|organ| &organ.name).collect::<Vec<_>>())
            .field("variants", &self.variants)
            .field("scores", &self.scores)
            .field("test", &self.test)
            .field("feeds", &self.feeds)
            .finish()
    }
}
