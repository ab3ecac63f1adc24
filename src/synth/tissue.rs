//! The healthy tissue of an organ around a tumor, separated into its mean, its vessels and its noise.
//!
//! Inside a tumor the organ's vessels and edges are replaced by even tissue with the scan's noise. Outside, vessels fade towards a tumor
//! that displaces them, and continue into a tumor that infiltrates its organ; none ends at the rim as if cut.

use std::ops::Range;

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

/// The inputs of the separation of tissue.
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
        let (host, label) = (source.host, source.label);
        let is_displaced = host.support.as_slice().iter().any(|&moved| moved != 0);
        let smoothing = OrganSmoothing::new(&filter, part, within, reach, host.labels.shape());
        let weights = smoothing.weights(&host.labels, label);
        let (hu, weight) = (smoothing.smoothed(&smoothing.weighted(&host.hu, &weights)), smoothing.smoothed(&weights));
        // The tissue before the displacement, where it differs.
        let (mut hu_before, mut weight_before) = (None, None);
        if is_displaced {
            let before = smoothing.weights(source.labels_before, label);
            hu_before = Some(smoothing.smoothed(&smoothing.weighted(&host.before, &before)));
            weight_before = (before != weights).then(|| smoothing.smoothed(&before));
        }
        let (hu_before, weight_before) = (hu_before.as_ref().unwrap_or(&hu), weight_before.as_ref().unwrap_or(&weight));

        let (median, spread) = (source.organ.median_hu as f32, source.organ.spread_hu as f32);
        let mut mean = Array3::filled(part.shape, median);
        let mut vessels = Array3::filled(part.shape, 0.0f32);
        let mut noise = Array3::filled(part.shape, 0.0f32);
        let mut interior = Array3::filled(part.shape, 0.0f32);
        let limit = MAX_NOISE * source.noise.deviation_hu.max(1.0);
        let interior_of = |weight: f32| smooth_step((weight - 0.6) / 0.35);
        for (y, z, span) in within.rows() {
            let [mean, vessels, interior] =
                [&mut mean, &mut vessels, &mut interior].map(|array| &mut array.row_mut(y, z)[span.clone()]);
            let [hu, weight] = [&hu, &weight].map(|array| smoothing.row(array, y, z, &span));
            for index in 0..span.len() {
                let weight = weight[index];
                let deviation = if weight > 0.05 { hu[index] / weight - median } else { 0.0 };
                let kept = source.kept_structure * deviation.clamp(-spread, spread) * (weight / 0.3).min(1.0);
                let inside = interior_of(weight);
                mean[index] = median + kept;
                interior[index] = inside;
                vessels[index] = inside * (deviation - kept);
            }
        }
        // The rows with voxels whose noise cannot be separated from edges.
        let mut edges = vec![0..0; part.shape[1] * part.shape[2]];
        for (y, z, span) in within.rows() {
            let [hu, weight] = [hu_before, weight_before].map(|array| smoothing.row(array, y, z, &span));
            let columns = part.start[0] + span.start..part.start[0] + span.end;
            let before = &host.before.row(part.start[1] + y, part.start[2] + z)[columns];
            let mut any_outside = false;
            for (index, noise) in noise.row_mut(y, z)[span.clone()].iter_mut().enumerate() {
                let inside = interior_of(weight[index]);
                any_outside |= inside < 1.0;
                if inside > 0.0 {
                    *noise = inside * (before[index] - hu[index] / weight[index]).clamp(-limit, limit);
                }
            }
            if any_outside {
                edges[y + part.shape[1] * z] = span;
            }
        }
        let edges = RowSpans::new(part.shape, edges);
        if edges.rows().next().is_some() {
            // Noise of the same strength instead of the scan's own.
            let sampled = source.noise.sample(random, &edges);
            for (y, z, span) in edges.rows() {
                let sampled = &sampled.row(y, z)[span.clone()];
                let weight = smoothing.row(weight_before, y, z, &span);
                for (index, noise) in noise.row_mut(y, z)[span].iter_mut().enumerate() {
                    let inside = interior_of(weight[index]);
                    *noise += (1.0 - inside * inside).max(0.0).sqrt() * sampled[index];
                }
            }
        }
        Self { mean, vessels, noise, interior }
    }
}

/// The smoothing of an organ without the voxels outside, as a sum of weighted HU and the sum of the weights.
struct OrganSmoothing<'a> {
    filter: &'a Gaussian,
    /// The part with the margin that the smoothing reads, as far as the host's box extends.
    wide: Region,
    /// The part without the margin, in coordinates of `wide`.
    inner: Region,
    /// The spans that are computed.
    within: RowSpans,
    /// The spans that are read.
    read: RowSpans,
}

impl<'a> OrganSmoothing<'a> {
    fn new(filter: &'a Gaussian, part: Region, within: &RowSpans, reach: [usize; 3], bounds: [usize; 3]) -> Self {
        let wide = part.grown(reach, bounds);
        let inner = Region { start: [0, 1, 2].map(|k| part.start[k] - wide.start[k]), shape: part.shape };
        let within = within.placed(inner, wide.shape);
        Self { filter, wide, inner, read: within.grown(reach), within }
    }

    /// Returns 1 in voxels of the organ.
    fn weights(&self, labels: &Array3<u8>, label: u8) -> Array3<f32> {
        let mut weights = Array3::filled(self.wide.shape, 0.0f32);
        for (y, z, span) in self.read.rows() {
            let labels = &labels.row(self.wide.start[1] + y, self.wide.start[2] + z)[self.wide.start[0]..];
            let weights = weights.row_mut(y, z)[span.clone()].iter_mut();
            weights.zip(&labels[span]).for_each(|(weight, &own)| *weight = f32::from(u8::from(own == label)));
        }
        weights
    }

    fn weighted(&self, hu: &Array3<f32>, weights: &Array3<f32>) -> Array3<f32> {
        let mut weighted = weights.clone();
        for (y, z, span) in self.read.rows() {
            let hu = &hu.row(self.wide.start[1] + y, self.wide.start[2] + z)[self.wide.start[0]..];
            let values = weighted.row_mut(y, z)[span.clone()].iter_mut();
            values.zip(&hu[span]).for_each(|(value, hu)| *value *= hu);
        }
        weighted
    }

    fn smoothed(&self, values: &Array3<f32>) -> Array3<f32> {
        self.filter.smoothed_within(values, &self.within)
    }

    /// Returns a span of a row of the part.
    fn row<'v>(&self, values: &'v Array3<f32>, y: usize, z: usize, span: &Range<usize>) -> &'v [f32] {
        let [first_x, first_y, first_z] = self.inner.start;
        &values.row(first_y + y, first_z + z)[first_x + span.start..first_x + span.end]
    }
}
