//! The plot of a summary: one panel per metric, one bar per arm, with intervals.

use plotters::chart::ChartBuilder;
use plotters::coord::ranged1d::{IntoSegmentedCoord, SegmentValue};
use plotters::element::{EmptyElement, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, TRANSPARENT};

use super::metric::Metric;
use super::summary::{MetricSummary, Summary};
use crate::chart::{Area, COLOURS, DrawResult, GRID, INK, PALE, draw, px, text, width_of};
use crate::error::Result;
use crate::volume::Picture;

/// Pixels of a bar with its spacing.
const BAR: usize = 24;
/// Pixels above the bars, for the name of the metric, and below the bars, for the numbers of the axis.
const ABOVE: usize = 40;
const BELOW: usize = 34;
/// Pixels of the numbers of the axis.
const TICKS: usize = 24;
/// Pixels of the axis of a panel.
const AXIS: usize = 300;
/// Pixels of the numbers to the right of the axis.
const NUMBER: usize = 156;
/// Pixels at the left edge, and between the axis and its labels.
const MARGIN: usize = 16;
const GAP: usize = 10;
/// Font sizes of the name of the metric, of names and numbers of arms, of numbers at the axis.
const NAME: usize = 18;
const ARM_TEXT: usize = 15;
const TICK: usize = 14;
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
/// let [width, height] = plot(&summary, "liver")?.size();
/// assert!(width > height && height > 50);
/// # Ok::<(), freetumor::error::Error>(())
/// ```
///
/// # Errors
/// Returns an error if the picture cannot be drawn.
pub fn plot(summary: &Summary, organ: &str) -> Result<Picture> {
    let mut arms: Vec<&str> = Vec::new();
    let rows: Vec<&MetricSummary> = summary.metrics.iter().filter(|row| row.organ == organ).collect();
    for row in &rows {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    let panels: Vec<Panel<'_>> = Metric::ALL
        .into_iter()
        .map(|kind| Panel { kind, rows: rows.iter().filter(|row| row.kind == kind).copied().collect() })
        .filter(|panel| !panel.rows.is_empty())
        .collect();
    let names = MARGIN + arms.iter().map(|arm| width_of(arm, ARM_TEXT)).max().unwrap_or(0) + GAP;
    let width = names + AXIS + NUMBER;
    let height = ABOVE + arms.len().max(1) * BAR + BELOW;
    let (across, down) = (COLUMNS.min(panels.len()).max(1), panels.len().div_ceil(COLUMNS).max(1));
    draw([across * width, down * height], |area| {
        let areas = area.split_evenly((down, across));
        areas.iter().zip(&panels).try_for_each(|(area, panel)| panel.draw(area, names, &arms))
    })
}

struct Panel<'a> {
    kind: Metric,
    rows: Vec<&'a MetricSummary>,
}

impl Panel<'_> {
    fn draw(&self, area: &Area<'_>, names: usize, arms: &[&str]) -> DrawResult {
        let name = self.kind.name().replace('_', " ");
        area.draw_text(&name, &text(NAME, INK, HPos::Left, VPos::Top), (px(MARGIN), px(GAP)))?;
        let end = self.end();
        let last = arms.len().saturating_sub(1);
        // Segments are counted from the bottom.
        let arm_at = |segment: &SegmentValue<usize>| match segment {
            SegmentValue::CenterOf(at) | SegmentValue::Exact(at) => last.checked_sub(*at).map_or("", |arm| arms[arm]),
            SegmentValue::Last => "",
        };
        let mut chart = ChartBuilder::on(area)
            .margin_top(px(ABOVE))
            .margin_right(px(NUMBER))
            .margin_bottom(px(BELOW - TICKS))
            .x_label_area_size(px(TICKS))
            .y_label_area_size(px(names))
            .build_cartesian_2d(0.0..end, (0..last).into_segmented())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .axis_style(GRID.stroke_width(2))
            .set_all_tick_mark_size(px(5))
            .x_labels(6)
            .y_labels(arms.len())
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|segment| arm_at(segment).to_owned())
            .x_label_style(text(TICK, PALE, HPos::Center, VPos::Top))
            .y_label_style(text(ARM_TEXT, INK, HPos::Right, VPos::Center))
            .draw()?;
        for row in &self.rows {
            let arm = arms.iter().position(|arm| *arm == row.arm).unwrap_or(0);
            let at = last - arm;
            let (edges, middle) = ([at, at + 1].map(SegmentValue::Exact), || SegmentValue::CenterOf(at));
            let [mean, low, high] = [row.mean, row.interval.low, row.interval.high].map(|value| value.clamp(0.0, end));
            let [lower, upper] = edges;
            let mut bar = Rectangle::new([(0.0, lower), (mean, upper)], COLOURS[arm % COLOURS.len()].filled());
            bar.set_margin(px(3) as u32, px(3) as u32, 0, 0);
            chart.draw_series([bar])?;
            let line = INK.stroke_width(3);
            chart.draw_series([PathElement::new([(low, middle()), (high, middle())], line)])?;
            let cap = || PathElement::new([(0, -px(5)), (0, px(5))], line);
            chart.draw_series([low, high].map(|end| EmptyElement::at((end, middle())) + cap()))?;
            let number = format!("{} ({}–{})", short(row.mean), short(row.interval.low), short(row.interval.high));
            let label = Text::new(number, (px(GAP), 0), text(ARM_TEXT, INK, HPos::Left, VPos::Center));
            chart.draw_series([EmptyElement::at((end, middle())) + label])?;
        }
        Ok(())
    }

    /// Returns the end of the axis: 1 for shares, a round number beyond all intervals for counts.
    fn end(&self) -> f64 {
        if self.kind != Metric::FalsePositives {
            return 1.0;
        }
        let max = self.rows.iter().map(|row| row.interval.high).fold(0.0, f64::max).max(0.1);
        let unit = libm::pow(10.0, libm::log10(max).floor());
        [1.0, 2.0, 4.0, 8.0, 10.0].map(|step| step * unit).into_iter().find(|end| *end >= max).unwrap_or(max)
    }
}

/// Formats a number with two decimal places, or none for large numbers.
fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::Interval;
    use super::*;

    fn row(arm: &str, mean: f64) -> MetricSummary {
        let interval = Interval { low: mean - 0.05, high: mean + 0.05 };
        let (arm, organ) = (arm.to_owned(), "liver".to_owned());
        MetricSummary { arm, organ, metric: "dice", kind: Metric::Dice, mean, interval, count: 3 }
    }

    fn rgb(arm: usize) -> [u8; 3] {
        [COLOURS[arm].0, COLOURS[arm].1, COLOURS[arm].2]
    }

    #[test]
    fn bar_lengths_equal_means() {
        let summary = Summary { arms: vec![], metrics: vec![row("a", 0.25), row("bb", 0.75)], comparisons: vec![] };
        let picture = plot(&summary, "liver").unwrap();
        let [width, height] = picture.size();
        let longest = |arm: usize| {
            let bar = |row| (0..width).filter(|column| picture.pixel(*column, row) == rgb(arm)).count();
            (0..height).map(bar).max().unwrap()
        };
        assert!(longest(0).abs_diff(AXIS / 4) <= 3 && longest(1).abs_diff(3 * AXIS / 4) <= 3);
        let without = Summary { metrics: vec![], ..summary.clone() };
        assert_eq!(plot(&summary, "kidney").unwrap().size(), plot(&without, "liver").unwrap().size());
    }

    #[test]
    fn first_arm_is_at_the_top() {
        let summary =
            Summary { arms: vec![], metrics: ["a", "b", "c"].map(|arm| row(arm, 0.5)).into(), comparisons: vec![] };
        let picture = plot(&summary, "liver").unwrap();
        let [width, height] = picture.size();
        let first = |arm: usize| {
            (0..height).find(|row| (0..width).any(|column| picture.pixel(column, *row) == rgb(arm))).unwrap()
        };
        assert!(first(0) < first(1) && first(1) < first(2));
    }
}
