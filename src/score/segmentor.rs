//! Scores by a segmentor: does a network that knows real tumors call the synthetic one a tumor?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::OrganInference;
use super::{Score, ScoreStage, Scorer, Scores};
use crate::error::{ConfigError, Fault};
use crate::inference::{Inference, NetworkConfig};
use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;

/// Scores by a segmentor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentorConfig {
    /// The segmentor.
    pub network: NetworkConfig,
    /// Its classes for each organ that it knows, as [organ, tumor]; where none is named, the ids that the mask gives its organs. Organs that
    /// get no tumors may be named too: any tumor counts as found. A segmentor without a class for an organ itself takes 0 for it.
    #[serde(default)]
    pub classes: BTreeMap<String, [usize; 2]>,
    /// Whether the generator never trained against it: its found fraction is then a score of its own, `held_out_found_fraction`.
    #[serde(default)]
    pub held_out: bool,
}

/// The stage; see [`SegmentorConfig`].
#[derive(Debug)]
pub struct Segmentor {
    viewer: Inference,
    classes: BTreeMap<String, [usize; 2]>,
    /// The classes of all tumors.
    tumors: Vec<usize>,
    held_out: bool,
}

impl Segmentor {
    /// Checks the settings against the organs that the mask gives and the network that was opened for them.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(config: SegmentorConfig, viewer: Inference, organs: &[Organ]) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        let given = |organ: &Organ| (organ.name.clone(), [organ.label, organ.tumor_label].map(usize::from));
        let classes: BTreeMap<String, [usize; 2]> = match config.classes.is_empty() {
            true => organs.iter().map(given).collect(),
            false => config.classes.clone(),
        };
        for (name, [organ, tumor]) in &classes {
            let field = if config.classes.contains_key(name) { format!("classes.{name}") } else { "classes".into() };
            let count = viewer.classes();
            if *tumor == 0 || organ == tumor {
                let message = format!("expected a class of its own for tumors of the {name}, got {tumor}");
                complaints
                    .push(ConfigError::new(field, message).with_hint("write [organ, tumor]; 0 is the background"));
            } else if let Some(id) = [*organ, *tumor].into_iter().find(|id| *id >= count) {
                let message = format!(
                    "the {name} has the classes {organ} and {tumor}, but the network has 0 to {}, not {id}",
                    count - 1
                );
                let hint = format!("say what the network calls them: classes = {{ {name} = [organ, tumor] }}");
                complaints.push(ConfigError::new(field, message).with_hint(hint));
            }
        }
        if !organs.is_empty() && !organs.iter().any(|organ| classes.contains_key(&organ.name)) {
            let names: Vec<&str> = organs.iter().map(|organ| organ.name.as_str()).collect();
            let message =
                format!("expected classes of an organ that the mask gives ({}), there are none", names.join(", "));
            let hint = format!("say what the network calls them: classes = {{ {} = [organ, tumor] }}", names[0]);
            complaints.push(ConfigError::new("classes", message).with_hint(hint));
        }
        let mut tumors: Vec<usize> = classes.values().map(|[_, tumor]| *tumor).collect();
        tumors.sort_unstable();
        tumors.dedup();
        if complaints.is_empty() {
            Ok(Self { viewer, classes, tumors, held_out: config.held_out })
        } else {
            Err(complaints)
        }
    }
}

impl ScoreStage for Segmentor {
    fn version(&self) -> String {
        format!("1 {:?}", self.classes)
    }

    fn viewer(&self) -> Option<&Inference> {
        Some(&self.viewer)
    }

    fn gives(&self) -> &'static [Score] {
        if self.held_out {
            return &[Score::HeldOutFoundFraction, Score::Disagreement];
        }
        &[
            Score::FoundFraction,
            Score::TumorProbability,
            Score::RightClassFraction,
            Score::Dice,
            Score::NewFalsePositiveMm3,
            Score::SuspectedRealTumorMm3,
        ]
    }

    fn baseline<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Scorer + 'scan>, Fault> {
        let surroundings = OrganInference::new(&self.viewer, scan, organ)?;
        let right = self.classes.get(&organ.name).map(|[_, tumor]| *tumor);
        Ok(Box::new(SegmentorScorer { stage: self, scan, right, surroundings }))
    }
}

struct SegmentorScorer<'scan> {
    stage: &'scan Segmentor,
    scan: &'scan MaskedScan,
    /// The class of this organ's tumors.
    right: Option<usize>,
    surroundings: OrganInference<'scan>,
}

impl Scorer for SegmentorScorer<'_> {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        if self.stage.held_out {
            return self.score_held_out(candidate, scores);
        }
        let Some(before) = self.surroundings.before(candidate)? else { return Ok(()) };
        let Some(after) = self.surroundings.after(candidate, Some(before.region))? else { return Ok(()) };
        let ids = after.seen.ids();
        let tumor_labels: Vec<u8> = self.scan.mask.organs.iter().map(|organ| organ.tumor_label).collect();
        let mut counts = Counts::default();
        for (voxel, ((&id, &was), (&label, &synthetic))) in ids
            .as_slice()
            .iter()
            .zip(before.ids.as_slice())
            .zip(before.labels.as_slice().iter().zip(after.tumor.as_slice()))
            .enumerate()
        {
            let (is_tumor, was_tumor) = (self.is_tumor(id), self.is_tumor(was));
            let is_real = tumor_labels.contains(&label);
            let is_right = Some(usize::from(id)) == self.right;
            counts.suspected += usize::from(was_tumor && !is_real);
            if synthetic != 0 {
                counts.synthetic += 1;
                counts.found += usize::from(is_tumor);
                counts.right += usize::from(is_right);
                counts.probability += after.seen.probability(voxel, &self.stage.tumors);
            } else if !is_real {
                counts.called_elsewhere += usize::from(is_right);
                counts.new_elsewhere += usize::from(is_tumor && !was_tumor);
            }
        }
        let voxel_mm3 = self.surroundings.voxel_mm3();
        scores.set(Score::SuspectedRealTumorMm3, counts.suspected as f64 * voxel_mm3);
        scores.set(Score::NewFalsePositiveMm3, counts.new_elsewhere as f64 * voxel_mm3);
        // A tumor between the voxels that the network sees has no share that is found.
        if counts.synthetic > 0 {
            let share = |count: usize| count as f64 / counts.synthetic as f64;
            scores.set(Score::FoundFraction, share(counts.found));
            scores.set(Score::TumorProbability, counts.probability / counts.synthetic as f64);
            // An organ that the network has no class for has no right one.
            if self.right.is_some() {
                let called = counts.right + counts.called_elsewhere;
                scores.set(Score::RightClassFraction, share(counts.right));
                scores.set(Score::Dice, 2.0 * counts.right as f64 / (counts.synthetic + called) as f64);
            }
        }
        Ok(())
    }
}

/// Voxels of the windows around a candidate.
#[derive(Default)]
struct Counts {
    synthetic: usize,
    found: usize,
    right: usize,
    probability: f64,
    /// Called this organ's tumor, and neither synthetic nor a real tumor.
    called_elsewhere: usize,
    /// Called any tumor, and not before.
    new_elsewhere: usize,
    /// Called any tumor before, where no real one is labelled.
    suspected: usize,
}

impl SegmentorScorer<'_> {
    fn is_tumor(&self, id: u16) -> bool {
        self.stage.tumors.contains(&usize::from(id))
    }

    fn score_held_out(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        let Some(after) = self.surroundings.after(candidate, None)? else { return Ok(()) };
        let ids = after.seen.ids();
        let called = ids.as_slice().iter().zip(after.tumor.as_slice()).filter(|(_, synthetic)| **synthetic != 0);
        let (mut found, mut all) = (0usize, 0usize);
        for (&id, _) in called {
            all += 1;
            found += usize::from(self.is_tumor(id));
        }
        if all > 0 {
            let fraction = found as f64 / all as f64;
            scores.set(Score::HeldOutFoundFraction, fraction);
            if let Some(trained_against) = scores.get(Score::FoundFraction) {
                scores.set(Score::Disagreement, trained_against - fraction);
            }
        }
        Ok(())
    }
}
