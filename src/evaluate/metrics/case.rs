//! All measures of one case: one prediction compared with its ground truth.

use serde::{Deserialize, Serialize};

use super::lesions::{LesionMatch, match_lesions};
use super::overlap::{dice, surface_dice, tolerance_mm};
use crate::mask::{BitVolume, IGNORE_LABEL};
use crate::volume::{Array3, Labels};

/// An organ whose tumors are measured, by the ids of label maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MeasuredOrgan {
    /// The name in tables.
    pub name: String,
    /// The id of the healthy organ, if the label maps have one. The organ includes its tumors.
    pub organ_id: Option<u16>,
    /// The id of the tumors.
    pub tumor_id: u16,
}

/// The measures of one organ of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseMeasures {
    /// Dice of the organ with its tumors; `None` if neither ground truth nor prediction contains the organ, or the organ has no id.
    pub organ_dice: Option<f64>,
    /// Dice of the tumors; `None` if neither ground truth nor prediction has a tumor.
    pub tumor_dice: Option<f64>,
    /// Surface Dice of the tumors at [`tolerance_mm`]; `None` if neither ground truth nor prediction has a tumor.
    pub tumor_nsd: Option<f64>,
    /// The tolerance of the surface Dice.
    pub tolerance_mm: f64,
    /// The tumor volume in the ground truth.
    pub truth_mm3: f64,
    /// The tumor volume in the prediction.
    pub predicted_mm3: f64,
    /// The matches of lesions.
    pub found: LesionMatch,
}

impl CaseMeasures {
    /// Returns whether the ground truth has no tumor.
    pub fn is_healthy(&self) -> bool {
        self.found.lesions.is_empty()
    }
}

/// Measures the tumors of `organ` in a prediction on the grid of the ground truth.
///
/// Voxels of [`IGNORE_LABEL`] in the ground truth do not count, unless that is an id of the organ: a prediction there is neither right
/// nor a false positive.
///
/// Surfaces and overlaps are computed in the bounding box of both tumors, so that the cost depends on the tumors and not on the scan.
///
/// # Shapes
/// `prediction` has as many voxels as the ground truth.
///
/// # Panics
/// Panics if the prediction has another shape.
///
/// ```
/// use freetumor::evaluate::metrics::{MeasuredOrgan, measure};
/// use freetumor::volume::{Affine, Array3, Grid, Labels};
/// let grid = Grid { shape: [12, 12, 12], affine: Affine::from_spacing([2.0; 3]) };
/// let ids = Array3::from_fn(grid.shape, |[x, y, z]| if x < 4 && y < 4 && z < 4 { 2 } else { 1 });
/// let truth = Labels { grid, ids };
/// let liver = MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 };
/// let none = measure(&truth, &Array3::filled(grid.shape, 1), &liver);
/// assert_eq!((none.tumor_dice, none.organ_dice, none.found.lesions[0].is_found), (Some(0.0), Some(1.0), false));
/// assert_eq!(measure(&truth, &truth.ids, &liver).tumor_nsd, Some(1.0));
/// ```
pub fn measure(truth: &Labels, prediction: &Array3<u16>, organ: &MeasuredOrgan) -> CaseMeasures {
    assert_eq!(truth.ids.shape(), prediction.shape(), "the prediction is on the grid of the ground truth");
    let ignored = u16::from(IGNORE_LABEL);
    if organ.organ_id != Some(ignored) && organ.tumor_id != ignored && truth.ids.as_slice().contains(&ignored) {
        let ids = prediction.as_slice().iter().zip(truth.ids.as_slice());
        let known = ids.map(|(id, truth)| if *truth == ignored { ignored } else { *id }).collect();
        return measure_known(truth, &Array3::from_vec(prediction.shape(), known), organ);
    }
    measure_known(truth, prediction, organ)
}

/// Measures a prediction in which every ignored voxel has an id that is not measured.
fn measure_known(truth: &Labels, prediction: &Array3<u16>, organ: &MeasuredOrgan) -> CaseMeasures {
    let is_tumor = |id: &u16| *id == organ.tumor_id;
    let spacing_mm = truth.grid.spacing_mm();
    let tolerance_mm = tolerance_mm(spacing_mm);
    let organ_dice = organ.organ_id.and_then(|organ_id| {
        let inside = |id: &u16| *id == organ_id || is_tumor(id);
        let pairs = truth.ids.as_slice().iter().zip(prediction.as_slice());
        let [mut both, mut sum] = [0u64; 2];
        for (truth, prediction) in pairs {
            let (a, b) = (inside(truth), inside(prediction));
            both += u64::from(a && b);
            sum += u64::from(a) + u64::from(b);
        }
        (sum > 0).then(|| 2.0 * both as f64 / sum as f64)
    });
    let boxes = [truth.ids.bounds_of(is_tumor), prediction.bounds_of(is_tumor)];
    let Some(region) = boxes.into_iter().flatten().reduce(|region, other| region.union(&other)) else {
        let found = LesionMatch::default();
        let nothing = (None, None, 0.0, 0.0);
        let (tumor_dice, tumor_nsd, truth_mm3, predicted_mm3) = nothing;
        return CaseMeasures { organ_dice, tumor_dice, tumor_nsd, tolerance_mm, truth_mm3, predicted_mm3, found };
    };
    let set = |ids: &Array3<u16>| {
        let [x0, y0, z0] = region.start;
        BitVolume::from_fn(region.shape, |[x, y, z]| is_tumor(&ids[[x0 + x, y0 + y, z0 + z]]))
    };
    let (of_truth, predicted) = (set(&truth.ids), set(prediction));
    let voxel_mm3 = truth.grid.voxel_volume_mm3();
    CaseMeasures {
        organ_dice,
        tumor_dice: dice(&of_truth, &predicted),
        tumor_nsd: surface_dice(&of_truth, &predicted, spacing_mm, tolerance_mm),
        tolerance_mm,
        truth_mm3: of_truth.count() as f64 * voxel_mm3,
        predicted_mm3: predicted.count() as f64 * voxel_mm3,
        found: match_lesions(&of_truth, &predicted, &truth.grid.cut(region)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::volume::{Affine, Grid};

    #[test]
    fn measures_do_not_depend_on_bounding_box() {
        let grid = Grid { shape: [40, 30, 20], affine: Affine::from_spacing([1.0, 1.3, 2.6]) };
        let mut random = Key::root(12).stream("blobs");
        let mut blobs = || {
            let seeds = BitVolume::from_fn([40, 30, 20], |[x, y, z]| {
                (12..30).contains(&x) && (9..20).contains(&y) && (6..14).contains(&z) && random.chance(0.004)
            });
            seeds.dilated(3.0, grid.spacing_mm())
        };
        let (a, b) = (blobs(), blobs());
        let ids = |set: &BitVolume| Array3::from_fn(grid.shape, |voxel| if set.contains(voxel) { 7 } else { 0u16 });
        let organ = MeasuredOrgan { name: "lesion".into(), organ_id: None, tumor_id: 7 };
        let measures = measure(&Labels { grid, ids: ids(&a) }, &ids(&b), &organ);
        let whole = match_lesions(&a, &b, &grid);
        assert!(whole.lesions.len() > 1 && measures.organ_dice.is_none());
        assert_eq!(measures.tumor_dice, dice(&a, &b));
        assert_eq!(measures.tumor_nsd, surface_dice(&a, &b, grid.spacing_mm(), 2.6));
        let close = |(a, b): (&super::super::Lesion, &super::super::Lesion)| {
            a.voxels == b.voxels && (0..3).all(|k| (a.center_mm[k] - b.center_mm[k]).abs() < 1e-9)
        };
        assert!(whole.lesions.iter().zip(&measures.found.lesions).all(close));
        assert_eq!(whole.false_positives_mm3, measures.found.false_positives_mm3);
    }

    #[test]
    fn ignored_voxels_are_neither_true_nor_false_positives() {
        let grid = Grid { shape: [20, 10, 10], affine: Affine::from_spacing([2.0; 3]) };
        // A tumor at the left, and voxels without a known label at the right.
        let ids = Array3::from_fn(grid.shape, |[x, ..]| match x {
            2..6 => 2,
            12..18 => u16::from(IGNORE_LABEL),
            _ => 1,
        });
        let truth = Labels { grid, ids };
        let liver = MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 };
        let predicted = |right: u16| {
            Array3::from_fn(grid.shape, |[x, ..]| match x {
                2..6 => 2,
                12..18 => right,
                _ => 1,
            })
        };
        let measures = measure(&truth, &predicted(2), &liver);
        assert_eq!((measures.tumor_dice, measures.organ_dice), (Some(1.0), Some(1.0)));
        assert!(measures.found.false_positives_mm3.is_empty() && measures.predicted_mm3 == measures.truth_mm3);
        assert_eq!(measure(&truth, &predicted(1), &liver), measures);
        // An id that is measured is not ignored.
        let binary = MeasuredOrgan { name: "lesion".into(), organ_id: None, tumor_id: IGNORE_LABEL.into() };
        assert_eq!(measure(&truth, &truth.ids, &binary).tumor_dice, Some(1.0));
    }

    #[test]
    fn dice_without_tumors_is_undefined() {
        let grid = Grid { shape: [5; 3], affine: Affine::from_spacing([1.0; 3]) };
        let truth = Labels { grid, ids: Array3::filled([5; 3], 1) };
        let organ = MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 };
        let measures = measure(&truth, &truth.ids, &organ);
        assert!(measures.is_healthy());
        assert_eq!((measures.tumor_dice, measures.tumor_nsd, measures.organ_dice), (None, None, Some(1.0)));
    }
}
