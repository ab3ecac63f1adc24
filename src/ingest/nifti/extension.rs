//! Header extensions: data of other programs between the header and the voxels. Extensions are skipped, never kept.

use std::io::BufRead;

use crate::error::{Fault, FaultKind};
use crate::ingest::raster::{ByteOrder, Header, Stream};

/// Bytes of the head of an extension: its size and its code.
const HEAD_BYTES: u64 = 8;

/// Skips the extensions up to the first voxel, and checks that their sizes fit before the voxels.
pub(super) fn skip<R: BufRead>(stream: &mut Stream<R>, header: &Header) -> Result<(), Fault> {
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
            stream.skip(content as u64, "a header extension")?;
        }
    }
    stream.skip(left(stream), "the space before the voxels")
}
