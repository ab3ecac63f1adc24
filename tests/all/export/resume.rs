//! Exports into folders that hold something already.

use std::fs;
use std::time::SystemTime;

use freetumor::export::ExportOptions;
use freetumor::export::select::SelectionConfig;

use super::{Run, files, layouts};

#[test]
fn deleted_and_damaged_files_are_made_again_and_the_others_kept() {
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
        assert_eq!(written(&second), before, "{sink}: a file that was whole is left alone");
        assert_eq!(fs::read_to_string(options.to.join("notes.txt")).unwrap(), "mine");
        fs::remove_file(options.to.join("notes.txt")).unwrap();
        assert_eq!(files(&options.to), expected, "{sink}");
    }
}

#[test]
fn torn_journal_and_unfinished_files_do_no_harm() {
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
    assert_eq!(report.written_files, 2, "the last sample of the journal is made again");
    assert_eq!(files(&options.to), expected);
    assert_eq!(fs::read(&journal).unwrap(), text);
    assert!(!images.join(".staged-abc").exists() && !options.to.join(".staged-def").exists());
}

#[test]
fn folder_of_something_else_is_refused() {
    let run = Run::new();
    let [(_, nnunet), (_, decathlon), ..] = layouts();
    fs::create_dir(run.beside("full")).unwrap();
    fs::write(run.beside("full/a.txt"), "a").unwrap();
    let message = run.refused(&run.options("full", nnunet.clone()));
    assert!(message.contains("is no export and not empty: it holds a.txt"), "{message}");
    run.export(&run.options("out", nnunet.clone()));
    let message = run.refused(&run.options("out", decathlon));
    assert!(message.contains("holds another export: layout is "), "{message}");
    let selection = SelectionConfig { at_most: Some(3), ..SelectionConfig::default() };
    let message = run.refused(&ExportOptions { selection, ..run.options("out", nnunet) });
    assert!(message.contains("at_most is null there and 3 here"), "{message}");
}
