//! The composition of several tumors with disjoint supports.

use super::{ChangedBox, Overlay, support};
use crate::volume::{Array3, Region};

/// Tumors of one scan with disjoint supports.
///
/// Whether a tumor is added depends on the tumors added before it, so tumors are added in the order of their keys. The voxels of the
/// result do not depend on the order of the added tumors: each voxel is that of the only tumor whose support contains it, or that of the
/// scan.
pub struct Composition<'scan> {
    labels: &'scan Array3<u8>,
    tumors: Vec<(ChangedBox, Array3<u8>)>,
}

impl<'scan> Composition<'scan> {
    /// Creates an empty composition; `labels` are the merged labels of the whole scan.
    pub fn new(labels: &'scan Array3<u8>) -> Self {
        Self { labels, tumors: Vec::new() }
    }

    /// Adds a tumor that was made alone on the unchanged scan, and returns true; returns false and leaves the tumor out if its support
    /// overlaps that of an added tumor. The box must be inside the scan.
    pub fn add(&mut self, tumor: ChangedBox) -> bool {
        let own = support(Overlay::from(&tumor), self.labels);
        let overlaps = |(other, support): &(ChangedBox, Array3<u8>)| {
            voxels_in_both(tumor.region, other.region).any(|[here, there]| own[here] != 0 && support[there] != 0)
        };
        if self.tumors.iter().any(overlaps) {
            return false;
        }
        self.tumors.push((tumor, own));
        true
    }

    /// Returns the boxes of the tumors, in the order in which they were added. Every box has the composed voxels of all tumors.
    pub fn into_boxes(mut self) -> Vec<ChangedBox> {
        for to in 0..self.tumors.len() {
            for from in (0..self.tumors.len()).filter(|from| *from != to) {
                for [here, there] in voxels_in_both(self.tumors[to].0.region, self.tumors[from].0.region) {
                    let (other, support) = &self.tumors[from];
                    // A voxel in the support of the other tumor is not in the support of this one, and no later step changes it there.
                    if support[there] != 0 {
                        let (hu, label) = (other.after[there], other.labels[there]);
                        let own = &mut self.tumors[to].0;
                        (own.after[here], own.labels[here]) = (hu, label);
                    }
                }
            }
        }
        self.tumors.into_iter().map(|(tumor, _)| tumor).collect()
    }
}

/// Iterates over the voxels that two boxes share: the index of each voxel in the first and in the second box.
fn voxels_in_both(first: Region, second: Region) -> impl Iterator<Item = [[usize; 3]; 2]> {
    let low = [0, 1, 2].map(|axis| first.start[axis].max(second.start[axis]));
    let high = [0, 1, 2].map(|axis| first.end()[axis].min(second.end()[axis]).max(low[axis]));
    let at = move |region: Region, voxel: [usize; 3]| [0, 1, 2].map(|axis| voxel[axis] - region.start[axis]);
    (low[2]..high[2]).flat_map(move |z| {
        (low[1]..high[1])
            .flat_map(move |y| (low[0]..high[0]).map(move |x| [at(first, [x, y, z]), at(second, [x, y, z])]))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compose::{digest, overlays};

    const SHAPE: [usize; 3] = [12, 10, 8];

    /// Returns the HU and merged labels of a scan with a real tumor of label 2.
    fn scan() -> (Array3<f32>, Array3<u8>) {
        let hu = Array3::from_fn(SHAPE, |[x, y, z]| (100 + 7 * x + 3 * y + z) as f32);
        (hu, Array3::from_fn(SHAPE, |[x, y, _]| if x == 0 && y == 0 { 2 } else { u8::from(x < 9) }))
    }

    /// Returns a tumor whose HU change in a ball, and whose labels change in a smaller ball.
    fn tumor([centre, start, end]: [[usize; 3]; 3], radius: f64) -> ChangedBox {
        let (hu, labels) = scan();
        let start = [0, 1, 2].map(|axis| start[axis].min(centre[axis]));
        let end = [0, 1, 2].map(|axis| end[axis].max(centre[axis]) + 1);
        let region = Region { start, shape: [0, 1, 2].map(|axis| end[axis] - start[axis]) };
        let before = hu.cut(region);
        let (mut after, mut labels) = (before.clone(), labels.cut(region));
        for [voxel, _] in voxels_in_both(region, region) {
            let distance = |axis: usize| (voxel[axis] + start[axis]) as f64 - centre[axis] as f64;
            let squared: f64 = (0..3).map(|axis| distance(axis).powi(2)).sum();
            if squared <= radius * radius {
                after[voxel] -= 30.0;
                if labels[voxel] == 1 && squared <= radius {
                    labels[voxel] = 2;
                }
            }
        }
        ChangedBox { region, before, after, labels }
    }

    fn tumors() -> impl Strategy<Value = Vec<ChangedBox>> {
        let voxel = || (0..SHAPE[0], 0..SHAPE[1], 0..SHAPE[2]).prop_map(|(x, y, z)| [x, y, z]);
        let tumor = ([voxel(), voxel(), voxel()], 0.5..3.5f64).prop_map(|(voxels, radius)| tumor(voxels, radius));
        proptest::collection::vec(tumor, 1..6)
    }

    /// Returns the tumors that fit, with the composition of them.
    fn composed(tumors: &[ChangedBox]) -> (Vec<ChangedBox>, Vec<ChangedBox>) {
        let (_, labels) = scan();
        let mut composition = Composition::new(&labels);
        let added = tumors.iter().filter(|tumor| composition.add((*tumor).clone())).cloned().collect();
        (added, composition.into_boxes())
    }

    fn paste<'a>(boxes: impl IntoIterator<Item = &'a ChangedBox>) -> (Array3<f32>, Array3<u8>) {
        let (mut hu, mut labels) = scan();
        for ChangedBox { region, after, labels: changed, .. } in boxes {
            hu.paste(region.start, after);
            labels.paste(region.start, changed);
        }
        (hu, labels)
    }

    proptest! {
        #[test]
        fn order_of_tumors_and_boxes_does_not_change_voxels(tumors in tumors(), order in any::<[usize; 6]>()) {
            let (added, boxes) = composed(&tumors);
            prop_assert!(!added.is_empty() && added.len() == boxes.len());
            let expected = paste(&boxes);
            prop_assert_eq!(&expected, &paste(boxes.iter().rev()));
            // The added tumors have disjoint supports: every one of them is added in any other order.
            let mut others = added.clone();
            others.sort_by_key(|tumor| order[tumor.region.start[0] % 6].wrapping_mul(tumor.region.start[1] + 1));
            let (again, reordered) = composed(&others);
            prop_assert_eq!(again.len(), added.len());
            prop_assert_eq!(&expected, &paste(&reordered));
            for changed in &reordered {
                prop_assert!(boxes.contains(changed), "a box has the same voxels in any order");
            }
        }

        #[test]
        fn every_voxel_is_that_of_one_tumor_or_of_the_scan(tumors in tumors()) {
            let ((hu, labels), (added, boxes)) = (scan(), composed(&tumors));
            let (composed_hu, composed_labels) = paste(&boxes);
            for [voxel, _] in voxels_in_both(hu.region(), hu.region()) {
                let changing = added.iter().filter_map(|tumor| {
                    let inside = tumor.region.contains(voxel);
                    let at = inside.then(|| [0, 1, 2].map(|axis| voxel[axis] - tumor.region.start[axis]))?;
                    (support(tumor.into(), &labels)[at] != 0).then(|| (tumor.after[at], tumor.labels[at]))
                });
                let values: Vec<_> = changing.collect();
                prop_assert!(values.len() < 2);
                let expected = values.first().copied().unwrap_or((hu[voxel], labels[voxel]));
                prop_assert_eq!((composed_hu[voxel], composed_labels[voxel]), expected);
            }
            prop_assert_eq!(composed_labels[[0, 0, 4]], 2, "a real tumor keeps its label");
        }
    }

    #[test]
    fn overlapping_tumor_is_left_out() {
        let [first, second, third] = [[2, 2, 2], [4, 2, 2], [8, 7, 5]]
            .map(|centre: [usize; 3]| tumor([centre, centre.map(|i| i.saturating_sub(2)), centre.map(|i| i + 2)], 1.5));
        let (_, labels) = scan();
        let mut composition = Composition::new(&labels);
        assert!(composition.add(first.clone()));
        assert!(!composition.add(second), "expected supports with a common voxel");
        assert!(composition.add(third.clone()));
        let boxes = composition.into_boxes();
        assert_eq!(boxes, [first, third]);
        let [one, two] = [&boxes[..1], &boxes[1..]].map(|boxes| digest(&overlays(boxes)));
        assert!(one != two && digest(&overlays(&boxes)) != one && digest(&[]) != one);
    }
}
