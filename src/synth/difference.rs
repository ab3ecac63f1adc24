//! Difference maps: those of the reference, which are one number, and the interface of maps by a network.
//!
//! A difference is the share of the window's width by which the blend darkens voxels whose shape and texture are 1.

use crate::error::Fault;
use crate::random::RandomStream;
use crate::volume::{Array3, Region};

/// The mean of the textures. Differences are divided by it, so that contrasts are means in HU.
pub const TEXTURE_MEAN: f32 = 0.525;

/// A source of difference maps for one organ of one scan, which replaces the rules.
pub(super) trait DifferenceMaps: Send + Sync {
    /// Returns the smoothed map in the box `region` of the scan's grid. `site_box` is the box of all tumors of the site; `random` is used
    /// for the variation between attempts.
    ///
    /// # Errors
    /// A fault of stage `synthesize`.
    fn difference(&self, random: &mut RandomStream, site_box: Region, region: Region) -> Result<Array3<f32>, Fault>;

    /// Returns whether necrotic cores and rims must be added to the map.
    fn needs_structure(&self) -> bool;
}

/// A difference map with the change of HU that was sampled for the tumor.
pub(super) struct SampledDifference {
    /// The difference map.
    pub difference: Array3<f32>,
    /// The change of HU before texture and soft edge; negative if the tumor is darker than the organ.
    pub contrast_hu: f64,
}

/// Samples the difference by the rule of the reference: one value for the whole tumor, which darkens an abdominal organ and brightens a
/// lung.
pub(super) fn constant(
    random: &mut RandomStream,
    shape: [usize; 3],
    brightens: bool,
    width_hu: f32,
) -> SampledDifference {
    let share = random.uniform(0.2, 0.7) as f32;
    let share = if brightens { -share } else { share };
    SampledDifference {
        difference: Array3::filled(shape, share),
        contrast_hu: -f64::from(share * TEXTURE_MEAN * width_hu),
    }
}

/// Samples a mean change from a range in HU.
pub(super) fn fixed(
    random: &mut RandomStream,
    shape: [usize; 3],
    change_hu: [f64; 2],
    width_hu: f32,
) -> SampledDifference {
    let contrast_hu = random.uniform(change_hu[0], change_hu[1]);
    let difference = -contrast_hu as f32 / (TEXTURE_MEAN * width_hu);
    SampledDifference { difference: Array3::filled(shape, difference), contrast_hu }
}
