//! The folders of the tables: second names of the Parquet parts that count, and nothing else, so that any engine reads a folder.
//!
//! `read_parquet("RUN/samples")` is the head of the table. A folder may lag behind the head for a moment, and is brought in line at
//! every commit, at the start and at the end of a run. Files of other names are left alone.

use std::collections::HashSet;

use super::{Commit, RunFolder};
use crate::error::Result;
use crate::record::FileEntry;
use crate::record::schema::Table;
use crate::store::{Durable, FileDigest};

/// Adds what a commit adds to the folders of the tables and removes what it removes.
///
/// # Errors
/// If files cannot be linked or removed.
pub(super) fn project_commit(store: &dyn Durable, commit: &Commit) -> Result<()> {
    for file in commit.add.iter().filter(|file| Table::from_name(&file.table).is_ok()) {
        store.link(&file.path, &projected(file))?;
    }
    for file in commit.remove.iter().filter(|file| Table::from_name(&file.table).is_ok()) {
        store.remove(&projected(file))?;
    }
    Ok(())
}

/// Brings the folders of all tables in line with the head.
///
/// # Errors
/// If files cannot be read, linked or removed.
pub(super) fn project_tables(folder: &RunFolder) -> Result<()> {
    let store = &**folder.store();
    for table in Table::ALL {
        let files = folder.files(table.name(), None)?;
        let wanted: HashSet<&str> = files.iter().map(file_name).collect();
        for name in store.list(table.name())?.iter().filter(|name| is_part(name) && !wanted.contains(name.as_str())) {
            store.remove(&format!("{}/{name}", table.name()))?;
        }
        for file in &files {
            let name = projected(file);
            if store.read(&name)?.is_some_and(|bytes| FileDigest::of(&bytes).sha256 != file.sha256) {
                store.remove(&name)?;
            }
            store.link(&file.path, &name)?;
        }
    }
    Ok(())
}

fn projected(file: &FileEntry) -> String {
    format!("{}/{}", file.table, file_name(file))
}

fn file_name(file: &FileEntry) -> &str {
    file.path.rsplit('/').next().unwrap_or(&file.path)
}

/// Whether a name is that of a part: `EPOCH-SHA256.parquet`.
fn is_part(name: &str) -> bool {
    let Some((epoch, digest)) = name.strip_suffix(".parquet").and_then(|stem| stem.split_once('-')) else {
        return false;
    };
    epoch.len() == 12
        && epoch.bytes().all(|byte| byte.is_ascii_digit())
        && digest.len() == 64
        && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}
