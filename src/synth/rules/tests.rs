//! Tumors on thick and thin slices.

use super::form::TumorForm;
use super::organ_plan::Site;
use super::*;
use crate::random::Key;
use crate::synth::growth::Growth;
use crate::synth::organ::testing::{liver, masked};
use crate::volume::{Array3, RowSpans};

/// Returns the changes of HU by a tumor at the same centre in grids of 1 mm and of 5 mm slices, and whether each voxel is labeled.
fn changes(seed: u64, diameter_mm: f64, slice_mm: usize) -> [Array3<f32>; 2] {
    let scan = masked([1.0, 1.0, slice_mm as f64], Array3::filled([100, 100, 100 / slice_mm], 1), |_| 110.0);
    let organs = [liver()];
    let config = RulesConfig { mass_effect: false, ..RulesConfig::default() };
    let rules = Rules::new(config, &organs, HuWindow::ABDOMEN).unwrap();
    let summary = OrganSummary::of(&scan, &organs[0]).unwrap();
    let prior = rules.prior(&organs[0]).unwrap();
    let source = TumorSource {
        scan: &scan,
        organ: &organs[0],
        prior,
        summary,
        config: rules.config(),
        noise: TissueNoise::measure(&scan, &organs[0], &[[50, 50, 50 / slice_mm]]),
        textures: TexturePool::abdomen(),
        window: HuWindow::ABDOMEN,
        spacing_mm: [1.0, 1.0, slice_mm as f64],
    };
    let search = PositionSearch::Depth(Box::new(SitePlan::new(&scan, &organs[0], &source.summary)));
    let plan = OrganPlan { source, search, maps: None, attempts_per_site: 1, steering: None };
    let key = Key::root(seed);
    // The middle of slice 50 of 1 mm, which is not the middle of a slice of 5 mm.
    let centre = [50.2, 49.7, (51.3 + 0.5) / slice_mm as f64 - 0.5];
    let site = Site { centre, voxel: centre.map(|x| x.round() as usize) };
    let form = TumorForm::Prior(prior.shape(&mut key.stream("size"), diameter_mm));
    let growth = Growth { strength: 0.0, width: 1.0, infiltrating: false };
    let shape = plan.shape(&form, growth, site, key);
    let changed = plan.source.make_tumor(key, &shape, plan.limits(), None, |region| region).unwrap().unwrap();
    let mut change = Array3::filled(scan.mask.labels.shape(), 0.0f32);
    let values = changed.after.as_slice().iter().zip(changed.before.as_slice()).map(|(is, was)| is - was);
    change.paste(changed.region.start, &Array3::from_vec(changed.region.shape, values.collect()));
    let mut tumor = Array3::filled(scan.mask.labels.shape(), 0.0f32);
    tumor.paste(changed.region.start, &changed.tumor.map(|&inside| f32::from(inside)));
    [change, tumor]
}

#[test]
fn thick_slices_are_averages_of_thin_ones() {
    for (seed, diameter_mm) in [(1, 6.0), (2, 12.0), (3, 24.0), (4, 45.0), (5, 30.0), (6, 9.0)] {
        let [thin, thin_tumor] = changes(seed, diameter_mm, 1);
        let [thick, thick_tumor] = changes(seed, diameter_mm, 5);
        let averaged =
            |fine: &Array3<f32>, [x, y, z]: [usize; 3]| (0..5).map(|k| fine[[x, y, 5 * z + k]]).sum::<f32>() / 5.0;
        let within = RowSpans::of(&thick, |&hu| hu != 0.0);
        let (mut voxels, mut close, mut labels) = (0usize, 0usize, 0usize);
        for (y, z, span) in within.rows() {
            for x in span {
                voxels += 1;
                close += usize::from((averaged(&thin, [x, y, z]) - thick[[x, y, z]]).abs() <= 2.0);
                let share = averaged(&thin_tumor, [x, y, z]);
                // Splitting of small tumors makes shares of thin slices finer than these.
                let expected = share >= 0.5;
                labels += usize::from(expected == (thick_tumor[[x, y, z]] != 0.0) || (share - 0.5).abs() <= 0.2);
            }
        }
        assert!(voxels > 50, "{diameter_mm} mm: {voxels}");
        assert!(close as f64 >= 0.99 * voxels as f64, "{diameter_mm} mm: {close} of {voxels}");
        assert!(labels as f64 >= 0.99 * voxels as f64, "{diameter_mm} mm: {labels} of {voxels} labels");
    }
}
