//! One text for one value: JSON with sorted keys, so that equal content has equal bytes and one digest.

use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// Pretty JSON with sorted keys and a newline at the end: for files that people open too.
///
/// ```
/// use freetumor::store::canonical;
/// let text = canonical::pretty(&[("b", 1), ("a", 2)].into_iter().collect::<std::collections::HashMap<_, _>>()).unwrap();
/// assert_eq!(text, b"{\n  \"a\": 2,\n  \"b\": 1\n}\n");
/// ```
///
/// # Errors
/// Where the value cannot be JSON: a map whose keys are no texts.
pub fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&sorted(value)?).map_err(unwritable)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes [`pretty`]'s text piece by piece: for values that hold a [`Streamed`] list. Its fields have to be declared in
/// the order of their names.
///
/// # Errors
/// Where `out` fails, or what makes the items does.
pub fn write_pretty(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// A list whose items are made one by one while it is written, so that it may be longer than memory: `0` hands every item
/// to the function that it is given.
pub struct Streamed<F>(pub F);

/// Takes the next item of a list.
pub type Take<'a, T> = &'a mut dyn FnMut(T) -> Result<()>;

impl<F> Streamed<F> {
    /// A list; this names the items' type.
    pub fn of<T: Serialize>(each: F) -> Streamed<impl Fn(Take<'_, serde_json::Value>) -> Result<()>>
    where
        F: Fn(Take<'_, T>) -> Result<()>,
    {
        Streamed(move |take: Take<'_, serde_json::Value>| each(&mut |item| take(sorted(&item)?)))
    }
}

impl<F: Fn(Take<'_, serde_json::Value>) -> Result<()>> Serialize for Streamed<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        (self.0)(&mut |item| list.serialize_element(&item).map_err(|e| Error::new(e.to_string())))
            .map_err(serde::ser::Error::custom)?;
        list.end()
    }
}

/// The same on one line, for files of many values.
///
/// # Errors
/// As for [`pretty`].
pub fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&sorted(value)?).map_err(unwritable)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a value; `place` is what messages call the file.
///
/// # Errors
/// Where the text is not JSON or not of this form.
pub fn parse<T: DeserializeOwned>(text: &[u8], place: &str) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| {
        Error::new(format!("{place} is not as freetumor writes it: {e}"))
            .with_hint("it was changed by hand or written by another version")
            .with_source(e)
    })
}

fn sorted(value: &impl Serialize) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(value).map_err(unwritable)?;
    // Without effect unless some crate of the build switches serde_json's `preserve_order` on.
    value.sort_all_objects();
    Ok(value)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(format!("a value cannot be written as JSON: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    /// Without serde_json's `float_roundtrip` some numbers come back one bit off, and a restart would write other rows.
    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let mut draws = crate::random::Key::root(5).draws("floats");
        for _ in 0..20_000 {
            let value = draws.normal(0.0, 1.0) * 10f64.powi(draws.index(40) as i32 - 20);
            let text = super::line(&value).unwrap();
            assert_eq!(super::parse::<f64>(&text, "a number").unwrap().to_bits(), value.to_bits());
        }
    }
}
