//! A picture of how losses and scores went.

use std::sync::Arc;

use super::history::{History, TRAIN, VALIDATION};
use crate::volume::Picture;

/// Pixels of one panel's frame.
const PANEL: [usize; 2] = [480, 120];
/// Pixels of a letter's dot: of names, and of numbers at the axes.
const DOT: usize = 2;
const SMALL: usize = 1;
/// Pixels of a line of words, and of the numbers below a panel.
const WORDS: usize = 20;
const NUMBERS: usize = 12;
/// Pixels of the line that says which colour is what.
const LEGEND: usize = 28;
const GAP: usize = 14;
/// Panels beside each other.
const ACROSS: usize = 2;

const GROUND: [u8; 3] = [16, 18, 22];
const FRAME: [u8; 3] = [52, 58, 68];
const INK: [u8; 3] = [214, 218, 224];
const PALE: [u8; 3] = [140, 148, 160];
/// Training and validation.
const PHASES: [(&str, [u8; 3]); 2] = [(TRAIN, [94, 179, 255]), (VALIDATION, [255, 196, 84])];

/// A panel for every number of a run over all of its steps, with its least, largest and last value; training in blue,
/// validation in yellow. `None` where there is nothing to show yet.
pub fn curves(history: &History) -> Option<Picture> {
    let last = history.rows().iter().map(|row| row.step).max()?;
    let mut panels = Vec::new();
    for (phase, colour) in PHASES {
        for name in history.names(phase) {
            let series: Vec<(u64, f64)> = history.series(phase, &name).filter(|(_, value)| value.is_finite()).collect();
            if !series.is_empty() {
                panels.push(Panel { name, colour, series, last });
            }
        }
    }
    if panels.is_empty() {
        return None;
    }
    let each = [PANEL[0] + GAP, WORDS + PANEL[1] + NUMBERS + GAP];
    let rows = panels.len().div_ceil(ACROSS);
    let mut picture = Picture::filled(ACROSS * each[0] + GAP, GAP + LEGEND + rows * each[1], GROUND);
    let mut left = GAP;
    for (phase, colour) in PHASES {
        picture.write([left, GAP], phase, DOT, colour);
        left += Picture::text_width(phase, DOT) + 2 * GAP;
    }
    for (index, panel) in panels.iter().enumerate() {
        let corner = [GAP + index % ACROSS * each[0], GAP + LEGEND + index / ACROSS * each[1]];
        panel.draw(&mut picture, corner);
    }
    Some(picture)
}

/// The course of one number.
struct Panel {
    name: Arc<str>,
    colour: [u8; 3],
    /// Steps with their values.
    series: Vec<(u64, f64)>,
    /// The last step of the run.
    last: u64,
}

impl Panel {
    fn draw(&self, picture: &mut Picture, [left, top]: [usize; 2]) {
        let fold = |f: fn(f64, f64) -> f64, start| self.series.iter().map(|(_, value)| *value).fold(start, f);
        let (low, high) = (fold(f64::min, f64::INFINITY), fold(f64::max, f64::NEG_INFINITY));
        let latest = self.series.last().map_or(0.0, |(_, value)| *value);
        let right_of = |text: &str, dot| left + PANEL[0] - Picture::text_width(text, dot).min(PANEL[0]);
        let now = short(latest);
        picture.write([left, top], &self.name, DOT, INK);
        picture.write([right_of(&now, DOT), top], &now, DOT, self.colour);

        let frame = top + WORDS;
        for edge in [0, PANEL[1] - 1] {
            picture.fill([left, frame + edge], [PANEL[0], 1], FRAME);
        }
        for edge in [0, PANEL[0] - 1] {
            picture.fill([left + edge, frame], [1, PANEL[1]], FRAME);
        }
        let height = |value: f64| {
            let share = if high > low { (value - low) / (high - low) } else { 0.5 };
            frame + 4 + ((1.0 - share) * (PANEL[1] - 9) as f64).round() as usize
        };
        let mut before: Option<[usize; 2]> = None;
        for (column, value) in self.columns() {
            let here = [left + column, height(value)];
            line(picture, before.unwrap_or(here), here, self.colour);
            before = Some(here);
        }

        let below = frame + PANEL[1] + 3;
        let (steps, range) = (format!("step {}", self.last), format!("{} - {}", short(low), short(high)));
        picture.write([left, below], "0", SMALL, PALE);
        picture.write([left + (PANEL[0] - Picture::text_width(&range, SMALL)) / 2, below], &range, SMALL, PALE);
        picture.write([right_of(&steps, SMALL), below], &steps, SMALL, PALE);
    }

    /// Every column of pixels with the mean of the steps that it stands for, where there are any.
    fn columns(&self) -> impl Iterator<Item = (usize, f64)> {
        let mut columns = vec![(0.0, 0u32); PANEL[0]];
        for (step, value) in &self.series {
            let column = (*step as f64 / self.last.max(1) as f64 * (PANEL[0] - 1) as f64).round() as usize;
            columns[column].0 += value;
            columns[column].1 += 1;
        }
        let filled = columns.into_iter().enumerate().filter(|(_, (_, count))| *count > 0);
        filled.map(|(column, (sum, count))| (column, sum / f64::from(count)))
    }
}

fn line(picture: &mut Picture, from: [usize; 2], to: [usize; 2], colour: [u8; 3]) {
    let steps = from[0].abs_diff(to[0]).max(from[1].abs_diff(to[1])).max(1);
    for step in 0..=steps {
        let share = step as f64 / steps as f64;
        let at =
            [0, 1].map(|axis| (from[axis] as f64 + (to[axis] as f64 - from[axis] as f64) * share).round() as usize);
        picture.fill(at, [1, 2], colour);
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
        let one_row = GAP + LEGEND + WORDS + PANEL[1] + NUMBERS + GAP;
        assert_eq!(picture.size()[1], one_row, "what is not defined has no panel");
        let lit = |column: usize| {
            let top = GAP + LEGEND + WORDS;
            let rows = top + 2..top + PANEL[1] - 2;
            rows.clone().find(|row| picture.pixel(GAP + column, *row) == PHASES[0].1).map(|row| row - rows.start)
        };
        assert!(lit(3).unwrap() < 8 && lit(PANEL[0] - 4).unwrap() > PANEL[1] - 16);
        assert!((40..80).contains(&lit(PANEL[0] / 2).unwrap()));
    }
}
