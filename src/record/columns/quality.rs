//! Columns of `quality`.

use super::{access, descriptors};
use crate::record::QualityRecord as Row;
use crate::record::column::{Access, Column, ColumnType, Descriptor};

fn size_class() -> Access<Row> {
    Access::Text(
        Box::new(|row| Some(row.group.size_class.clone()).filter(|class| !class.is_empty())),
        Box::new(|row, value| {
            row.group.size_class = value;
            Ok(())
        }),
    )
}

fn verdict() -> Access<Row> {
    let name = |row: &Row| Some(if row.group.reason.is_none() { "accepted" } else { "rejected" }.to_owned());
    // The column `reason` sets the verdict.
    Access::Text(Box::new(name), Box::new(|_, _| Ok(())))
}

pub(in crate::record) fn descriptors() -> Vec<Descriptor<Row>> {
    descriptors! {
        1 "dataset" Text always "" "Name of the data set." => access!(text group.dataset);
        2 "organ" Text always "" "Name of the organ in the graph file." => access!(text group.organ);
        7 "branch" Text always "" "Name of the quality test in the graph file." => access!(text group.branch);
        3 "size_class" Text maybe "" "tiny (diameter below 8 mm), small (below 16), medium (below 32) or large; absent if no site was found." => size_class();
        4 "verdict" Text always "" "accepted or rejected." => verdict();
        5 "reason" Text maybe "" "Reason for the rejection: the condition as written in the graph file, or a code such as no_site." => access!(optional_text group.reason);
        8 "epoch" U64 always "" "Number of the epoch (commit) that added or removed the attempts." => access!(U64 epoch);
        9 "attempts" I64 always "" "Attempts that the epoch added; negative if the epoch removed attempts. The sum over epochs is the group's number of attempts." => access!(I64 attempts);
    }
}
