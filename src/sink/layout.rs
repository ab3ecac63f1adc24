//! Layout folders for other programs: hard links to committed files, and JSON descriptions.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::error::Result;
use crate::mask::Organ;
use crate::record::{DATA, Split};
use crate::store::{ContentWriter, DurableStorage};

/// A layout folder that is being synchronized with the committed files.
///
/// Names are stored as hashes: an archive may have millions of samples.
pub(super) struct Projection<'a> {
    store: &'a dyn DurableStorage,
    root: String,
    folders: BTreeMap<&'static str, Links>,
}

/// The links of one folder.
#[derive(Default)]
struct Links {
    present: HashSet<u64>,
    required: HashSet<u64>,
}

impl<'a> Projection<'a> {
    /// Opens the layout `layouts/ROOT`.
    ///
    /// # Errors
    /// If the folders of the layout cannot be listed.
    pub(super) fn open(store: &'a dyn DurableStorage, root: &str, folders: &[&'static str]) -> Result<Self> {
        let root = format!("layouts/{root}");
        let links = |folder: &&'static str| {
            let present = store.list(&format!("{root}/{folder}"))?.iter().map(|name| hash(name)).collect();
            Ok((*folder, Links { present, required: HashSet::new() }))
        };
        let folders = folders.iter().map(links).collect::<Result<_>>()?;
        Ok(Self { store, root, folders })
    }

    /// Links `file` as `FOLDER/NAME`. A file of that name that is not a link to `file` is replaced.
    pub(super) fn link(&mut self, folder: &'static str, name: &str, file: &str) -> Result<()> {
        let links = self.folders.entry(folder).or_default();
        let hash = hash(name);
        links.required.insert(hash);
        let second = format!("{}/{folder}/{name}", self.root);
        if links.present.contains(&hash) && self.store.is_link(file, &second)? {
            return Ok(());
        }
        self.store.link(file, &second)
    }

    /// Removes links to committed files that were not linked again, and returns the paths of all other files among the samples, which
    /// are kept: they belong to the user. Hidden files are ignored. Call this method after the last link.
    pub(super) fn remove_stale(&self) -> Result<Vec<String>> {
        let (mut foreign, mut committed) = (Vec::new(), None);
        for (folder, links) in &self.folders {
            if links.present.is_subset(&links.required) {
                continue;
            }
            let folder = format!("{}/{folder}", self.root);
            let names = self.store.list(&folder)?.into_iter();
            for name in names.filter(|name| !name.starts_with('.') && !links.required.contains(&hash(name))) {
                let path = format!("{folder}/{name}");
                let mut is_committed = false;
                let all = match &mut committed {
                    Some(all) => all,
                    None => committed.insert(self.store.list(DATA)?),
                };
                for file in committed_files(&name, all) {
                    is_committed |= self.store.is_link(&file, &path)?;
                }
                if is_committed { self.store.remove(&path)? } else { foreign.push(path) }
            }
        }
        Ok(foreign)
    }

    /// Writes a file in the root of the layout if its content differs. Call this method after the links to the files that it lists.
    pub(super) fn write(&self, name: &str, fill: ContentWriter<'_>) -> Result<()> {
        self.store.replace(&format!("{}/{name}", self.root), fill)
    }
}

/// Returns the committed files to which a file of that name in a layout may be a link: a shard, or the images and labels of a sample. `all`
/// are the sorted names of committed files.
fn committed_files(name: &str, all: &[String]) -> Vec<String> {
    let sample = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let start = format!("{sample}-");
    let first = all.partition_point(|file| *file < start);
    let of_sample = all[first..].iter().take_while(|file| !sample.is_empty() && file.starts_with(&start));
    std::iter::once(format!("{DATA}/{name}")).chain(of_sample.map(|file| format!("{DATA}/{file}"))).collect()
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Returns the folders of a sample's image and label: `imagesTr` for training and validation, `imagesTs` for the test split.
pub(super) fn folders(split: Split) -> (&'static str, &'static str) {
    match split {
        Split::Train | Split::Validation => ("imagesTr", "labelsTr"),
        Split::Test => ("imagesTs", "labelsTs"),
    }
}

/// All folders that [`folders`] returns.
pub(super) const FOLDERS: [&str; 4] = ["imagesTr", "labelsTr", "imagesTs", "labelsTs"];

/// Returns the label name of the tumors of an organ.
pub(super) fn tumor_name(organ: &str) -> String {
    format!("{organ}_tumor")
}

/// Returns label ids with their names: each organ, and the tumors of the organ as `ORGAN_tumor`.
pub(super) fn label_names(organs: &[Organ]) -> BTreeMap<u8, String> {
    let mut names = BTreeMap::from([(0, "background".to_owned())]);
    for organ in organs {
        names.insert(organ.label, organ.name.clone());
        names.insert(organ.tumor_label, tumor_name(&organ.name));
    }
    names
}
