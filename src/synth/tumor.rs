//! One tumor in its surroundings: the displaced host, the place of the shape in it, and the HU that result.

use std::sync::Arc;

use super::config::RulesConfig;
use super::contrast::SampledContrast;
use super::difference::{DifferenceMaps, TEXTURE_MEAN};
use super::domain::{Limits, PlacedTumor, Surroundings};
use super::fine_grid::FineGrid;
use super::growth::Growth;
use super::host::Host;
use super::inner_structure::{InnerStructure, SampledStructure, SolidTumor, smooth_step};
use super::mass_effect::{Body, MassEffect};
use super::organ::OrganSummary;
use super::prior::{Contrast, Depth, OrganPrior};
use super::profile::{Inside, Profile, ProfileSource};
use super::shape::RasterizedShape;
use super::texture::TexturePool;
use super::tissue::{Tissue, TissueSource};
use super::tissue_noise::TissueNoise;
use crate::error::Fault;
use crate::mask::{MaskedScan, Organ};
use crate::random::Key;
use crate::volume::{Array3, HuWindow, Region, RowSpans, radius_voxels};

/// The distance from a tumor at which vessels begin to fade, if the tumor displaces vessels.
pub(super) const VESSEL_FADE_MM: f64 = 4.0;
/// The margin of the host around the tumor that the smoothing of tissue reads.
const TISSUE_MARGIN_MM: f64 = 4.5;

/// The inputs that the tumors in one organ of one scan share.
pub(super) struct TumorSource<'a> {
    pub scan: &'a MaskedScan,
    pub organ: &'a Organ,
    pub prior: &'static OrganPrior,
    pub summary: OrganSummary,
    pub config: &'a RulesConfig,
    pub noise: TissueNoise,
    pub textures: Arc<TexturePool>,
    pub window: HuWindow,
    pub spacing_mm: [f64; 3],
}

/// A tumor on the fine grid at its site.
pub(super) struct TumorShape {
    pub grid: FineGrid,
    pub raster: RasterizedShape,
    pub body: Body,
    pub growth: Growth,
    pub margin_mm: f64,
    pub diameter_mm: f64,
}

/// The box that a tumor changes, with the HU and labels before and after the change.
pub(super) struct TumorChange {
    pub region: Region,
    /// 1 in voxels that were displaced.
    pub support: Array3<u8>,
    pub before: Array3<f32>,
    pub after: Array3<f32>,
    /// Labels after the displacement, without the tumor.
    pub labels: Array3<u8>,
    /// 1 in voxels of the tumor.
    pub tumor: Array3<u8>,
    pub clipped_fraction: f64,
    pub drawn_contrast_hu: Option<f64>,
    pub structure: SampledStructure,
    /// The growth of the tumor, `None` if nothing was displaced.
    pub growth: Option<Growth>,
}

impl TumorSource<'_> {
    /// Returns whether the organ contains air, so that tumors are brighter.
    pub fn is_air_filled(&self) -> bool {
        matches!(self.prior.contrast, Contrast::Filling { .. })
    }

    /// Makes a tumor. `maps` replaces the contrast of the rules, `site_box` is the box of all tumors of the site.
    ///
    /// # Errors
    /// The inner error is the reason if the shape does not fit at its site, the outer one a fault of the network.
    pub fn make_tumor(
        &self,
        key: Key,
        shape: &TumorShape,
        limits: Limits,
        maps: Option<&dyn DifferenceMaps>,
        site_box: impl FnOnce(Region) -> Region,
    ) -> Result<Result<TumorChange, &'static str>, Fault> {
        let (contrast, inside) = self.inside(key, shape, maps);
        let source = ProfileSource {
            raster: &shape.raster,
            grid: shape.grid,
            centre: shape.grid.position(shape.body.centre),
            margin_mm: shape.margin_mm,
            diameter_mm: shape.diameter_mm,
            inside: &inside,
        };
        let Some(profile) = Profile::new(&source, &self.textures, &mut key.stream("texture")) else {
            return Ok(Err("too_small"));
        };
        let Growth { strength, width, .. } = shape.growth;
        let effect =
            (strength > 0.0).then(|| MassEffect::new(self.scan, self.organ, shape.body, strength, width)).flatten();
        let fade_mm = self.vessel_fade_mm(shape);
        let fade = self.spacing_mm.map(|mm| (fade_mm / mm).ceil() as usize);
        let Some(cropped) = CroppedProfile::new(&profile, fade, self.scan.mask.labels.shape()) else {
            return Ok(Err("clipped"));
        };
        let part = cropped.region;
        let margin = self.spacing_mm.map(|mm| radius_voxels(TISSUE_MARGIN_MM / mm, 1.0));
        let around = part.grown(margin, self.scan.mask.labels.shape());
        let host_box = effect.as_ref().map_or(around, |effect| union(around, effect.region));
        let host = Host::new(self.scan, host_box, effect.as_ref(), &self.noise);
        let local = Region { start: [0, 1, 2].map(|k| part.start[k] - host_box.start[k]), shape: part.shape };
        let surroundings = Surroundings {
            scan: self.scan,
            organ: self.organ,
            summary: &self.summary,
            host: &host,
            is_exterior: self.is_exterior(),
            spacing_mm: self.spacing_mm,
        };
        let placed = surroundings.place(local, &cropped.coverage, &cropped.within, cropped.voxels_outside_scan, limits);
        let placed = match placed {
            Ok(placed) => placed,
            Err(reason) => return Ok(Err(reason)),
        };
        let map = match maps {
            Some(maps) => Some(maps.difference(&mut key.stream("difference"), site_box(part), part)?),
            None => None,
        };
        let mut target = host.hu.cut(local);
        match inside {
            Inside::Solid(_) => {
                let parts = TumorParts { shape, host: &host, local, cropped: &cropped, placed: &placed };
                self.replace_tissue(key, &parts, &mut target);
                let darker_hu = match contrast {
                    Some(SampledContrast::Darker(hu)) => hu as f32,
                    _ => 0.0,
                };
                let width_hu = self.window.width_hu() * TEXTURE_MEAN;
                for (y, z, span) in cropped.within.rows() {
                    let [factor, added] =
                        [&cropped.factor, &cropped.added_hu].map(|array| &array.row(y, z)[span.clone()]);
                    let map = map.as_ref().map(|map| &map.row(y, z)[span.clone()]);
                    let allowed = &placed.allowed.row(y, z)[span.clone()];
                    let values = target.row_mut(y, z)[span].iter_mut().enumerate();
                    for (index, value) in values.filter(|(index, _)| allowed[*index] != 0) {
                        let hu = map.map_or(darker_hu, |map| map[index] * width_hu);
                        *value += added[index] - factor[index] * hu;
                    }
                }
            }
            Inside::Filling { .. } => {
                let sampled = self.noise_of_tissue().sample(&mut key.stream("noise"), &cropped.within);
                for (y, z, span) in cropped.within.rows() {
                    for x in span.filter(|&x| placed.allowed.row(y, z)[x] != 0) {
                        let (fill, tissue) = (cropped.factor.row(y, z)[x], cropped.added_hu.row(y, z)[x]);
                        let value = &mut target.row_mut(y, z)[x];
                        *value += tissue + fill * (sampled.row(y, z)[x] - *value);
                    }
                }
            }
        }
        let Host { before, hu: mut after, labels, support, .. } = host;
        after.paste(local.start, &target);
        let mut tumor = Array3::filled(host_box.shape, 0u8);
        tumor.paste(local.start, &placed.tumor);
        let structure = match inside {
            Inside::Solid(structure) => structure.record().clone(),
            Inside::Filling { .. } => SampledStructure::default(),
        };
        let strength = effect.as_ref().map_or(0.0, MassEffect::strength);
        Ok(Ok(TumorChange {
            region: host_box,
            support,
            before,
            after,
            labels,
            tumor,
            clipped_fraction: placed.clipped_fraction,
            drawn_contrast_hu: contrast.map(SampledContrast::change_hu),
            structure,
            growth: Some(Growth { strength, ..shape.growth }),
        }))
    }

    fn is_exterior(&self) -> bool {
        matches!(self.prior.depth, Depth::Exterior { .. })
    }

    /// Samples the contrast of a tumor; `None` if a network predicts it.
    pub(super) fn sampled_contrast(
        &self,
        key: Key,
        diameter_mm: f64,
        maps: Option<&dyn DifferenceMaps>,
    ) -> Option<SampledContrast> {
        let mut random = key.stream("difference");
        match (maps, self.config.contrast_hu.get(&self.organ.name)) {
            (Some(_), _) => None,
            (None, Some([low, high])) => Some(SampledContrast::Darker(-random.uniform(*low, *high))),
            (None, None) => {
                Some(SampledContrast::sample(&mut random, &self.prior.contrast, &self.summary, diameter_mm))
            }
        }
    }

    /// Returns the sampled contrast, `None` if a network predicts it, and the inside of the tumor.
    fn inside(
        &self,
        key: Key,
        shape: &TumorShape,
        maps: Option<&dyn DifferenceMaps>,
    ) -> (Option<SampledContrast>, Inside) {
        let contrast = self.sampled_contrast(key, shape.diameter_mm, maps);
        let fixed = self.config.contrast_hu.get(&self.organ.name);
        if let Some(SampledContrast::Filling { tissue_hu, share, solid_from, .. }) = contrast {
            let [tissue_hu, share, solid_from] = [tissue_hu, share, solid_from].map(|value| value as f32);
            return (contrast, Inside::Filling { tissue_hu, share, solid_from });
        }
        let has_structure = maps.map_or(fixed.is_none(), DifferenceMaps::needs_structure);
        let structure = has_structure.then(|| {
            let tumor = SolidTumor {
                diameter_mm: shape.diameter_mm,
                contrast_hu: contrast.map(|contrast| -contrast.change_hu()),
                organ_hu: self.summary.median_hu,
                radii_mm: shape.body.radii_mm,
                rotation: shape.body.rotation,
            };
            InnerStructure::sample(&mut key.stream("structure"), &self.prior.structure, self.config, tumor)
        });
        (contrast, Inside::Solid(structure.unwrap_or_default()))
    }

    /// Returns the distance from the tumor at which vessels begin to fade; 0 if they do not.
    fn vessel_fade_mm(&self, shape: &TumorShape) -> f64 {
        let fades = self.prior.kept_structure >= 1.0 && !self.is_air_filled() && !shape.growth.infiltrating;
        if fades { VESSEL_FADE_MM.min(0.25 * shape.diameter_mm) } else { 0.0 }
    }

    /// Returns the noise of soft tissue in an organ of air, whose own noise cannot be separated from its structure.
    fn noise_of_tissue(&self) -> TissueNoise {
        self.noise.with_deviation(self.summary.noise_hu.clamp(3.0, 14.0))
    }

    /// Replaces vessels and edges inside the tumor by even tissue with noise, and fades vessels around it.
    fn replace_tissue(&self, key: Key, parts: &TumorParts<'_>, target: &mut Array3<f32>) {
        let TumorParts { shape, host, local, cropped, placed } = *parts;
        let labels_before = self.scan.mask.labels.cut(host.region);
        let source = TissueSource {
            host,
            labels_before: &labels_before,
            label: self.organ.label,
            organ: &self.summary,
            noise: &self.noise,
            kept_structure: self.prior.kept_structure,
            spacing_mm: self.spacing_mm,
        };
        let tissue = Tissue::new(&source, local, &cropped.within, &mut key.stream("noise"));
        let removal = VesselRemoval::new(self, shape);
        for (y, z, span) in cropped.within.rows() {
            let [mean, vessels, noise, interior] = [&tissue.mean, &tissue.vessels, &tissue.noise, &tissue.interior]
                .map(|array| &array.row(y, z)[span.clone()]);
            let soft = &cropped.soft.row(y, z)[span.clone()];
            let [allowed, replaced] = [&placed.allowed, &placed.replaced].map(|array| &array.row(y, z)[span.clone()]);
            let labels = &host.labels.row(local.start[1] + y, local.start[2] + z)[local.start[0]..];
            for (index, value) in target.row_mut(y, z)[span.clone()].iter_mut().enumerate() {
                let soft = soft[index] * f32::from(allowed[index]);
                let vessel = vessels[index];
                let other = *value - mean[index] - noise[index];
                let inside = interior[index];
                // Small real tumors and other structures inside the organ are not its vessels.
                let is_organ = allowed[index] != 0 || labels[span.start + index] == self.organ.label;
                let removed = if vessel == 0.0 || !is_organ {
                    0.0
                } else {
                    let voxel = [span.start + index, y, z];
                    removal.share([0, 1, 2].map(|k| local.start[k] + host.region.start[k] + voxel[k]), soft)
                };
                let edges = if self.is_exterior() { 1.0 } else { f32::from(replaced[index]) };
                *value -= removed * vessel + soft * (inside * other - vessel) + soft * (1.0 - inside) * edges * other;
            }
        }
    }
}

/// A tumor in its host.
struct TumorParts<'a> {
    shape: &'a TumorShape,
    host: &'a Host,
    /// The box that the tumor changes, in the host's box.
    local: Region,
    cropped: &'a CroppedProfile,
    placed: &'a PlacedTumor,
}

/// The removal of vessels: the removed share at a distance from the tumor's surface.
struct VesselRemoval {
    body: Body,
    /// The distance outside the surface at which vessels begin to fade, or `None` if they continue into the tumor.
    fade_mm: Option<f32>,
    /// The width over which they disappear.
    width_mm: f32,
    by_soft_edge: bool,
}

impl VesselRemoval {
    fn new(source: &TumorSource<'_>, shape: &TumorShape) -> Self {
        let fade_mm = source.vessel_fade_mm(shape) as f32;
        let radius_mm = shape.diameter_mm / 2.0;
        let (fade_mm, width_mm) = match shape.growth.infiltrating {
            true => (None, (0.6 * radius_mm).clamp(2.0, 10.0) as f32),
            false => (Some(fade_mm), fade_mm + 1.0),
        };
        Self { body: shape.body, fade_mm, width_mm, by_soft_edge: source.prior.kept_structure < 1.0 }
    }

    /// Returns the removed share at a voxel of the scan; `soft` is the soft shape there.
    fn share(&self, voxel: [usize; 3], soft: f32) -> f32 {
        if self.by_soft_edge {
            return soft;
        }
        let body = &self.body;
        let offset = [0, 1, 2].map(|k| (voxel[k] as f64 - body.centre[k]) * body.spacing_mm[k]);
        let length = libm::sqrt(offset.iter().map(|mm| mm * mm).sum());
        let depth_mm = if length > 0.0 { (body.radius_towards(offset) - length) as f32 } else { f32::MAX };
        smooth_step((depth_mm + self.fade_mm.unwrap_or(0.0)) / self.width_mm)
    }
}

/// A profile in the part of its box that is in the scan, with a margin.
struct CroppedProfile {
    region: Region,
    /// The spans that the tumor changes.
    within: RowSpans,
    coverage: Array3<f32>,
    soft: Array3<f32>,
    factor: Array3<f32>,
    added_hu: Array3<f32>,
    /// The number of voxels of the shape that are outside the scan.
    voxels_outside_scan: usize,
}

impl CroppedProfile {
    fn new(profile: &Profile, margin: [usize; 3], bounds: [usize; 3]) -> Option<Self> {
        let shape = profile.soft.shape();
        let from = [0, 1, 2].map(|k| (profile.start[k] - margin[k] as i64).max(0) as usize);
        let end = [0, 1, 2].map(|k| profile.start[k] + (shape[k] + margin[k]) as i64);
        let end = [0, 1, 2].map(|k| (end[k].max(0) as usize).min(bounds[k]));
        if (0..3).any(|k| from[k] >= end[k]) {
            return None;
        }
        let region = Region { start: from, shape: [0, 1, 2].map(|k| end[k] - from[k]) };
        let first = from.map(|index| index as i64);
        let cropped = |array: &Array3<f32>| array.translated(profile.start, first, region.shape, 0.0);
        let (coverage, soft) = (cropped(&profile.coverage), cropped(&profile.soft));
        let within = RowSpans::of(&soft, |&soft| soft != 0.0).grown(margin);
        let count = |array: &Array3<f32>| array.as_slice().iter().filter(|&&share| share >= 0.5).count();
        let voxels_outside_scan = count(&profile.coverage) - count(&coverage);
        let (factor, added_hu) = (cropped(&profile.factor), cropped(&profile.added_hu));
        Some(Self { region, within, coverage, soft, factor, added_hu, voxels_outside_scan })
    }
}

/// Returns the smallest region that contains both.
pub(super) fn union(first: Region, second: Region) -> Region {
    let start = [0, 1, 2].map(|k| first.start[k].min(second.start[k]));
    Region { start, shape: [0, 1, 2].map(|k| first.end()[k].max(second.end()[k]) - start[k]) }
}
