//! The agreement of synthetic with real tumor shapes: `cargo bench --bench shapes` prints the Kolmogorov-Smirnov distance of each
//! measure for each organ. See `tests/all/shapes.rs` for the compared measures.

#[path = "../all/shapes.rs"]
mod shapes;

use std::collections::BTreeMap;

use freetumor::synth::prior::PRIORS;
use serde_json::Value;

/// The limit of every printed distance.
const LIMIT: f64 = 0.15;
const SHAPES: u64 = 400;

fn main() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/real_tumor_shapes.json");
    let Ok(text) = std::fs::read(&path) else {
        println!("skipped: no ../shared/reference/real_tumor_shapes.json");
        return;
    };
    let reference: Value = serde_json::from_slice(&text).expect("a reference in JSON");
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for prior in &PRIORS {
        let (comparisons, spacing_mm) = shapes::compare(&reference, prior, SHAPES);
        println!("{} ({SHAPES} shapes at {spacing_mm:?} mm)", prior.organ);
        for shapes::Comparison { measure, distance, median, real_median } in comparisons {
            let mark = if distance > LIMIT { "  above the limit" } else { "" };
            println!("  {measure:<28} KS {distance:.3}   median {median:8.3}, real {real_median:8.3}{mark}");
            let entry = worst.entry(prior.organ).or_default();
            *entry = entry.max(distance);
        }
    }
    println!("largest distance: {worst:.3?}, limit {LIMIT}");
}
