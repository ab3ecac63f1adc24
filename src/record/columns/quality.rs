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
    // The reason, which follows, says the rest.
    Access::Text(Box::new(name), Box::new(|_, _| Ok(())))
}

pub(in crate::record) fn descriptors() -> Vec<Descriptor<Row>> {
    descriptors! {
        1 "dataset" Text always "" "The data set's name." => access!(text group.dataset);
        2 "organ" Text always "" "The organ's name in the graph file." => access!(text group.organ);
        7 "branch" Text always "" "Name of the quality test in the graph file." => access!(text group.branch);
        3 "size_class" Text maybe "" "tiny, small, medium or large; absent where no site was found." => size_class();
        4 "verdict" Text always "" "accepted or rejected." => verdict();
        5 "reason" Text maybe "" "Why they were rejected: the condition as the graph file has it, or a code such as no_site." => access!(optional_text group.reason);
        8 "epoch" U64 always "" "The commit that made the change." => access!(U64 epoch);
        9 "attempts" I64 always "" "Attempts that the commit added, or, below zero, removed: sum them by group." => access!(I64 attempts);
    }
}
