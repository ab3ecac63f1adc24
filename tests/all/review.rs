//! The history of samples, candidates that are made again, and pictures.

use freetumor::graph::{Registry, Resources};
use freetumor::record::parquet::decode_part;
use freetumor::record::{SampleRecord, SampleRow};
use freetumor::review::{SampleHistory, draw_contact_sheet, replay};
use freetumor::run::RunFolder;

use crate::changes::archive::Archive;

const CONDITION: &str = "stages.filter.accept=[\"delta_hu < -25\"]";

/// Returns an archive of three scans and its run folder, with the rows of `samples`.
fn archive_with_run() -> (Archive, RunFolder, Vec<SampleRecord>) {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c"].into_iter().enumerate() {
        archive.add(case, content);
    }
    // A condition that some first attempts do not meet.
    archive.run_sets("run", &[CONDITION]);
    let folder = RunFolder::open(archive.path("run")).unwrap();
    let rows = folder.files("samples", None).unwrap().into_iter().flat_map(|file| {
        let rows = decode_part::<SampleRow>(folder.read_verified(&file).unwrap()).unwrap();
        rows.into_iter().map(|row| row.record)
    });
    let rows = rows.collect();
    (archive, folder, rows)
}

#[test]
fn history_has_all_attempts_and_the_condition_that_decided() {
    let (_archive, folder, rows) = archive_with_run();
    assert!(rows.iter().any(|row| row.attempt > 0), "no tumor needed a second attempt");
    for row in &rows {
        let history = SampleHistory::read(&folder, row.sample_id, None).unwrap();
        assert_eq!((history.record.sample_id, history.tests.len()), (row.sample_id, 1));
        let attempts = &history.tests[0].attempts;
        let same = |other: &&SampleRecord| {
            (other.scan_id, &other.organ, other.variant) == (row.scan_id, &row.organ, row.variant)
        };
        assert_eq!(attempts.len(), rows.iter().filter(same).count());
        assert_eq!(attempts.iter().filter(|attempt| attempt.is_in_sample).count(), 1);
        for attempt in attempts.iter().filter(|attempt| attempt.candidate_digest.is_some()) {
            let failed = attempt.conditions.iter().find(|condition| !condition.holds);
            assert_eq!(failed.map(|condition| condition.condition.as_str()), attempt.outcome.reason());
            assert_eq!(attempt.conditions.len(), 1);
        }
        assert_eq!(history.files.patch.is_some(), row.candidate_digest.is_some());
    }
    let error = SampleHistory::read(&folder, "0000000000000000".parse().unwrap(), None).unwrap_err();
    assert!(error.to_string().contains("expected a sample of"), "{error}");
}

#[test]
fn candidate_is_made_again_with_the_same_digest() {
    let (archive, folder, rows) = archive_with_run();
    let plan = archive.plan_with(3, &[CONDITION]);
    let candidates: Vec<&SampleRecord> = rows.iter().filter(|row| row.candidate_digest.is_some()).collect();
    assert!(candidates.iter().any(|row| row.attempt > 0));
    for row in &candidates {
        assert!(replay(&plan, &folder, row).unwrap().is_equal(), "{}", row.sample_id);
    }
    let other = archive.plan_with(3, &[CONDITION, "stages.synthesize.salt=\"other\""]);
    let error = replay(&other, &folder, candidates[0]).unwrap_err();
    assert!(error.to_string().contains("expected the synthesis `synthesize` with digest"), "{error}");
    archive.add("a", 8);
    let changed = candidates.iter().find(|row| row.scan_id == archive.scan_id("a")).unwrap();
    let error = replay(&plan, &folder, changed).unwrap_err();
    assert!(error.to_string().contains("expected voxels with digest"), "{error}");
}

#[test]
fn contact_sheet_shows_accepted_and_rejected_samples() {
    let (archive, folder, rows) = archive_with_run();
    let secret = Some(archive.path("secret"));
    let registry = Registry::with_resources(&Resources { patient_secret: secret, ..Resources::default() });
    let sheet = draw_contact_sheet(&folder, &registry).unwrap().unwrap();
    let accepted = rows.iter().filter(|row| row.outcome.is_accepted()).count();
    assert_eq!(sheet.accepted, accepted.min(6));
    assert!(sheet.rejected > 0);
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&sheet.path).unwrap()));
    let info = decoder.read_info().unwrap().info().clone();
    assert!(info.width > 600 && info.height > 300, "{} x {}", info.width, info.height);
    // A scan that changed is not shown, and the error names it.
    archive.add("a", 8);
    archive.remove("b");
    archive.remove("c");
    let error = draw_contact_sheet(&folder, &registry).unwrap_err();
    assert!(error.to_string().contains("scan"), "{error}");
}
