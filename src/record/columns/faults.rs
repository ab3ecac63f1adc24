//! Columns of `faults`.

use super::{access, descriptors, word};
use crate::record::FaultRecord as Row;
use crate::record::column::{Access, Column, ColumnType, Descriptor};

fn stage() -> Access<Row> {
    Access::Text(
        Box::new(|row| Some(row.fault.stage.name().to_owned())),
        Box::new(|row, value| {
            row.fault.stage = word(value)?;
            Ok(())
        }),
    )
}

fn kind() -> Access<Row> {
    Access::Text(
        Box::new(|row| Some(row.fault.kind.name().to_owned())),
        Box::new(|row, value| {
            row.fault.kind = word(value)?;
            Ok(())
        }),
    )
}

pub(in crate::record) fn descriptors() -> Vec<Descriptor<Row>> {
    descriptors! {
        1 "scan_id" Text always "" "The scan: a keyed hash of source and path; RUN/private maps it to the path." => access!(parsed scan_id);
        2 "dataset" Text always "" "The data set's name." => access!(text dataset);
        3 "source" Text always "" "The source's name in the graph file." => access!(text source);
        4 "epoch" U64 always "" "The commit that added the row." => access!(U64 epoch);
        5 "stage" Text always "" "The part of the pipeline in which it happened: read, mask, synthesize, score or sink." => stage();
        6 "kind" Text always "" "The class of fault, of a closed list." => kind();
        7 "message" Text always "" "What was expected and what came; no paths, no names." => access!(text fault.message);
        8 "node" Text maybe "" "The node of the graph file at which it happened; absent where it was none." => access!(optional_text fault.node);
    }
}
