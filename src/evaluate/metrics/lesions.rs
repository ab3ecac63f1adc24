//! The matches of lesions: found lesions by size, and false positives.

use serde::{Deserialize, Serialize};

use crate::mask::BitVolume;
use crate::volume::{Connectivity, Grid};

/// The minimum share of a lesion's voxels that must be predicted for the lesion to be found.
pub const FOUND_FRACTION: f64 = 0.1;
/// The maximum volume of a predicted component that touches no lesion and is ignored as noise; larger components are false positives.
pub const FALSE_POSITIVE_MM3: f64 = 30.0;
/// The minimum diameter of a measurable lesion, in voxels.
pub const MIN_VOXELS_ACROSS: f64 = 3.0;

/// A range of equivalent diameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DiameterBin {
    /// Below 5 mm.
    #[serde(rename = "<5")]
    Below5,
    /// From 5 to below 10 mm.
    #[serde(rename = "5-10")]
    From5,
    /// From 10 to below 15 mm.
    #[serde(rename = "10-15")]
    From10,
    /// From 15 to below 20 mm.
    #[serde(rename = "15-20")]
    From15,
    /// 20 mm and more.
    #[serde(rename = ">=20")]
    From20,
}

impl DiameterBin {
    /// All bins, smallest first.
    pub const ALL: [Self; 5] = [Self::Below5, Self::From5, Self::From10, Self::From15, Self::From20];

    /// Returns the bin of a diameter.
    ///
    /// ```
    /// use freetumor::evaluate::metrics::DiameterBin;
    /// assert_eq!(DiameterBin::of(4.99), DiameterBin::Below5);
    /// assert_eq!(DiameterBin::of(15.0), DiameterBin::From15);
    /// ```
    pub fn of(diameter_mm: f64) -> Self {
        Self::ALL.into_iter().find(|bin| diameter_mm < bin.end_mm()).unwrap_or(Self::From20)
    }

    /// Returns the exclusive upper bound of the diameter.
    pub fn end_mm(self) -> f64 {
        match self {
            Self::Below5 => 5.0,
            Self::From5 => 10.0,
            Self::From10 => 15.0,
            Self::From15 => 20.0,
            Self::From20 => f64::INFINITY,
        }
    }

    /// Returns the name in tables and plots, in mm.
    pub fn name(self) -> &'static str {
        match self {
            Self::Below5 => "<5",
            Self::From5 => "5-10",
            Self::From10 => "10-15",
            Self::From15 => "15-20",
            Self::From20 => ">=20",
        }
    }

    /// Returns whether lesions of this bin can be three voxels across, along the coarsest axis.
    ///
    /// ```
    /// use freetumor::evaluate::metrics::DiameterBin;
    /// assert!(!DiameterBin::Below5.is_measurable([2.0, 2.0, 2.0]));
    /// assert!(DiameterBin::From5.is_measurable([2.0, 2.0, 2.0]));
    /// assert!(!DiameterBin::From10.is_measurable([0.8, 0.8, 5.0]));
    /// ```
    pub fn is_measurable(self, spacing_mm: [f64; 3]) -> bool {
        self.end_mm() > MIN_VOXELS_ACROSS * spacing_mm.into_iter().fold(0.0, f64::max)
    }
}

/// A 26-connected component of the ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lesion {
    /// The number of voxels.
    pub voxels: u64,
    /// The volume.
    pub volume_mm3: f64,
    /// The diameter of a ball of the same volume.
    pub diameter_mm: f64,
    /// The bin of the diameter.
    pub bin: DiameterBin,
    /// Whether lesions of the bin are measurable on the grid.
    pub is_measurable: bool,
    /// The centre of the voxels, RAS+ mm.
    pub center_mm: [f64; 3],
    /// The share of the voxels that are predicted.
    pub covered_fraction: f64,
    /// Whether the covered fraction is at least [`FOUND_FRACTION`].
    pub is_found: bool,
}

/// The lesions and the false positives of one case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LesionMatch {
    /// The lesions, in memory order of their first voxels.
    pub lesions: Vec<Lesion>,
    /// Volumes of the predicted components that share no voxel with any lesion and are over 30 mm³, in memory order.
    pub false_positives_mm3: Vec<f64>,
}

/// Matches predicted voxels with the lesions of the ground truth.
///
/// # Shapes
/// Both sets have the shape of the grid.
///
/// # Source
/// Lesion-wise detection as in LiTS (Bilic et al., *Medical Image Analysis* 84, 102680, 2023), with a minimum coverage of 10%.
///
/// ```
/// use freetumor::mask::BitVolume;
/// use freetumor::evaluate::metrics::match_lesions;
/// use freetumor::volume::{Affine, Grid};
/// let grid = Grid { shape: [30, 10, 10], affine: Affine::from_spacing([2.0; 3]) };
/// let block = |[x, y, z]: [usize; 3], at: usize| (at..at + 4).contains(&x) && y < 4 && z < 4;
/// let truth = BitVolume::from_fn(grid.shape, |voxel| block(voxel, 0) || block(voxel, 10));
/// let prediction = BitVolume::from_fn(grid.shape, |voxel| block(voxel, 2) || block(voxel, 20));
/// let found = match_lesions(&truth, &prediction, &grid);
/// assert_eq!(found.lesions.iter().map(|lesion| lesion.is_found).collect::<Vec<_>>(), [true, false]);
/// assert_eq!(found.lesions[0].covered_fraction, 0.5);
/// assert_eq!(found.false_positives_mm3, [512.0]);
/// ```
pub fn match_lesions(truth: &BitVolume, prediction: &BitVolume, grid: &Grid) -> LesionMatch {
    let (voxel_mm3, spacing_mm) = (grid.voxel_volume_mm3(), grid.spacing_mm());
    let lesions = count_components(truth, prediction).into_iter().map(|counts| {
        let voxels = counts.voxels as f64;
        let volume_mm3 = voxels * voxel_mm3;
        let diameter_mm = libm::cbrt(6.0 * volume_mm3 / std::f64::consts::PI);
        let bin = DiameterBin::of(diameter_mm);
        let covered_fraction = counts.common as f64 / voxels;
        Lesion {
            voxels: counts.voxels,
            volume_mm3,
            diameter_mm,
            bin,
            is_measurable: bin.is_measurable(spacing_mm),
            center_mm: grid.affine.apply(counts.sums.map(|sum| sum / voxels)),
            covered_fraction,
            is_found: covered_fraction >= FOUND_FRACTION,
        }
    });
    let lesions = lesions.collect();
    let outside = count_components(prediction, truth).into_iter().filter(|counts| counts.common == 0);
    let volumes = outside.map(|counts| counts.voxels as f64 * voxel_mm3);
    LesionMatch { lesions, false_positives_mm3: volumes.filter(|mm3| *mm3 > FALSE_POSITIVE_MM3).collect() }
}

/// The counts of one connected component.
#[derive(Clone, Default)]
struct ComponentCounts {
    voxels: u64,
    /// Voxels that are also in the other set.
    common: u64,
    /// Sums of voxel indices.
    sums: [f64; 3],
}

fn count_components(set: &BitVolume, other: &BitVolume) -> Vec<ComponentCounts> {
    let components = set.components(Connectivity::Corners);
    let mut all = vec![ComponentCounts::default(); components.count()];
    for run in components.runs() {
        let counts = &mut all[run.component];
        let length = (run.end - run.start) as f64;
        counts.voxels += (run.end - run.start) as u64;
        counts.common += (run.start..run.end).filter(|x| other.contains([*x, run.y, run.z])).count() as u64;
        let middle = [0.5 * (run.start + run.end - 1) as f64, run.y as f64, run.z as f64];
        counts.sums.iter_mut().zip(middle).for_each(|(sum, position)| *sum += length * position);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    fn grid(spacing_mm: f64) -> Grid {
        Grid { shape: [24, 12, 12], affine: Affine::from_spacing([spacing_mm; 3]) }
    }

    #[test]
    fn lesion_is_found_from_ten_percent_coverage() {
        let truth = BitVolume::from_fn([24, 12, 12], |[x, y, z]| x < 20 && y == 3 && z == 3);
        let is_found = |voxels: usize| {
            let prediction = BitVolume::from_fn([24, 12, 12], |[x, y, z]| x < voxels && y == 3 && z == 3);
            match_lesions(&truth, &prediction, &grid(2.0)).lesions[0].is_found
        };
        assert!(is_found(2) && !is_found(1));
    }

    #[test]
    fn match_lesions_connects_corners_and_ignores_small_components() {
        let corner = BitVolume::from_fn([24, 12, 12], |voxel| voxel == [4, 4, 4] || voxel == [5, 5, 5]);
        let empty = BitVolume::empty([24, 12, 12]);
        let found = match_lesions(&corner, &empty, &grid(2.0));
        assert_eq!(found.lesions.len(), 1);
        assert_eq!(found.lesions[0].center_mm, [9.0; 3]);
        let volumes = |spacing| match_lesions(&empty, &corner, &grid(spacing)).false_positives_mm3;
        assert_eq!(volumes(2.0), [] as [f64; 0], "16 mm3");
        assert_eq!(volumes(3.0), [54.0]);
    }

    #[test]
    fn diameter_is_that_of_ball_of_equal_volume() {
        let ball = BitVolume::from_fn([40, 40, 40], |voxel| {
            voxel.iter().map(|i| (*i as f64 - 19.5).powi(2)).sum::<f64>() <= 81.0
        });
        let grid = Grid { shape: [40; 3], affine: Affine::from_spacing([1.0; 3]) };
        let lesion = match_lesions(&ball, &ball, &grid).lesions[0];
        assert!((lesion.diameter_mm - 18.0).abs() < 0.15, "{lesion:?}");
        assert_eq!((lesion.bin, lesion.covered_fraction), (DiameterBin::From15, 1.0));
    }
}
