//! The healthy tissue of an organ around a tumor, separated into its mean, its vessels and its noise.
//!
//! Inside a tumor the organ's vessels and edges are replaced by even tissue with the scan's noise. Outside, vessels fade towards a tumor
//! that displaces them, and continue into a tumor that infiltrates its organ; none ends at the rim as if cut.

use super::host::Host;
use super::inner_structure::smooth_step;
use super::organ::OrganSummary;
use super::tissue_noise::TissueNoise;
use crate::random::RandomStream;
use crate::volume::{Array3, Boundary, Gaussian, Region, RowSpans, radius_voxels};

/// The standard deviation of the smoothing before vessels are detected.
const VESSEL_SIGMA_MM: f64 = 1.5;
/// The number of standard deviations at which that smoothing is truncated.
const TRUNCATE: f64 = 2.5;
/// Remainders of the smoothing above this many standard deviations are edges of structures, not noise.
const MAX_NOISE: f32 = 3.5;

/// The tissue of one organ in a part of a host.
pub(super) struct Tissue {
    /// Even tissue of the organ.
    pub mean: Array3<f32>,
    /// Vessels and other structure: the deviation of the smoothed organ from the mean.
    pub vessels: Array3<f32>,
    /// The noise of the scan.
    pub noise: Array3<f32>,
    /// 0 at the organ's edge and outside, 1 inside.
    pub interior: Array3<f32>,
}

/// What is needed to separate the tissue of an organ.
pub(super) struct TissueSource<'a> {
    pub host: &'a Host,
    /// Labels before the displacement, in the host's box.
    pub labels_before: &'a Array3<u8>,
    /// The label of the healthy organ.
    pub label: u8,
    pub organ: &'a OrganSummary,
    pub noise: &'a TissueNoise,
    /// The share of the organ's own structure that remains in the mean: deviations up to the organ's spread.
    pub kept_structure: f32,
    pub spacing_mm: [f64; 3],
}

impl Tissue {
    /// Separates the tissue in the spans `within` of `part`, a region of the host's box. Values outside the spans are not computed.
    pub fn new(source: &TissueSource<'_>, part: Region, within: &RowSpans, random: &mut RandomStream) -> Self {
        let sigma = source.spacing_mm.map(|mm| VESSEL_SIGMA_MM / mm);
        let filter = Gaussian::truncated(sigma, TRUNCATE, Boundary::Zero);
        let reach = sigma.map(|sigma| radius_voxels(sigma, TRUNCATE));
        let host = source.host;
        let is_displaced = host.support.as_slice().iter().any(|&moved| moved != 0);
        let after = Smoothed::new(&host.hu, &host.labels, source.label, part, within, &filter, reach);
        let before = is_displaced
            .then(|| Smoothed::new(&host.before, source.labels_before, source.label, part, within, &filter, reach));

        let (median, spread) = (source.organ.median_hu as f32, source.organ.spread_hu as f32);
        let mut mean = Array3::filled(part.shape, median);
        let mut vessels = Array3::filled(part.shape, 0.0f32);
        let mut noise = Array3::filled(part.shape, 0.0f32);
        let mut interior = Array3::filled(part.shape, 0.0f32);
        let limit = MAX_NOISE * source.noise.deviation_hu.max(1.0);
        let in_place = before.as_ref().unwrap_or(&after);
        let mut any_outside = false;
        for (y, z, span) in within.rows() {
            let hu = &host.before.row(part.start[1] + y, part.start[2] + z)[part.start[0]..];
            for x in span {
                let weight = after.weight.row(y, z)[x];
                let deviation = if weight > 0.05 { after.hu.row(y, z)[x] / weight - median } else { 0.0 };
                let kept = source.kept_structure * deviation.clamp(-spread, spread) * (weight / 0.3).min(1.0);
                mean.row_mut(y, z)[x] = median + kept;
                let inside = smooth_step((weight - 0.6) / 0.35);
                interior.row_mut(y, z)[x] = inside;
                vessels.row_mut(y, z)[x] = inside * (deviation - kept);
                let weight = in_place.weight.row(y, z)[x];
                let inside = smooth_step((weight - 0.6) / 0.35);
                any_outside |= inside < 1.0;
                if inside > 0.0 {
                    let remainder = hu[x] - in_place.hu.row(y, z)[x] / weight;
                    noise.row_mut(y, z)[x] = inside * remainder.clamp(-limit, limit);
                }
            }
        }
        if any_outside {
            // Noise of the same strength where the scan's own cannot be separated from edges.
            let sampled = source.noise.sample(random, part.shape);
            for (y, z, span) in within.rows() {
                for x in span {
                    let inside = smooth_step((in_place.weight.row(y, z)[x] - 0.6) / 0.35);
                    noise.row_mut(y, z)[x] += (1.0 - inside * inside).max(0.0).sqrt() * sampled.row(y, z)[x];
                }
            }
        }
        Self { mean, vessels, noise, interior }
    }
}

/// HU of an organ, smoothed without the voxels outside, as a sum of weighted HU and the sum of the weights.
struct Smoothed {
    hu: Array3<f32>,
    weight: Array3<f32>,
}

impl Smoothed {
    fn new(
        hu: &Array3<f32>,
        labels: &Array3<u8>,
        label: u8,
        part: Region,
        within: &RowSpans,
        filter: &Gaussian,
        reach: [usize; 3],
    ) -> Self {
        // The smoothing reads a margin around the part, as far as the host's box extends.
        let wide = part.grown(reach, labels.shape());
        let inner = Region { start: [0, 1, 2].map(|k| part.start[k] - wide.start[k]), shape: part.shape };
        let within = within.placed(inner, wide.shape);
        let (mut weighted, mut weight) = (Array3::filled(wide.shape, 0.0f32), Array3::filled(wide.shape, 0.0f32));
        for (y, z, span) in within.grown(reach).rows() {
            let (from, row) = (wide.start[0] + span.start, [wide.start[1] + y, wide.start[2] + z]);
            let columns = from..from + span.len();
            let voxels = hu.row(row[0], row[1])[columns.clone()].iter().zip(&labels.row(row[0], row[1])[columns]);
            let targets = weighted.row_mut(y, z)[span.clone()].iter_mut().zip(&mut weight.row_mut(y, z)[span]);
            for ((weighted, weight), (hu, &own)) in targets.zip(voxels) {
                let inside = f32::from(u8::from(own == label));
                (*weighted, *weight) = (hu * inside, inside);
            }
        }
        let smoothed = |array: &Array3<f32>| filter.smoothed_within(array, &within).cut(inner);
        Self { hu: smoothed(&weighted), weight: smoothed(&weight) }
    }
}
