//! What several rooms need.

use std::path::{Path, PathBuf};

/// The path of something in the shared folder beside the project, or `None` with a visible word where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: ../shared/{path} is not here");
    None
}
