//! The names of labels in a header extension: the label table in XML that TotalSegmentator and Connectome Workbench write.

use std::collections::BTreeMap;
use std::path::Path;

use super::stream::Stream;
use super::{open, read_main_header};
use crate::error::Fault;

/// Maximum bytes of extensions that are searched for a table.
const MAX_BYTES: u64 = 1 << 20;

/// Maximum letters of a name.
const MAX_LETTERS: usize = 64;

/// Reads the names of labels in the header extensions of a label map, by id; empty if there is no table. Entries whose id is not in
/// 1..=65535, or whose name is not plain text, are skipped.
///
/// # Errors
/// Returns the faults of [`read_header`](super::read_header).
pub fn read_label_names(path: impl AsRef<Path>) -> Result<BTreeMap<u16, String>, Fault> {
    let (reader, file_bytes) = open(path.as_ref())?;
    let mut stream = Stream::new(reader, file_bytes)?;
    let header = read_main_header(&mut stream)?;
    let length = header.voxel_offset.saturating_sub(stream.position()).min(MAX_BYTES);
    let mut bytes = vec![0; length as usize];
    let read = stream.fill(&mut bytes)?;
    Ok(parse(&String::from_utf8_lossy(&bytes[..read])))
}

/// Parses entries such as `<Label Key="5" Red="1"><![CDATA[liver]]></Label>`.
fn parse(text: &str) -> BTreeMap<u16, String> {
    let Some((_, table)) = text.split_once("<LabelTable>") else { return BTreeMap::new() };
    let table = table.split("</LabelTable>").next().unwrap_or_default();
    let entry = |entry: &str| {
        let (attributes, rest) = entry.split_once('>')?;
        let key = attributes.split_once("Key=\"")?.1.split('"').next()?;
        let name = rest.split("</Label>").next()?.trim();
        let name = name.strip_prefix("<![CDATA[").and_then(|name| name.strip_suffix("]]>")).unwrap_or(name).trim();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " _-.".contains(c);
        let is_name = !name.is_empty() && name.len() <= MAX_LETTERS && name.chars().all(is_plain);
        let id: u16 = key.parse().ok().filter(|id| *id > 0)?;
        is_name.then(|| (id, name.to_owned()))
    };
    table.split("<Label ").skip(1).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_lists_plain_names_by_id() {
        let text = "<CaretExtension><VolumeInformation Index=\"0\"><LabelTable>\n\
            <Label Key=\"0\" Alpha=\"0\"><![CDATA[???]]></Label>\n<Label Key=\"5\" Red=\"0.1\"><![CDATA[liver]]></Label>\n\
            <Label Key=\"27\" Red=\"0.2\">vertebrae_L5</Label><Label Key=\"70000\"><![CDATA[far]]></Label>\
            <Label Key=\"6\"><![CDATA[<b>]]></Label></LabelTable><Label Key=\"9\">outside</Label>";
        let names: Vec<_> = parse(text).into_iter().collect();
        assert_eq!(names, [(5, "liver".to_owned()), (27, "vertebrae_L5".to_owned())]);
        assert!(parse("<Label Key=\"5\">liver</Label>").is_empty(), "without a table");
    }
}
