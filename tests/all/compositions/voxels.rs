//! The voxels of samples of several tumors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freetumor::compose::{ChangedBox, Composition, digest, overlays, support};
use freetumor::export::scans::read_patch;
use freetumor::export::select::{SelectionConfig, select};
use freetumor::graph::SynthesisNode;
use freetumor::ingest::nifti;
use freetumor::mask::{MaskedScan, Organ};
use freetumor::record::{SampleId, SampleKind, SampleRow, ScanId};
use freetumor::synth::Candidate;

use super::{GRAPH, Run, is_accepted};
use crate::dataflow::plan_of;

/// Returns every scan of a plan with its mask.
fn scans(plan: &freetumor::graph::Plan) -> BTreeMap<ScanId, MaskedScan> {
    let source = &plan.sources[0].source;
    let masked = |entry| {
        let scan = Arc::new(source.read(&entry).unwrap());
        let mask = plan.masks[0].mask.mask(&scan).unwrap();
        (entry.scan_id, MaskedScan { scan, mask })
    };
    source.list().unwrap().into_iter().map(masked).collect()
}

fn changed_box(candidate: Candidate) -> ChangedBox {
    let Candidate { region, before, after, labels, .. } = candidate;
    ChangedBox { region, before, after, labels }
}

/// Makes the accepted candidate of a row again, alone on the unchanged scan.
fn make_again(synthesis: &SynthesisNode, seed: u64, masked: &MaskedScan, row: &SampleRow, branch: usize) -> Candidate {
    let organs: Vec<&Organ> = synthesis.organs_in(&masked.mask.organs).collect();
    let requests = synthesis.requests(seed, masked.scan.digest, &organs);
    let request = requests
        .iter()
        .find(|request| (request.variant, request.tumor_id) == (row.record.variant, row.record.tumor_id))
        .unwrap();
    let organ = organs[request.organ];
    assert_eq!(organ.name, row.record.organ);
    let tumor = synthesis.tumor(seed, masked.scan.digest, masked.mask.digest(), organ, request.variant);
    let tumor = tumor.numbered(request.number);
    assert_eq!(Some(tumor.sample_id(row.record.attempt)), row.record.candidate_id);
    let alone = synthesis.attempts.only(branch);
    *alone.first_accepted(masked, organ, tumor.key()).unwrap().expect("the tumor was accepted")
}

#[test]
fn sample_is_the_composition_of_separately_made_tumors() {
    let run = Run::new(GRAPH);
    let plan = plan_of(GRAPH, run.parent.path());
    let (scans, synthesis) = (scans(&plan), &plan.syntheses[0]);
    let mut compared = BTreeSet::new();
    for (branch, node) in synthesis.attempts.branches.iter().enumerate() {
        let mut samples: BTreeMap<SampleId, Vec<SampleRow>> = BTreeMap::new();
        let mut left_out = Vec::new();
        for row in run.rows().into_iter().filter(|row| row.record.branch == node.name) {
            if is_accepted(&&row) {
                samples.entry(row.record.sample_id).or_default().push(row);
            } else if row.record.outcome.reason() == Some("overlaps") {
                left_out.push(row);
            }
        }
        for (sample_id, rows) in &samples {
            assert!(rows.is_sorted_by_key(|row| row.record.tumor_id));
            let masked = &scans[&rows[0].record.scan_id];
            let mut composition = Composition::new(&masked.mask.labels);
            for row in rows {
                let tumor = changed_box(make_again(synthesis, plan.seed, masked, row, branch));
                assert!(composition.add(tumor), "expected tumors with disjoint supports");
            }
            // A tumor that was left out overlaps an earlier tumor of the sample.
            let own = |row: &&SampleRow| {
                (row.record.scan_id, row.record.variant) == (rows[0].record.scan_id, rows[0].record.variant)
            };
            for row in left_out.iter().filter(own) {
                let tumor = make_again(synthesis, plan.seed, masked, row, branch);
                assert_eq!(Some(tumor.digest()), row.record.candidate_digest);
                let is_earlier = |placed: &&SampleRow| placed.record.tumor_id < row.record.tumor_id;
                let mut earlier = Composition::new(&masked.mask.labels);
                for placed in rows.iter().filter(is_earlier) {
                    assert!(earlier.add(changed_box(make_again(synthesis, plan.seed, masked, placed, branch))));
                }
                assert!(!earlier.add(changed_box(tumor)));
            }
            let boxes = composition.into_boxes();
            assert_eq!(Some(digest(&overlays(&boxes))), rows[0].record.candidate_digest, "{sample_id}");
            compared.insert((rows.len() > 1, *sample_id));
        }
    }
    assert!(compared.iter().filter(|(is_several, _)| *is_several).count() > 10, "{compared:?}");
}

#[test]
fn files_equal_scan_outside_supports_and_real_tumors_keep_their_label() {
    let run = Run::new(GRAPH);
    let scans = scans(&plan_of(GRAPH, run.parent.path()));
    let (folder, rows) = (run.folder(), run.rows());
    let (mut real, mut several) = (0, 0);
    for sample in select(&folder, &SelectionConfig::default()).unwrap().samples {
        let masked = &scans[&sample.record.scan_id];
        let (volume, labels) = (&masked.scan.volume, &masked.mask.labels);
        let patch = read_patch(&folder, &sample).unwrap();
        let (mut hu, mut composed) = (volume.voxels.hu_of(volume.grid.region()), labels.clone());
        let unchanged = hu.clone();
        let mut in_support = labels.map(|_| 0u8);
        for changed in patch.boxes.iter().rev() {
            assert_eq!(volume.voxels.hu_of(changed.region), changed.before);
            let support = support(changed.into(), labels);
            for (index, &inside) in support.as_slice().iter().enumerate() {
                let [nx, ny, _] = changed.region.shape;
                let voxel = [index % nx, index / nx % ny, index / nx / ny];
                if inside != 0 {
                    in_support[[0, 1, 2].map(|axis| voxel[axis] + changed.region.start[axis])] = 1;
                }
            }
            hu.paste(changed.region.start, &changed.after);
            composed.paste(changed.region.start, &changed.labels);
        }
        let voxels = in_support.as_slice().iter().zip(hu.as_slice()).zip(unchanged.as_slice());
        assert!(voxels.clone().all(|((&inside, after), before)| inside != 0 || after == before));
        let both = labels.as_slice().iter().zip(composed.as_slice());
        for (before, after) in both.filter(|(before, _)| [2, 4].contains(*before)) {
            assert_eq!(before, after, "expected that a real tumor keeps its label");
            real += 1;
        }
        // A sink of whole volumes has the same voxels.
        let of_sample = |row: &&SampleRow| row.record.sample_id == sample.record.sample_id;
        let row = rows.iter().find(of_sample).unwrap();
        if let (Some(image), Some(label)) = (&row.placement.image_path, &row.placement.label_path) {
            let read = nifti::read_volume(run.path.join(image)).unwrap();
            assert!(read.voxels.hu_of(read.grid.region()) == hu);
            let read = nifti::read_labels(run.path.join(label)).unwrap();
            assert!(read.ids.map(|&id| id as u8) == composed);
        }
        let tumors = rows.iter().filter(of_sample).filter(is_accepted);
        let tumors: BTreeSet<u32> = tumors.map(|row| row.record.tumor_id).collect();
        assert_eq!(patch.boxes.len(), tumors.len(), "one box for each tumor");
        assert_eq!(patch.boxes.is_empty(), sample.record.kind == SampleKind::Negative);
        several += usize::from(tumors.len() > 1);
    }
    assert!(real > 0 && several > 10, "{real} voxels of real tumors, {several} samples of several tumors");
}
