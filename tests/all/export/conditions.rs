//! Tests of the selection of samples.

use std::collections::BTreeMap;

use freetumor::export::select::{SelectionConfig, select};
use freetumor::export::{ExportOptions, export};
use freetumor::graph::Registry;
use freetumor::record::SampleRecord;
use freetumor::record::SampleRow;
use freetumor::record::parquet::decode_part;

use super::{Run, layouts};

fn selection(conditions: &[&str]) -> SelectionConfig {
    let conditions = conditions.iter().map(|text| text.parse().unwrap()).collect();
    SelectionConfig { conditions, ..SelectionConfig::default() }
}

fn rows(run: &Run) -> Vec<SampleRow> {
    let files = run.folder.files("samples", None).unwrap();
    files.iter().flat_map(|file| decode_part::<SampleRow>(run.folder.read_verified(file).unwrap()).unwrap()).collect()
}

/// Compares the selected samples with the expected rows; returns the number of selected samples.
fn check(run: &Run, conditions: &[&str], expected: impl Fn(&SampleRecord) -> bool) -> usize {
    let selected = select(&run.folder, &selection(conditions)).unwrap();
    let ids: Vec<_> = selected.samples.iter().map(|sample| sample.record.sample_id).collect();
    let rows = rows(run);
    let mut expected_rows: Vec<_> = rows.iter().filter(|row| expected(&row.record)).collect();
    expected_rows.sort_by_key(|row| row.record.sample_id);
    let (stored, missing): (Vec<&SampleRow>, Vec<&SampleRow>) =
        expected_rows.into_iter().partition(|row| row.placement.patch_shard.is_some());
    assert_eq!(ids, stored.iter().map(|row| row.record.sample_id).collect::<Vec<_>>(), "{conditions:?}");
    assert_eq!(selected.without_patch.samples, missing.len(), "{conditions:?}");
    ids.len()
}

#[test]
fn conditions_combine_and_default_to_accepted() {
    let run = Run::new();
    let accepted = |row: &SampleRecord| row.outcome.is_accepted();
    let diameter = |row: &SampleRecord| row.geometry.as_ref().map_or(0.0, |geometry| geometry.diameter_mm);
    let all = check(&run, &[], accepted);
    let livers = check(&run, &["organ = liver"], |row| accepted(row) && row.organ == "liver");
    let others = check(&run, &["organ != 'liver'"], |row| accepted(row) && row.organ != "liver");
    assert!(livers > 0 && others > 0 && livers + others == all);
    check(&run, &["organ = liver", "diameter_mm < 20 mm", "epoch > 0"], |row| {
        accepted(row) && row.organ == "liver" && diameter(row) < 20.0 && row.epoch > 0
    });
    check(&run, &["epoch = 1", "variant != 0"], |row| accepted(row) && row.epoch == 1 && row.variant != 0);
    let rejected = check(&run, &["verdict = rejected"], |row| !accepted(row));
    assert!(rejected > 0);
    assert_eq!(check(&run, &["verdict != accepted"], |row| !accepted(row)), rejected);
    check(&run, &["verdict = rejected", "reason = \"delta_hu < -12\""], |row| {
        row.outcome.reason() == Some("delta_hu < -12")
    });
}

#[test]
fn at_most_selects_lowest_ids_of_each_group() {
    let run = Run::new();
    let all = select(&run.folder, &selection(&[])).unwrap().samples;
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for sample in &all {
        let class = sample.record.geometry.as_ref().unwrap().size_class.clone();
        groups.entry((sample.record.organ.clone(), class)).or_default().push(sample.record.sample_id);
    }
    let mut expected: Vec<_> = groups.values().flat_map(|ids| ids.iter().take(2)).copied().collect();
    expected.sort_unstable();
    assert!(groups.values().any(|ids| ids.len() > 2), "{groups:?}");
    let limited =
        SelectionConfig { at_most: Some(2), per: "organ,size_class".parse().unwrap(), ..SelectionConfig::default() };
    let selected = select(&run.folder, &limited).unwrap().samples;
    assert_eq!(selected.iter().map(|sample| sample.record.sample_id).collect::<Vec<_>>(), expected);
    let [(_, nnunet), ..] = layouts();
    let options = ExportOptions { selection: limited, ..run.options("limited", nnunet.clone()) };
    assert_eq!(run.export(&options).samples, expected.len());
    let limited = SelectionConfig { at_most: Some(3), ..SelectionConfig::default() };
    assert_eq!(select(&run.folder, &limited).unwrap().samples, all[..3]);
}

#[test]
fn selection_at_earlier_commit_has_only_its_samples() {
    let run = Run::new();
    let at = |at| select(&run.folder, &SelectionConfig { at: Some(at), ..SelectionConfig::default() });
    let first = at(0).unwrap().samples;
    assert!(!first.is_empty() && first.iter().all(|sample| sample.record.epoch == 0));
    assert!(first.len() < select(&run.folder, &selection(&[])).unwrap().samples.len());
    assert!(at(99).unwrap_err().to_string().contains("commit 99 does not exist"));
}

#[test]
fn rejected_samples_with_stored_patch_are_exported() {
    let run = Run::new();
    let [(_, nnunet), .., (_, patches)] = layouts();
    let rejected = || selection(&["verdict = rejected"]);
    let stored = select(&run.folder, &rejected()).unwrap();
    for (to, layout) in [("volumes", nnunet.clone()), ("patches", patches)] {
        let report = run.export(&ExportOptions { selection: rejected(), ..run.options(to, layout) });
        assert_eq!((report.samples, &report.without_patch), (stored.samples.len(), &stored.without_patch));
        assert!(report.refused.is_empty() && report.is_complete() == (stored.without_patch.samples == 0));
    }
    let nothing = selection(&["organ = spleen"]);
    let message = run.export_error(&ExportOptions { selection: nothing, ..run.options("none", nnunet) });
    assert!(
        message.contains("no sample of") && message.contains("`organ = spleen` and `verdict = accepted`"),
        "{message}"
    );
    assert!(!run.sibling("none").exists());
}

#[test]
fn export_error_names_column_without_values() {
    let run = Run::new();
    let [(_, nnunet), ..] = layouts();
    // No stage of the run produces this score.
    let options = ExportOptions { selection: selection(&["found_fraction>0.5"]), ..run.options("none", nnunet) };
    let error = export(&run.folder, &options, &Registry::standard()).unwrap_err();
    assert!(error.hint().unwrap().contains("`found_fraction` has no value in any row of this run"), "{error:?}");
}
