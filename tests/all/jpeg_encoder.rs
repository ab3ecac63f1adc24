//! A plain encoder of lossless JPEG streams for tests, written from ITU-T T.81 without code of the decoder: bits are strings.

use std::fmt::Write;

/// The parameters of a coded stream.
#[derive(Clone, Debug)]
pub struct Coding {
    pub columns: usize,
    pub precision: u32,
    pub predictor: u8,
    pub point_transform: u32,
    /// Lines between restart markers, 0 for none.
    pub restart_lines: usize,
    pub codes: Codes,
    /// Whether the stream has application data, comments, fill bytes, quantization tables and several Huffman tables.
    pub with_other_segments: bool,
}

/// The Huffman codes of the 17 categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// Five bits for each category.
    Even,
    /// One bit for category 0, two bits for category 1, up to 14 bits for category 13 and 16 bits for the others.
    Skewed,
    /// Sixteen bits for each category.
    Long,
}

impl Codes {
    /// Returns the code of a category as a string of bits.
    fn code(self, category: usize) -> String {
        match self {
            Self::Even => format!("{category:05b}"),
            Self::Skewed if category < 14 => "1".repeat(category) + "0",
            Self::Skewed => "1".repeat(14) + ["00", "01", "10"][category - 14],
            Self::Long => format!("{category:016b}"),
        }
    }

    /// Returns the number of codes of each length, and the categories in the order of their codes.
    fn table(self) -> (Vec<u8>, Vec<u8>) {
        let lengths: Vec<usize> = (0..17).map(|category| self.code(category).len()).collect();
        let counts = (1..=16).map(|length| lengths.iter().filter(|other| **other == length).count() as u8).collect();
        let mut categories: Vec<u8> = (0..17).collect();
        categories.sort_by_key(|category| self.code(usize::from(*category)));
        (counts, categories)
    }
}

impl Coding {
    /// Returns a coding with predictor 1, without point transform and restart markers.
    pub fn new(columns: usize, precision: u32) -> Self {
        Self {
            columns,
            precision,
            predictor: 1,
            point_transform: 0,
            restart_lines: 0,
            codes: Codes::Even,
            with_other_segments: false,
        }
    }

    /// Encodes samples to a complete stream.
    pub fn encode(&self, samples: &[u16]) -> Vec<u8> {
        let rows = samples.len() / self.columns;
        assert_eq!(rows * self.columns, samples.len());
        let mut stream = vec![0xFF, 0xD8];
        if self.with_other_segments {
            stream.extend(segment(0xE0, b"JFIF\0 with the bytes \xFF\xD9 and \xFF\xC3"));
            stream.extend(segment(0xFE, b"a comment"));
            stream.extend(segment(0xDB, &[0; 65]));
            stream.extend([0xFF, 0xFF]);
        }
        let [r1, r0] = (rows as u16).to_be_bytes();
        let [c1, c0] = (self.columns as u16).to_be_bytes();
        stream.extend(segment(0xC3, &[self.precision as u8, r1, r0, c1, c0, 1, 7, 0x11, 0]));
        let (counts, categories) = self.codes.table();
        let table = |index: u8| [&[index][..], &counts, &categories].concat();
        if self.with_other_segments {
            // Table 2 of this stream is defined twice, with a table for AC coefficients and another one in the first segment.
            let other = |index: u8| [&[index, 0, 2][..], &[0; 14], &[3, 4]].concat();
            stream.extend(segment(0xC4, &[other(0x02), other(0x12), other(0x00)].concat()));
        }
        stream.extend(segment(0xC4, &table(2)));
        if self.restart_lines > 0 {
            stream.extend(segment(0xDD, &((self.restart_lines * self.columns) as u16).to_be_bytes()));
        }
        stream.extend(segment(0xDA, &[1, 7, 0x20, self.predictor, 0, self.point_transform as u8]));
        let lines = if self.restart_lines > 0 { self.restart_lines } else { rows };
        for (interval, samples) in samples.chunks(lines * self.columns).enumerate() {
            if interval > 0 {
                stream.extend([0xFF, 0xD0 + ((interval - 1) % 8) as u8]);
            }
            stream.extend(self.interval(samples));
        }
        stream.extend([0xFF, 0xD9]);
        stream
    }

    /// Encodes the samples between two restart markers.
    fn interval(&self, samples: &[u16]) -> Vec<u8> {
        let shifted: Vec<i64> = samples.iter().map(|sample| i64::from(sample >> self.point_transform)).collect();
        let mut bits = String::new();
        for (index, sample) in shifted.iter().enumerate() {
            let (x, y) = (index % self.columns, index / self.columns);
            let prediction = match (x, y) {
                (0, 0) => 1 << (self.precision - self.point_transform - 1),
                (_, 0) => shifted[index - 1],
                (0, _) => shifted[index - self.columns],
                _ => {
                    let a = shifted[index - 1];
                    let b = shifted[index - self.columns];
                    let c = shifted[index - self.columns - 1];
                    [a, b, c, a + b - c, a + (b - c).div_euclid(2), b + (a - c).div_euclid(2), (a + b).div_euclid(2)]
                        [usize::from(self.predictor) - 1]
                }
            };
            // The difference modulo 2^16, from -32767 to 32768.
            let difference = 32768 - (32768 - (sample - prediction)).rem_euclid(65536);
            let category = (0..=16).find(|bits| difference.abs() < 1 << bits).unwrap();
            bits += &self.codes.code(category);
            if (1..16).contains(&category) {
                let value = if difference > 0 { difference } else { difference + (1 << category) - 1 };
                write!(bits, "{value:0category$b}").unwrap();
            }
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let bytes = (0..bits.len()).step_by(8).map(|at| u8::from_str_radix(&bits[at..at + 8], 2).unwrap());
        bytes.flat_map(|byte| if byte == 0xFF { vec![0xFF, 0] } else { vec![byte] }).collect()
    }
}

/// Returns a marker segment with its length.
pub fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16 + 2).to_be_bytes();
    [&[0xFF, marker][..], &length, body].concat()
}
