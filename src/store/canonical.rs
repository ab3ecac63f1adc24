//! Canonical JSON with sorted keys: equal values have equal bytes and one digest.

use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// Encodes a value as indented JSON with sorted keys and a final newline, for files that people also read.
///
/// ```
/// use freetumor::store::canonical;
/// let text = canonical::pretty(&[("b", 1), ("a", 2)].into_iter().collect::<std::collections::HashMap<_, _>>()).unwrap();
/// assert_eq!(text, b"{\n  \"a\": 2,\n  \"b\": 1\n}\n");
/// ```
///
/// # Errors
/// If the value has no JSON form, such as a map whose keys are not strings.
pub fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&sorted(value)?).map_err(unwritable)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes the output of [`pretty`] incrementally, for values that contain a [`StreamedList`]. The fields of the value must be
/// declared in the order of their names.
///
/// # Errors
/// If `out` or the source of the items fails.
pub fn write_pretty(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// A list whose items are produced one by one during serialization, so the list may exceed memory: field `0` calls its argument
/// with each item.
pub struct StreamedList<F>(pub F);

/// A callback for the next item of a list.
pub type ItemCallback<'a, T> = &'a mut dyn FnMut(T) -> Result<()>;

impl<F> StreamedList<F> {
    /// Creates a list of items of type `T`.
    pub fn of<T: Serialize>(for_each: F) -> StreamedList<impl Fn(ItemCallback<'_, serde_json::Value>) -> Result<()>>
    where
        F: Fn(ItemCallback<'_, T>) -> Result<()>,
    {
        StreamedList(move |visit: ItemCallback<'_, serde_json::Value>| for_each(&mut |item| visit(sorted(&item)?)))
    }
}

impl<F: Fn(ItemCallback<'_, serde_json::Value>) -> Result<()>> Serialize for StreamedList<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        (self.0)(&mut |item| list.serialize_element(&item).map_err(|e| Error::new(e.to_string())))
            .map_err(serde::ser::Error::custom)?;
        list.end()
    }
}

/// Encodes a value as canonical JSON on one line, for files of many values.
///
/// # Errors
/// The same errors as [`pretty`].
pub fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&sorted(value)?).map_err(unwritable)?;
    text.push(b'\n');
    Ok(text)
}

/// Parses a value; `path` names the file in error messages.
///
/// # Errors
/// If the text is not JSON or does not match the type.
pub fn parse<T: DeserializeOwned>(text: &[u8], path: &str) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| {
        Error::new(format!("cannot parse {path}: {e}"))
            .with_hint("the file was edited by hand or written by another version of freetumor; restore it from a copy")
            .with_source(e)
    })
}

fn sorted(value: &impl Serialize) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(value).map_err(unwritable)?;
    // Needed only if a crate of the build enables serde_json's `preserve_order`.
    value.sort_all_objects();
    Ok(value)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(format!("cannot write a value as JSON: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    /// Without serde_json's feature `float_roundtrip` some numbers change by one bit, and a restart would write other rows.
    #[test]
    fn numbers_round_trip_to_the_last_bit() {
        let mut random = crate::random::Key::root(5).stream("floats");
        for _ in 0..20_000 {
            let value = random.normal(0.0, 1.0) * 10f64.powi(random.index(40) as i32 - 20);
            let text = super::line(&value).unwrap();
            assert_eq!(super::parse::<f64>(&text, "a number").unwrap().to_bits(), value.to_bits());
        }
    }
}
