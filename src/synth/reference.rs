//! Tumors as in the reference code of FreeTumor: the shape is clipped to the organ before its edge is softened, the difference is one
//! number.

use super::blend::{blend, smooth_difference, tumor_of};
use super::classes::CLASS_VOXEL_MM;
use super::config::Sites;
use super::difference::{SampledDifference, constant, fixed};
use super::domain::{Limits, touches_tumor};
use super::profile::TRUNCATE;
use super::shape::RasterizedShape;
use super::tumor::{TumorChange, TumorSource};
use crate::random::Key;
use crate::volume::{Array3, Boundary, Gaussian, Region, RowSpans, radius_voxels};

/// The range of the standard deviation of the Gaussian that softens the edge, in class voxels.
const SIGMA_VOXELS: [f64; 2] = [1.0, 2.0];

/// Returns an upper bound of the width of the soft edge in mm.
pub(super) fn widest_margin_mm() -> f64 {
    SIGMA_VOXELS[1] * CLASS_VOXEL_MM
}

/// Places a shape in the scan and blends it.
///
/// # Errors
/// Returns the reason if the shape does not fit at its site.
///
/// # Source
/// FreeTumor, arXiv 2406.01264, synthesis without a generator.
pub(super) fn blended(
    source: &TumorSource<'_>,
    key: Key,
    raster: &RasterizedShape,
    limits: Limits,
) -> Result<TumorChange, &'static str> {
    let TumorSource { scan, organ, config, .. } = source;
    let labels_of_scan = &scan.mask.labels;
    let bounds = labels_of_scan.shape();
    let sigma_mm = key.stream("margin").uniform(SIGMA_VOXELS[0], SIGMA_VOXELS[1]) * CLASS_VOXEL_MM;
    let sigma = source.spacing_mm.map(|mm| sigma_mm / mm);
    let inside = raster.mask.extent(|&inside| inside != 0).ok_or("too_small")?;
    let reach = sigma.map(|sigma| radius_voxels(sigma, TRUNCATE));
    let from = [0, 1, 2].map(|k| raster.start[k] + inside.start[k] as i64 - reach[k] as i64);
    let to = [0, 1, 2].map(|k| raster.start[k] + inside.end()[k] as i64 + reach[k] as i64);
    let start = from.map(|index| index.max(0) as usize);
    let end = [0, 1, 2].map(|k| (to[k].max(0) as usize).min(bounds[k]));
    if (0..3).any(|k| start[k] >= end[k]) {
        return Err("clipped");
    }
    let region = Region { start, shape: [0, 1, 2].map(|k| end[k] - start[k]) };
    let shape = raster.mask.translated(raster.start, start.map(|index| index as i64), region.shape, 0);
    let labels = labels_of_scan.cut(region);
    let tumor_labels = scan.mask.kept_labels();
    if config.sites == Sites::Prior && touches_tumor(&tumor_labels, &labels, &shape) {
        return Err("touches_tumor");
    }
    let tumor = tumor_of(&shape, &labels, organ);
    let count = |mask: &Array3<u8>| mask.as_slice().iter().filter(|&&inside| inside != 0).count();
    let (all, voxels) = (count(&raster.mask), count(&tumor));
    let clipped_fraction = 1.0 - voxels as f64 / all as f64;
    limits.check(voxels, clipped_fraction)?;

    // As published: the shape is clipped to organ and real tumor before its edge is softened.
    let clipped = shape.as_slice().iter().zip(labels.as_slice());
    let clipped = clipped.map(|(&inside, &label)| {
        f32::from(u8::from(inside != 0 && (label == organ.label || label == organ.tumor_label)))
    });
    let clipped = Array3::from_vec(region.shape, clipped.collect());
    let within = RowSpans::of(&clipped, |&inside| inside != 0.0).grown(reach);
    let mut soft = Array3::filled(region.shape, 0.0f32);
    let smoothed = Gaussian::truncated(sigma, TRUNCATE, Boundary::Zero).smoothed_within(&clipped, &within);
    for (y, z, span) in within.rows() {
        soft.row_mut(y, z)[span.clone()].copy_from_slice(&smoothed.row(y, z)[span]);
    }
    let texture = source.textures.sample(&mut key.stream("texture"), &within, source.spacing_mm);
    let width_hu = source.window.width_hu();
    let mut random = key.stream("difference");
    let sampled = match config.contrast_hu.get(&organ.name) {
        Some(change_hu) => fixed(&mut random, region.shape, *change_hu, width_hu),
        None => {
            let sampled = constant(&mut random, region.shape, source.is_air_filled(), width_hu);
            SampledDifference { difference: smooth_difference(&sampled.difference), ..sampled }
        }
    };
    let before = scan.scan.volume.voxels.hu_of(region);
    let after = blend(&before, &labels, organ, &soft, &sampled.difference, &texture, width_hu);
    Ok(TumorChange {
        region,
        support: Array3::filled(region.shape, 0),
        before,
        after,
        labels,
        tumor,
        clipped_fraction,
        drawn_contrast_hu: Some(sampled.contrast_hu),
        structure: Default::default(),
        growth: None,
    })
}
