//! Checks of single pixels.

use super::*;
use crate::volume::{Affine, Grid, Orientation, Voxels};

const WINDOW: HuWindow = HuWindow { low_hu: 0.0, high_hu: 100.0 };
/// 40 × 60 × 30 voxels of 2 × 1 × 4 mm, with axes along L, A and S.
const SHAPE: [usize; 3] = [40, 60, 30];

fn las_grid() -> Grid {
    Grid { shape: SHAPE, affine: Affine([[-2.0, 0.0, 0.0, 78.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]]) }
}

/// Returns a volume with a bright block in the patient's right anterior superior corner.
fn with_bright_corner() -> Volume {
    let hu = Array3::from_fn(SHAPE, |[x, y, z]| if x < 14 && y >= 40 && z >= 20 { 100i16 } else { 20 });
    Volume { grid: las_grid(), voxels: Voxels::I16(hu) }
}

/// Returns the brightest quarter of a panel, as its half of the columns and of the rows.
fn brightest_quarter(picture: &Picture, left: usize, width: usize, top: usize, height: usize) -> [usize; 2] {
    let mut best = ([0, 0], 0u64);
    for half_y in 0..2 {
        for half_x in 0..2 {
            let mut sum = 0;
            for row in 0..height / 2 {
                for column in 0..width / 2 {
                    let pixel = picture.pixel(left + half_x * width / 2 + column, top + half_y * height / 2 + row);
                    sum += u64::from(pixel[1]);
                }
            }
            if sum > best.1 {
                best = ([half_x, half_y], sum);
            }
        }
    }
    best.0
}

#[test]
fn planes_show_radiological_view_for_every_orientation() {
    for code in ["LAS", "RAS", "LPS", "PSR", "IRA", "SLP"] {
        let volume = with_bright_corner().reoriented(Orientation::from_code(code).unwrap());
        // A voxel of the block: the first along L is the patient's right.
        let world = las_grid().affine.apply([2.0, 55.0, 27.0]);
        let voxel = volume.grid.affine.inverse().unwrap().apply(world).map(|c| c.round() as usize);
        let picture = three_planes(&volume, None, voxel, WINDOW);
        // 80, 60 and 120 mm; the longest side has 512 pixels.
        let (r, a, s) = (341, 256, 512);
        assert_eq!(picture.size(), [r + GAP + r + GAP + a, s], "{code}");
        let axial = brightest_quarter(&picture, 0, r, (s - a) / 2, a);
        let coronal = brightest_quarter(&picture, r + GAP, r, 0, s);
        let sagittal = brightest_quarter(&picture, 2 * (r + GAP), a, 0, s);
        assert_eq!([axial, coronal, sagittal], [[0, 0]; 3], "{code}");
    }
}

#[test]
fn ball_is_round_with_anisotropic_spacing() {
    let hu = Array3::from_fn(SHAPE, |[x, y, z]| {
        let mm = [2.0 * (x as f64 - 20.0), y as f64 - 30.0, 4.0 * (z as f64 - 15.0)];
        if mm.iter().map(|d| d * d).sum::<f64>() < 25.0f64.powi(2) { 100i16 } else { 0 }
    });
    let volume = Volume { grid: las_grid(), voxels: Voxels::I16(hu) };
    let picture = three_planes(&volume, None, [20, 30, 15], WINDOW);
    let panels = [(0, 341, 128, 256), (347, 341, 0, 512), (694, 256, 0, 512)];
    for (left, width, top, height) in panels {
        // Without the letters and marks at the edges.
        let bright = |column: usize, row: usize| picture.pixel(left + column, top + row) == [255; 3];
        let across = (20..width - 20).filter(|&column| bright(column, height / 2)).count() as f64;
        let down = (20..height - 20).filter(|&row| bright(width / 2, row)).count() as f64;
        assert!((150.0..220.0).contains(&across) && (across / down - 1.0).abs() < 0.12, "{across} x {down}");
    }
}

#[test]
fn labels_are_drawn_translucent_with_outline() {
    let volume = Volume { grid: las_grid(), voxels: Voxels::F32(Array3::filled(SHAPE, 50.0)) };
    let mut ids = Array3::filled(SHAPE, 0u16);
    ids.paste([12, 20, 8], &Array3::filled([16, 20, 14], 7));
    let labels = Labels { grid: las_grid(), ids };
    let picture = three_planes(&volume, Some(&labels), [20, 30, 15], WINDOW);
    // The axial panel is 341 x 256 from row 128; the label starts after 12 of 40 and 20 of 60 voxels.
    let inside = picture.pixel(170, 128 + 128);
    let colour = label_colour(7);
    for channel in 0..3 {
        let expected = 128.0 * 0.65 + f32::from(colour[channel]) * 0.35;
        assert!((f32::from(inside[channel]) - expected).abs() <= 1.0, "{inside:?}");
    }
    let row = 128 + 128;
    let first = (20..170).find(|&column| picture.pixel(column, row) == colour).expect("expected an outline");
    assert!(first.abs_diff(341 * 12 / 40) <= 1, "{first}");
    assert_eq!(picture.pixel(first - 1, row), [128; 3]);
    assert_ne!(picture.pixel(first + 1, row), colour);
}

#[test]
fn planes_contain_requested_voxel() {
    let hu = Array3::from_fn(SHAPE, |[_, _, z]| if z == 21 { 100i16 } else { 0 });
    let volume = Volume { grid: las_grid(), voxels: Voxels::I16(hu) };
    let axial_is_bright = |z| three_planes(&volume, None, [20, 30, z], WINDOW).pixel(100, 256) == [255; 3];
    assert!(axial_is_bright(21) && !axial_is_bright(20) && !axial_is_bright(22));
}

#[test]
fn png_contains_pixels_of_picture() {
    let picture = three_planes(&with_bright_corner(), None, [2, 55, 27], WINDOW);
    let bytes = picture.to_png().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!([frame.width as usize, frame.height as usize], picture.size());
    for (column, row) in [(0, 0), (100, 200), (500, 40), (800, 500)] {
        let at = 3 * (column + picture.size()[0] * row);
        assert_eq!(pixels[at..at + 3], picture.pixel(column, row));
    }
}

#[test]
fn before_and_after_shows_change_and_label() {
    let scan = Volume { grid: las_grid(), voxels: Voxels::I16(Array3::filled(SHAPE, 50)) };
    let region = Region { start: [12, 20, 10], shape: [16, 24, 10] };
    let tumor = Array3::from_fn(region.shape, |[x, y, z]| {
        u8::from((4..12).contains(&x) && (6..18).contains(&y) && (2..8).contains(&z))
    });
    let after = tumor.map(|is_tumor| if *is_tumor > 0 { 10.0 } else { 50.0 });
    let picture = before_and_after(&scan, region, &after, &tumor, WINDOW, 12.0);
    // 40 x 36 x 48 mm with the margin around the tumor; the longest side has 256 pixels: 213 columns and 192 rows in the axial planes.
    let middle = |panel: usize| picture.pixel(panel * (213 + GAP) + 106, 96);
    assert_eq!(middle(0), [128; 3]);
    assert_eq!(middle(1), [26; 3]);
    let [red, green, blue] = middle(2);
    assert!(red > 60 && green < 60 && blue < 60, "expected a red label, got {red} {green} {blue}");
    assert_eq!(picture.size(), [3 * 213 + 2 * GAP, 192 + GAP + 256 + GAP + 256]);
}

#[test]
fn busiest_voxel_of_empty_labels_is_none() {
    assert_eq!(busiest_voxel(&Array3::filled([3, 3, 3], 0)), None);
    assert_eq!(busiest_voxel(&Array3::filled([0, 3, 3], 0)), None);
}
