//! The samples that a synthesis stage makes of each scan: how many, with which tumors, and which scans are negatives.

use super::plan::SynthesisNode;
use crate::id::{FieldHasher, MaskDigest, SampleId, ScanDigest};
use crate::mask::Organ;
use crate::random::Key;

/// A tumor that a synthesis stage makes in a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TumorRequest {
    /// The index of the tumor in its organ, or of the sample among those of the scan if samples have several tumors.
    pub variant: u32,
    /// The index of the tumor among those of its sample.
    pub tumor_id: u32,
    /// Index into the organs of the scan.
    pub organ: usize,
    /// The index of the tumor among those of its sample in this organ.
    pub number: u32,
}

impl SynthesisNode {
    /// Returns the tumors to be made in a scan with these organs. If samples have several tumors, `tumor_id` numbers the tumors of a
    /// sample in the order of their keys: by the name of the organ, then by number. The result does not depend on the order of `organs`,
    /// except for the indices into `organs` and the order of the list.
    pub fn requests(&self, seed: u64, scan_digest: ScanDigest, organs: &[&Organ]) -> Vec<TumorRequest> {
        let Some(numbers) = &self.numbers else {
            let of_organ =
                |organ| (0..self.variants).map(move |variant| TumorRequest { variant, tumor_id: 0, organ, number: 0 });
            return (0..organs.len()).flat_map(of_organ).collect();
        };
        let names: Vec<&str> = organs.iter().map(|organ| organ.name.as_str()).collect();
        let mut by_name: Vec<usize> = (0..organs.len()).collect();
        by_name.sort_by_key(|&organ| names[organ]);
        let mut requests = Vec::new();
        for variant in 0..self.variants {
            let key = Key::root(seed)
                .with("stage", &self.digests.random.to_string())
                .with("scan", &scan_digest.to_string())
                .number("variant", u64::from(variant));
            let drawn = numbers.draw(key, &names);
            let tumors = by_name.iter().flat_map(|&organ| (0..drawn[organ]).map(move |number| (organ, number)));
            let request = |(tumor_id, (organ, number))| TumorRequest { variant, tumor_id, organ, number };
            requests.extend((0..).zip(tumors).map(request));
        }
        requests
    }

    /// Returns the mean number of samples and of requested tumors of a scan with these organs, without negatives.
    pub fn mean_numbers(&self, organs: &[&Organ]) -> (f64, f64) {
        let variants = f64::from(self.variants);
        match &self.numbers {
            None => (variants * organs.len() as f64, variants * organs.len() as f64),
            Some(_) if organs.is_empty() => (0.0, 0.0),
            Some(numbers) => {
                let names: Vec<&str> = organs.iter().map(|organ| organ.name.as_str()).collect();
                (variants, variants * numbers.mean(&names))
            }
        }
    }

    /// Returns whether a scan is a negative too. The choice depends on seed and scan alone; a larger share keeps the scans of a smaller
    /// one.
    pub fn is_negative(&self, seed: u64, scan_digest: ScanDigest) -> bool {
        Key::root(seed).with("scan", &scan_digest.to_string()).stream("negative").chance(self.negatives)
    }

    /// Returns the id of a negative. The organs of the stage are part of the id, so that two stages that differ only in their organs have
    /// different negatives.
    pub fn negative_id(&self, scan_digest: ScanDigest, mask_digest: MaskDigest) -> SampleId {
        let hash = FieldHasher::new("negative")
            .add_field(self.digests.results.as_bytes())
            .add_field(scan_digest.as_bytes())
            .add_field(mask_digest.as_bytes());
        let mut organs: Vec<&str> = self.organs.iter().map(|organ| organ.name.as_str()).collect();
        organs.sort_unstable();
        SampleId::from_hash(&organs.into_iter().fold(hash, FieldHasher::add_field).finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::{GraphFile, Plan, Registry, check};
    use crate::synth::{RealNumbers, TumorNumbers, TumorsPerScan};

    fn plan(settings: &str) -> Plan {
        let text = format!(
            r#"
            [pipeline]
            name = "requests"
            [sources.phantoms]
            kind = "phantom"
            count = 1
            body = "abdomen"
            [stages.organs]
            kind = "labels"
            inputs = ["phantoms"]
            scheme = "totalsegmentator"
            organs = ["liver", "kidney"]
            [stages.tumors]
            kind = "rules"
            inputs = ["organs"]
            {settings}
            [stages.contrast]
            kind = "intensity"
            inputs = ["tumors"]
            [stages.test]
            kind = "quality-test"
            inputs = ["contrast"]
            accept = ["delta_hu < -10"]
            "#
        );
        let checked = check(&GraphFile::new("test.toml", std::path::Path::new("."), text), &Registry::standard());
        checked.plan.unwrap_or_else(|| panic!("{:?}", checked.problems))
    }

    fn digest(number: u8) -> ScanDigest {
        ScanDigest::from_bytes([number; 32])
    }

    #[test]
    fn every_tumor_is_a_sample_by_default() {
        let plan = plan("variants = 2");
        let synthesis = &plan.syntheses[0];
        let organs: Vec<&Organ> = synthesis.organs.iter().collect();
        let requests = synthesis.requests(1, digest(0), &organs);
        assert_eq!(requests.len(), 4);
        assert!(requests.iter().all(|request| request.tumor_id == 0 && request.number == 0));
        assert!(!synthesis.is_negative(1, digest(0)));
    }

    #[test]
    fn order_of_organs_does_not_change_tumors() {
        let plan = plan("variants = 3\ntumors_per_scan = [1, 5]");
        let synthesis = &plan.syntheses[0];
        let mut organs: Vec<&Organ> = synthesis.organs.iter().collect();
        let tumors = |organs: &[&Organ]| -> BTreeMap<(u32, u32), (String, u32)> {
            let requests = synthesis.requests(1, digest(7), organs).into_iter();
            let tumor = |request: TumorRequest| (organs[request.organ].name.clone(), request.number);
            requests.map(|request| ((request.variant, request.tumor_id), tumor(request))).collect()
        };
        let own = tumors(&organs);
        organs.reverse();
        assert_eq!(tumors(&organs), own);
        let names: Vec<&(String, u32)> = own.range((0, 0)..(1, 0)).map(|(_, tumor)| tumor).collect();
        assert!(names.is_sorted(), "expected tumors in the order of their keys, got {names:?}");
        assert_eq!(own.keys().map(|(variant, _)| variant).max(), Some(&2));
    }

    #[test]
    fn negatives_of_a_smaller_share_are_negatives_of_a_larger_share() {
        let (few, many) = (plan("negatives = 0.2"), plan("negatives = 0.5"));
        let chosen = |plan: &Plan| -> Vec<u8> {
            (0..=255).filter(|&number| plan.syntheses[0].is_negative(3, digest(number))).collect()
        };
        let (few, many) = (chosen(&few), chosen(&many));
        assert!((36..70).contains(&few.len()) && (105..151).contains(&many.len()), "{} {}", few.len(), many.len());
        assert!(few.iter().all(|number| many.contains(number)));
        assert!(chosen(&plan("negatives = 1.0")).len() == 256);
    }

    #[test]
    fn first_tumor_in_an_organ_has_the_identity_of_a_separate_sample() {
        let plan = plan("tumors_per_scan = \"as-real\"");
        let synthesis = &plan.syntheses[0];
        let real = TumorNumbers::new(TumorsPerScan::Real(RealNumbers::AsReal), &BTreeMap::new());
        assert_eq!(synthesis.numbers, Some(real));
        let mask = MaskDigest::from_bytes([1; 32]);
        let tumor = synthesis.tumor(1, digest(1), mask, &synthesis.organs[0], 0);
        assert_eq!((tumor.numbered(0).sample_id(0), tumor.numbered(0).key()), (tumor.sample_id(0), tumor.key()));
        assert_ne!(tumor.numbered(1).sample_id(0), tumor.sample_id(0));
        assert_ne!(tumor.numbered(1).key(), tumor.key());
    }
}
