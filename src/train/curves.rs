//! A picture of how losses and scores went.

use super::history::{History, TRAIN, VALIDATION};
use crate::volume::Picture;

/// Pixels of one panel, its words above.
const PANEL: [usize; 2] = [420, 120];
/// Pixels of the line of words.
const WORDS: usize = 16;
const GAP: usize = 10;
/// Panels beside each other.
const ACROSS: usize = 2;
/// Pixels of a letter's dot.
const DOT: usize = 2;

const GROUND: [u8; 3] = [16, 18, 22];
const FRAME: [u8; 3] = [52, 58, 68];
const INK: [u8; 3] = [214, 218, 224];
const LINE: [[u8; 3]; 2] = [[94, 179, 255], [255, 196, 84]];

/// A panel for every number of a run: its course from the first step to the last, its least and its last value; training
/// in blue, validation in yellow. `None` where there is nothing to show yet.
pub fn curves(history: &History) -> Option<Picture> {
    let mut panels = Vec::new();
    let last = history.rows().iter().map(|row| row.step).max()?;
    for (colour, phase) in LINE.into_iter().zip([TRAIN, VALIDATION]) {
        for name in history.names(phase) {
            let series: Vec<(u64, f64)> = history.series(phase, &name).filter(|(_, value)| value.is_finite()).collect();
            if !series.is_empty() {
                panels.push((name, colour, series));
            }
        }
    }
    if panels.is_empty() {
        return None;
    }
    let rows = panels.len().div_ceil(ACROSS);
    let size = [ACROSS * (PANEL[0] + GAP) + GAP, rows * (PANEL[1] + WORDS + GAP) + GAP];
    let mut canvas = Canvas { width: size[0], rgb: GROUND.repeat(size[0] * size[1]) };
    for (index, (name, colour, series)) in panels.iter().enumerate() {
        let left = GAP + (index % ACROSS) * (PANEL[0] + GAP);
        let top = GAP + (index / ACROSS) * (PANEL[1] + WORDS + GAP);
        panel(&mut canvas, [left, top], name, *colour, series, last);
    }
    Some(Picture::from_rgb(size[0], size[1], canvas.rgb))
}

fn panel(canvas: &mut Canvas, [left, top]: [usize; 2], name: &str, colour: [u8; 3], series: &[(u64, f64)], last: u64) {
    let fold = |f: fn(f64, f64) -> f64, start| series.iter().map(|(_, value)| *value).fold(start, f);
    let (low, high) = (fold(f64::min, f64::INFINITY), fold(f64::max, f64::NEG_INFINITY));
    let latest = series.last().map_or(0.0, |(_, value)| *value);
    let words = format!("{name}  {} - {}  now {}", short(low), short(high), short(latest));
    canvas.write([left, top], &words);
    let (x0, y0) = (left, top + WORDS);
    for x in 0..PANEL[0] {
        canvas.set(x0 + x, y0, FRAME);
        canvas.set(x0 + x, y0 + PANEL[1] - 1, FRAME);
    }
    for y in 0..PANEL[1] {
        canvas.set(x0, y0 + y, FRAME);
        canvas.set(x0 + PANEL[0] - 1, y0 + y, FRAME);
    }
    // Every column shows the mean of the steps that it stands for.
    let mut columns = vec![(0.0, 0u32); PANEL[0]];
    for (step, value) in series {
        let column = (*step as f64 / last.max(1) as f64 * (PANEL[0] - 1) as f64).round() as usize;
        columns[column].0 += value;
        columns[column].1 += 1;
    }
    let height = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        y0 + 4 + ((1.0 - share) * (PANEL[1] - 9) as f64).round() as usize
    };
    let mut before: Option<(usize, usize)> = None;
    for (column, (sum, count)) in columns.into_iter().enumerate().filter(|(_, (_, count))| *count > 0) {
        let here = (x0 + column, height(sum / f64::from(count)));
        canvas.line(before.unwrap_or(here), here, colour);
        before = Some(here);
    }
}

/// A number in at most seven characters.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.1e}"),
        size if size < 10.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

struct Canvas {
    width: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        let at = 3 * (x + self.width * y);
        if x < self.width
            && let Some(pixel) = self.rgb.get_mut(at..at + 3)
        {
            pixel.copy_from_slice(&colour);
        }
    }

    fn line(&mut self, (x0, y0): (usize, usize), (x1, y1): (usize, usize), colour: [u8; 3]) {
        let steps = x1.abs_diff(x0).max(y1.abs_diff(y0)).max(1);
        let between = |a: usize, b: usize, step: usize| {
            (a as f64 + (b as f64 - a as f64) * step as f64 / steps as f64).round() as usize
        };
        for step in 0..=steps {
            let (x, y) = (between(x0, x1, step), between(y0, y1, step));
            self.set(x, y, colour);
            self.set(x, y + 1, colour);
        }
    }

    fn write(&mut self, [left, top]: [usize; 2], words: &str) {
        let letters = words.chars().take(PANEL[0] / (4 * DOT));
        for (index, letter) in letters.enumerate() {
            let dots = glyph(letter.to_ascii_uppercase());
            for dot in (0..15).filter(|dot| dots >> (14 - dot) & 1 == 1) {
                let (x, y) = (left + (4 * index + dot % 3) * DOT, top + dot / 3 * DOT);
                for pixel in 0..DOT * DOT {
                    self.set(x + pixel % DOT, y + pixel / DOT, INK);
                }
            }
        }
    }
}

/// A letter of three by five dots, row by row from the top left, the first the highest of fifteen bits.
fn glyph(letter: char) -> u16 {
    match letter {
        '0' => 0b111_101_101_101_111,
        '1' => 0b010_110_010_010_111,
        '2' => 0b111_001_111_100_111,
        '3' => 0b111_001_111_001_111,
        '4' => 0b101_101_111_001_001,
        '5' => 0b111_100_111_001_111,
        '6' => 0b111_100_111_101_111,
        '7' => 0b111_001_010_010_010,
        '8' => 0b111_101_111_101_111,
        '9' => 0b111_101_111_001_111,
        'A' => 0b010_101_111_101_101,
        'B' => 0b110_101_110_101_110,
        'C' => 0b011_100_100_100_011,
        'D' => 0b110_101_101_101_110,
        'E' => 0b111_100_110_100_111,
        'F' => 0b111_100_110_100_100,
        'G' => 0b011_100_101_101_011,
        'H' => 0b101_101_111_101_101,
        'I' => 0b111_010_010_010_111,
        'J' => 0b001_001_001_101_010,
        'K' => 0b101_101_110_101_101,
        'L' => 0b100_100_100_100_111,
        'M' => 0b101_111_111_101_101,
        'N' => 0b111_101_101_101_101,
        'O' => 0b010_101_101_101_010,
        'P' => 0b110_101_110_100_100,
        'Q' => 0b010_101_101_110_011,
        'R' => 0b110_101_110_101_101,
        'S' => 0b011_100_010_001_110,
        'T' => 0b111_010_010_010_010,
        'U' => 0b101_101_101_101_111,
        'V' => 0b101_101_101_101_010,
        'W' => 0b101_101_111_111_101,
        'X' => 0b101_101_010_101_101,
        'Y' => 0b101_101_010_010_010,
        'Z' => 0b111_001_010_100_111,
        '.' => 0b000_000_000_000_010,
        '-' => 0b000_000_111_000_000,
        '_' => 0b000_000_000_000_111,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_is_drawn_from_the_top_left_to_the_bottom_right() {
        let mut history = History::default();
        assert_eq!(curves(&history), None);
        for step in 0..1000u64 {
            history.add(step, TRAIN, [("loss".to_owned(), 1.0 - step as f64 / 1000.0)]);
        }
        history.add(500, VALIDATION, [("dice".to_owned(), f64::NAN)]);
        let picture = curves(&history).unwrap();
        assert_eq!(picture.size()[1], GAP + WORDS + PANEL[1] + GAP, "what is not defined has no panel");
        let lit = |column: usize| {
            let rows = GAP + WORDS + 2..GAP + WORDS + PANEL[1] - 2;
            rows.clone().find(|row| picture.pixel(GAP + column, *row) == LINE[0]).map(|row| row - rows.start)
        };
        assert!(lit(3).unwrap() < 8 && lit(PANEL[0] - 4).unwrap() > PANEL[1] - 16);
        assert!((40..80).contains(&lit(PANEL[0] / 2).unwrap()));
    }
}
