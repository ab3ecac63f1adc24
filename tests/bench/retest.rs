//! New decisions on a million stored candidates after a change of a threshold: `cargo bench --bench retest [ROWS]`.
//!
//! The rows of the run folder are copies of those of one phantom with other ids, because a million candidates take hours; the run that
//! decides on them again is the real one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use freetumor::dataflow::{EpochWork, Ledger, Progress, RunOptions, run};
use freetumor::graph::{GraphFile, Plan, Registry, check};
use freetumor::id::SampleId;
use freetumor::record::parquet::{Row, decode_part, encode_part};
use freetumor::record::{QualityGroup, QualityRecord, SampleRow, ScanRecord};
use freetumor::run::seal::SealedEpoch;
use freetumor::run::{Counts, RunFolder};

const ROWS_PER_SCAN: usize = 100;
const SCANS_PER_EPOCH: usize = 100;

fn plan(scans: usize, threshold: i32) -> Plan {
    let text = format!(
        "[pipeline]\nname = 'retest'\nepoch_scans = {SCANS_PER_EPOCH}\n\
         [sources.bodies]\nkind = 'phantom'\ncount = {scans}\nshape = [48, 40, 32]\nspacing_mm = [7.0, 7.0, 8.0]\n\
         [stages.organs]\nkind = 'labels'\ninputs = ['bodies']\norgans = ['liver']\n\
         [stages.tumors]\nkind = 'rules'\ninputs = ['organs']\nvariants = {ROWS_PER_SCAN}\n\
         [stages.values]\nkind = 'intensity'\ninputs = ['tumors']\n\
         [stages.test]\nkind = 'quality-test'\ninputs = ['values']\nattempts = 1\naccept = ['delta_hu < {threshold}']\n\
         [sinks.out]\nkind = 'patches'\ninputs = ['test']\n"
    );
    let checked = check(&GraphFile::new("retest.toml", ".", text), &Registry::standard());
    checked.plan.unwrap_or_else(|| panic!("{:?}", checked.problems))
}

fn rows<R: Row>(folder: &RunFolder) -> Vec<R> {
    let files = folder.files(R::TABLE.name(), None).unwrap();
    files.iter().flat_map(|file| decode_part::<R>(folder.read_verified(file).unwrap()).unwrap()).collect()
}

/// Writes a run folder with copies of the rows of one scan, all of them rejected.
fn write_folder(path: &Path, scans: usize, (scan, samples): (ScanRecord, Vec<SampleRow>)) {
    let plan = plan(scans, -1000);
    let entries = plan.list(0).unwrap();
    let (ledger, _) = Ledger::open(path, &plan).unwrap();
    for (epoch, entries) in entries.chunks(SCANS_PER_EPOCH).enumerate() {
        let entries = entries.iter().cloned().map(Arc::new).collect();
        ledger.open_epoch(&EpochWork { epoch: epoch as u64, entries, ..EpochWork::default() }).unwrap();
    }
    drop(ledger);
    let manifest = RunFolder::open(path).unwrap().manifest().clone();
    let mut writer = RunFolder::create_or_resume(path, &manifest).unwrap();
    let store = Arc::clone(writer.folder().store());
    let mut number = 0u64;
    for (epoch, entries) in entries.chunks(SCANS_PER_EPOCH).enumerate() {
        let epoch = epoch as u64;
        let (mut scan_rows, mut sample_rows) = (Vec::new(), Vec::new());
        for entry in entries {
            let patient_key = entry.patient_key;
            scan_rows.push(ScanRecord { scan_id: entry.scan_id, patient_key, epoch, ..scan.clone() });
            sample_rows.extend(samples.iter().map(|row| {
                number += 1;
                let mut row = row.clone();
                row.record.sample_id = SampleId::from_bytes(number.to_be_bytes());
                row.record.candidate_id = Some(row.record.sample_id);
                (row.record.scan_id, row.record.epoch, row.record.patient_key) = (entry.scan_id, epoch, patient_key);
                row.placement = Default::default();
                row
            }));
        }
        let mut counts = Counts { scans: entries.len() as u64, ..Counts::default() };
        let mut groups: BTreeMap<QualityGroup, i64> = BTreeMap::new();
        for row in &sample_rows {
            *counts.rejected.entry(row.record.outcome.reason().unwrap_or_default().to_owned()).or_default() += 1;
            *groups.entry(QualityGroup::of(&row.record).unwrap()).or_default() += 1;
        }
        let quality = groups.into_iter().map(|(group, attempts)| QualityRecord { group, epoch, attempts }).collect();
        let add = vec![
            encode_part(epoch, sample_rows).unwrap().publish(&*store).unwrap(),
            encode_part(epoch, scan_rows).unwrap().publish(&*store).unwrap(),
            encode_part::<QualityRecord>(epoch, quality).unwrap().publish(&*store).unwrap(),
        ];
        writer.commit(SealedEpoch { epoch, add, counts, ..SealedEpoch::default() }).unwrap();
    }
}

fn main() {
    let row_count = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let scans = usize::max(row_count / ROWS_PER_SCAN, 1);
    let folder = tempfile::tempdir().unwrap();
    let run_into = |name: &str, plan: Plan| {
        run(plan, &folder.path().join(name), &RunOptions::default(), &Arc::new(Progress::default())).unwrap()
    };
    run_into("template", plan(1, -1000));
    let template = RunFolder::open(folder.path().join("template")).unwrap();
    let scan: ScanRecord = rows(&template).remove(0);
    write_folder(&folder.path().join("run"), scans, (scan, rows(&template)));
    let start = Instant::now();
    let report = run_into("run", plan(scans, -900));
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((report.retested_scans.len(), report.processed_scans), (scans, 0));
    let decided = report.rejected;
    println!("{decided} decisions in {scans} scans: {seconds:.1} s, {:.0} per second", decided as f64 / seconds);
}
