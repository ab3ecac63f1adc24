//! Shared background, colours and font of charts.
//!
//! This module owns the appearance of all charts; other modules draw their contents.
//!
//! The font is Roboto Regular 2.138 (Google, Apache License 2.0, as in `LICENSE-APACHE`), which is embedded, so that charts are the same on
//! machines without fonts. `roboto-latin.ttf` is a subset: Latin and Greek letters, digits and punctuation, without hints and layout
//! tables.

use std::sync::Once;

use plotters::backend::BitMapBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontStyle, IntoFont, RGBColor, TextStyle, WHITE, register_font};

use crate::error::{Error, Result};
use crate::volume::Picture;

/// Colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 44, 52);
/// Colour of numbers at axes.
pub const PALE: RGBColor = RGBColor(104, 112, 124);
/// Colour of grid lines.
pub const GRID: RGBColor = RGBColor(228, 232, 238);
/// Colours that are distinguishable with any kind of colour vision (Okabe and Ito, 2008).
pub const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(140, 140, 140),
];

/// Oversampling factor along each axis: plotters does not antialias broad lines.
const OVERSAMPLING: usize = 2;

const FAMILY: &str = "roboto";

/// A drawing area of a chart; its pixels are half as long as those of the picture.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// The result of drawing.
pub type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// Draws a picture of `size` pixels with `fill` on a white background.
///
/// # Errors
/// If `fill` fails.
pub fn draw(size: [usize; 2], fill: impl FnOnce(&Area<'_>) -> DrawResult) -> Result<Picture> {
    let failed = |cause: &dyn std::fmt::Display| Error::new(format!("cannot draw a chart: {cause}"));
    let [width, height] = size.map(|pixels| OVERSAMPLING * pixels);
    let mut rgb = vec![0; 3 * width * height];
    let area = BitMapBackend::with_buffer(&mut rgb, (width as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(|cause| failed(&cause))?;
    fill(&area).map_err(|cause| failed(&cause))?;
    area.present().map_err(|cause| failed(&cause))?;
    drop(area);
    Ok(Picture::from_rgb(size[0], size[1], downsample(&rgb, size[0])))
}

/// Converts pixels of the picture to pixels of a drawing area.
pub fn px(pixels: usize) -> i32 {
    (OVERSAMPLING * pixels) as i32
}

/// Reduces an oversampled picture: each pixel is the mean of its samples.
fn downsample(rgb: &[u8], width: usize) -> Vec<u8> {
    let row_bytes = 3 * OVERSAMPLING * width;
    let mut means = Vec::with_capacity(rgb.len() / (OVERSAMPLING * OVERSAMPLING));
    for rows in rgb.chunks_exact(OVERSAMPLING * row_bytes) {
        for (column, channel) in (0..width).flat_map(|column| [0, 1, 2].map(|channel| (column, channel))) {
            let indices = (0..OVERSAMPLING * OVERSAMPLING)
                .map(|at| at / OVERSAMPLING * row_bytes + 3 * (OVERSAMPLING * column + at % OVERSAMPLING) + channel);
            let sum: usize = indices.map(|index| usize::from(rows[index])).sum();
            means.push(((sum + OVERSAMPLING * OVERSAMPLING / 2) / (OVERSAMPLING * OVERSAMPLING)) as u8);
        }
    }
    means
}

/// Returns a text style with its anchor; `size` is in pixels of the picture.
pub fn text(size: usize, colour: RGBColor, across: HPos, down: VPos) -> TextStyle<'static> {
    font(size).color(&colour).pos(Pos::new(across, down))
}

/// Returns the width of a string, in pixels of the picture.
pub fn width_of(text: &str, size: usize) -> usize {
    font(size).box_size(text).map_or(0, |(width, _)| (width as usize).div_ceil(OVERSAMPLING))
}

fn font(size: usize) -> FontDesc<'static> {
    static REGISTERED: Once = Once::new();
    // The font is embedded: if its registration failed, drawing would fail too.
    REGISTERED.call_once(|| drop(register_font(FAMILY, FontStyle::Normal, include_bytes!("roboto-latin.ttf"))));
    (FAMILY, (OVERSAMPLING * size) as f64).into_font()
}

#[cfg(test)]
mod tests {
    use plotters::element::Rectangle;
    use plotters::style::Color;

    use super::*;

    #[test]
    fn draw_antialiases_edges() {
        // The last column and row of a rectangle are not drawn: half of pixel 2 is covered, and a quarter of its corner.
        let square = Rectangle::new([(2, 2), (5, 5)], RGBColor(0, 0, 0).filled());
        let picture = draw([4, 4], |area| Ok(area.draw(&square)?)).unwrap();
        assert_eq!([1, 2, 3].map(|column| picture.pixel(column, 1)[0]), [0, 128, 255]);
        assert_eq!(picture.pixel(2, 2)[0], 191);
    }

    #[test]
    fn text_is_drawn_with_embedded_font() {
        assert!((40..70).contains(&width_of("Dice ≥ 0.5", 14)));
        let style = text(14, INK, HPos::Left, VPos::Top);
        let picture = draw([80, 20], |area| Ok(area.draw_text("Dice ≥ 0.5", &style, (4, 4))?)).unwrap();
        let dark = (0..20).flat_map(|row| (0..80).map(move |column| (column, row)));
        assert!(dark.filter(|(column, row)| picture.pixel(*column, *row)[0] < 128).count() > 50);
    }
}
