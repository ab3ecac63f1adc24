//! The summary as a picture: a panel a metric, a bar an arm, intervals on the bars.

use super::metric::Metric;
use super::summary::{MetricSummary, Summary};
use crate::volume::Picture;

const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [40, 44, 52];
const GRID: [u8; 3] = [222, 226, 232];
/// Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008).
const ARMS: [[u8; 3]; 7] =
    [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [140, 140, 140]];

/// Pixels of a bar, between bars, and around a panel.
const BAR: usize = 18;
const BETWEEN: usize = 8;
const MARGIN: usize = 22;
/// Pixels that a panel's axis is long.
const AXIS: usize = 300;
/// Pixels for the number behind the axis.
const NUMBER: usize = 190;
/// Pixels of a dot of the text.
const DOT: usize = 2;
const COLUMNS: usize = 2;

/// Draws every metric of one organ.
///
/// ```
/// use freetumor::evaluate::metrics::{Interval, Metric, MetricSummary, Summary, plot};
/// let dice = MetricSummary {
///     arm: "real".into(), organ: "liver".into(), metric: "dice", kind: Metric::Dice,
///     mean: 0.6, interval: Interval { low: 0.5, high: 0.7 }, count: 12,
/// };
/// let summary = Summary { arms: vec![], metrics: vec![dice], comparisons: vec![] };
/// let [width, height] = plot(&summary, "liver").size();
/// assert!(width > height && height > 50);
/// ```
pub fn plot(summary: &Summary, organ: &str) -> Picture {
    let mut arms: Vec<&str> = Vec::new();
    let rows: Vec<&MetricSummary> = summary.metrics.iter().filter(|row| row.organ == organ).collect();
    for row in &rows {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    let name_width = arms.iter().map(|arm| Picture::text_width(arm, DOT)).max().unwrap_or(0) + 2 * DOT;
    let panels: Vec<Panel<'_>> = Metric::ALL
        .into_iter()
        .map(|kind| Panel { kind, rows: rows.iter().filter(|row| row.kind == kind).copied().collect() })
        .filter(|panel| !panel.rows.is_empty())
        .collect();
    let width = MARGIN + name_width + AXIS + NUMBER + MARGIN;
    let height = MARGIN + 2 * Picture::text_height(DOT) + arms.len() * (BAR + BETWEEN) + 3 * Picture::text_height(DOT);
    let size = [width * COLUMNS.min(panels.len().max(1)), height * panels.len().div_ceil(COLUMNS).max(1)];
    let mut picture = Picture::filled(size[0], size[1], PAPER);
    for (place, panel) in panels.iter().enumerate() {
        let corner = [place % COLUMNS * width + MARGIN, place / COLUMNS * height + MARGIN];
        panel.draw(&mut picture, corner, name_width, &arms);
    }
    picture
}

struct Panel<'a> {
    kind: Metric,
    rows: Vec<&'a MetricSummary>,
}

impl Panel<'_> {
    fn draw(&self, picture: &mut Picture, [left, top]: [usize; 2], name_width: usize, arms: &[&str]) {
        picture.write([left, top], &self.kind.name().replace('_', " "), DOT, INK);
        let end = self.end();
        let (axis, first) = (left + name_width, top + 2 * Picture::text_height(DOT));
        let bottom = first + arms.len() * (BAR + BETWEEN);
        let at = |value: f64| axis + ((value / end).clamp(0.0, 1.0) * AXIS as f64).round() as usize;
        for quarter in 0..=4 {
            let value = end * f64::from(quarter) / 4.0;
            picture.fill([at(value), first], [1, bottom - first], GRID);
            let text = short(value);
            let middle = Picture::text_width(&text, DOT) / 2;
            picture.write([at(value).saturating_sub(middle), bottom + DOT], &text, DOT, INK);
        }
        for row in &self.rows {
            let place = arms.iter().position(|arm| *arm == row.arm).unwrap_or(0);
            let top = first + place * (BAR + BETWEEN) + BETWEEN / 2;
            let text_top = top + (BAR - Picture::text_height(DOT)) / 2;
            picture.write([left, text_top], &row.arm, DOT, INK);
            picture.fill([axis, top], [at(row.mean) - axis, BAR], ARMS[place % ARMS.len()]);
            let (low, high) = (at(row.interval.low), at(row.interval.high));
            picture.fill([low, top + BAR / 2 - 1], [high - low + 1, 2], INK);
            for end in [low, high] {
                picture.fill([end, top + 3], [2, BAR - 6], INK);
            }
            let number = format!("{} ({}-{})", short(row.mean), short(row.interval.low), short(row.interval.high));
            picture.write([axis + AXIS + 4 * DOT, text_top], &number, DOT, INK);
        }
        picture.fill([axis, first], [2, bottom - first], INK);
    }

    /// Where the axis ends: at 1 for shares, at a round number beyond all intervals for counts.
    fn end(&self) -> f64 {
        if self.kind != Metric::FalsePositives {
            return 1.0;
        }
        let most = self.rows.iter().map(|row| row.interval.high).fold(0.0, f64::max).max(0.1);
        let unit = libm::pow(10.0, libm::log10(most).floor());
        [1.0, 2.0, 4.0, 8.0, 10.0].map(|step| step * unit).into_iter().find(|end| *end >= most).unwrap_or(most)
    }
}

/// Two digits behind the point, none behind a large number.
fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::Interval;
    use super::*;

    #[test]
    fn bars_are_as_long_as_they_say() {
        let row = |arm: &str, mean: f64| MetricSummary {
            arm: arm.to_owned(),
            organ: "liver".to_owned(),
            metric: "dice",
            kind: Metric::Dice,
            mean,
            interval: Interval { low: mean - 0.05, high: mean + 0.05 },
            count: 3,
        };
        let summary = Summary { arms: vec![], metrics: vec![row("a", 0.25), row("bb", 0.75)], comparisons: vec![] };
        let picture = plot(&summary, "liver");
        let [width, height] = picture.size();
        let longest = |colour: [u8; 3]| {
            let bar = |row| (0..width).filter(|column| picture.pixel(*column, row) == colour).count();
            (0..height).map(bar).max().unwrap()
        };
        assert!(longest(ARMS[0]).abs_diff(AXIS / 4) <= 3 && longest(ARMS[1]).abs_diff(3 * AXIS / 4) <= 3);
        assert_eq!(
            plot(&summary, "kidney").size()[1],
            plot(&Summary { metrics: vec![], ..summary }, "liver").size()[1]
        );
    }
}
