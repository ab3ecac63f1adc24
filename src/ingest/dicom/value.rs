//! The value of an element, as text or as numbers in any representation that writers use for them.

/// Representations whose values are binary numbers, and the bytes of one number.
const BINARY: [(&[u8; 2], usize); 13] = [
    (b"US", 2),
    (b"SS", 2),
    (b"OW", 2),
    (b"UL", 4),
    (b"SL", 4),
    (b"OL", 4),
    (b"FL", 4),
    (b"OF", 4),
    (b"UV", 8),
    (b"SV", 8),
    (b"OV", 8),
    (b"FD", 8),
    (b"OD", 8),
];
/// Representations without numbers.
const OTHER: [&[u8; 2]; 3] = [b"AT", b"OB", b"SQ"];

/// The value of an element with its representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// The value representation, `None` in an implicit encoding.
    pub representation: Option<[u8; 2]>,
    pub big_endian: bool,
    pub bytes: Vec<u8>,
}

/// A value that is not the expected number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

impl Value {
    /// Returns the value as a string without padding; `None` if the value is empty or not ASCII.
    pub fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.bytes).ok()?.trim_matches([' ', '\0']);
        (!text.is_empty() && text.is_ascii()).then_some(text)
    }

    /// Returns the numbers of an element that the standard defines as decimal strings; `None` if the value is empty.
    ///
    /// Empty numbers at the end are ignored. Binary numbers in an explicit encoding are converted.
    pub fn decimals(&self) -> Result<Option<Vec<f64>>, NotANumber> {
        let binary = self.representation.and_then(|own| BINARY.iter().find(|(known, _)| **known == own));
        if let Some(&(representation, bytes)) = binary {
            if !self.bytes.len().is_multiple_of(bytes) {
                return Err(NotANumber);
            }
            let numbers = self.bytes.chunks_exact(bytes).map(|number| self.binary(representation, number));
            return Ok((!self.bytes.is_empty()).then(|| numbers.collect()));
        }
        if self.bytes.iter().all(|byte| [b' ', 0].contains(byte)) {
            return Ok(None);
        }
        if self.representation.is_some_and(|own| OTHER.contains(&&own)) {
            return Err(NotANumber);
        }
        let text = self.text().ok_or(NotANumber)?;
        let mut parts: Vec<&str> = text.split('\\').map(|part| part.trim_matches([' ', '\0'])).collect();
        while parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
        let numbers: Option<Vec<f64>> = parts.into_iter().map(|part| part.parse().ok()).collect();
        numbers.filter(|numbers| !numbers.is_empty()).map(Some).ok_or(NotANumber)
    }

    /// Returns the number of an element that the standard defines as one unsigned 16-bit number (US); `None` if the value is empty.
    ///
    /// Any other representation is accepted if its value is such a number. Without a representation the value may be a longer number,
    /// or digits; if the bytes of representation UN could be both a number and digits, the value is not accepted.
    pub fn u16(&self) -> Result<Option<u16>, NotANumber> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let are_digits = self.bytes.iter().all(|byte| byte.is_ascii_digit() || [b' ', 0].contains(byte))
            && self.bytes.iter().any(u8::is_ascii_digit);
        let integer = match (self.representation.as_ref(), &self.bytes[..]) {
            (Some(b"UN"), _) if self.big_endian => return Err(NotANumber),
            (Some(b"UN"), [_, _]) if are_digits => return Err(NotANumber),
            (None | Some(b"UN"), &[low, high]) => return Ok(Some(u16::from_le_bytes([low, high]))),
            (None | Some(b"UN"), &[low, high, ref zeros @ ..])
                if zeros.len().is_multiple_of(2) && zeros.iter().all(|byte| *byte == 0) && !are_digits =>
            {
                return Ok(Some(u16::from_le_bytes([low, high])));
            }
            (None | Some(b"UN"), _) if !are_digits => return Err(NotANumber),
            _ => self.decimals()?,
        };
        match integer.as_deref() {
            None => Ok(None),
            Some(&[number]) if number.fract() == 0.0 && (0.0..=65535.0).contains(&number) => Ok(Some(number as u16)),
            Some(_) => Err(NotANumber),
        }
    }

    /// Converts one binary number. The bytes have the length of the representation.
    fn binary(&self, representation: &[u8; 2], bytes: &[u8]) -> f64 {
        let mut ordered = [0; 8];
        for (index, byte) in bytes.iter().enumerate() {
            ordered[if self.big_endian { bytes.len() - 1 - index } else { index }] = *byte;
        }
        let bits = u64::from_le_bytes(ordered);
        match representation {
            b"SS" => f64::from(bits as i16),
            b"SL" => f64::from(bits as i32),
            b"SV" => bits as i64 as f64,
            b"FL" | b"OF" => f64::from(f32::from_bits(bits as u32)),
            b"FD" | b"OD" => f64::from_bits(bits),
            _ => bits as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(representation: &str, bytes: &[u8]) -> Value {
        let representation = representation.as_bytes().try_into().ok();
        Value { representation, big_endian: false, bytes: bytes.to_vec() }
    }

    #[test]
    fn unsigned_numbers_are_read_in_every_representation() {
        for (representation, bytes) in [
            ("US", &[0, 2][..]),
            ("", &[0, 2]),
            ("UN", &[0, 2]),
            ("SS", &[0, 2]),
            ("OW", &[0, 2]),
            ("UL", &[0, 2, 0, 0]),
            ("SL", &[0, 2, 0, 0]),
            ("", &[0, 2, 0, 0]),
            ("UN", &[0, 2, 0, 0]),
            ("UV", &[0, 2, 0, 0, 0, 0, 0, 0]),
            ("FL", &512f32.to_le_bytes()),
            ("FD", &512f64.to_le_bytes()),
            ("IS", b"512 "),
            ("IS", b" 512\\"),
            ("DS", b"512.0 "),
            ("LO", b"512\0"),
            ("UN", b"512 "),
            ("", b"512 "),
        ] {
            assert_eq!(value(representation, bytes).u16(), Ok(Some(512)), "{representation} {bytes:?}");
        }
        let big = Value { big_endian: true, ..value("UL", &[0, 0, 2, 0]) };
        assert_eq!(big.u16(), Ok(Some(512)));
        assert_eq!(Value { big_endian: true, ..value("US", &[2, 0]) }.u16(), Ok(Some(512)));
        assert_eq!(value("US", &[]).u16(), Ok(None));
        assert_eq!(value("IS", b"  ").u16(), Ok(None));
        // Two digits without a representation are a number: the standard defines US.
        assert_eq!(value("", b"16").u16(), Ok(Some(0x3631)));
    }

    #[test]
    fn u16_rejects_lists_fractions_negatives_and_malformed_values() {
        for (representation, bytes) in [
            ("US", &[0, 2, 0, 3][..]),
            ("US", &[0, 2, 0, 2]),
            ("US", &[1]),
            ("", &[0, 2, 1, 0]),
            ("SS", &[0xFF, 0xFF]),
            ("UL", &[0, 0, 1, 0]),
            ("FL", &0.5f32.to_le_bytes()),
            ("FD", &f64::NAN.to_le_bytes()),
            ("IS", b"-1"),
            ("IS", b"512\\513"),
            ("IS", b"65536"),
            ("CS", b"FIVE"),
            ("UN", b"16"),
            ("UN", b"8 "),
            ("UN", &[1, 2, 3]),
            ("OB", &[0, 2]),
            ("AT", &[0, 2, 0, 0]),
        ] {
            assert_eq!(value(representation, bytes).u16(), Err(NotANumber), "{representation} {bytes:?}");
        }
        assert_eq!(Value { big_endian: true, ..value("UN", &[2, 0]) }.u16(), Err(NotANumber));
    }

    #[test]
    fn decimals_are_read_in_every_representation() {
        let doubles = [0.75f64, -0.5].map(f64::to_le_bytes).concat();
        let floats = [0.75f32, -0.5].map(f32::to_le_bytes).concat();
        for (representation, bytes) in [
            ("DS", &b"0.75\\-0.5"[..]),
            ("DS", b" 0.75 \\ -.5 "),
            ("DS", b"+7.5e-1\\-0.5\\"),
            ("DS", b"0.75\\-0.5\\ \\\0"),
            ("", b"0.75\\-0.5 "),
            ("UN", b"0.75\\-0.5 "),
            ("LO", b"0.75\\-0.5 "),
            ("FD", &doubles),
            ("FL", &floats),
        ] {
            assert_eq!(
                value(representation, bytes).decimals(),
                Ok(Some(vec![0.75, -0.5])),
                "{representation} {bytes:?}"
            );
        }
        assert_eq!(value("SS", &[0, 0xFC]).decimals(), Ok(Some(vec![-1024.0])));
        assert_eq!(value("SL", &[0, 0xFC, 0xFF, 0xFF]).decimals(), Ok(Some(vec![-1024.0])));
        assert_eq!(value("FD", &[0; 8]).decimals(), Ok(Some(vec![0.0])));
        for empty in [&b""[..], b" ", b"\0\0"] {
            assert_eq!(value("DS", empty).decimals(), Ok(None));
        }
        for (representation, bytes) in [
            ("DS", &b"\\1"[..]),
            ("DS", b"\\"),
            ("DS", b"1,5"),
            ("DS", b"1 2"),
            ("UN", &doubles),
            ("FD", &[0; 7]),
            ("OB", b"1"),
        ] {
            assert_eq!(value(representation, bytes).decimals(), Err(NotANumber), "{representation} {bytes:?}");
        }
    }
}
