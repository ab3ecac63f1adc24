//! The numbers of attempts by group, from the last checkpoint and the commits after it: neither memory nor time grows with the history.

use super::reader::RunFolder;
use super::{Commit, QualityCounts, stream};
use crate::error::Result;
use crate::record::QualityRecord;
use crate::record::parquet::decode_part;
use crate::record::schema::Table;

impl RunFolder {
    /// Returns the number of attempts of each group after commit `at`, or after the last commit, without empty groups.
    ///
    /// # Errors
    /// If files cannot be read.
    pub fn quality(&self, at: Option<u64>) -> Result<QualityCounts> {
        let (mut counts, mut next) = (QualityCounts::new(), 0);
        let Some(last) = self.resolve_epoch(at)? else { return Ok(counts) };
        if let Some(name) = self.checkpoint_before(last)? {
            let outline = stream::read_outline(&**self.store(), &name)?;
            (counts, next) = (outline.quality.into_iter().collect(), outline.epoch + 1);
        }
        for epoch in next..=last {
            self.add_quality(&self.commit(epoch)?.0, &mut counts)?;
        }
        Ok(counts)
    }

    /// Adds the changes of a commit to counts.
    ///
    /// # Errors
    /// If a part cannot be read.
    pub(super) fn add_quality(&self, commit: &Commit, counts: &mut QualityCounts) -> Result<()> {
        for file in commit.add.iter().filter(|file| file.table == Table::Quality.name()) {
            for QualityRecord { group, attempts, .. } in decode_part::<QualityRecord>(self.read_verified(file)?)? {
                *counts.entry(group).or_default() += attempts;
            }
        }
        counts.retain(|_, attempts| *attempts != 0);
        Ok(())
    }
}
