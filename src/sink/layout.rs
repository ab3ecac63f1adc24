//! Layout folders for other programs: hard links to committed files, and JSON descriptions.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::error::Result;
use crate::mask::Organ;
use crate::record::Split;
use crate::store::{Durable, Fill};

/// A layout folder that is being synchronized with the committed files.
///
/// Names are stored as hashes: an archive may have millions of samples.
pub(super) struct Projection<'a> {
    store: &'a dyn Durable,
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
    pub(super) fn open(store: &'a dyn Durable, root: &str, folders: &[&'static str]) -> Result<Self> {
        let root = format!("layouts/{root}");
        let links = |folder: &&'static str| {
            let present = store.list(&format!("{root}/{folder}"))?.iter().map(|name| hash(name)).collect();
            Ok((*folder, Links { present, required: HashSet::new() }))
        };
        let folders = folders.iter().map(links).collect::<Result<_>>()?;
        Ok(Self { store, root, folders })
    }

    /// Links `file` as `FOLDER/NAME` if that name does not exist.
    pub(super) fn link(&mut self, folder: &'static str, name: &str, file: &str) -> Result<()> {
        let links = self.folders.entry(folder).or_default();
        let hash = hash(name);
        links.required.insert(hash);
        if links.present.contains(&hash) {
            return Ok(());
        }
        self.store.link(file, &format!("{}/{folder}/{name}", self.root))
    }

    /// Removes files of samples and shards that were not linked. Call this method after the last link. Files of other names are kept.
    pub(super) fn remove_stale(&self) -> Result<()> {
        for (folder, links) in &self.folders {
            if links.present.is_subset(&links.required) {
                continue;
            }
            let folder = format!("{}/{folder}", self.root);
            for name in
                self.store.list(&folder)?.iter().filter(|name| is_own(name) && !links.required.contains(&hash(name)))
            {
                self.store.remove(&format!("{folder}/{name}"))?;
            }
        }
        Ok(())
    }

    /// Writes a file in the root of the layout if its content differs. Call this method after the links to the files that it lists.
    pub(super) fn write(&self, name: &str, fill: Fill<'_>) -> Result<()> {
        self.store.replace(&format!("{}/{name}", self.root), fill)
    }
}

/// Returns whether a name starts like those of samples (`ID…`, 16 hexadecimal digits) or shards (`EPOCH-…`, 12 digits).
fn is_own(name: &str) -> bool {
    let stem = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    match stem.len() {
        16 => stem.bytes().all(|byte| byte.is_ascii_hexdigit()),
        12 => stem.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
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

/// Returns label ids with their names: each organ, and the tumors of the organ as `ORGAN_tumor`.
pub(super) fn label_names(organs: &[Organ]) -> BTreeMap<u8, String> {
    let mut names = BTreeMap::from([(0, "background".to_owned())]);
    for organ in organs {
        names.insert(organ.label, organ.name.clone());
        names.insert(organ.tumor_label, format!("{}_tumor", organ.name));
    }
    names
}
