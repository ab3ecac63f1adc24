//! The folders of the tables: hard links to the current Parquet parts and no other Parquet files, so that any engine can read a folder.
//!
//! `read_parquet("RUN/samples")` reads the table at the last commit. A folder may lag behind the last commit for a moment; it is
//! synchronized at every commit, and at the start and end of a run. Files of other names are kept.

use std::collections::HashSet;

use super::{Commit, RunFolder};
use crate::error::Result;
use crate::record::FileEntry;
use crate::record::schema::Table;
use crate::store::{DurableStorage, FileDigest};

/// Applies a commit to the folders of the tables.
///
/// # Errors
/// If files cannot be linked or removed.
pub(super) fn project_commit(store: &dyn DurableStorage, commit: &Commit) -> Result<()> {
    for file in commit.add.iter().filter(|file| Table::from_name(&file.table).is_ok()) {
        store.link(&file.path, &link_name(file))?;
    }
    for file in commit.remove.iter().filter(|file| Table::from_name(&file.table).is_ok()) {
        store.remove(&link_name(file))?;
    }
    Ok(())
}

/// Synchronizes the folders of all tables with the last commit.
///
/// # Errors
/// If files cannot be read, linked or removed.
pub(super) fn project_tables(folder: &RunFolder) -> Result<()> {
    let store = &**folder.store();
    for table in Table::ALL {
        let files = folder.files(table.name(), None)?;
        let current: HashSet<&str> = files.iter().map(file_name).collect();
        for name in store.list(table.name())?.iter().filter(|name| is_part(name) && !current.contains(name.as_str())) {
            store.remove(&format!("{}/{name}", table.name()))?;
        }
        for file in &files {
            let name = link_name(file);
            if store.read(&name)?.is_some_and(|bytes| FileDigest::of(&bytes).sha256 != file.sha256) {
                store.remove(&name)?;
            }
            store.link(&file.path, &name)?;
        }
    }
    Ok(())
}

fn link_name(file: &FileEntry) -> String {
    format!("{}/{}", file.table, file_name(file))
}

fn file_name(file: &FileEntry) -> &str {
    file.path.rsplit('/').next().unwrap_or(&file.path)
}

/// Returns whether a name is that of a part: `EPOCH-SHA256.parquet`.
fn is_part(name: &str) -> bool {
    let Some((epoch, digest)) = name.strip_suffix(".parquet").and_then(|stem| stem.split_once('-')) else {
        return false;
    };
    epoch.len() == 12
        && epoch.bytes().all(|byte| byte.is_ascii_digit())
        && digest.len() == 64
        && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}
