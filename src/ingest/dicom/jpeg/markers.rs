//! The marker segments of a JPEG stream up to its first scan (ITU-T T.81, Annex B).

use super::fault::{corrupt, truncated, unsupported};
use super::huffman::TableSpec;
use crate::error::Fault;

const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;
const LOSSLESS_FRAME: u8 = 0xC3;
const HUFFMAN_TABLES: u8 = 0xC4;
const RESTART_INTERVAL: u8 = 0xDD;
/// Restart markers, which follow each other modulo 8.
pub(super) const RESTARTS: std::ops::RangeInclusive<u8> = 0xD0..=0xD7;

/// The frame header (B.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct FrameHeader {
    pub columns: usize,
    pub rows: usize,
    /// Bits of a sample.
    pub precision: u32,
    pub components: usize,
    /// Identifier of the first component.
    component: u8,
}

/// The scan of a lossless image with everything that its decoding needs.
pub(super) struct Scan<'a> {
    pub frame: FrameHeader,
    pub table: TableSpec,
    /// Predictor from 1 to 7.
    pub predictor: u8,
    /// Bits by which the samples were shifted right before coding.
    pub point_transform: u32,
    /// Samples between restart markers, 0 if the scan has none.
    pub restart_interval: usize,
    /// The bytes after the scan header.
    pub entropy_coded: &'a [u8],
}

/// Reads the header of the first frame.
pub(in super::super) fn read_frame_header(bytes: &[u8]) -> Result<FrameHeader, Fault> {
    let mut segments = Segments::new(bytes)?;
    loop {
        if let (LOSSLESS_FRAME, body) = segments.next()? {
            return FrameHeader::parse(body);
        }
    }
}

/// Reads all segments up to the first scan.
pub(super) fn read_scan(bytes: &[u8]) -> Result<Scan<'_>, Fault> {
    let mut segments = Segments::new(bytes)?;
    let mut frame = None;
    let mut tables = [const { None }; 4];
    let mut restart_interval = 0;
    loop {
        match segments.next()? {
            (LOSSLESS_FRAME, _) if frame.is_some() => {
                return Err(corrupt("expected one frame header in the JPEG stream, got another one"));
            }
            (LOSSLESS_FRAME, body) => frame = Some(FrameHeader::parse(body)?),
            (HUFFMAN_TABLES, body) => read_tables(body, &mut tables)?,
            (RESTART_INTERVAL, &[a, b]) => restart_interval = usize::from(u16::from_be_bytes([a, b])),
            (RESTART_INTERVAL, _) => {
                return Err(corrupt("expected 2 bytes in a JPEG restart interval, got another number"));
            }
            (START_OF_SCAN, body) => {
                let frame = frame.ok_or_else(|| corrupt("expected a frame header before the JPEG scan, got none"))?;
                return read_scan_header(body, frame, tables, restart_interval, segments.rest);
            }
            // Quantization tables are not used by the lossless process, application data and comments by no process.
            _ => {}
        }
    }
}

impl FrameHeader {
    fn parse(body: &[u8]) -> Result<Self, Fault> {
        let &[precision, r0, r1, c0, c1, components, component] =
            body.first_chunk::<7>().ok_or_else(|| corrupt("the JPEG frame header is too short"))?;
        let [rows, columns] = [[r0, r1], [c0, c1]].map(|pair| usize::from(u16::from_be_bytes(pair)));
        if !(2..=16).contains(&precision) {
            return Err(corrupt(format!("expected 2 to 16 bits in a lossless JPEG sample, got {precision}")));
        }
        if rows == 0 {
            return Err(unsupported(
                "expected the number of lines in the JPEG frame header, got a stream with a DNL marker",
            ));
        }
        if columns == 0 {
            return Err(corrupt("expected at least 1 sample in a JPEG line, got 0"));
        }
        Ok(Self { columns, rows, precision: u32::from(precision), components: usize::from(components), component })
    }
}

fn read_scan_header<'a>(
    body: &[u8],
    frame: FrameHeader,
    tables: [Option<TableSpec>; 4],
    restart_interval: usize,
    entropy_coded: &'a [u8],
) -> Result<Scan<'a>, Fault> {
    let components = usize::from(*body.first().ok_or_else(|| corrupt("the JPEG scan header is empty"))?);
    if frame.components != 1 || components != 1 {
        return Err(unsupported(format!(
            "expected 1 component in a lossless JPEG image, got {} in its frame and {components} in its scan",
            frame.components
        )));
    }
    let &[_, component, table, predictor, _, shift] = <&[u8; 6]>::try_from(body)
        .map_err(|_| corrupt("expected 6 bytes in the JPEG scan header, got another number"))?;
    if component != frame.component {
        return Err(corrupt("expected the component of the JPEG frame in the JPEG scan header, got another component"));
    }
    if !(1..=7).contains(&predictor) {
        return Err(corrupt(format!("expected a lossless JPEG predictor from 1 to 7, got {predictor}")));
    }
    let point_transform = u32::from(shift & 0x0F);
    if point_transform >= frame.precision {
        return Err(corrupt(format!(
            "expected a JPEG point transform below the precision of {} bits, got {point_transform}",
            frame.precision
        )));
    }
    let table = tables
        .into_iter()
        .nth(usize::from(table >> 4))
        .flatten()
        .ok_or_else(|| corrupt("the JPEG scan uses a Huffman table that is not defined"))?;
    Ok(Scan { frame, table, predictor, point_transform, restart_interval, entropy_coded })
}

/// Reads the tables of one segment (B.2.4.2). Tables of class 1 are not used by the lossless process.
fn read_tables(body: &[u8], tables: &mut [Option<TableSpec>; 4]) -> Result<(), Fault> {
    let damaged = || corrupt("expected Huffman tables in a JPEG table segment, got other bytes");
    let mut rest = body;
    while let Some((&[index, counts @ ..], after)) = rest.split_first_chunk::<17>() {
        let codes = counts.iter().map(|&count| usize::from(count)).sum();
        let (categories, after) = after.split_at_checked(codes).ok_or_else(damaged)?;
        if index >> 4 > 1 {
            return Err(damaged());
        }
        let table = tables.get_mut(usize::from(index & 0x0F)).ok_or_else(damaged)?;
        if index >> 4 == 0 {
            *table = Some(TableSpec { counts, categories: categories.to_vec() });
        }
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(damaged()) }
}

/// The marker segments of a stream.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        match bytes {
            [0xFF, START_OF_IMAGE, rest @ ..] => Ok(Self { rest }),
            _ => Err(corrupt("expected a JPEG stream as compressed pixel data, got other bytes")),
        }
    }

    /// Returns the next marker and the body of its segment. Frames of other processes and an end without a scan are faults.
    fn next(&mut self) -> Result<(u8, &'a [u8]), Fault> {
        let [0xFF, after @ ..] = self.rest else {
            return Err(match self.rest {
                [] => truncated_header(),
                _ => corrupt("expected a marker in the JPEG stream, got other bytes"),
            });
        };
        let fill_bytes = after.iter().take_while(|byte| **byte == 0xFF).count();
        let (&marker, after) = after[fill_bytes..].split_first().ok_or_else(truncated_header)?;
        check_marker(marker)?;
        let &[l0, l1] = after.first_chunk::<2>().ok_or_else(truncated_header)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length < 2 {
            return Err(corrupt("a JPEG marker segment is shorter than its length"));
        }
        let (segment, rest) = after.split_at_checked(length).ok_or_else(truncated_header)?;
        self.rest = rest;
        Ok((marker, &segment[2..]))
    }
}

/// Checks that a marker starts a segment that may precede the scan of a lossless image (table B.1).
fn check_marker(marker: u8) -> Result<(), Fault> {
    let process = match marker {
        0xC0 => "baseline",
        0xC1 => "extended sequential",
        0xC2 => "progressive",
        0xC5..=0xC7 | 0xCD..=0xCF | 0xDE | 0xDF => "hierarchical",
        0xC9..=0xCC => "arithmetic-coded",
        0xF7 => "JPEG-LS",
        0xDC => {
            return Err(unsupported("expected the number of lines in the JPEG frame header, got a DNL marker"));
        }
        START_OF_IMAGE | END_OF_IMAGE => {
            return Err(corrupt(format!("expected a frame and a scan in the JPEG stream, got marker FF{marker:02X}")));
        }
        0x00..=0xBF | 0xC8 | 0xD0..=0xD7 => {
            return Err(corrupt(format!("expected a marker segment in the JPEG stream, got FF{marker:02X}")));
        }
        _ => return Ok(()),
    };
    Err(unsupported(format!(
        "expected a lossless JPEG with frame marker FFC3, got FF{marker:02X} ({process}): transcode the series"
    )))
}

fn truncated_header() -> Fault {
    truncated("compressed pixel data ends inside its header")
}
