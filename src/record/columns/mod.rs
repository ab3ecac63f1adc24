//! The columns of each table, listed once: field id, name, unit, documentation, and the field of the row.

pub(super) mod faults;
pub(super) mod quality;
pub(super) mod samples;
pub(super) mod scans;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Parses the serialized name of an enum variant.
fn named_value<T: DeserializeOwned>(text: String) -> Result<T> {
    let parsed = serde_json::from_value(text.clone().into());
    parsed.map_err(|cause| Error::new(format!("expected a known name, got {text:?}")).with_source(cause))
}

/// Access to a field of `Row`, a type that the calling module names.
macro_rules! access {
    (text $($field:tt)+) => {
        Access::Text(
            Box::new(|row: &Row| Some(row.$($field)+.clone())),
            Box::new(|row: &mut Row, value| { row.$($field)+ = value; Ok(()) }),
        )
    };
    (optional_text $($field:tt)+) => {
        Access::Text(
            Box::new(|row: &Row| row.$($field)+.clone()),
            Box::new(|row: &mut Row, value| { row.$($field)+ = Some(value); Ok(()) }),
        )
    };
    (parsed $($field:tt)+) => {
        Access::Text(
            Box::new(|row: &Row| Some(row.$($field)+.to_string())),
            Box::new(|row: &mut Row, value| { row.$($field)+ = value.parse()?; Ok(()) }),
        )
    };
    (optional_parsed $($field:tt)+) => {
        Access::Text(
            Box::new(|row: &Row| row.$($field)+.as_ref().map(ToString::to_string)),
            Box::new(|row: &mut Row, value| { row.$($field)+ = Some(value.parse()?); Ok(()) }),
        )
    };
    ($kind:ident $($field:tt)+) => {
        Access::$kind(
            Box::new(|row: &Row| Some(row.$($field)+)),
            Box::new(|row: &mut Row, value| { row.$($field)+ = value; Ok(()) }),
        )
    };
}

/// Access to a field that may be absent.
macro_rules! optional {
    ($kind:ident $($field:tt)+) => {
        Access::$kind(
            Box::new(|row: &Row| row.$($field)+),
            Box::new(|row: &mut Row, value| { row.$($field)+ = Some(value); Ok(()) }),
        )
    };
}

/// A list of descriptors: `ID "NAME" TYPE always|maybe "UNIT" "DOC" => ACCESS;`.
macro_rules! descriptors {
    ($($id:literal $name:literal $kind:ident $need:ident $unit:literal $doc:literal => $access:expr;)*) => {
        vec![$(Descriptor {
            column: Column {
                id: $id,
                name: $name,
                kind: ColumnType::$kind,
                nullable: descriptors!(@$need),
                unit: $unit,
                doc: $doc,
            },
            access: $access,
        },)*]
    };
    (@always) => { false };
    (@maybe) => { true };
}

use {access, descriptors, optional};
