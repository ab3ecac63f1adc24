//! One organ of one scan, prepared for attempts: the size, site and shape of an attempt are sampled, and the tumor becomes a candidate.

use super::form::TumorForm;
use crate::error::Fault;
use crate::random::{Key, RandomStream};
use crate::synth::blend::{round_hu, with_tumor};
use crate::synth::boundary::boundary_distance_mm;
use crate::synth::classes::{ClassShape, SizeClass};
use crate::synth::config::{Differences, RulesConfig, Sizes};
use crate::synth::contrast::SampledContrast;
use crate::synth::difference::DifferenceMaps;
use crate::synth::domain::{Limits, exterior_fraction};
use crate::synth::fine_grid::FineGrid;
use crate::synth::growth::{Growth, sample_exterior_site};
use crate::synth::mass_effect::Body;
use crate::synth::measure::{equivalent_diameter_mm, sphericity};
use crate::synth::prior::Depth;
use crate::synth::profile::TRUNCATE;
use crate::synth::reference;
use crate::synth::reference_sites::ReferenceSites;
use crate::synth::shape::RasterizedShape;
use crate::synth::site::{SiteConstraints, SitePlan};
use crate::synth::steering::Steering;
use crate::synth::tumor::{TumorChange, TumorShape, TumorSource, VESSEL_FADE_MM, union};
use crate::synth::{Attempt, AttemptKey, Attempts, Candidate, Geometry};
use crate::volume::{Array3, Region, Voxels};

/// The minimum width of an edge in voxels, for the box of a site.
const VOXEL_BLUR: f64 = 0.4;
/// The maximum number of sizes and contrasts that are sampled for one attempt with steering; the chance to need more is negligible.
const MAX_STEERED: u64 = 10_000;
/// The maximum diameter of tumors that are not placed on vessels.
const BESIDE_VESSELS_UP_TO_MM: f64 = 15.0;

/// Returns an attempt without a tumor.
pub(super) fn rejected(reason: &str) -> Attempt {
    Attempt::Rejected { reason: reason.to_owned() }
}

/// The search for the site of a tumor.
pub(super) enum PositionSearch {
    Depth(Box<SitePlan>),
    Reference(ReferenceSites),
}

/// The centre of a tumor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// The centre, a fractional voxel.
    pub centre: [f64; 3],
    /// The voxel nearest to the centre.
    pub voxel: [usize; 3],
}

/// One organ of one scan, prepared for attempts.
pub(super) struct OrganPlan<'scan> {
    pub source: TumorSource<'scan>,
    pub search: PositionSearch,
    pub maps: Option<Box<dyn DifferenceMaps + 'scan>>,
    pub attempts_per_site: u32,
    pub steering: Option<&'scan Steering>,
}

/// The size of a tumor with the keys of its other random values.
struct SampledForm {
    form: TumorForm,
    site_key: Key,
    key: Key,
    /// The steering factor of the sampled size and contrast.
    steering_factor: Option<f64>,
}

impl Attempts for OrganPlan<'_> {
    fn attempt(&self, keys: AttemptKey) -> Result<Attempt, Fault> {
        let Some(sampled) = self.sampled_form(keys) else { return Ok(rejected("no_site")) };
        let SampledForm { form, site_key, key, steering_factor } = sampled;
        let growth = Growth::sample(
            &mut site_key.stream("growth"),
            self.source.prior.mass_effect,
            self.config(),
            form.diameter_mm(),
        );
        let Some(site) = self.site(&mut site_key.stream("site"), &form, growth) else {
            return Ok(rejected("no_site"));
        };
        let changed = match self.config().difference {
            Differences::Reference => {
                let raster = self.raster(&form, &mut key.stream("shape"), site, FineGrid::unsplit(self.spacing_mm()));
                reference::blended(&self.source, key, &raster, self.limits())
            }
            Differences::Prior => {
                let boundary_mm = boundary_distance_mm(self.source.scan, self.source.organ, site.voxel);
                let growth = match self.source.prior.depth {
                    Depth::AtLeast(_) => growth.bulging(boundary_mm, form.diameter_mm() / 2.0),
                    Depth::Exterior { .. } => growth,
                };
                let shape = self.shape(&form, growth, site, key);
                let site_box = |region| self.site_box(&form, site, region);
                let maps = self.maps.as_deref().map(|maps| maps as &dyn DifferenceMaps);
                self.source.make_tumor(key, &shape, self.limits(), maps, site_box)?
            }
        };
        Ok(match changed {
            Ok(changed) => match self.candidate(&form, site, changed) {
                Some(mut candidate) => {
                    candidate.geometry.steering_factor = steering_factor;
                    Attempt::Candidate(Box::new(candidate))
                }
                None => rejected("too_small"),
            },
            Err(reason) => rejected(reason),
        })
    }
}

impl OrganPlan<'_> {
    fn config(&self) -> &RulesConfig {
        self.source.config
    }

    fn spacing_mm(&self) -> [f64; 3] {
        self.source.spacing_mm
    }

    /// Samples the size. With steering, sizes and contrasts are sampled again until one is kept, with a probability in proportion to its
    /// factor.
    fn sampled_form(&self, keys: AttemptKey) -> Option<SampledForm> {
        let (site_key, key) = (keys.site(self.attempts_per_site), keys.attempt());
        let Some(steering) = self.steering else {
            return Some(SampledForm {
                form: self.form(&mut site_key.stream("size"))?,
                site_key,
                key,
                steering_factor: None,
            });
        };
        let maps = self.maps.as_deref().map(|maps| maps as &dyn DifferenceMaps);
        for number in 0..MAX_STEERED {
            let [site_key, key] = [site_key, key].map(|key| key.number("steered", number));
            let form = self.form(&mut site_key.stream("size"))?;
            let contrast = self.source.sampled_contrast(key, form.diameter_mm(), maps);
            let factor = steering.factor(form.diameter_mm(), contrast.map(SampledContrast::change_hu));
            if key.stream("steering").uniform(0.0, steering.greatest()) < factor {
                return Some(SampledForm { form, site_key, key, steering_factor: Some(factor) });
            }
        }
        None
    }

    fn form(&self, random: &mut RandomStream) -> Option<TumorForm> {
        if self.config().sizes == Sizes::Classes {
            let classes: &[SizeClass] = match self.config().classes.as_slice() {
                [] if self.source.is_air_filled() => &SizeClass::ALL[..2],
                [] => &SizeClass::ALL,
                selected => selected,
            };
            let class = classes[random.index(classes.len())];
            return Some(TumorForm::Class(Box::new(ClassShape::sample(random, class))));
        }
        let prior = self.source.prior;
        let voxel_mm = libm::cbrt(self.spacing_mm().iter().product());
        let [low, high] = self.config().diameter_mm;
        // Sizes that do not fit in the organ are not sampled.
        let organ_mm3 = self.source.summary.voxels as f64 * voxel_mm * voxel_mm * voxel_mm;
        let by_volume = equivalent_diameter_mm(prior.max_organ_share * organ_mm3);
        let by_depth = match (&self.search, prior.depth) {
            (PositionSearch::Depth(plan), Depth::AtLeast(radii)) => 2.0 * plan.deepest_mm() / radii,
            _ => f64::INFINITY,
        };
        let low = low.max(self.config().min_diameter_voxels * voxel_mm);
        let diameter_mm = prior.diameter_mm.sample_between(random, low, high.min(by_volume).min(by_depth))?;
        Some(TumorForm::Prior(prior.shape(random, diameter_mm)))
    }

    fn site(&self, random: &mut RandomStream, form: &TumorForm, growth: Growth) -> Option<Site> {
        let TumorSource { scan, organ, prior, .. } = self.source;
        let plan = match &self.search {
            PositionSearch::Reference(sites) => {
                let voxel = sites.sample(random)?;
                return Some(Site { centre: voxel.map(|index| index as f64), voxel });
            }
            PositionSearch::Depth(plan) => plan,
        };
        let radius_mm = form.diameter_mm() / 2.0;
        if let Some(share) = prior.depth.sample_exterior(random, form.diameter_mm()) {
            // The part of the organ that the tumor does not displace.
            let replaced_mm = radius_mm * (1.0 - growth.strength);
            let centre = sample_exterior_site(random, plan, scan, organ, replaced_mm, share)?;
            return Some(Site { centre, voxel: centre.map(|x| (x + 0.5) as usize) });
        }
        let Depth::AtLeast(radii) = prior.depth else { return None };
        let constraints = SiteConstraints {
            depth_mm: [radii * radius_mm, f64::INFINITY],
            tumor_mm: form.reach_mm(),
            vessel_mm: if form.diameter_mm() <= BESIDE_VESSELS_UP_TO_MM { radius_mm } else { 0.0 },
        };
        let voxel = plan.sample(random, &scan.mask.labels, organ, constraints)?;
        // Centres are anywhere within a voxel, so that tumors on thick slices are not centred on slices.
        let centre = voxel.map(|index| index as f64 + random.uniform(-0.5, 0.5));
        Some(Site { centre, voxel })
    }

    fn raster(&self, form: &TumorForm, random: &mut RandomStream, site: Site, grid: FineGrid) -> RasterizedShape {
        let centre = grid.position(site.centre);
        match form {
            TumorForm::Prior(shape) => shape.rasterize(random, centre, grid.spacing_mm),
            TumorForm::Class(class) => class.rasterize(centre, grid.spacing_mm),
        }
    }

    /// Samples the shape on the fine grid.
    pub(super) fn shape(&self, form: &TumorForm, growth: Growth, site: Site, key: Key) -> TumorShape {
        let diameter_mm = form.diameter_mm();
        let grid = FineGrid::new(self.spacing_mm(), diameter_mm);
        let raster = self.raster(form, &mut key.stream("shape"), site, grid);
        let body = Body {
            centre: site.centre,
            radii_mm: raster.radii_mm,
            rotation: raster.rotation,
            spacing_mm: self.spacing_mm(),
        };
        let [low, high] = self.config().margin_mm.unwrap_or(self.source.prior.margin_mm);
        // A wide margin would make a small tumor invisible.
        let margin_mm = key.stream("margin").uniform(low, high).min(0.15 * diameter_mm);
        TumorShape { grid, raster, body, growth, margin_mm, diameter_mm }
    }

    /// Returns an upper bound of the sampled margins of a form in mm.
    fn widest_margin_mm(&self, form: &TumorForm) -> f64 {
        if self.config().difference == Differences::Reference {
            return reference::widest_margin_mm();
        }
        self.config().margin_mm.unwrap_or(self.source.prior.margin_mm)[1].min(0.15 * form.diameter_mm())
    }

    pub(super) fn limits(&self) -> Limits {
        let max_clipped_fraction = self.config().max_clipped_fraction.unwrap_or(match self.config().sizes {
            Sizes::Prior => self.source.prior.max_clipped_fraction,
            Sizes::Classes => 1.0,
        });
        Limits { max_clipped_fraction, min_diameter_voxels: self.config().min_diameter_voxels }
    }

    /// Returns the box that contains every tumor of this form at this site, including its soft edge and the vessels that fade around it.
    fn site_box(&self, form: &TumorForm, site: Site, region: Region) -> Region {
        let bounds = self.source.scan.mask.labels.shape();
        let reach = [0, 1, 2].map(|k| {
            let edge = TRUNCATE * self.widest_margin_mm(form).max(VOXEL_BLUR * self.spacing_mm()[k]);
            ((form.reach_mm() + edge.max(VESSEL_FADE_MM)) / self.spacing_mm()[k]).ceil() as usize + 2
        });
        union(Region { start: site.voxel, shape: [1; 3] }.grown(reach, bounds), region)
    }

    /// Returns the candidate in the box that it changes; `None` if it changes nothing.
    fn candidate(&self, form: &TumorForm, site: Site, changed: TumorChange) -> Option<Candidate> {
        let TumorSource { scan, organ, .. } = self.source;
        let TumorChange { region, mut support, before, mut after, labels, tumor, .. } = changed;
        if matches!(scan.scan.volume.voxels, Voxels::I16(_)) {
            round_hu(&mut after);
        }
        let voxels = support.as_mut_slice().iter_mut().zip(before.as_slice().iter().zip(after.as_slice()));
        for ((support, (was, is)), &inside) in voxels.zip(tumor.as_slice()) {
            *support |= u8::from(was != is || inside != 0);
        }
        let kept = support.extent(|&inside| inside != 0)?;
        let [support, tumor, labels] = [support, tumor, labels].map(|array| array.into_cut(kept));
        let [before, after] = [before, after].map(|array| array.into_cut(kept));
        let region = Region { start: [0, 1, 2].map(|k| region.start[k] + kept.start[k]), shape: kept.shape };
        let grid = &scan.scan.volume.grid;
        let count = |mask: &Array3<u8>| mask.as_slice().iter().filter(|&&inside| inside != 0).count() as f64;
        let volume_mm3 = count(&tumor) * grid.voxel_volume_mm3();
        let diameter_mm = equivalent_diameter_mm(volume_mm3);
        let class = match form {
            TumorForm::Prior(_) => SizeClass::of_diameter(diameter_mm),
            TumorForm::Class(class) => class.class,
        };
        let geometry = Geometry {
            size_class: class.name().to_owned(),
            site_voxel: site.voxel,
            site_mm: grid.affine.apply(site.centre),
            radii_mm: form.radii_mm(),
            volume_mm3,
            diameter_mm,
            sphericity: sphericity(&tumor, self.spacing_mm()),
            clipped_fraction: changed.clipped_fraction,
            boundary_distance_mm: boundary_distance_mm(scan, organ, site.voxel),
            exterior_fraction: exterior_fraction(&tumor, &labels, organ, self.spacing_mm()),
            support_mm3: count(&support) * grid.voxel_volume_mm3(),
            mass_effect: changed.growth.map_or(0.0, |growth| growth.strength),
            infiltrating: changed.growth.is_some_and(|growth| growth.infiltrating),
            drawn_contrast_hu: changed.drawn_contrast_hu,
            steering_factor: None,
            structure: changed.structure,
        };
        let labels = with_tumor(&labels, &tumor, organ);
        // Displaced tissue beyond the tumor need not be predicted.
        let inside = tumor.extent(|&inside| inside != 0)?;
        let tumor_box = Region { start: [0, 1, 2].map(|k| region.start[k] + inside.start[k]), shape: inside.shape };
        let site_box = self.site_box(form, site, tumor_box);
        Some(Candidate { region, site_box, support, before, after, labels, tumor, geometry })
    }
}
