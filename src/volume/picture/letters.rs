//! The six letters of the patient's directions.

use super::Picture;

/// The width of a dot in pixels.
const DOT: usize = 2;
/// Columns and rows of dots of a letter.
const DOTS: [usize; 2] = [5, 7];
/// Pixels between a letter and the edge.
const MARGIN: usize = 4;
const COLOUR: [u8; 3] = [255, 214, 90];

/// The edge of a plane at which a letter is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Left,
    Right,
    Top,
    Bottom,
}

/// Draws a letter in the middle of an edge on a dark background. Planes that are too small get no letter.
pub(super) fn write(picture: &mut Picture, letter: char, edge: Edge) {
    let [width, height] = picture.size();
    let size = DOTS.map(|dots| dots * DOT);
    let needed = size.map(|pixels| 3 * (pixels + 2 * MARGIN));
    if width < needed[0] || height < needed[1] {
        return;
    }
    let (left, top) = match edge {
        Edge::Left => (MARGIN, (height - size[1]) / 2),
        Edge::Right => (width - size[0] - MARGIN, (height - size[1]) / 2),
        Edge::Top => ((width - size[0]) / 2, MARGIN),
        Edge::Bottom => ((width - size[0]) / 2, height - size[1] - MARGIN),
    };
    for row in top - DOT..top + size[1] + DOT {
        for column in left - DOT..left + size[0] + DOT {
            let darker = picture.pixel(column, row).map(|value| value / 3);
            picture.set(column, row, darker);
        }
    }
    for (y, dots) in glyph(letter).iter().enumerate() {
        for x in (0..DOTS[0]).filter(|x| dots >> (DOTS[0] - 1 - x) & 1 == 1) {
            for row in 0..DOT {
                for column in 0..DOT {
                    picture.set(left + x * DOT + column, top + y * DOT + row, COLOUR);
                }
            }
        }
    }
}

/// Returns the dots of a letter, one byte per row; the leftmost dot is the highest of five bits.
fn glyph(letter: char) -> [u8; 7] {
    match letter {
        'R' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001],
        'L' => [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111],
        'A' => [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001],
        'P' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000],
        'S' => [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110],
        'I' => [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b11111],
        _ => [0; 7],
    }
}
