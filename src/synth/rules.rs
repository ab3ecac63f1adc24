//! Synthesis by rules: site, shape, texture, difference and blend without a network.

use std::sync::Arc;

use super::blend::{blend, round_hu, smooth_difference, with_tumor};
use super::classes::{CLASS_VOXEL_MM, ClassShape, SizeClass};
use super::config::{Differences, RulesConfig, Sites, Sizes, Textures};
use super::difference::{SampledDifference, TumorContext, constant, fixed, plausible, structured};
use super::measure::{equivalent_diameter_mm, sphericity};
use super::organ::OrganSummary;
use super::placed::{OrganRules, PlacedShape, TRUNCATE};
use super::prior::{Contrast, Depth, OrganPrior};
use super::shape::ShapeParameters;
use super::site::{ReferenceSites, SiteConstraints, SitePlan, boundary_distance_mm};
use super::texture::TexturePool;
use super::{Attempt, AttemptKey, Attempts, Candidate, Geometry, Synthesize};
use crate::error::{ConfigError, Fault, FaultKind, Stage};
use crate::mask::{MaskedScan, Organ};
use crate::random::{Key, RandomStream};
use crate::volume::{Array3, Boundary, Gaussian, HuWindow, Region, Voxels};

/// The minimum standard deviation of an edge in voxels. Averaging over a voxel's width has 1/√12 of the width; scanners blur somewhat
/// more.
const VOXEL_BLUR: f64 = 0.4;

/// Synthesizes tumors by rules.
///
/// ```
/// use freetumor::mask::Organ;
/// use freetumor::synth::{Rules, RulesConfig};
/// use freetumor::volume::HuWindow;
/// let liver = [Organ { name: "liver".into(), label: 1, tumor_label: 2 }];
/// assert!(Rules::new(RulesConfig::default(), &liver, HuWindow::ABDOMEN).is_ok());
/// let config = RulesConfig { variants: 0, necrotic_fraction: 2.0, ..RulesConfig::default() };
/// assert_eq!(Rules::new(config, &liver, HuWindow::ABDOMEN).err().unwrap().len(), 2);
/// ```
#[derive(Debug)]
pub struct Rules {
    config: RulesConfig,
    window: HuWindow,
    organs: Vec<(String, &'static OrganPrior)>,
}

impl Rules {
    /// Checks the settings against the organs of the mask. `window` is the range of HU that corresponds to a difference of 1.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn new(config: RulesConfig, organs: &[Organ], window: HuWindow) -> Result<Self, Vec<ConfigError>> {
        let organs = config.check(organs)?;
        Ok(Self { config, window, organs })
    }

    /// Returns the name of the model in tables. It changes whenever equal settings would produce other tumors.
    pub fn version(&self) -> &'static str {
        "rules-1"
    }

    /// Returns the settings.
    pub fn config(&self) -> &RulesConfig {
        &self.config
    }

    /// Returns whether the settings select this organ.
    pub fn includes(&self, organ: &Organ) -> bool {
        self.prior(organ).is_some()
    }

    fn prior(&self, organ: &Organ) -> Option<&'static OrganPrior> {
        self.organs.iter().find(|(name, _)| *name == organ.name).map(|(_, prior)| *prior)
    }
}

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

impl Synthesize for Rules {
    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        self.plan(scan, organ, 1, |_| Ok(None))
    }
}

impl Rules {
    /// Prepares one organ of one scan. `maps` returns the source of difference maps for the organ's box; it is called only if the scan
    /// contains the organ.
    pub(super) fn plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
        attempts_per_site: u32,
        maps: impl FnOnce(Region) -> Result<Option<Box<dyn DifferenceMaps + 'scan>>, Fault>,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        let (shape, labels) = (scan.scan.volume.grid.shape, scan.mask.labels.shape());
        if shape != labels || shape != scan.scan.volume.voxels.shape() {
            let message = format!("expected a mask of the scan's shape {shape:?}, got {labels:?}");
            return Err(Fault::new(Stage::Synthesize, FaultKind::Mismatch, message));
        }
        let found = self.prior(organ).and_then(|prior| Some((prior, OrganSummary::of(scan, organ)?)));
        let Some((prior, summary)) = found else { return Ok(Box::new(NoOrgan)) };
        let search = match self.config.sites {
            Sites::Prior => PositionSearch::Depth(SitePlan::new(scan, organ, summary.region)),
            Sites::Reference => PositionSearch::Reference(ReferenceSites::new(scan, organ, summary.region)),
        };
        Ok(Box::new(OrganPlan {
            rules: self,
            scan,
            organ,
            prior,
            summary,
            search,
            maps: maps(summary.region)?,
            attempts_per_site: self.config.attempts_per_site.unwrap_or(attempts_per_site),
            spacing_mm: scan.scan.volume.grid.spacing_mm(),
        }))
    }
}

/// An organ that is not in the scan or not selected.
struct NoOrgan;

impl Attempts for NoOrgan {
    fn attempt(&self, _key: AttemptKey) -> Result<Attempt, Fault> {
        Ok(rejected("no_site"))
    }
}

fn rejected(reason: &str) -> Attempt {
    Attempt::Rejected { reason: reason.to_owned() }
}

enum PositionSearch {
    Depth(SitePlan),
    Reference(ReferenceSites),
}

/// The size and shape of a tumor, before its site is sampled.
enum TumorForm {
    Prior(ShapeParameters),
    Class(Box<ClassShape>),
}

impl TumorForm {
    fn diameter_mm(&self) -> f64 {
        match self {
            Self::Prior(shape) => shape.diameter_mm,
            Self::Class(class) => class.diameter_mm(),
        }
    }

    fn radii_mm(&self) -> [f64; 3] {
        match self {
            Self::Prior(shape) => shape.radii_mm(),
            Self::Class(class) => class.radii_mm(),
        }
    }

    fn reach_mm(&self) -> f64 {
        match self {
            Self::Prior(shape) => shape.reach_mm(),
            Self::Class(class) => class.reach_mm(),
        }
    }
}

/// One organ of one scan, prepared for attempts.
struct OrganPlan<'scan> {
    rules: &'scan Rules,
    scan: &'scan MaskedScan,
    organ: &'scan Organ,
    prior: &'static OrganPrior,
    summary: OrganSummary,
    search: PositionSearch,
    maps: Option<Box<dyn DifferenceMaps + 'scan>>,
    attempts_per_site: u32,
    spacing_mm: [f64; 3],
}

impl Attempts for OrganPlan<'_> {
    fn attempt(&self, keys: AttemptKey) -> Result<Attempt, Fault> {
        let (site_key, key) = (keys.site(self.attempts_per_site), keys.attempt());
        let Some(form) = self.form(&mut site_key.stream("size")) else { return Ok(rejected("no_site")) };
        let Some(site) = self.site(&mut site_key.stream("site"), &form) else { return Ok(rejected("no_site")) };
        let centre = site.map(|index| index as f64);
        let raster = match &form {
            TumorForm::Prior(shape) => shape.rasterize(&mut key.stream("shape"), centre, self.spacing_mm),
            TumorForm::Class(class) => class.rasterize(centre, self.spacing_mm),
        };
        let margin = self.margin_voxels(&mut key.stream("margin"), &form);
        let rules = OrganRules {
            scan: self.scan,
            organ: self.organ,
            config: self.config(),
            max_clipped_fraction: self.max_clipped_fraction(),
        };
        match PlacedShape::new(&rules, &raster, margin) {
            Ok(placed) => Ok(Attempt::Candidate(Box::new(self.candidate(key, &form, site, placed, margin)?))),
            Err(reason) => Ok(rejected(reason)),
        }
    }
}

impl OrganPlan<'_> {
    fn config(&self) -> &RulesConfig {
        &self.rules.config
    }

    /// Returns whether the organ contains air, so that tumors are brighter.
    fn is_air_filled(&self) -> bool {
        matches!(self.prior.contrast, Contrast::Filling { .. })
    }

    fn form(&self, random: &mut RandomStream) -> Option<TumorForm> {
        if self.config().sizes == Sizes::Classes {
            let classes: &[SizeClass] = match self.config().classes.as_slice() {
                [] if self.is_air_filled() => &SizeClass::ALL[..2],
                [] => &SizeClass::ALL,
                selected => selected,
            };
            let class = classes[random.index(classes.len())];
            return Some(TumorForm::Class(Box::new(ClassShape::sample(random, class))));
        }
        let voxel_mm = libm::cbrt(self.spacing_mm.iter().product());
        let [low, high] = self.config().diameter_mm;
        // Sizes that do not fit in the organ are not sampled.
        let organ_mm3 = self.summary.voxels as f64 * voxel_mm * voxel_mm * voxel_mm;
        let by_volume = equivalent_diameter_mm(self.prior.max_organ_share * organ_mm3);
        let by_depth = match (&self.search, self.prior.depth) {
            (PositionSearch::Depth(plan), Depth::AtLeast(radii)) => 2.0 * plan.deepest_mm() / radii,
            _ => f64::INFINITY,
        };
        let low = low.max(self.config().min_diameter_voxels * voxel_mm);
        let prior = self.prior;
        let diameter_mm = prior.diameter_mm.sample_between(random, low, high.min(by_volume).min(by_depth))?;
        Some(TumorForm::Prior(prior.shape(random, diameter_mm)))
    }

    fn site(&self, random: &mut RandomStream, form: &TumorForm) -> Option<[usize; 3]> {
        let plan = match &self.search {
            PositionSearch::Reference(sites) => return sites.sample(random),
            PositionSearch::Depth(plan) => plan,
        };
        let radius_mm = form.diameter_mm() / 2.0;
        let depth_mm = match self.prior.depth {
            Depth::AtLeast(radii) => [radii * radius_mm, f64::INFINITY],
            Depth::Sampled(quantiles) => {
                let depth_mm = (quantiles.sample(random) * radius_mm).min(plan.deepest_mm());
                [depth_mm - 1.0, depth_mm + 1.0]
            }
        };
        plan.sample(random, &self.scan.mask.labels, self.organ, SiteConstraints { depth_mm, tumor_mm: form.reach_mm() })
    }

    /// Samples the standard deviation of the Gaussian that softens the edge, in voxels along each axis.
    fn margin_voxels(&self, random: &mut RandomStream, form: &TumorForm) -> [f64; 3] {
        if self.config().difference == Differences::Reference {
            let sigma_mm = random.uniform(1.0, 2.0) * CLASS_VOXEL_MM;
            return self.spacing_mm.map(|mm| sigma_mm / mm);
        }
        let [low, high] = self.config().margin_mm.unwrap_or(self.prior.margin_mm);
        // A wide margin would make a small tumor invisible.
        let sigma_mm = random.uniform(low, high).min(0.15 * form.diameter_mm());
        // A voxel is the mean over its width, so no edge is sharper.
        self.spacing_mm.map(|mm| (sigma_mm / mm).max(VOXEL_BLUR))
    }

    /// Returns an upper bound of the sampled margins of a form in mm.
    fn widest_margin_mm(&self, form: &TumorForm) -> f64 {
        if self.config().difference == Differences::Reference {
            return 2.0 * CLASS_VOXEL_MM;
        }
        self.config().margin_mm.unwrap_or(self.prior.margin_mm)[1].min(0.15 * form.diameter_mm())
    }

    /// Returns the difference map by rules.
    fn difference(&self, random: &mut RandomStream, context: &TumorContext) -> SampledDifference {
        let (shape, width_hu) = (context.before.shape(), self.rules.window.width_hu());
        match (self.config().contrast_hu.get(&self.organ.name), self.config().difference) {
            (Some(change_hu), _) => fixed(random, context, *change_hu, width_hu),
            (None, Differences::Reference) => {
                let sampled = constant(random, shape, self.is_air_filled(), width_hu);
                SampledDifference { difference: smooth_difference(&sampled.difference), ..sampled }
            }
            (None, Differences::Prior) => {
                plausible(random, context, &self.prior.contrast, self.config().necrotic_fraction, width_hu)
            }
        }
    }

    fn max_clipped_fraction(&self) -> f64 {
        self.config().max_clipped_fraction.unwrap_or(match self.config().sizes {
            Sizes::Prior => self.prior.max_clipped_fraction,
            Sizes::Classes => 1.0,
        })
    }

    fn textures(&self) -> Arc<TexturePool> {
        match self.config().texture {
            Textures::Chest => TexturePool::chest(),
            Textures::Organ if self.is_air_filled() => TexturePool::chest(),
            Textures::Organ | Textures::Abdomen => TexturePool::abdomen(),
        }
    }

    /// Returns the box that contains every tumor of this form at this site, including its soft edge.
    fn site_box(&self, form: &TumorForm, site: [usize; 3], region: Region) -> Region {
        let bounds = self.scan.mask.labels.shape();
        let reach = [0, 1, 2].map(|k| {
            let edge = TRUNCATE * self.widest_margin_mm(form).max(VOXEL_BLUR * self.spacing_mm[k]);
            ((form.reach_mm() + edge) / self.spacing_mm[k]).ceil() as usize + 1
        });
        let around = Region { start: site, shape: [1; 3] }.grown(reach, bounds);
        let start = [0, 1, 2].map(|k| around.start[k].min(region.start[k]));
        Region { start, shape: [0, 1, 2].map(|k| around.end()[k].max(region.end()[k]) - start[k]) }
    }

    fn candidate(
        &self,
        key: Key,
        form: &TumorForm,
        site: [usize; 3],
        placed: PlacedShape,
        margin: [f64; 3],
    ) -> Result<Candidate, Fault> {
        let PlacedShape { region, soft_box, soft_within, soft_start, depth, labels, tumor, voxels, clipped_fraction } =
            placed;
        let grid = &self.scan.scan.volume.grid;
        let before = self.scan.scan.volume.voxels.hu_of(region);
        let inner = Region { start: soft_start, shape: region.shape };
        let mut soft = Gaussian::truncated(margin, TRUNCATE, Boundary::Zero).smoothed_within(&soft_box, &soft_within);
        let mut within = soft_within;
        if soft.region() != inner {
            (soft, within) = (soft.cut(inner), within.cut(inner));
        }
        let texture = self.textures().sample(&mut key.stream("texture"), &within, self.spacing_mm);
        let context = TumorContext {
            before: &before,
            labels: &labels,
            label: self.organ.label,
            within: &within,
            depth: &depth,
            texture: &texture,
            spacing_mm: self.spacing_mm,
            diameter_mm: form.diameter_mm(),
            organ: &self.summary,
        };
        let width_hu = self.rules.window.width_hu();
        let site_box = self.site_box(form, site, region);
        let mut random = key.stream("difference");
        let (difference, drawn_contrast_hu) = match &self.maps {
            Some(maps) => {
                let mut difference = maps.difference(&mut random, site_box, region)?;
                if maps.needs_structure() {
                    structured(&mut random, &context, self.config().necrotic_fraction, width_hu, &mut difference);
                }
                (difference, None)
            }
            None => {
                let SampledDifference { difference, contrast_hu } = self.difference(&mut random, &context);
                (difference, Some(contrast_hu))
            }
        };
        let mut after = blend(&before, &labels, self.organ, &soft, &difference, &texture, width_hu);
        if matches!(self.scan.scan.volume.voxels, Voxels::I16(_)) {
            round_hu(&mut after);
        }
        let volume_mm3 = voxels as f64 * grid.voxel_volume_mm3();
        let diameter_mm = equivalent_diameter_mm(volume_mm3);
        let class = match form {
            TumorForm::Prior(_) => SizeClass::of_diameter(diameter_mm),
            TumorForm::Class(class) => class.class,
        };
        let geometry = Geometry {
            size_class: class.name().to_owned(),
            site_voxel: site,
            site_mm: grid.affine.apply(site.map(|index| index as f64)),
            radii_mm: form.radii_mm(),
            volume_mm3,
            diameter_mm,
            sphericity: sphericity(&tumor, self.spacing_mm),
            clipped_fraction,
            boundary_distance_mm: boundary_distance_mm(self.scan, self.organ, site),
            drawn_contrast_hu,
        };
        let labels = with_tumor(&labels, &tumor, self.organ);
        Ok(Candidate { region, site_box, before, after, labels, tumor, geometry })
    }
}
