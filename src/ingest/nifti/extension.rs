//! Header extensions: data of other programs between the header and the voxels. Of them only a table of label names is read.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::error::{Fault, FaultKind};
use crate::ingest::raster::{ByteOrder, Header, Stream};

/// Bytes of the head of an extension: its size and its code.
const HEAD_BYTES: u64 = 8;
/// Maximum bytes of an extension that is searched for label names; larger extensions are skipped.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// Reads the extensions up to the first voxel, and checks that their sizes fit before the voxels. Returns the names of labels, by id.
pub(super) fn read<R: BufRead>(stream: &mut Stream<R>, header: &Header) -> Result<BTreeMap<u16, String>, Fault> {
    let mut names = BTreeMap::new();
    let mut flag = [0; 4];
    stream.exact(&mut flag, "the flag of header extensions")?;
    let left = |stream: &Stream<R>| header.voxel_offset - stream.position();
    if flag[0] != 0 {
        while left(stream) >= HEAD_BYTES {
            let mut head = [0; HEAD_BYTES as usize];
            stream.exact(&mut head, "a header extension")?;
            let [size, code] =
                [[head[0], head[1], head[2], head[3]], [head[4], head[5], head[6], head[7]]].map(|bytes| match header
                    .order
                {
                    ByteOrder::Little => i32::from_le_bytes(bytes),
                    ByteOrder::Big => i32::from_be_bytes(bytes),
                });
            if size == 0 && code == 0 {
                // Padding after the last extension.
                break;
            }
            let content = i64::from(size) - HEAD_BYTES as i64;
            if content < 0 || content as u64 > left(stream) {
                return Err(Fault::read(
                    FaultKind::Corrupt,
                    format!(
                        "a header extension has {size} bytes, expected at most {} up to the first voxel",
                        left(stream) + HEAD_BYTES
                    ),
                ));
            }
            if content as u64 > MAX_TABLE_BYTES {
                stream.skip(content as u64, "a header extension")?;
                continue;
            }
            let mut text = vec![0; content as usize];
            stream.exact(&mut text, "a header extension")?;
            names.extend(label_table(&String::from_utf8_lossy(&text)));
        }
    }
    stream.skip(left(stream), "the space before the voxels")?;
    Ok(names)
}

/// Returns the label names in XML of the Caret format, which TotalSegmentator writes: `<Label Key="5" …>liver</Label>` in a `LabelTable`.
fn label_table(text: &str) -> BTreeMap<u16, String> {
    let Some((_, table)) = text.split_once("<LabelTable") else { return BTreeMap::new() };
    let table = table.split_once("</LabelTable>").map_or(table, |(table, _)| table);
    let labels = table.split("<Label").skip(1).filter_map(|label| {
        let (attributes, rest) = label.split_once('>')?;
        let (_, key) = attributes.split_once("Key=")?;
        let key = key.trim_start_matches(['"', '\'']).split(['"', '\'']).next()?;
        let name = rest.split_once("</Label>")?.0.trim();
        let name = name.strip_prefix("<![CDATA[").and_then(|name| name.strip_suffix("]]>")).unwrap_or(name).trim();
        Some((key.trim().parse().ok()?, name.to_owned()))
    });
    labels.filter(|(id, name)| *id > 0 && !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_table_is_read_with_and_without_character_data() {
        let text = r#"<?xml version="1.0"?><CaretExtension><VolumeInformation Index="0"><LabelTable>
            <Label Key="7" Red="1" Alpha="1">aorta</Label>
            <Label Alpha='1' Key='10'><![CDATA[ pancreas ]]></Label><Label Key="70000">large</Label><Label Key="3"></Label>
            </LabelTable><Label Key="1">outside</Label></VolumeInformation></CaretExtension>"#;
        let expected = BTreeMap::from([(7, "aorta".to_owned()), (10, "pancreas".to_owned())]);
        assert_eq!(label_table(text), expected);
        for text in ["", "<LabelTable>", "<LabelTable><Label Key=", "<LabelTable><Label Key=\"1\">liver"] {
            assert_eq!(label_table(text), BTreeMap::new(), "{text}");
        }
    }
}
