//! Plots of losses and scores over the steps of a training run.

use std::ops::Range;
use std::sync::Arc;

use plotters::chart::ChartBuilder;
use plotters::element::{Circle, Rectangle};
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor, TRANSPARENT};

use super::history::{History, TRAIN, VALIDATION};
use crate::chart::{Area, COLOURS, DrawResult, GRID, INK, PALE, draw, px, text, width_of};
use crate::error::Result;
use crate::volume::Picture;

/// Pixels of a panel.
const PANEL: [usize; 2] = [520, 210];
/// Pixels of a panel above, below and left of its frame.
const ABOVE: usize = 34;
const BELOW: usize = 26;
const LEFT: usize = 60;
/// Pixels of the legend.
const LEGEND: usize = 36;
/// Font sizes of names, of the legend and of numbers at the axes.
const NAME: usize = 18;
const LEGEND_TEXT: usize = 15;
const NUMBER: usize = 14;
/// Pixels at the left and right edges.
const MARGIN: usize = 14;
/// Panels in a row.
const ACROSS: usize = 2;

/// The maximum number of points of a line.
const POINTS: usize = PANEL[0];

/// The phases and their colours.
const PHASES: [(&str, RGBColor); 2] = [(TRAIN, COLOURS[0]), (VALIDATION, COLOURS[5])];

/// Plots every loss, rate and score of a training run over all steps, one panel each, with the last value next to the name; training in
/// blue, validation in orange. Returns `None` if there are no finite numbers yet.
///
/// # Errors
/// Returns an error if the picture cannot be drawn.
pub fn curves(history: &History) -> Result<Option<Picture>> {
    let Some(last) = history.rows().iter().map(|row| row.step).max() else { return Ok(None) };
    let mut panels = Vec::new();
    for (phase, colour) in PHASES {
        for name in history.names(phase) {
            let series: Vec<(u64, f64)> = history.series(phase, &name).filter(|(_, value)| value.is_finite()).collect();
            if let Some((_, latest)) = series.last() {
                panels.push(Panel { name, colour, latest: *latest, points: means(&series, last), last });
            }
        }
    }
    if panels.is_empty() {
        return Ok(None);
    }
    let rows = panels.len().div_ceil(ACROSS);
    let picture = draw([ACROSS * PANEL[0], LEGEND + rows * PANEL[1]], |area| {
        let (above, below) = area.split_vertically(px(LEGEND));
        legend(&above)?;
        let areas = below.split_evenly((rows, ACROSS));
        areas.iter().zip(&panels).try_for_each(|(area, panel)| panel.draw(area))
    })?;
    Ok(Some(picture))
}

fn legend(area: &Area<'_>) -> DrawResult {
    let style = text(LEGEND_TEXT, INK, HPos::Left, VPos::Center);
    let mut left = MARGIN;
    for (phase, colour) in PHASES {
        area.draw(&Rectangle::new([(px(left), px(18)), (px(left + 18), px(21))], colour.filled()))?;
        area.draw_text(phase, &style, (px(left + 24), px(19)))?;
        left += 48 + width_of(phase, LEGEND_TEXT);
    }
    let style = text(NUMBER, PALE, HPos::Right, VPos::Center);
    area.draw_text("x axis: training step", &style, (px(ACROSS * PANEL[0] - MARGIN), px(19)))?;
    Ok(())
}

/// Averages neighbouring steps, so that a line has at most [`POINTS`] points.
fn means(series: &[(u64, f64)], last: u64) -> Vec<(f64, f64)> {
    let steps_per_point = (last + 1).div_ceil(POINTS as u64);
    let groups = series.chunk_by(|(step, _), (next, _)| step / steps_per_point == next / steps_per_point);
    let mean = |group: &[(u64, f64)]| {
        let (steps, values) = group.iter().fold((0.0, 0.0), |sum, (step, value)| (sum.0 + *step as f64, sum.1 + value));
        (steps / group.len() as f64, values / group.len() as f64)
    };
    groups.map(mean).collect()
}

/// The panel of one number.
struct Panel {
    name: Arc<str>,
    colour: RGBColor,
    latest: f64,
    /// Steps with their values.
    points: Vec<(f64, f64)>,
    /// The last step of the training run.
    last: u64,
}

impl Panel {
    fn draw(&self, area: &Area<'_>) -> DrawResult {
        let (top, right) = (px(8), px(PANEL[0] - MARGIN));
        area.draw_text(&self.name, &text(NAME, INK, HPos::Left, VPos::Top), (px(MARGIN), top))?;
        area.draw_text(&short(self.latest), &text(NAME, self.colour, HPos::Right, VPos::Top), (right, top))?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(px(ABOVE))
            .margin_right(px(MARGIN))
            .x_label_area_size(px(BELOW))
            .y_label_area_size(px(LEFT))
            .build_cartesian_2d(0.0..self.last.max(1) as f64, self.range())?;
        chart
            .configure_mesh()
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .axis_style(GRID.stroke_width(2))
            .set_all_tick_mark_size(px(5))
            .x_labels(6)
            .y_labels(5)
            .x_label_formatter(&|step| tick(*step))
            .y_label_formatter(&|value| tick(*value))
            .x_label_style(text(NUMBER, PALE, HPos::Center, VPos::Top))
            .y_label_style(text(NUMBER, PALE, HPos::Right, VPos::Center))
            .draw()?;
        chart.draw_series(LineSeries::new(self.points.iter().copied(), self.colour.stroke_width(3)))?;
        if let [only] = self.points[..] {
            chart.draw_series([Circle::new(only, px(3), self.colour.filled())])?;
        }
        Ok(())
    }

    /// Returns the range of the y axis: all values, with some space above and below.
    fn range(&self) -> Range<f64> {
        let values = || self.points.iter().map(|(_, value)| *value);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let size = low.abs().max(high.abs());
        // A smaller range is rounding error, and the ticks of the axis could be equal in floating point.
        let space = if high - low > 1e-6 * size { (high - low) / 16.0 } else { (size / 2.0).max(1e-6) };
        low - space..high + space
    }
}

/// Formats a number in at most seven characters.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.1e}"),
        size if size < 10.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

/// Formats a number at an axis with as few digits as possible.
fn tick(value: f64) -> String {
    match value.abs() {
        // The tick at 0 can have a rounding error.
        size if size < 1e-12 => "0".to_owned(),
        size if (1e-3..1e6).contains(&size) => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_draw_falling_loss_from_top_left_to_bottom_right() {
        let mut history = History::default();
        assert_eq!(curves(&history).unwrap(), None);
        for step in 0..1000u64 {
            history.add(step, TRAIN, [("loss".to_owned(), 1.0 - step as f64 / 1000.0)]);
        }
        history.add(500, VALIDATION, [("dice".to_owned(), f64::NAN)]);
        let picture = curves(&history).unwrap().unwrap();
        assert_eq!(picture.size()[1], LEGEND + PANEL[1], "a number that is NaN has no panel");
        // The frame of the panel, without the axes and the name.
        let columns = LEFT + 4..PANEL[0] - MARGIN - 4;
        let rows = LEGEND + ABOVE + 2..LEGEND + PANEL[1] - BELOW - 2;
        let is_line = |column: usize, row: usize| {
            let [red, _, blue] = picture.pixel(column, row);
            red < 128 && blue > red.saturating_add(40)
        };
        let height = |column: usize| {
            let row = rows.clone().find(|row| is_line(column, *row)).unwrap();
            (row - rows.start) as f64 / rows.len() as f64
        };
        assert!(height(columns.start) < 0.15 && height(columns.end - 1) > 0.85);
        assert!((0.4..0.6).contains(&height((columns.start + columns.end) / 2)));
    }

    #[test]
    fn means_average_neighbouring_steps() {
        let series: Vec<(u64, f64)> = (0..4 * POINTS as u64).map(|step| (step, (step % 4) as f64)).collect();
        let points = means(&series, series.len() as u64 - 1);
        assert_eq!((points.len(), points[1]), (POINTS, (5.5, 1.5)));
        assert_eq!(means(&series[..2], 1), [(0.0, 0.0), (1.0, 1.0)]);
    }

    #[test]
    fn tick_formats_numbers_briefly() {
        let numbers = [0.0, 1e-17, 0.25, -3.0, 12_000.0, 2.5e-5, 4e7].map(tick);
        assert_eq!(numbers, ["0", "0", "0.25", "-3", "12000", "2.5e-5", "4.0e7"]);
    }
}
