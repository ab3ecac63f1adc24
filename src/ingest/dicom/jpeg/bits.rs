//! The bits of one entropy-coded segment (ITU-T T.81, F.1.2.3 and B.1.1.5).

/// The bits of a segment from the first to the last. Zeros follow the last bit; [`BitReader::is_overrun`] reports their use.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Index of the next byte to load, which may be beyond the end.
    next: usize,
    /// Loaded bits, the first one at the top.
    buffer: u64,
    /// Number of valid bits in the buffer.
    count: usize,
}

impl<'a> BitReader<'a> {
    /// Creates a reader of bytes without stuffing.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, buffer: 0, count: 0 }
    }

    /// Loads bits until at least 56 are valid.
    #[inline]
    pub fn refill(&mut self) {
        if let Some(bytes) = self.bytes.get(self.next..).and_then(|rest| rest.first_chunk::<8>()) {
            // Bits below the valid ones are already those of the next bytes: a second load does not change them.
            self.buffer |= u64::from_be_bytes(*bytes) >> self.count;
            self.next += (63 - self.count) >> 3;
            self.count |= 56;
            return;
        }
        while self.count <= 56 {
            let byte = self.bytes.get(self.next).copied().unwrap_or(0);
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.next += 1;
            self.count += 8;
        }
    }

    /// Returns the next `bits` bits, 1 to 32, without removing them.
    #[inline]
    pub fn peek(&self, bits: usize) -> u32 {
        (self.buffer >> (64 - bits)) as u32
    }

    /// Removes `bits` bits, at most the number of valid ones.
    #[inline]
    pub fn consume(&mut self, bits: usize) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// Returns whether more bits were removed than the segment has.
    pub fn is_overrun(&self) -> bool {
        8 * self.next - self.count > 8 * self.bytes.len()
    }

    /// Returns the whole bytes that were not removed.
    pub fn rest(&self) -> &'a [u8] {
        let removed = (8 * self.next - self.count).div_ceil(8);
        self.bytes.get(removed..).unwrap_or_default()
    }
}

/// Returns the bytes of an entropy-coded segment without stuffing in `segment`, and the rest of `bytes` from the marker that ends the
/// segment; the rest is empty if no marker follows.
pub(super) fn unstuff<'a>(bytes: &'a [u8], segment: &mut Vec<u8>) -> &'a [u8] {
    segment.clear();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == 0xFF) {
        let (before, after) = rest.split_at(at);
        segment.extend_from_slice(before);
        match after.get(1) {
            Some(0) => {
                segment.push(0xFF);
                rest = &after[2..];
            }
            // A fill byte before a marker.
            Some(0xFF) => rest = &after[1..],
            Some(_) => return after,
            None => return &[],
        }
    }
    segment.extend_from_slice(rest);
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_returned_in_order_across_refills() {
        let bytes: Vec<u8> = (0..40u32).map(|byte| (byte * 37 + 11) as u8).collect();
        let bit = |at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
        let mut reader = BitReader::new(&bytes);
        let mut at = 0;
        for step in (1..=31).cycle() {
            if at + step > 8 * bytes.len() {
                break;
            }
            reader.refill();
            let expected = (at..at + step).fold(0, |value, at| value << 1 | bit(at));
            assert_eq!(reader.peek(step), expected, "{step} bits at {at}");
            reader.consume(step);
            at += step;
            assert!(!reader.is_overrun());
        }
        assert_eq!(reader.rest().len(), bytes.len() - at.div_ceil(8));
        reader.refill();
        reader.consume(8 * bytes.len() - at);
        assert!(!reader.is_overrun() && reader.rest().is_empty());
        reader.refill();
        reader.consume(1);
        assert!(reader.is_overrun());
    }

    #[test]
    fn stuffing_is_removed_and_marker_ends_segment() {
        let mut segment = Vec::new();
        assert_eq!(unstuff(&[1, 0xFF, 0, 2, 0xFF, 0xFF, 0xD0, 3], &mut segment), [0xFF, 0xD0, 3]);
        assert_eq!(segment, [1, 0xFF, 2]);
        assert!(unstuff(&[1, 0xFF, 0, 0xFF], &mut segment).is_empty());
        assert_eq!(segment, [1, 0xFF]);
    }
}
