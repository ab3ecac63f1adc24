//! The pixels of a picture.

use std::path::Path;

use crate::error::{Error, Result};

/// Red, green and blue bytes, row by row from the top left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// Creates a picture from red, green and blue bytes, row by row from the top left.
    ///
    /// ```
    /// use freetumor::volume::Picture;
    /// let picture = Picture::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255]);
    /// assert_eq!(picture.pixel(1, 0), [0, 0, 255]);
    /// ```
    ///
    /// # Panics
    /// If there are not three bytes per pixel.
    pub fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), 3 * width * height, "expected three bytes per pixel");
        Self { width, height, rgb }
    }

    /// Creates a black picture.
    pub(super) fn black(width: usize, height: usize) -> Self {
        Self { width, height, rgb: vec![0; 3 * width * height] }
    }

    /// Returns the number of columns and rows.
    pub fn size(&self) -> [usize; 2] {
        [self.width, self.height]
    }

    /// Returns red, green and blue of a pixel, counted from the top left.
    ///
    /// # Panics
    /// If the pixel is outside the picture.
    pub fn pixel(&self, column: usize, row: usize) -> [u8; 3] {
        let offset = self.offset(column, row);
        [self.rgb[offset], self.rgb[offset + 1], self.rgb[offset + 2]]
    }

    pub(super) fn set(&mut self, column: usize, row: usize, colour: [u8; 3]) {
        let offset = self.offset(column, row);
        self.rgb[offset..offset + 3].copy_from_slice(&colour);
    }

    fn offset(&self, column: usize, row: usize) -> usize {
        let Self { width, height, .. } = self;
        assert!(
            column < self.width && row < self.height,
            "expected a pixel inside a picture of {width} x {height} pixels, got column {column} and row {row}"
        );
        3 * (column + self.width * row)
    }

    /// Adds a frame of a colour; `width` is its width in pixels.
    #[must_use]
    pub fn framed(&self, width: usize, colour: [u8; 3]) -> Self {
        let mut framed = Self::black(self.width + 2 * width, self.height + 2 * width);
        framed.rgb.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&colour));
        framed.paste(self, width, width);
        framed
    }

    /// Combines pictures side by side, with `gap` black pixels between them, vertically centred.
    #[must_use]
    pub fn side_by_side(pictures: &[Self], gap: usize) -> Self {
        let height = pictures.iter().map(|picture| picture.height).max().unwrap_or(0);
        let width =
            pictures.iter().map(|picture| picture.width).sum::<usize>() + gap * pictures.len().saturating_sub(1);
        let mut all = Self::black(width, height);
        let mut left = 0;
        for picture in pictures {
            all.paste(picture, left, (height - picture.height) / 2);
            left += picture.width + gap;
        }
        all
    }

    fn paste(&mut self, picture: &Self, left: usize, top: usize) {
        for row in 0..picture.height {
            let (from, to) = (3 * picture.width * row, 3 * (left + self.width * (top + row)));
            self.rgb[to..to + 3 * picture.width].copy_from_slice(&picture.rgb[from..from + 3 * picture.width]);
        }
    }

    /// Encodes the picture as PNG.
    ///
    /// # Errors
    /// If the picture has no pixels.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let encode = |bytes: &mut Vec<u8>| {
            let mut encoder = png::Encoder::new(bytes, self.width as u32, self.height as u32);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&self.rgb)?;
            writer.finish()
        };
        encode(&mut bytes).map_err(|error| {
            Error::new(format!("cannot encode a picture of {} x {} pixels: {error}", self.width, self.height))
                .with_source(error)
        })?;
        Ok(bytes)
    }

    /// Writes the picture as a PNG file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.to_png()?).map_err(|error| Error::io("cannot write the picture", path, error))
    }
}

/// Stacks pictures vertically, left-aligned, with `gap` black pixels between them.
pub fn stacked(pictures: &[Picture], gap: usize) -> Picture {
    let width = pictures.iter().map(|picture| picture.width).max().unwrap_or(0);
    let height = pictures.iter().map(|picture| picture.height).sum::<usize>() + gap * pictures.len().saturating_sub(1);
    let mut all = Picture::black(width, height);
    let mut top = 0;
    for picture in pictures {
        all.paste(picture, 0, top);
        top += picture.height + gap;
    }
    all
}
