//! Huffman-coded differences of lossless JPEG (ITU-T T.81, C.2, F.2.2.3 and H.1.2.2).

use super::bits::BitReader;
use super::fault::corrupt;
use crate::error::Fault;

/// Codes of at most this many bits are found with one lookup.
const LOOKUP_BITS: usize = 12;
/// Maximum category of a difference: 32768, which has no further bits.
const MAX_CATEGORY: u8 = 16;

/// A table as a stream defines it: the number of codes of each length from 1 to 16, and their categories in the order of the codes.
#[derive(Clone)]
pub(super) struct TableSpec {
    pub counts: [u8; 16],
    pub categories: Vec<u8>,
}

/// A table for decoding.
pub(super) struct Table {
    /// For the next bits: length of the code << 8 | category; 0 if the code is longer or does not exist.
    lookup: Vec<u16>,
    /// For each length from 1 to 16: the first code, the number of codes, and the index of the category of the first code.
    lengths: [(u32, u32, usize); 16],
    categories: Vec<u8>,
}

impl Table {
    /// Builds the decoding table of a specification (ISO/IEC 10918-1, C.2).
    ///
    /// # Errors
    /// Returns `corrupt` if there are more codes of a length than bits allow, or a category above 16.
    pub fn new(spec: &TableSpec) -> Result<Self, Fault> {
        if let Some(category) = spec.categories.iter().find(|category| **category > MAX_CATEGORY) {
            return Err(corrupt(format!(
                "expected categories of at most {MAX_CATEGORY} in a JPEG Huffman table, got {category}"
            )));
        }
        let mut lookup = vec![0; 1 << LOOKUP_BITS];
        let mut lengths = [(0, 0, 0); 16];
        let (mut code, mut index) = (0u32, 0);
        for (position, &count) in spec.counts.iter().enumerate() {
            let length = position + 1;
            code <<= 1;
            lengths[position] = (code, u32::from(count), index);
            if code + u32::from(count) > 1 << length {
                return Err(corrupt(format!("a JPEG Huffman table has too many codes of {length} bits")));
            }
            for &category in &spec.categories[index..index + usize::from(count)] {
                if length <= LOOKUP_BITS {
                    let unused = LOOKUP_BITS - length;
                    let first = (code as usize) << unused;
                    lookup[first..first + (1 << unused)].fill((length as u16) << 8 | u16::from(category));
                }
                code += 1;
            }
            index += usize::from(count);
        }
        Ok(Self { lookup, lengths, categories: spec.categories.clone() })
    }

    /// Decodes the next difference, modulo 2¹⁶; `None` if the next bits are not a code.
    #[inline]
    pub fn difference(&self, bits: &mut BitReader<'_>) -> Option<u16> {
        bits.refill();
        let entry = self.lookup[bits.peek(LOOKUP_BITS) as usize];
        let (length, category) = match entry {
            0 => self.long_code(bits.peek(16))?,
            entry => (usize::from(entry >> 8), usize::from(entry & 0xFF)),
        };
        bits.consume(length);
        if category == 0 {
            return Some(0);
        }
        if category == usize::from(MAX_CATEGORY) {
            return Some(0x8000);
        }
        let value = bits.peek(category);
        bits.consume(category);
        // Values whose first bit is 0 are negative (F.2.2.1, EXTEND).
        let negative = value >> (category - 1) == 0;
        Some((value as u16).wrapping_sub(if negative { (1 << category) - 1 } else { 0 }))
    }

    /// Returns length and category of a code that is longer than the lookup.
    #[cold]
    fn long_code(&self, next: u32) -> Option<(usize, usize)> {
        (LOOKUP_BITS + 1..=16).find_map(|length| {
            let (first, count, index) = self.lengths[length - 1];
            let offset = (next >> (16 - length)).checked_sub(first).filter(|offset| *offset < count)?;
            Some((length, usize::from(*self.categories.get(index + offset as usize)?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(codes: &[(usize, u8)]) -> Result<Table, Fault> {
        let mut spec = TableSpec { counts: [0; 16], categories: codes.iter().map(|(_, category)| *category).collect() };
        for (length, _) in codes {
            spec.counts[length - 1] += 1;
        }
        Table::new(&spec)
    }

    #[test]
    fn short_and_long_codes_are_decoded() {
        // Codes 0, 10, 110, … and two codes of 16 bits: 1111 1111 1111 1110 is not used, and 1111 1111 1111 1100 + 1 are.
        let lengths: Vec<_> = (1..=14).map(|length| (length, length as u8 - 1)).chain([(16, 15), (16, 16)]).collect();
        let table = table(&lengths).unwrap();
        for (codes, expected) in [
            (vec![0b0111_1111, 0xFF], vec![0]),
            // 10 and 0: −1; 10 and 1: 1.
            (vec![0b1001_0111, 0xFF], vec![0xFFFF, 1]),
            // 110 and 00: −3; 110 and 01: −2; 110 and 10: 2.
            (vec![0b1100_0110, 0b0111_0101, 0xFF], vec![0xFFFD, 0xFFFE, 2]),
            // Category 15: 1 and fourteen zeros is 16384.
            (vec![0xFF, 0xFC, 0b1000_0000, 0, 0xFF], vec![16384]),
            (vec![0xFF, 0xFD, 0xFF], vec![0x8000]),
        ] {
            let mut bits = BitReader::new(&codes);
            let decoded: Vec<_> = expected.iter().map(|_| table.difference(&mut bits).unwrap()).collect();
            assert_eq!(decoded, expected);
        }
        assert_eq!(table.difference(&mut BitReader::new(&[0xFF, 0xFF])), None);
        assert_eq!(table.difference(&mut BitReader::new(&[0xFF, 0xFE])), None);
    }

    #[test]
    fn too_many_codes_and_unknown_categories_are_corrupt() {
        assert!(table(&[(1, 0), (1, 1)]).is_ok());
        let crowded = table(&[(1, 0), (1, 1), (2, 2)]).err().unwrap();
        assert!(crowded.message.contains("too many codes of 2 bits"), "{crowded}");
        let category = table(&[(1, 17)]).err().unwrap();
        assert!(category.message.contains("at most 16 in a JPEG Huffman table, got 17"), "{category}");
    }
}
