//! The agreement of synthetic with real tumor shapes: `cargo bench --bench shapes` prints the Kolmogorov-Smirnov distance of each
//! measure for each organ, then how far masks of tumors made in real kidneys can be separated from masks of real kidney tumors. See
//! `tests/all/shapes.rs` for the compared measures, and `mask_features.rs` for those of masks.

mod kidney_masks;
mod mask_classifier;
mod mask_features;
#[path = "../all/shapes.rs"]
mod shapes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use freetumor::statistics::weighted_distance;
use freetumor::synth::prior::PRIORS;
use freetumor::volume::Array3;
use mask_features::{COUNT, NAMES, THICKNESS_NECKS_CONVEXITY, TUMOR, features};
use rayon::prelude::*;
use serde_json::Value;

/// The limit of every printed distance.
const LIMIT: f64 = 0.15;
/// The limit of the area under the curve of the classifier on masks.
const AUC_LIMIT: f64 = 0.7;
const SHAPES: u64 = 400;
/// The number of attempts at tumors in real kidneys.
const ATTEMPTS: u32 = 400;

fn main() {
    if let Some(path) = shared("reference/real_tumor_shapes.json") {
        let text = std::fs::read(path).expect("a readable reference");
        let reference: Value = serde_json::from_slice(&text).expect("a reference in JSON");
        compare_shapes(&reference);
        compare_convexity(&reference);
    }
    let (masks, scan) = (shared("reference/kidney_tumor_masks.npz"), shared("ct/totalseg_abdomen"));
    if let (Some(masks), Some(scan)) = (masks, scan)
        && let Err(message) = compare_kidney_masks(&masks, &scan)
    {
        println!("error: {message}");
        std::process::exit(1);
    }
}

/// Returns a path in the shared folder; if it is missing, prints a message and returns `None`.
fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if full.exists() {
        return Some(full);
    }
    println!("skipped: ../shared/{path} is missing");
    None
}

/// Compares sizes and shapes with the percentiles of real tumors.
fn compare_shapes(reference: &Value) {
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for prior in &PRIORS {
        let (comparisons, spacing_mm) = shapes::compare(reference, prior, SHAPES);
        println!("{} ({SHAPES} shapes at {spacing_mm:?} mm)", prior.organ);
        for shapes::Comparison { measure, distance, median, real_median } in comparisons {
            println!(
                "  {measure:<28} KS {distance:.3}   median {median:8.3}, real {real_median:8.3}{}",
                mark(distance)
            );
            let entry = worst.entry(prior.organ).or_default();
            *entry = entry.max(distance);
        }
    }
    println!("largest distance: {worst:.3?}, limit {LIMIT}\n");
}

/// Prints thickness, necks and convexity of each organ's shapes without an organ around them. Percentiles of real tumors are at hand of
/// convexity, whole masks of kidneys only.
fn compare_convexity(reference: &Value) {
    println!("thickness, necks and convexity ({SHAPES} shapes without an organ around them)");
    for prior in &PRIORS {
        let (spacing_mm, part) = shapes::reference_of(prior.organ);
        let masks = shapes::masks(prior, spacing_mm, SHAPES);
        let rows: Vec<[f64; COUNT]> =
            masks.par_iter().filter_map(|mask| features(&tumor_of(mask), spacing_mm)).collect();
        // The reference shapes of fine slices are of tumors from 8 mm.
        let rows: Vec<[f64; COUNT]> = rows.into_iter().filter(|row| part.is_none() || row[0] >= 8.0).collect();
        for feature in THICKNESS_NECKS_CONVEXITY {
            let values: Vec<f64> = rows.iter().map(|row| row[feature]).collect();
            let real = match NAMES[feature] {
                "convexity" => {
                    let organ = &reference[prior.organ];
                    let real = &part.map_or(organ, |part| &organ[part])["solidity"];
                    shapes::distance(real, values.clone())
                }
                _ => None,
            };
            let real = real.map_or(String::new(), |(distance, _, median)| {
                format!("   KS {distance:.3}, real median {median:.3}{}", mark(distance))
            });
            println!("  {:<9} {:<14} quartiles {}{real}", prior.organ, NAMES[feature], quartiles(values));
        }
    }
    println!();
}

/// Returns a box of a tumor without an organ.
fn tumor_of(mask: &Array3<u8>) -> Array3<u8> {
    mask.map(|&inside| TUMOR * u8::from(inside != 0))
}

/// Compares tumors made in the kidneys of a scan with real ones of the same diameters, and prints how far a classifier separates them.
fn compare_kidney_masks(masks: &Path, scan: &Path) -> Result<(), String> {
    let (real, made) = (kidney_masks::real(masks)?, kidney_masks::made(scan, ATTEMPTS)?);
    let of = |labels| features(labels, kidney_masks::SPACING_MM);
    let real: Vec<(String, [f64; COUNT])> =
        real.par_iter().filter_map(|tumor| Some((tumor.case.clone(), of(&tumor.labels)?))).collect();
    let made: Vec<[f64; COUNT]> = made.par_iter().filter_map(|tumor| of(&tumor.labels)).collect();
    let pairs = mask_classifier::pairs_of_equal_diameter(&real, &made);
    println!(
        "kidney masks at 2 mm: {} pairs of equal diameter (within 15%) of {} real tumors and {} tumors made in real kidneys",
        pairs.len(),
        real.len(),
        made.len()
    );
    // The distance that 5% of pairs of samples of one distribution exceed.
    println!(
        "  KS distances of samples of this size from one distribution are up to {:.3}",
        1.36 * (2.0 / pairs.len() as f64).sqrt()
    );
    for (feature, name) in NAMES.iter().enumerate() {
        let real: Vec<f64> = pairs.iter().map(|pair| pair.real[feature]).collect();
        let made: Vec<f64> = pairs.iter().map(|pair| pair.made[feature]).collect();
        let distance = weighted_distance(&real, &made, &vec![1.0; made.len()]).ok_or("expected pairs, got none")?;
        let (real, made) = (quartiles(real), quartiles(made));
        println!("  {name:<18} KS {distance:.3}   quartiles {made}, real {real}");
    }
    let (auc, [low, high]) = mask_classifier::cross_fitted_auc(&pairs).ok_or("expected pairs, got none")?;
    let mark = if auc > AUC_LIMIT { "  above the limit" } else { "" };
    println!(
        "  AUC of logistic regression on held-out patients {auc:.3} (90% {low:.3} to {high:.3}), limit {AUC_LIMIT}{mark}"
    );
    Ok(())
}

fn mark(distance: f64) -> &'static str {
    if distance > LIMIT { "  above the limit" } else { "" }
}

/// Returns the quartiles as text.
fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    format!("{:.3} {:.3} {:.3}", at(0.25), at(0.5), at(0.75))
}
