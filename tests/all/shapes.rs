//! Kolmogorov-Smirnov distances between sampled and real tumors for each organ; the bench `shapes` prints them.
//!
//! The real percentiles (5, 25, 50, 75, 95) define a distribution that is linear between them; values outside are not compared. Shapes
//! are sampled at the spacing of the real segmentations and measured in the same way.

use freetumor::random::Key;
use freetumor::synth::FineGrid;
use freetumor::synth::measure::{ShapeMeasures, measure};
use freetumor::synth::prior::OrganPrior;
use freetumor::volume::Array3;
use rayon::prelude::*;
use serde_json::Value;

/// One measure of an organ's shapes, compared with real shapes.
pub struct Comparison {
    pub measure: &'static str,
    pub distance: f64,
    pub median: f64,
    pub real_median: f64,
}

/// Compares `count` shapes of an organ in all measures. Also returns the spacing at which they were sampled.
pub fn compare(reference: &Value, prior: &OrganPrior, count: u64) -> (Vec<Comparison>, [f64; 3]) {
    let (spacing_mm, part) = reference_of(prior.organ);
    let masks = masks(prior, spacing_mm, count);
    let all: Vec<ShapeMeasures> = masks.par_iter().filter_map(|mask| measure(mask, spacing_mm)).collect();
    let organ = &reference[prior.organ];
    let shapes = part.map_or(organ, |part| &organ[part]);
    type Measure = fn(&ShapeMeasures) -> f64;
    let rows: [(&str, &Value, Measure); 8] = [
        ("equiv_diameter_mm", organ, |m| m.diameter_mm),
        ("pca_major_over_minor_ratio", shapes, |m| m.axes_mm[0] / m.axes_mm[2]),
        ("pca_major_over_middle_ratio", shapes, |m| m.axes_mm[0] / m.axes_mm[1]),
        ("pca_middle_over_minor_ratio", shapes, |m| m.axes_mm[1] / m.axes_mm[2]),
        ("surface_irregularity_ratio", shapes, |m| m.surface_irregularity_ratio),
        ("sphericity", shapes, |m| m.sphericity),
        ("ellipsoid_dice", shapes, |m| m.ellipsoid_dice),
        ("radial_residual_sd", shapes, |m| m.radial_residual_sd),
    ];
    let comparisons = rows.into_iter().filter_map(|(name, part, value)| {
        // The reference shapes of fine slices are of tumors from 8 mm.
        let whole = name == "equiv_diameter_mm" || std::ptr::eq(part, organ);
        let values = all.iter().filter(|m| whole || m.diameter_mm >= 8.0).map(value).collect();
        let (distance, median, real_median) = distance(&part[name], values)?;
        Some(Comparison { measure: name, distance, median, real_median })
    });
    (comparisons.collect(), spacing_mm)
}

/// Returns the spacing of the real segmentations, and the part of the file to compare with: fine slices if there are enough.
pub fn reference_of(organ: &str) -> ([f64; 3], Option<&'static str>) {
    match organ {
        "pancreas" => ([0.8, 0.8, 2.5], None),
        "kidney" => ([0.79, 0.79, 1.0], Some("shape_fine_slices")),
        "lung" => ([0.78, 0.78, 1.0], Some("shape_fine_slices")),
        _ => ([0.73, 0.73, 0.8], Some("shape_fine_slices")),
    }
}

/// Samples shapes of an organ and returns their masks on a grid of this spacing.
pub fn masks(prior: &OrganPrior, spacing_mm: [f64; 3], count: u64) -> Vec<Array3<u8>> {
    let masks = (0..count).into_par_iter().map(|number| {
        let key = Key::root(1).with("organ", prior.organ).number("shape", number);
        let mut random = key.stream("size");
        let diameter_mm = prior.diameter_mm.sample(&mut random);
        let grid = FineGrid::new(spacing_mm, diameter_mm);
        let centre = grid.position([0.3, 0.1, 0.6]);
        let shape = prior.shape(&mut random, diameter_mm).rasterize(&mut key.stream("shape"), centre, grid.spacing_mm);
        shape.labeled(grid)
    });
    masks.collect()
}

/// Returns the distance of values from percentiles, and the medians of both; `None` without percentiles.
pub fn distance(reference: &Value, mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let known: Vec<(f64, f64)> = [(0.05, "p5"), (0.25, "p25"), (0.5, "p50"), (0.75, "p75"), (0.95, "p95")]
        .into_iter()
        .map(|(share, name)| Some((share, reference[name].as_f64()?)))
        .collect::<Option<_>>()?;
    let mut largest = 0.0f64;
    for pair in known.windows(2) {
        for step in 0..=20 {
            let t = f64::from(step) / 20.0;
            let value = pair[0].1 + t * (pair[1].1 - pair[0].1);
            let share = values.partition_point(|&v| v <= value) as f64 / values.len() as f64;
            largest = largest.max((share - (pair[0].0 + t * (pair[1].0 - pair[0].0))).abs());
        }
    }
    Some((largest, values[values.len() / 2], known[2].1))
}
