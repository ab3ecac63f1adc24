//! The fields of an NRRD header as text.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::error::{Fault, FaultKind};
use crate::ingest::raster::HeaderText;

/// The fields of the format without spaces: writers use `data file` and `datafile`.
const FIELDS: [&str; 31] = [
    "axismaxs",
    "axismins",
    "blocksize",
    "byteskip",
    "centerings",
    "centers",
    "content",
    "datafile",
    "dimension",
    "encoding",
    "endian",
    "kinds",
    "labels",
    "lineskip",
    "max",
    "measurementframe",
    "min",
    "number",
    "oldmax",
    "oldmin",
    "sampleunits",
    "sizes",
    "space",
    "spacedimension",
    "spacedirections",
    "spaceorigin",
    "spaceunits",
    "spacings",
    "thicknesses",
    "type",
    "units",
];

/// The fields of a header by name, in lower case and without spaces.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads the header: up to its empty line, or up to the end of a file that contains only a header.
    ///
    /// # Errors
    /// Returns `corrupt` if a line is not a field, comment or key/value pair, or a field is repeated; `unsupported` for a later version of
    /// the format; `truncated` if the file ends before the empty line and its voxels are not in a data file.
    pub fn read<R: BufRead>(text: &mut HeaderText<R>) -> Result<Self, Fault> {
        check_magic(text.line()?.as_deref().unwrap_or_default())?;
        let mut fields = Self::default();
        loop {
            let Some(line) = text.line()? else {
                if fields.get("data file").is_some() {
                    return Ok(fields);
                }
                return Err(Fault::read(
                    FaultKind::Truncated,
                    "expected an empty line and voxels after the NRRD header, the file ends before them",
                ));
            };
            if line.is_empty() {
                return Ok(fields);
            }
            // The lines after this field are names of files.
            let is_list = fields.get("data file").is_some_and(|file| file == "LIST" || file.starts_with("LIST "));
            match fields.insert(&line, text.lines()) {
                Err(fault) if !is_list => return Err(fault),
                _ => {}
            }
        }
    }

    fn insert(&mut self, line: &str, number: usize) -> Result<(), Fault> {
        if line.starts_with('#') {
            return Ok(());
        }
        let named = line.split_once(": ").or_else(|| line.strip_suffix(':').map(|name| (name, "")));
        let field = named.map(|(name, value)| (key_of(name), value.trim()));
        match field {
            Some((name, value)) if FIELDS.contains(&&*name) => {
                if self.0.insert(name, value.to_owned()).is_some() {
                    return Err(corrupt(format!("expected each field once, line {number} of the header repeats one")));
                }
                Ok(())
            }
            // A pair of a key and a value of another program, such as a name of a segment.
            _ if line.contains(":=") => Ok(()),
            // The line is not repeated, because it may be free text.
            _ => Err(corrupt(format!("expected a field of NRRD in line {number} of the header, got another line"))),
        }
    }

    /// Returns the value of a field, or `None` if the header does not have the field.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.get(&key_of(field)).map(String::as_str)
    }

    /// Returns the value of a field that every header must have.
    ///
    /// # Errors
    /// Returns `corrupt` if the header does not have the field.
    pub fn required(&self, field: &str) -> Result<&str, Fault> {
        self.get(field).ok_or_else(|| corrupt(format!("expected the field `{field}` in the NRRD header, got none")))
    }
}

/// Returns the name of a field in lower case and without spaces.
fn key_of(field: &str) -> String {
    field.chars().filter(|letter| *letter != ' ').map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Checks the first line: `NRRD` and a version of four digits.
fn check_magic(line: &str) -> Result<(), Fault> {
    let version = line.strip_prefix("NRRD").and_then(|version| version.trim_end().parse::<u32>().ok());
    match version {
        Some(1..=5) => Ok(()),
        Some(version) => {
            Err(Fault::read(FaultKind::Unsupported, format!("expected a version of NRRD from 1 to 5, got {version}")))
        }
        None => Err(corrupt("expected NRRD and a version in the first line of the header, got another line")),
    }
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}
