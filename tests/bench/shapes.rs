//! How closely drawn tumors follow real ones: the Kolmogorov-Smirnov distance of each measure, organ by organ.
//!
//! `cargo bench --bench shapes`. The real percentiles (5, 25, 50, 75, 95) are taken as a distribution that is linear
//! between them; beyond them nothing is known and nothing compared. Shapes are drawn at the spacing that the real
//! ones were segmented at, and measured in the same way.

use std::collections::BTreeMap;

use freetumor::random::Key;
use freetumor::synth::measure::{ShapeMeasures, measure};
use freetumor::synth::prior::{OrganPrior, PRIORS};
use rayon::prelude::*;
use serde_json::Value;

/// The limit that every printed distance should keep.
const LIMIT: f64 = 0.15;
const SHAPES: u64 = 400;

/// Spacing of the real segmentations, and the part of the file to compare with: fine slices where there are enough.
fn circumstances(organ: &str) -> ([f64; 3], Option<&'static str>) {
    match organ {
        "pancreas" => ([0.8, 0.8, 2.5], None),
        "kidney" => ([0.79, 0.79, 1.0], Some("shape_fine_slices")),
        "lung" => ([0.78, 0.78, 1.0], Some("shape_fine_slices")),
        _ => ([0.73, 0.73, 0.8], Some("shape_fine_slices")),
    }
}

fn drawn(prior: &OrganPrior, spacing_mm: [f64; 3]) -> Vec<ShapeMeasures> {
    let shapes = (0..SHAPES).into_par_iter().filter_map(|number| {
        let key = Key::root(1).with("organ", prior.organ).number("shape", number);
        let mut draws = key.draws("size");
        let diameter_mm = prior.diameter_mm.draw(&mut draws);
        let shape = prior.shape(&mut draws, diameter_mm).draw(&mut key.draws("shape"), [0.3, 0.1, 0.6], spacing_mm);
        measure(&shape.mask, spacing_mm)
    });
    shapes.collect()
}

fn distance(reference: &Value, mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
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

fn main() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/real_tumor_shapes.json");
    let Ok(text) = std::fs::read(&path) else {
        println!("skipped: ../shared/reference/real_tumor_shapes.json is not here");
        return;
    };
    let reference: Value = serde_json::from_slice(&text).expect("the reference is JSON");
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for prior in &PRIORS {
        let (spacing_mm, part) = circumstances(prior.organ);
        let all = drawn(prior, spacing_mm);
        let organ = &reference[prior.organ];
        let shapes = part.map_or(organ, |part| &organ[part]);
        println!("{} ({} shapes at {spacing_mm:?} mm)", prior.organ, all.len());
        type Measured = fn(&ShapeMeasures) -> f64;
        let rows: [(&str, &Value, Measured); 8] = [
            ("equiv_diameter_mm", organ, |m| m.diameter_mm),
            ("pca_major_over_minor_ratio", shapes, |m| m.axes_mm[0] / m.axes_mm[2]),
            ("pca_major_over_middle_ratio", shapes, |m| m.axes_mm[0] / m.axes_mm[1]),
            ("pca_middle_over_minor_ratio", shapes, |m| m.axes_mm[1] / m.axes_mm[2]),
            ("surface_irregularity_ratio", shapes, |m| m.surface_irregularity_ratio),
            ("sphericity", shapes, |m| m.sphericity),
            ("ellipsoid_dice", shapes, |m| m.ellipsoid_dice),
            ("radial_residual_sd", shapes, |m| m.radial_residual_sd),
        ];
        for (name, part, value) in rows {
            // Shapes of fine slices are of tumors from 8 mm.
            let whole = name == "equiv_diameter_mm" || std::ptr::eq(part, organ);
            let values = all.iter().filter(|m| whole || m.diameter_mm >= 8.0).map(value).collect();
            let Some((distance, median, real)) = distance(&part[name], values) else { continue };
            let mark = if distance > LIMIT { "  above the limit" } else { "" };
            println!("  {name:<28} KS {distance:.3}   median {median:8.3}, real {real:8.3}{mark}");
            let entry = worst.entry(prior.organ).or_default();
            *entry = entry.max(distance);
        }
    }
    println!("largest distance: {worst:.3?}, limit {LIMIT}");
}
