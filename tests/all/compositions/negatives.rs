//! Unchanged scans as samples.

use std::collections::{BTreeMap, BTreeSet};

use freetumor::record::parquet::{Row, decode_part};
use freetumor::record::{QualityRecord, SampleKind, SampleRow, ScanRecord};

use super::{GRAPH, Run};

/// Returns a graph of many small scans with one tumor per sample.
fn graph(negatives: &str) -> String {
    let graph = GRAPH.replace("count = 7", "count = 40").replace("tumors_per_scan = [3, 7]", "");
    let graph = graph.replace("variants = 2", "variants = 1").replace("[64, 64, 48]", "[40, 40, 30]");
    graph.replace("[5, 5, 6]", "[8, 8, 10]").replace("negatives = 0.4", negatives)
}

#[test]
fn requested_share_of_scans_is_negative() {
    let (run, without) = (Run::new(&graph("negatives = 0.4")), Run::new(&graph("")));
    let rows = run.rows();
    let (negatives, synthetic): (Vec<&SampleRow>, Vec<&SampleRow>) =
        rows.iter().partition(|row| row.record.kind == SampleKind::Negative);
    let scans: BTreeSet<_> = negatives.iter().map(|row| row.record.scan_id).collect();
    assert!((8..=24).contains(&scans.len()), "{} of 40 scans", scans.len());
    assert_eq!(negatives.len(), 2 * scans.len(), "expected one row for each quality test");
    assert_eq!(run.report.negatives as usize, negatives.len());
    // The rows of tumors, their counts and statistics are those of a run without negatives.
    let key = |row: &SampleRow| (row.record.sample_id, row.record.branch.clone(), row.record.candidate_digest);
    assert_eq!(
        synthetic.iter().map(|row| key(row)).collect::<Vec<_>>(),
        without.rows().iter().map(key).collect::<Vec<_>>()
    );
    assert_eq!((run.report.accepted, run.report.rejected), (without.report.accepted, without.report.rejected));
    let quality = |run: &Run| -> BTreeMap<_, i64> {
        let folder = run.folder();
        let parts = folder.files("quality", None).unwrap();
        let rows =
            parts.iter().flat_map(|file| decode_part::<QualityRecord>(folder.read_verified(file).unwrap()).unwrap());
        let mut counts = BTreeMap::new();
        rows.for_each(|row| *counts.entry(row.group).or_default() += row.attempts);
        counts
    };
    assert_eq!(quality(&run), quality(&without));
    let folder = run.folder();
    for file in folder.files("scans", None).unwrap() {
        for scan in decode_part::<ScanRecord>(folder.read_verified(&file).unwrap()).unwrap() {
            let of_scan = |accepted: bool| {
                let own = synthetic.iter().filter(|row| row.record.scan_id == scan.scan_id);
                own.filter(|row| row.record.outcome.is_accepted() == accepted).count() as u32
            };
            assert_eq!((scan.accepted, scan.rejected), (of_scan(true), of_scan(false)));
        }
    }
}

#[test]
fn negative_has_empty_tumor_columns_and_files_of_its_scan() {
    let run = Run::new(&graph("negatives = 0.4"));
    let rows = run.rows();
    let negatives: Vec<&SampleRow> = rows.iter().filter(|row| row.record.kind == SampleKind::Negative).collect();
    for row in &negatives {
        assert!(row.record.outcome.is_accepted() && row.placement.patch_shard.is_some());
        for column in ["organ", "tumor_label", "candidate_id", "size_class", "site_x_voxel", "volume_mm3", "delta_hu"] {
            assert!(row.value(column).is_none(), "expected no value in `{column}`");
        }
        assert!(row.value("kind").is_some() && row.value("candidate_digest").is_some());
    }
    let synthetic = rows.iter().find(|row| row.record.kind == SampleKind::Synthetic).unwrap();
    assert!(synthetic.value("organ").is_some() && synthetic.value("candidate_id").is_some());
    // The whole files state that they have no synthetic tumor; `voxels` compares their voxels.
    let descriptions = super::descriptions(&run.path.join("layouts/volumes"));
    let kinds: Vec<&str> = descriptions.values().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "negative").count() * 2, negatives.len());
    for row in negatives.iter().filter(|row| row.record.branch == "filter") {
        let image = std::fs::read(run.path.join(row.placement.image_path.as_ref().unwrap())).unwrap();
        let mut header = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&image[..]), &mut header).unwrap();
        let description = String::from_utf8_lossy(&header[148..228]).into_owned();
        assert_eq!(description.trim_end_matches('\0'), "CT, freetumor");
    }
}

#[test]
fn negatives_setting_one_selects_all_scans_and_zero_none() {
    for (setting, expected) in [("negatives = 1.0", 40), ("negatives = 0.0", 0)] {
        let run = Run::new(&graph(setting));
        let negatives = run.rows().iter().filter(|row| row.record.kind == SampleKind::Negative).count();
        assert_eq!(negatives, 2 * expected, "{setting}");
    }
}
