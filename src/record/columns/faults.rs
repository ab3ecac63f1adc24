//! Columns of `faults`.

use super::{access, descriptors, named_value};
use crate::record::FaultRecord as Row;
use crate::record::column::{Access, Column, ColumnType, Descriptor};

fn stage() -> Access<Row> {
    Access::Text(
        Box::new(|row| Some(row.fault.stage.name().to_owned())),
        Box::new(|row, value| {
            row.fault.stage = named_value(value)?;
            Ok(())
        }),
    )
}

fn kind() -> Access<Row> {
    Access::Text(
        Box::new(|row| Some(row.fault.kind.name().to_owned())),
        Box::new(|row, value| {
            row.fault.kind = named_value(value)?;
            Ok(())
        }),
    )
}

pub(in crate::record) fn descriptors() -> Vec<Descriptor<Row>> {
    descriptors! {
        1 "scan_id" Text always "" "Id of the scan: a keyed hash of source and path; RUN/private maps the id to the path." => access!(parsed scan_id);
        2 "dataset" Text always "" "Name of the data set." => access!(text dataset);
        3 "source" Text always "" "Name of the source in the graph file." => access!(text source);
        4 "epoch" U64 always "" "The commit that added the row." => access!(U64 epoch);
        5 "stage" Text always "" "Part of the pipeline in which the fault occurred: read, mask, synthesize, score or sink." => stage();
        6 "kind" Text always "" "Kind of the fault, one of a fixed list." => kind();
        7 "message" Text always "" "Expected and actual state; without paths and names." => access!(text fault.message);
        8 "node" Text maybe "" "Node of the graph file in which the fault occurred; absent if the fault occurred outside of a node." => access!(optional_text fault.node);
    }
}
