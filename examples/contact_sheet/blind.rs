//! Real and synthetic tumors in a random order, to be distinguished by the pictures alone.

use std::fmt::Write as _;
use std::path::Path;

use freetumor::error::{Error, Result};
use freetumor::random::Key;
use freetumor::volume::{
    Affine, Array3, Grid, HuWindow, OutsideValue, Picture, Resampling, Volume, Voxels, busiest_voxel, stacked,
};

use super::{SHEETS, failed, made, read, real};

/// The number of crops.
const CROPS: usize = 24;
/// Crops in one row of the sheet.
const COLUMNS: usize = 6;
/// The side of a crop in pixels and in mm.
const SIDE: (usize, f64) = (260, 104.0);
/// The length of the marks that point to the centre, in pixels.
const MARK: usize = 9;
/// The window of all crops.
const WINDOW: HuWindow = HuWindow::ABDOMEN;
/// Draws the sheet `blind.png` and writes `blind-key.txt`.
pub fn draw(root: &Path, out: &Path, seed: u64) -> Result<()> {
    let mut crops = Vec::new();
    for tumor in real::tumors(root)?.into_iter().take(CROPS / 2) {
        crops.push(("real".to_owned(), crop(&tumor.scan.volume, centre(&tumor.mask, tumor.region.start))?));
    }
    for (index, sheet) in SHEETS.iter().enumerate() {
        // Synthetic tumors fill the sheet, evenly over the organs.
        let mut missing = (CROPS - crops.len()).div_ceil(SHEETS.len() - index);
        for &(scans, labels) in sheet.scans {
            for masked in read(root, scans, &format!("pattern = \"{labels}\"\n{}", sheet.mask))? {
                let tumors = made(sheet, &masked, seed, missing)?;
                missing -= tumors.len();
                for tumor in tumors {
                    let mut hu = masked.scan.volume.voxels.hu_of(masked.scan.volume.grid.region());
                    hu.paste(tumor.region.start, &tumor.after);
                    let after = Volume { grid: masked.scan.volume.grid, voxels: Voxels::F32(hu) };
                    let name = format!("made, {}", sheet.organ);
                    crops.push((name, crop(&after, centre(&tumor.tumor, tumor.region.start))?));
                }
            }
        }
    }
    let mut random = Key::root(seed).stream("blind");
    (1..crops.len()).rev().for_each(|last| crops.swap(last, random.index(last + 1)));
    let mut key = String::new();
    for (number, (name, _)) in crops.iter().enumerate() {
        let _ = writeln!(key, "{} {name}", number + 1);
    }
    let pictures: Vec<Picture> = crops.into_iter().map(|(_, picture)| picture).collect();
    let rows: Vec<Picture> = pictures.chunks(COLUMNS).map(|row| Picture::side_by_side(row, 6)).collect();
    stacked(&rows, 6).write_png(out.join("blind.png"))?;
    let path = out.join("blind-key.txt");
    std::fs::write(&path, key).map_err(|cause| Error::io("cannot write", &path, cause))?;
    println!(
        "{}: {} crops in rows of {COLUMNS}, from the top left; {}",
        out.join("blind.png").display(),
        pictures.len(),
        path.display()
    );
    Ok(())
}

/// Returns the voxel of the scan in the middle of a tumor.
fn centre(tumor: &Array3<u8>, start: [usize; 3]) -> [usize; 3] {
    let voxel = busiest_voxel(&tumor.map(|&inside| u16::from(inside))).unwrap_or_default();
    [0, 1, 2].map(|axis| start[axis] + voxel[axis])
}

/// Draws the axial plane around a voxel, with the patient's right on the left, and marks at the edges that point to the centre.
fn crop(volume: &Volume, voxel: [usize; 3]) -> Result<Picture> {
    let (pixels, mm) = SIDE;
    let (step, [x, y, z]) = (mm / pixels as f64, volume.grid.affine.apply(voxel.map(|index| index as f64)));
    let rows = [[-step, 0.0, 0.0, x + mm / 2.0], [0.0, -step, 0.0, y + mm / 2.0], [0.0, 0.0, 1.0, z]];
    let plane = Grid { shape: [pixels, pixels, 1], affine: Affine(rows) };
    let resampling = Resampling::between(&volume.grid, &plane).map_err(failed)?;
    let plane = volume.resampled(&resampling, OutsideValue::Value(WINDOW.low_hu));
    let hu = plane.voxels.hu_of(plane.grid.region());
    let grey = |hu: f32| (255.0 * ((hu - WINDOW.low_hu) / WINDOW.width_hu()).clamp(0.0, 1.0)) as u8;
    let mut rgb: Vec<u8> = hu.as_slice().iter().flat_map(|&hu| [grey(hu); 3]).collect();
    for step in 0..MARK {
        let middle = pixels / 2;
        for [column, row] in [[step, middle], [pixels - 1 - step, middle], [middle, step], [middle, pixels - 1 - step]]
        {
            rgb[3 * (column + pixels * row)..][..3].copy_from_slice(&[255, 214, 90]);
        }
    }
    Ok(Picture::from_rgb(pixels, pixels, rgb))
}
