//! Tests of exports into folders with existing files.

use std::fs;
use std::time::SystemTime;

use freetumor::export::ExportOptions;
use freetumor::export::select::SelectionConfig;

use super::{Run, files, layouts};

#[test]
fn resumed_export_rewrites_only_missing_and_damaged_files() {
    let run = Run::new();
    for (sink, layout) in layouts() {
        let options = run.options(sink, layout);
        let report = run.export(&options);
        let expected = files(&options.to);
        let kept = run.export(&options);
        assert_eq!((kept.written_files, kept.kept_files), (0, report.written_files), "{sink}");
        assert_eq!((kept.scans_read, kept.bytes, &kept.splits), (0, report.bytes, &report.splits), "{sink}");
        let volumes: Vec<_> = expected.keys().filter(|name| !name.ends_with(".json")).collect();
        let json = expected.keys().find(|name| name.ends_with(".json")).unwrap();
        fs::remove_file(options.to.join(volumes[0])).unwrap();
        fs::write(options.to.join(volumes[volumes.len() - 1]), "damaged").unwrap();
        fs::remove_file(options.to.join(json)).unwrap();
        fs::write(options.to.join("notes.txt"), "mine").unwrap();
        let second = options.to.join(volumes[1]);
        let written = |path| fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap();
        let before: SystemTime = written(&second);
        let again = run.export(&options);
        assert!(again.written_files > 0 && again.kept_files > 0, "{sink}: {again:?}");
        assert!(again.written_files <= 4, "{sink}: {again:?}");
        assert_eq!(written(&second), before, "{sink}: an intact file is not rewritten");
        assert_eq!(fs::read_to_string(options.to.join("notes.txt")).unwrap(), "mine");
        fs::remove_file(options.to.join("notes.txt")).unwrap();
        assert_eq!(files(&options.to), expected, "{sink}");
    }
}

#[test]
fn export_resumes_with_truncated_journal_and_temporary_files() {
    let run = Run::new();
    let [(_, nnunet), ..] = layouts();
    let options = run.options("out", nnunet);
    run.export(&options);
    let expected = files(&options.to);
    let journal = options.to.join(".freetumor-export.jsonl");
    let text = fs::read(&journal).unwrap();
    fs::write(&journal, &text[..text.len() - 20]).unwrap();
    let images = options.to.join("Dataset905_Phantoms/imagesTr");
    fs::write(images.join(".staged-abc"), "half").unwrap();
    fs::create_dir(options.to.join(".staged-def")).unwrap();
    let report = run.export(&options);
    assert_eq!(report.written_files, 2, "the last sample of the journal is written again");
    assert_eq!(files(&options.to), expected);
    assert_eq!(fs::read(&journal).unwrap(), text);
    assert!(!images.join(".staged-abc").exists() && !options.to.join(".staged-def").exists());
}

#[test]
fn export_fails_on_folder_that_is_not_its_export() {
    let run = Run::new();
    let [(_, nnunet), (_, decathlon), ..] = layouts();
    fs::create_dir(run.sibling("full")).unwrap();
    fs::write(run.sibling("full/a.txt"), "a").unwrap();
    let message = run.export_error(&run.options("full", nnunet.clone()));
    assert!(
        message.contains("expected an export or an empty folder") && message.contains("with the entry a.txt"),
        "{message}"
    );
    run.export(&run.options("out", nnunet.clone()));
    let message = run.export_error(&run.options("out", decathlon));
    assert!(message.contains("contains another export: layout is "), "{message}");
    let selection = SelectionConfig { at_most: Some(3), ..SelectionConfig::default() };
    let message = run.export_error(&ExportOptions { selection, ..run.options("out", nnunet) });
    assert!(message.contains("at_most is null in the folder and 3 in this export"), "{message}");
}
