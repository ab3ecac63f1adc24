//! A small data set on disk: patients with a liver and a real tumor in the liver.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::random::Key;
use freetumor::volume::{Affine, Array3, Grid};
use serde_json::json;

/// The id of the liver in labels.
const LIVER: u8 = 1;
/// The id of the tumor in labels.
const TUMOR: u8 = 2;

/// Writes `count` patients as `imagesTr/labeled_NNN.nii.gz` and `labelsTr/labeled_NNN.nii.gz`, and the list `dataset.json`.
pub fn write_decathlon(folder: &Path, count: usize, shape: [usize; 3], spacing_mm: f64) {
    let grid = Grid { shape, affine: Affine::from_spacing([spacing_mm; 3]) };
    for kind in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(folder.join(kind)).unwrap();
    }
    let patient = |number: usize| {
        let file = format!("labeled_{number:03}.nii.gz");
        let ids = labels(shape, spacing_mm, number);
        let mut noise = Key::root(3).number("patient", number as u64).stream("noise");
        let mut hu = |id: u8| [30.0, 110.0, 60.0][usize::from(id)] + noise.normal(0.0, 8.0);
        let image: Vec<u8> = ids.as_slice().iter().flat_map(|id| (hu(*id) as i16).to_le_bytes()).collect();
        write(&folder.join("imagesTr").join(&file), &grid, Datatype::I16, &image);
        write(&folder.join("labelsTr").join(&file), &grid, Datatype::U8, ids.as_slice());
        json!({ "image": format!("./imagesTr/{file}"), "label": format!("./labelsTr/{file}") })
    };
    let list = json!({ "training": (0..count).map(patient).collect::<Vec<_>>() });
    std::fs::write(folder.join("dataset.json"), list.to_string()).unwrap();
}

/// Returns an ellipsoid of liver over two thirds of the scan along each axis, with a ball of 28 mm at another position in each patient.
fn labels(shape: [usize; 3], spacing_mm: f64, number: usize) -> Array3<u8> {
    let mut random = Key::root(3).number("patient", number as u64).stream("place");
    let middle = shape.map(|voxels| voxels as f64 / 2.0);
    let center = middle.map(|at| at * random.uniform(0.85, 1.15));
    Array3::from_fn(shape, |voxel| {
        let distance = |from: [f64; 3], unit: [f64; 3]| {
            (0..3).map(|axis| ((voxel[axis] as f64 - from[axis]) / unit[axis]).powi(2)).sum::<f64>()
        };
        if distance(center, [14.0 / spacing_mm; 3]) <= 1.0 {
            TUMOR
        } else if distance(middle, middle.map(|at| at * 0.67)) <= 1.0 {
            LIVER
        } else {
            0
        }
    })
}

fn write(path: &Path, grid: &Grid, datatype: Datatype, voxels: &[u8]) {
    write_compressed(path, &encode_header(grid, datatype, "patient of a test").unwrap(), voxels);
}

/// Writes a compressed NIfTI file.
pub fn write_compressed(path: &Path, header: &[u8], voxels: &[u8]) {
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    file.write_all(header).unwrap();
    file.write_all(voxels).unwrap();
    std::fs::write(path, file.finish().unwrap()).unwrap();
}
