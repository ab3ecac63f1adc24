//! Scores by intensity, without a network.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Score, ScoreStage, Scorer, Scores};
use crate::error::{ConfigError, Fault};
use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;
use crate::synth::organ::OrganSummary;
use crate::volume::{Array3, Region, distance_mm};

/// Scores by intensity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntensityConfig {
    /// Inner and outer distance from the tumor of the ring of healthy organ, in mm.
    pub ring_mm: [f64; 2],
    /// A voxel that changed by less than this many HU is invisible.
    pub visible_hu: f64,
    /// Minimum and maximum expected median HU of a healthy organ; organs without a range have no score `organ_hu_deviation`.
    pub reference_hu: BTreeMap<String, [f64; 2]>,
    /// The range of the mean HU of tumors in each organ; organs without a range have no score `tumor_hu_deviation`.
    pub tumor_hu: BTreeMap<String, TumorHuRange>,
}

/// The range of the mean HU of an organ's tumors. It is relative to the organ, whose median HU depends on the contrast phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TumorHuRange {
    /// Minimum HU in any contrast phase.
    pub min_hu: f64,
    /// Maximum HU by which the tumor is darker than the organ's median.
    pub max_darker_hu: f64,
    /// Maximum HU by which the tumor is brighter than the organ's median.
    pub max_brighter_hu: f64,
}

impl TumorHuRange {
    /// Returns the distance of a tumor's mean HU from the range in an organ of this median HU; 0 inside.
    ///
    /// ```
    /// use freetumor::score::TumorHuRange;
    /// let liver = TumorHuRange { min_hu: 5.0, max_darker_hu: 90.0, max_brighter_hu: 40.0 };
    /// assert_eq!(liver.deviation(70.0, 110.0), 0.0);
    /// assert_eq!(liver.deviation(-17.0, 110.0), 37.0);
    /// assert_eq!(liver.deviation(-5.0, 40.0), 10.0);
    /// assert_eq!(liver.deviation(160.0, 110.0), 10.0);
    /// ```
    pub fn deviation(self, tumor_hu: f64, organ_hu: f64) -> f64 {
        let lowest = self.min_hu.max(organ_hu - self.max_darker_hu);
        let highest = (organ_hu + self.max_brighter_hu).max(lowest);
        (lowest - tumor_hu).max(tumor_hu - highest).max(0.0)
    }
}

impl Default for IntensityConfig {
    fn default() -> Self {
        let ranges = [
            // From unenhanced, slightly fatty to late arterial or portal-venous.
            ("liver", [30.0, 160.0]),
            ("kidney", [20.0, 260.0]),
            ("pancreas", [10.0, 160.0]),
            ("lung", [-950.0, -650.0]),
        ];
        let range = |[min_hu, max_darker_hu, max_brighter_hu]: [f64; 3]| TumorHuRange {
            min_hu,
            max_darker_hu,
            max_brighter_hu,
        };
        let tumors = [
            // Large tumors may be mostly necrotic; bright ones are arterially enhanced, or in a fatty organ.
            ("liver", range([5.0, 90.0, 45.0])),
            ("kidney", range([0.0, 180.0, 60.0])),
            ("pancreas", range([0.0, 90.0, 50.0])),
            ("lung", range([-800.0, 0.0, 1000.0])),
        ];
        Self {
            ring_mm: [1.0, 6.0],
            visible_hu: 8.0,
            reference_hu: ranges.map(|(organ, range)| (organ.to_owned(), range)).into(),
            tumor_hu: tumors.map(|(organ, range)| (organ.to_owned(), range)).into(),
        }
    }
}

/// The score stage of kind `intensity`; see [`IntensityConfig`].
#[derive(Clone, Debug)]
pub struct Intensity {
    config: IntensityConfig,
}

impl Intensity {
    /// Checks the settings against the organs of the mask.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn new(config: IntensityConfig, organs: &[Organ]) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let [inner, outer] = config.ring_mm;
        if !(inner >= 0.0 && inner < outer && outer <= 100.0) {
            let message = format!("expected 0 <= inner < outer <= 100, got [{inner}, {outer}]");
            errors.push(ConfigError::new("ring_mm", message));
        }
        if !(config.visible_hu >= 0.0 && config.visible_hu.is_finite()) {
            let message = format!("expected at least 0 HU, got {}", config.visible_hu);
            errors.push(ConfigError::new("visible_hu", message));
        }
        let defaults = IntensityConfig::default().reference_hu;
        for (organ, [low, high]) in &config.reference_hu {
            let field = format!("reference_hu.{organ}");
            if !(low <= high && low.is_finite() && high.is_finite()) {
                errors.push(ConfigError::new(&field, format!("expected [minimum, maximum], got [{low}, {high}]")));
            }
            // The defaults may contain more organs than the mask; organs that a user adds must exist.
            if defaults.get(organ) != Some(&[*low, *high]) && !organs.iter().any(|known| known.name == *organ) {
                let known = organs.iter().map(|organ| organ.name.as_str()).collect::<Vec<_>>().join(", ");
                let error = ConfigError::new(field, format!("expected an organ of the mask, got `{organ}`"));
                errors.push(error.with_hint(format!("the organs of the mask are {known}")));
            }
        }
        for (organ, range) in &config.tumor_hu {
            let TumorHuRange { min_hu, max_darker_hu, max_brighter_hu } = *range;
            let field = format!("tumor_hu.{organ}");
            if !(min_hu.is_finite() && max_darker_hu >= 0.0 && max_brighter_hu >= 0.0) {
                let message = format!(
                    "expected a finite `min_hu`, and `max_darker_hu` and `max_brighter_hu` of at least 0, got {min_hu}, \
                     {max_darker_hu} and {max_brighter_hu}"
                );
                errors.push(ConfigError::new(&field, message));
            }
            let is_default = IntensityConfig::default().tumor_hu.get(organ) == Some(range);
            if !is_default && !organs.iter().any(|known| known.name == *organ) {
                let known = organs.iter().map(|organ| organ.name.as_str()).collect::<Vec<_>>().join(", ");
                let error = ConfigError::new(field, format!("expected an organ of the mask, got `{organ}`"));
                errors.push(error.with_hint(format!("the organs of the mask are {known}")));
            }
        }
        if errors.is_empty() { Ok(Self { config }) } else { Err(errors) }
    }
}

impl ScoreStage for Intensity {
    fn reads(&self) -> Option<&[Score]> {
        Some(&[])
    }

    fn version(&self) -> String {
        "2".to_owned()
    }

    fn scores(&self) -> &'static [Score] {
        &[
            Score::HuInside,
            Score::HuRing,
            Score::HuBefore,
            Score::DeltaHu,
            Score::Cnr,
            Score::InvisibleFraction,
            Score::OrganMedianHu,
            Score::OrganHuDeviation,
            Score::TumorHuDeviation,
        ]
    }

    fn baseline<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Scorer + 'scan>, Fault> {
        let median_hu = OrganSummary::of(scan, organ).map(|summary| summary.median_hu);
        Ok(Box::new(Baseline { config: &self.config, scan, organ, median_hu }))
    }
}

struct Baseline<'scan> {
    config: &'scan IntensityConfig,
    scan: &'scan MaskedScan,
    organ: &'scan Organ,
    median_hu: Option<f64>,
}

impl Scorer for Baseline<'_> {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        let (mut inside, mut before, mut invisible) = (Moments::default(), Moments::default(), 0usize);
        let labels = self.scan.mask.labels.cut(candidate.region);
        let voxels =
            candidate.tumor.as_slice().iter().zip(candidate.before.as_slice().iter().zip(candidate.after.as_slice()));
        for ((_, (&was, &is)), &label) in voxels.zip(labels.as_slice()).filter(|((tumor, _), _)| **tumor != 0) {
            inside.add(f64::from(is));
            // A tumor that grows beyond its organ replaces fat, too; its contrast is that with the organ.
            if label == self.organ.label {
                before.add(f64::from(was));
            }
            invisible += usize::from(f64::from((is - was).abs()) < self.config.visible_hu);
        }
        if inside.count > 0 {
            scores.set(Score::HuInside, inside.mean());
            scores.set(Score::InvisibleFraction, invisible as f64 / inside.count as f64);
            if before.count > 0 {
                scores.set(Score::HuBefore, before.mean());
                scores.set(Score::DeltaHu, inside.mean() - before.mean());
            }
        }
        let ring = self.ring(candidate);
        if ring.count > 0 {
            scores.set(Score::HuRing, ring.mean());
            if inside.count > 0 && ring.deviation() > 0.0 {
                scores.set(Score::Cnr, (inside.mean() - ring.mean()) / ring.deviation());
            }
        }
        if let Some(median_hu) = self.median_hu {
            scores.set(Score::OrganMedianHu, median_hu);
            if let (Some(range), true) = (self.config.tumor_hu.get(&self.organ.name), inside.count > 0) {
                scores.set(Score::TumorHuDeviation, range.deviation(inside.mean(), median_hu));
            }
            if let Some([low, high]) = self.config.reference_hu.get(&self.organ.name) {
                scores.set(Score::OrganHuDeviation, (low - median_hu).max(median_hu - high).max(0.0));
            }
        }
        Ok(())
    }
}

impl Baseline<'_> {
    /// Returns the moments of HU of the healthy organ in the ring after the synthesis. The ring may extend beyond the candidate's box.
    fn ring(&self, candidate: &Candidate) -> Moments {
        let mut ring = Moments::default();
        let (low, high) = (candidate.region.start, candidate.region.end());
        let Some(tumor_box) = candidate.tumor.extent(|&inside| inside != 0) else { return ring };
        let tight = Region { start: [0, 1, 2].map(|k| tumor_box.start[k] + low[k]), shape: tumor_box.shape };
        let [inner, outer] = self.config.ring_mm;
        let spacing_mm = self.scan.scan.volume.grid.spacing_mm();
        let margin = spacing_mm.map(|mm| (outer / mm).ceil() as usize);
        let labels = &self.scan.mask.labels;
        let region = tight.grown(margin, labels.shape());
        let mut tumor = Array3::filled(region.shape, 0u8);
        tumor.paste([0, 1, 2].map(|k| tight.start[k] - region.start[k]), &candidate.tumor.cut(tumor_box));
        let distance = distance_mm(&tumor, spacing_mm, outer + 1.0, |&inside| inside != 0);
        let end = region.end();
        for z in region.start[2]..end[2] {
            for y in region.start[1]..end[1] {
                let line = distance.row(y - region.start[1], z - region.start[2]);
                // Most rows do not intersect the ring.
                if !line.iter().fold(false, |any, mm| any | (*mm <= outer as f32)) {
                    continue;
                }
                let row = &labels.row(y, z)[region.start[0]..end[0]];
                let offset = labels.index_of([region.start[0], y, z]);
                let is_in_box = (low[1]..high[1]).contains(&y) && (low[2]..high[2]).contains(&z);
                for (x, (&mm, &label)) in line.iter().zip(row).enumerate() {
                    if mm == 0.0 || f64::from(mm) < inner || f64::from(mm) > outer {
                        continue;
                    }
                    let scan_x = region.start[0] + x;
                    let in_box = (is_in_box && (low[0]..high[0]).contains(&scan_x))
                        .then(|| [scan_x - low[0], y - low[1], z - low[2]]);
                    // Labels move with displaced tissue.
                    if in_box.map_or(label, |voxel| candidate.labels[voxel]) != self.organ.label {
                        continue;
                    }
                    let hu = match in_box {
                        Some(voxel) => candidate.after[voxel],
                        None => self.scan.scan.volume.voxels.hu(offset + x),
                    };
                    ring.add(f64::from(hu));
                }
            }
        }
        ring
    }
}

/// Count, sum and sum of squares of HU, exact in `f64`.
#[derive(Default)]
struct Moments {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    fn deviation(&self) -> f64 {
        let mean = self.mean();
        libm::sqrt((self.squares / self.count as f64 - mean * mean).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{PatientKey, ScanDigest, ScanId};
    use crate::ingest::{Companions, Scan, ScanEntry};
    use crate::mask::OrganMask;
    use crate::synth::Geometry;
    use crate::volume::{Affine, Grid, Labels, Volume, Voxels};

    struct NoCompanions;
    impl Companions for NoCompanions {
        fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
            Err(Fault::mask(crate::error::FaultKind::Missing, format!("no {pattern}")))
        }
    }

    fn liver() -> Organ {
        Organ { name: "liver".into(), label: 1, tumor_label: 2 }
    }

    /// Returns a liver of 100 ± 10 HU in the half x < 10, air in the other half.
    fn scan() -> MaskedScan {
        let shape = [20, 12, 12];
        let grid = Grid { shape, affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
        let hu = |[x, y, z]: [usize; 3]| {
            if x >= 10 {
                -1000
            } else if (x + y + z) % 2 == 0 {
                110
            } else {
                90
            }
        };
        let entry = ScanEntry {
            scan_id: ScanId::from_bytes([0; 8]),
            source: "s".into(),
            key: "k".into(),
            dataset: "d".into(),
            patient_key: PatientKey::from_bytes([0; 8]),
            bytes: 0,
            modified_s: 0,
            version: Default::default(),
        };
        let volume = Volume { grid, voxels: Voxels::I16(Array3::from_fn(shape, hu)) };
        let scan = Scan {
            acquisition: Default::default(),
            entry,
            digest: ScanDigest::from_bytes([0; 32]),
            volume,
            companions: Arc::new(NoCompanions),
        };
        let labels = Array3::from_fn(shape, |[x, _, _]| u8::from(x < 10));
        MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs: Arc::new([liver()]), coverage: 1.0 } }
    }

    /// Returns a tumor of 4 × 4 × 2 voxels next to the liver's edge: three quarters are 40 HU darker, one quarter is unchanged.
    fn candidate(scan: &MaskedScan) -> Candidate {
        let region = Region { start: [5, 3, 4], shape: [6, 6, 4] };
        let tumor = Array3::from_fn(region.shape, |[x, y, z]| {
            u8::from((1..5).contains(&x) && (1..5).contains(&y) && (1..3).contains(&z))
        });
        let before = scan.scan.volume.voxels.hu_of(region);
        let mut after = before.clone();
        for z in 1..3 {
            for y in 2..5 {
                for x in 1..5 {
                    after[[x, y, z]] -= 40.0;
                }
            }
        }
        let labels = scan.mask.labels.cut(region);
        let geometry = Geometry {
            drawn_contrast_hu: None,
            size_class: "tiny".into(),
            site_voxel: [0; 3],
            site_mm: [0.0; 3],
            radii_mm: [1.0; 3],
            volume_mm3: 1.0,
            diameter_mm: 1.0,
            sphericity: 1.0,
            clipped_fraction: 0.0,
            boundary_distance_mm: 1.0,
            ..Geometry::default()
        };
        Candidate { region, site_box: region, support: tumor.clone(), before, after, labels, tumor, geometry }
    }

    #[test]
    fn scores_equal_statistics_of_voxels() {
        let scan = scan();
        let config = IntensityConfig { ring_mm: [0.0, 2.0], ..IntensityConfig::default() };
        let stage = Intensity::new(config, &[liver()]).unwrap();
        let mut scores = Scores::default();
        stage.baseline(&scan, &liver()).unwrap().score(&candidate(&scan), &mut scores).unwrap();
        let get = |score| scores.get(score).unwrap();
        assert_eq!(get(Score::HuBefore), 100.0);
        assert_eq!(get(Score::HuInside), 70.0);
        assert_eq!(get(Score::DeltaHu), -30.0);
        assert_eq!(get(Score::InvisibleFraction), 0.25);
        // Air outside the liver is not part of the ring.
        assert!((get(Score::HuRing) - 100.0).abs() < 1.0, "{}", get(Score::HuRing));
        assert!((get(Score::Cnr) + 3.0).abs() < 0.15, "{}", get(Score::Cnr));
        assert!([90.0, 110.0].contains(&get(Score::OrganMedianHu)));
        assert_eq!(get(Score::OrganHuDeviation), 0.0);
        for score in stage.scores() {
            assert!(scores.get(*score).is_some(), "{}", score.name());
        }
    }

    #[test]
    fn ring_extends_beyond_candidate_box() {
        let scan = scan();
        let ring = |outer| {
            let config = IntensityConfig { ring_mm: [0.0, outer], ..IntensityConfig::default() };
            let baseline = Baseline { config: &config, scan: &scan, organ: &liver(), median_hu: None };
            baseline.ring(&candidate(&scan)).count
        };
        // Within 1 mm: the voxels that share a face in the plane, 4 × 3 sides (the edge is on the fourth) × 2 slices.
        assert_eq!(ring(1.0), 24);
        assert!(ring(5.0) > 3 * ring(2.0));
    }

    #[test]
    fn organ_outside_reference_range_has_deviation() {
        let scan = scan();
        let reference_hu = BTreeMap::from([("liver".to_owned(), [150.0, 200.0])]);
        let stage = Intensity::new(IntensityConfig { reference_hu, ..Default::default() }, &[liver()]).unwrap();
        let mut scores = Scores::default();
        stage.baseline(&scan, &liver()).unwrap().score(&candidate(&scan), &mut scores).unwrap();
        let median = scores.get(Score::OrganMedianHu).unwrap();
        assert_eq!(scores.get(Score::OrganHuDeviation), Some(150.0 - median));
    }

    #[test]
    fn new_reports_all_errors_at_once() {
        let config = IntensityConfig {
            ring_mm: [5.0, 2.0],
            visible_hu: f64::NAN,
            reference_hu: BTreeMap::from([("spleen".into(), [3.0, 1.0])]),
            tumor_hu: BTreeMap::from([(
                "spleen".into(),
                TumorHuRange { min_hu: 0.0, max_darker_hu: -1.0, max_brighter_hu: 10.0 },
            )]),
        };
        let errors = Intensity::new(config, &[liver()]).unwrap_err();
        assert_eq!(errors.len(), 6, "{errors:?}");
    }
}
