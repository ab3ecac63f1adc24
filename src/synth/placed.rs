//! Placement of a rasterized shape in the scan: clipped to the organ, in the candidate's box.

use super::blend::tumor_of;
use super::config::{Differences, RulesConfig, Sites};
use super::shape::RasterizedShape;
use crate::mask::{MaskedScan, Organ};
use crate::volume::{Array3, Region, RowSpans, keep_largest, radius_voxels};

/// The number of standard deviations at which soft edges are truncated; less than 0.2% of the contrast is beyond.
pub(super) const TRUNCATE: f64 = 3.0;

/// An organ of a scan and the rules for shapes in this organ.
pub(super) struct OrganRules<'a> {
    pub scan: &'a MaskedScan,
    pub organ: &'a Organ,
    pub config: &'a RulesConfig,
    /// Maximum share of a shape that may be clipped.
    pub max_clipped_fraction: f64,
}

/// A shape at its site in the scan, clipped to the organ.
pub(super) struct PlacedShape {
    /// The candidate's box.
    pub region: Region,
    /// The shape before softening, in a box that may extend beyond the scan by the margin.
    pub soft_box: Array3<f32>,
    /// The spans of `soft_box` in which the softened shape is not zero.
    pub soft_within: RowSpans,
    /// The start of the candidate's box in `soft_box`.
    pub soft_start: [usize; 3],
    /// The shape's depth in the candidate's box.
    pub depth: Array3<f32>,
    /// The scan's labels in the candidate's box.
    pub labels: Array3<u8>,
    /// The mask of the tumor in the candidate's box.
    pub tumor: Array3<u8>,
    /// Number of voxels of the tumor.
    pub voxels: usize,
    /// Share of the shape that is not part of the tumor.
    pub clipped_fraction: f64,
}

impl PlacedShape {
    /// Places a shape in the scan.
    ///
    /// # Errors
    /// Returns the reason if the shape does not fit at its site.
    pub fn new(rules: &OrganRules<'_>, raster: &RasterizedShape, margin: [f64; 3]) -> Result<Self, &'static str> {
        let bounds = rules.scan.mask.labels.shape();
        let inside = raster.mask.extent(|&inside| inside != 0).ok_or("too_small")?;
        let (low, high) = (inside.start, inside.end());
        let reach = margin.map(|sigma| radius_voxels(sigma, TRUNCATE) as i64);
        let soft_from = [0, 1, 2].map(|k| raster.start[k] + low[k] as i64 - reach[k]);
        let soft_to = [0, 1, 2].map(|k| raster.start[k] + high[k] as i64 + reach[k]);
        let from = soft_from.map(|index| index.max(0) as usize);
        let to = [0, 1, 2].map(|k| (soft_to[k].max(0) as usize).min(bounds[k]));
        if (0..3).any(|k| from[k] >= to[k]) {
            return Err("clipped");
        }
        let region = Region { start: from, shape: [0, 1, 2].map(|k| to[k] - from[k]) };
        let inside = translated(&raster.mask, raster.start, from.map(|index| index as i64), region.shape, 0);
        let labels = rules.scan.mask.labels.cut(region);
        let prior_sites = rules.config.sites == Sites::Prior;
        if prior_sites && touches_tumor(rules.scan, &labels, &inside) {
            return Err("touches_tumor");
        }
        let mut tumor = tumor_of(&inside, &labels, rules.organ);
        let mut soft = translated(
            &raster.mask,
            raster.start,
            soft_from,
            [0, 1, 2].map(|k| (soft_to[k] - soft_from[k]) as usize),
            0,
        );
        let soft_start = [0, 1, 2].map(|k| (from[k] as i64 - soft_from[k]) as usize);
        if rules.config.difference == Differences::Reference {
            // As published: the shape is clipped to organ and real tumor before its edge is softened.
            let kept = |(&inside, &label): (&u8, &u8)| {
                u8::from(inside != 0 && (label == rules.organ.label || label == rules.organ.tumor_label))
            };
            let clipped = inside.as_slice().iter().zip(labels.as_slice()).map(kept).collect();
            soft.as_mut_slice().fill(0);
            soft.paste(soft_start, &Array3::from_vec(region.shape, clipped));
        } else {
            // Parts that the organ's edge separates are neither labeled nor softened into the scan.
            let whole = tumor.clone();
            keep_largest(&mut tumor);
            let mut shape = soft.cut(Region { start: soft_start, shape: region.shape });
            let parts = whole.as_slice().iter().zip(tumor.as_slice());
            for (inside, (&was, &is)) in shape.as_mut_slice().iter_mut().zip(parts) {
                *inside &= u8::from(was == is);
            }
            soft.paste(soft_start, &shape);
        }
        let count = |mask: &Array3<u8>| mask.as_slice().iter().filter(|&&inside| inside != 0).count();
        let (all, voxels) = (count(&raster.mask), count(&tumor));
        let clipped_fraction = 1.0 - voxels as f64 / all as f64;
        if clipped_fraction > rules.max_clipped_fraction || voxels == 0 {
            return Err("clipped");
        }
        let across = rules.config.min_diameter_voxels;
        if (voxels as f64) < 0.5 * std::f64::consts::PI / 6.0 * across * across * across {
            return Err("too_small");
        }
        let depth = translated(&raster.depth, raster.start, from.map(|index| index as i64), region.shape, -1.0);
        let soft_box = soft.map(|&inside| f32::from(inside));
        let soft_within =
            RowSpans::of(&soft, |&inside| inside != 0).grown(margin.map(|sigma| radius_voxels(sigma, TRUNCATE)));
        Ok(Self { region, soft_box, soft_within, soft_start, depth, labels, tumor, voxels, clipped_fraction })
    }
}

/// Copies an array that starts at `start` into a box that starts at `from`; voxels outside the array are `outside`.
fn translated<T: Copy>(array: &Array3<T>, start: [i64; 3], from: [i64; 3], shape: [usize; 3], outside: T) -> Array3<T> {
    let mut result = Array3::filled(shape, outside);
    let first = [0, 1, 2].map(|k| (from[k] - start[k]).max(0) as usize);
    let offset = [0, 1, 2].map(|k| (start[k] - from[k]).max(0) as usize);
    let size = [0, 1, 2].map(|k| array.shape()[k].saturating_sub(first[k]).min(shape[k].saturating_sub(offset[k])));
    if size[0] > 0 {
        for z in 0..size[2] {
            for y in 0..size[1] {
                let row = &array.row(first[1] + y, first[2] + z)[first[0]..first[0] + size[0]];
                result.row_mut(offset[1] + y, offset[2] + z)[offset[0]..offset[0] + size[0]].copy_from_slice(row);
            }
        }
    }
    result
}

/// Returns whether a real tumor is in the shape or adjacent to it.
fn touches_tumor(scan: &MaskedScan, labels: &Array3<u8>, inside: &Array3<u8>) -> bool {
    let tumor_labels: Vec<u8> = scan.mask.organs.iter().map(|organ| organ.tumor_label).collect();
    let shape = labels.shape();
    let row_length = shape[0].max(1);
    labels.as_slice().iter().enumerate().filter(|(_, label)| tumor_labels.contains(label)).any(|(index, _)| {
        let voxel = [index % row_length, index / row_length % shape[1], index / row_length / shape[1]];
        let around = Region { start: voxel, shape: [1; 3] }.grown([1; 3], shape);
        inside.cut(around).as_slice().iter().any(|&inside| inside != 0)
    })
}
