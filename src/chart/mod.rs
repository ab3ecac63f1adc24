//! What charts share: their background, colours and letters.
//!
//! This room owns the appearance of every chart that the program draws; what a chart shows belongs to the rooms that use it.
//!
//! Letters are those of Roboto Regular 2.138 (Google, Apache License 2.0, as in `LICENSE-APACHE`), which is part of the
//! program, so that charts look the same on machines without fonts. `roboto-latin.ttf` is a subset of it: Latin and Greek
//! letters, digits and punctuation, without hints and layout tables.

use std::sync::Once;

use plotters::backend::BitMapBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontStyle, IntoFont, RGBColor, TextStyle, WHITE, register_font};

use crate::error::{Error, Result};
use crate::volume::Picture;

/// Text and axes.
pub const INK: RGBColor = RGBColor(40, 44, 52);
/// Numbers at axes.
pub const PALE: RGBColor = RGBColor(104, 112, 124);
/// Lines behind the data.
pub const GRID: RGBColor = RGBColor(228, 232, 238);
/// Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008).
pub const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(140, 140, 140),
];

/// Charts are drawn in so many times the pixels of their picture along each axis: plotters does not smooth the edges of
/// broad lines itself.
const FINE: usize = 2;

const FAMILY: &str = "roboto";

/// A part of a chart while it is drawn; its pixels are half as long as those of the picture.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// How drawing ended.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A picture of `size` pixels with what `fill` draws on white.
///
/// # Errors
/// Where `fill` fails.
pub fn draw(size: [usize; 2], fill: impl FnOnce(&Area<'_>) -> Drawn) -> Result<Picture> {
    let failed = |cause: &dyn std::fmt::Display| Error::new(format!("cannot draw a chart: {cause}"));
    let [width, height] = size.map(|pixels| FINE * pixels);
    let mut rgb = vec![0; 3 * width * height];
    let area = BitMapBackend::with_buffer(&mut rgb, (width as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(|cause| failed(&cause))?;
    fill(&area).map_err(|cause| failed(&cause))?;
    area.present().map_err(|cause| failed(&cause))?;
    drop(area);
    Ok(Picture::from_rgb(size[0], size[1], averaged(&rgb, size[0])))
}

/// Pixels of the picture, in those of an area.
pub fn px(pixels: usize) -> i32 {
    (FINE * pixels) as i32
}

/// Each pixel the mean of those that were drawn for it.
fn averaged(rgb: &[u8], width: usize) -> Vec<u8> {
    let row_bytes = 3 * FINE * width;
    let mut means = Vec::with_capacity(rgb.len() / (FINE * FINE));
    for rows in rgb.chunks_exact(FINE * row_bytes) {
        for (column, channel) in (0..width).flat_map(|column| [0, 1, 2].map(|channel| (column, channel))) {
            let places = (0..FINE * FINE).map(|at| at / FINE * row_bytes + 3 * (FINE * column + at % FINE) + channel);
            let sum: usize = places.map(|place| usize::from(rows[place])).sum();
            means.push(((sum + FINE * FINE / 2) / (FINE * FINE)) as u8);
        }
    }
    means
}

/// How text looks and to which of its sides its position refers; `size` is in pixels of the picture.
pub fn text(size: usize, colour: RGBColor, across: HPos, down: VPos) -> TextStyle<'static> {
    font(size).color(&colour).pos(Pos::new(across, down))
}

/// The width of a text, in pixels of the picture.
pub fn width_of(text: &str, size: usize) -> usize {
    font(size).box_size(text).map_or(0, |(width, _)| (width as usize).div_ceil(FINE))
}

fn font(size: usize) -> FontDesc<'static> {
    static REGISTERED: Once = Once::new();
    // The file is part of the program: where it could not be read, drawing would fail.
    REGISTERED.call_once(|| drop(register_font(FAMILY, FontStyle::Normal, include_bytes!("roboto-latin.ttf"))));
    (FAMILY, (FINE * size) as f64).into_font()
}

#[cfg(test)]
mod tests {
    use plotters::element::Rectangle;
    use plotters::style::Color;

    use super::*;

    #[test]
    fn edges_of_drawn_shapes_are_smoothed() {
        // The last column and row of a rectangle are not drawn: of pixel 2 half is covered, of its corner a quarter.
        let square = Rectangle::new([(2, 2), (5, 5)], RGBColor(0, 0, 0).filled());
        let picture = draw([4, 4], |area| Ok(area.draw(&square)?)).unwrap();
        assert_eq!([1, 2, 3].map(|column| picture.pixel(column, 1)[0]), [0, 128, 255]);
        assert_eq!(picture.pixel(2, 2)[0], 191);
    }

    #[test]
    fn text_needs_no_font_of_the_system() {
        assert!((40..70).contains(&width_of("Dice ≥ 0.5", 14)));
        let style = text(14, INK, HPos::Left, VPos::Top);
        let picture = draw([80, 20], |area| Ok(area.draw_text("Dice ≥ 0.5", &style, (4, 4))?)).unwrap();
        let dark = (0..20).flat_map(|row| (0..80).map(move |column| (column, row)));
        assert!(dark.filter(|(column, row)| picture.pixel(*column, *row)[0] < 128).count() > 50);
    }
}
