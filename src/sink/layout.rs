//! Folders that other programs list by themselves: second names of committed files, and JSON beside them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::durable::Durable;
use super::pairs::Pair;
use super::{Split, canonical};
use crate::error::Result;
use crate::mask::Organ;

/// A layout as it should be, folder by folder.
pub(super) struct Layout {
    root: String,
    /// Folder → second name → committed file.
    links: BTreeMap<String, BTreeMap<String, String>>,
    /// Name → text; written after the links that it names.
    texts: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    /// A layout below `layouts/ROOT` whose folders exist even while they are empty.
    pub(super) fn new(root: &str, folders: &[&str]) -> Self {
        let links = folders.iter().map(|folder| ((*folder).to_owned(), BTreeMap::new())).collect();
        Self { root: format!("layouts/{root}"), links, texts: BTreeMap::new() }
    }

    /// Wants `file` to be found as `FOLDER/NAME`.
    pub(super) fn link(&mut self, folder: &str, name: String, file: String) {
        self.links.entry(folder.to_owned()).or_default().insert(name, file);
    }

    /// Wants a JSON file in the layout's root.
    pub(super) fn json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        self.texts.insert(name.to_owned(), canonical::pretty(value)?);
        Ok(())
    }

    /// Brings the folder in line: what is missing is linked, what is not wanted goes, JSON is replaced where it differs.
    pub(super) fn write(&self, store: &dyn Durable) -> Result<()> {
        for (folder, wanted) in &self.links {
            let folder = format!("{}/{folder}", self.root);
            let present: BTreeSet<String> = store.list(&folder)?.into_iter().collect();
            for (name, file) in wanted.iter().filter(|(name, _)| !present.contains(*name)) {
                store.link(file, &format!("{folder}/{name}"))?;
            }
            for name in present.iter().filter(|name| !wanted.contains_key(*name)) {
                store.remove(&format!("{folder}/{name}"))?;
            }
        }
        for (name, text) in &self.texts {
            let name = format!("{}/{name}", self.root);
            if store.read(&name)?.as_ref() != Some(text) {
                store.replace(&name, text)?;
            }
        }
        Ok(())
    }
}

/// The folders of a sample's image and label: `imagesTr` for what is trained and tuned on, `imagesTs` for the test.
pub(super) fn folders(split: Split) -> (&'static str, &'static str) {
    match split {
        Split::Train | Split::Validation => ("imagesTr", "labelsTr"),
        Split::Test => ("imagesTs", "labelsTs"),
    }
}

/// All folders that [`folders`] names.
pub(super) const FOLDERS: [&str; 4] = ["imagesTr", "labelsTr", "imagesTs", "labelsTs"];

/// Label ids with their names: an organ, and the organ's tumor as `ORGAN_tumor`.
pub(super) fn label_names(organs: &[Organ]) -> BTreeMap<u8, String> {
    let mut names = BTreeMap::from([(0, "background".to_owned())]);
    for organ in organs {
        names.insert(organ.label, organ.name.clone());
        names.insert(organ.tumor_label, format!("{}_tumor", organ.name));
    }
    names
}

/// How many samples are not kept for the test.
pub(super) fn training_count(samples: &[Pair]) -> usize {
    samples.iter().filter(|sample| sample.split != Split::Test).count()
}
