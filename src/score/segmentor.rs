//! Scores by a segmentor: whether a network that was trained on real tumors finds the synthetic one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::OrganInference;
use super::{Score, ScoreStage, Scorer, Scores};
use crate::error::{ConfigError, Fault};
use crate::id::PatientKey;
use crate::inference::{Inference, NetworkConfig};
use crate::mask::{MaskedScan, Organ};
use crate::nn::weights::held_out_hash;
use crate::synth::Candidate;

/// Scores by a segmentor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentorConfig {
    /// The segmentor.
    pub network: NetworkConfig,
    /// The weights of the other folds of cross-fitted segmentors, as `freetumor train segmentor --folds K` writes them; `network.weights`
    /// is the first fold. Each candidate is scored by one of them, selected by its id, and each real tumor of a calibration by the one that
    /// was not trained on its patient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folds: Vec<PathBuf>,
    /// The network's classes of each organ, as [organ, tumor]; by default the ids of the organs in the mask. Organs without synthetic
    /// tumors may be included: a prediction of any tumor class counts as found. If the network has no class for an organ, use 0 for it.
    #[serde(default)]
    pub classes: BTreeMap<String, [usize; 2]>,
    /// Whether the generator was not trained against the segmentor. Its found fraction is then the score `held_out_found_fraction`.
    #[serde(default)]
    pub held_out: bool,
}

/// The score stage of kind `segmentor`; see [`SegmentorConfig`].
#[derive(Debug)]
pub struct Segmentor {
    /// The network of each fold.
    folds: Vec<SegmentorFold>,
    classes: BTreeMap<String, [usize; 2]>,
    /// The classes of all tumors.
    tumors: Vec<usize>,
    held_out: bool,
}

/// One of the cross-fitted networks of a segmentor.
#[derive(Clone, Debug)]
pub struct SegmentorFold {
    /// The network.
    pub inference: Inference,
    /// The hashes of the labeled patients that it was not trained on.
    pub held_out_patients: Vec<String>,
}

impl Segmentor {
    /// Checks the settings against the organs of the mask and the loaded network.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn new(config: SegmentorConfig, inference: Inference, organs: &[Organ]) -> Result<Self, Vec<ConfigError>> {
        Self::with_folds(config, vec![SegmentorFold { inference, held_out_patients: Vec::new() }], organs)
    }

    /// Checks the settings against the organs of the mask and the loaded networks of all folds.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn with_folds(
        config: SegmentorConfig,
        folds: Vec<SegmentorFold>,
        organs: &[Organ],
    ) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let default_classes = |organ: &Organ| (organ.name.clone(), [organ.label, organ.tumor_label].map(usize::from));
        let classes: BTreeMap<String, [usize; 2]> = match config.classes.is_empty() {
            true => organs.iter().map(default_classes).collect(),
            false => config.classes.clone(),
        };
        for (name, [organ, tumor]) in &classes {
            let field = if config.classes.contains_key(name) { format!("classes.{name}") } else { "classes".into() };
            let count = folds.iter().map(|fold| fold.inference.classes()).min().unwrap_or(0);
            if *tumor == 0 || organ == tumor {
                let message = format!("expected a separate class for tumors of the {name}, got {tumor}");
                errors.push(ConfigError::new(field, message).with_hint("set [organ, tumor]; 0 is the background"));
            } else if let Some(id) = [*organ, *tumor].into_iter().find(|id| *id >= count) {
                let message =
                    format!("expected classes of the {name} from 0 to {}, got {id} in [{organ}, {tumor}]", count - 1);
                let hint = format!("set the classes of the network: classes = {{ {name} = [organ, tumor] }}");
                errors.push(ConfigError::new(field, message).with_hint(hint));
            }
        }
        if !organs.is_empty() && !organs.iter().any(|organ| classes.contains_key(&organ.name)) {
            let names: Vec<&str> = organs.iter().map(|organ| organ.name.as_str()).collect();
            let message = format!("expected classes of an organ of the mask ({}), got none", names.join(", "));
            let hint = format!("set the classes of the network: classes = {{ {} = [organ, tumor] }}", names[0]);
            errors.push(ConfigError::new("classes", message).with_hint(hint));
        }
        let mut tumors: Vec<usize> = classes.values().map(|[_, tumor]| *tumor).collect();
        tumors.sort_unstable();
        tumors.dedup();
        if folds.is_empty() {
            errors.push(ConfigError::new("folds", "expected at least one network, got none"));
        }
        if errors.is_empty() { Ok(Self { folds, classes, tumors, held_out: config.held_out }) } else { Err(errors) }
    }
}

impl ScoreStage for Segmentor {
    fn version(&self) -> String {
        // The digest of the first network is part of the stage's digest.
        let others: Vec<&str> = self.folds[1..].iter().map(|fold| fold.inference.digest()).collect();
        let others = if others.is_empty() { String::new() } else { format!(" {}", others.join(" ")) };
        format!("2 {:?}{others}", self.classes)
    }

    fn inference(&self) -> Option<&Inference> {
        self.folds.first().map(|fold| &fold.inference)
    }

    fn reads(&self) -> Option<&[Score]> {
        Some(if self.held_out { &[Score::FoundFraction] } else { &[] })
    }

    fn weights(&self) -> Vec<String> {
        self.folds.iter().map(|fold| fold.inference.digest().to_owned()).collect()
    }

    fn fold_without(&self, patient: PatientKey) -> Option<u64> {
        let hash = held_out_hash(patient);
        self.folds.iter().position(|fold| fold.held_out_patients.contains(&hash)).map(|index| index as u64)
    }

    fn scores(&self) -> &'static [Score] {
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
        let inferences = self.folds.iter().map(|fold| OrganInference::new(&fold.inference, scan, organ));
        let organ_tumor = self.classes.get(&organ.name).map(|[_, tumor]| *tumor);
        Ok(Box::new(SegmentorScorer {
            stage: self,
            scan,
            organ_tumor,
            inferences: inferences.collect::<Result<_, _>>()?,
        }))
    }
}

struct SegmentorScorer<'scan> {
    stage: &'scan Segmentor,
    scan: &'scan MaskedScan,
    /// The class of this organ's tumors.
    organ_tumor: Option<usize>,
    /// The inference of each fold.
    inferences: Vec<OrganInference<'scan>>,
}

impl Scorer for SegmentorScorer<'_> {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        self.score_in_fold(candidate, 0, scores)
    }

    fn score_in_fold(&self, candidate: &Candidate, fold: u64, scores: &mut Scores) -> Result<(), Fault> {
        let inference = &self.inferences[(fold % self.inferences.len() as u64) as usize];
        if self.stage.held_out {
            return self.score_held_out(inference, candidate, scores);
        }
        let Some(before) = inference.predict_before(candidate)? else { return Ok(()) };
        let Some(after) = inference.predict_after(candidate, Some(before.region))? else { return Ok(()) };
        let ids = after.prediction.ids();
        let tumor_labels = self.scan.mask.kept_labels();
        let mut counts = Counts::default();
        let masks = after.tumor.as_slice().iter().zip(after.support.as_slice());
        for (voxel, ((&id, &was), (&label, (&synthetic, &support)))) in
            ids.as_slice().iter().zip(before.ids.as_slice()).zip(before.labels.as_slice().iter().zip(masks)).enumerate()
        {
            let (is_tumor, was_tumor) = (self.is_tumor(id), self.is_tumor(was));
            let is_real = tumor_labels.contains(&label);
            let is_right = Some(usize::from(id)) == self.organ_tumor;
            counts.suspected += usize::from(was_tumor && !is_real);
            if synthetic != 0 {
                counts.synthetic += 1;
                counts.found += usize::from(is_tumor);
                counts.right += usize::from(is_right);
                counts.probability += after.prediction.probability(voxel, &self.stage.tumors);
            } else if !is_real {
                counts.predicted_elsewhere += usize::from(is_right);
                // Displaced tissue is not where it was, so that its predictions before and after cannot be compared.
                counts.new_elsewhere += usize::from(is_tumor && !was_tumor && support == 0);
            }
        }
        let voxel_mm3 = inference.voxel_mm3();
        scores.set(Score::SuspectedRealTumorMm3, counts.suspected as f64 * voxel_mm3);
        scores.set(Score::NewFalsePositiveMm3, counts.new_elsewhere as f64 * voxel_mm3);
        // A small tumor may contain no voxel of the network's grid; it has no found fraction.
        if counts.synthetic > 0 {
            let share = |count: usize| count as f64 / counts.synthetic as f64;
            scores.set(Score::FoundFraction, share(counts.found));
            scores.set(Score::TumorProbability, counts.probability / counts.synthetic as f64);
            // Absent if the network has no class for this organ.
            if self.organ_tumor.is_some() {
                let predicted = counts.right + counts.predicted_elsewhere;
                scores.set(Score::RightClassFraction, share(counts.right));
                scores.set(Score::Dice, 2.0 * counts.right as f64 / (counts.synthetic + predicted) as f64);
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
    /// Predicted as this organ's tumor, but neither synthetic nor real tumor.
    predicted_elsewhere: usize,
    /// Predicted as any tumor after but not before the synthesis, outside of the voxels that the synthesis may have changed.
    new_elsewhere: usize,
    /// Predicted as any tumor before the synthesis, without a label of a real tumor.
    suspected: usize,
}

impl SegmentorScorer<'_> {
    fn is_tumor(&self, id: u16) -> bool {
        self.stage.tumors.contains(&usize::from(id))
    }

    fn score_held_out(
        &self,
        inference: &OrganInference<'_>,
        candidate: &Candidate,
        scores: &mut Scores,
    ) -> Result<(), Fault> {
        let Some(after) = inference.predict_after(candidate, None)? else { return Ok(()) };
        let ids = after.prediction.ids();
        let predicted = ids.as_slice().iter().zip(after.tumor.as_slice()).filter(|(_, synthetic)| **synthetic != 0);
        let (mut found, mut all) = (0usize, 0usize);
        for (&id, _) in predicted {
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
