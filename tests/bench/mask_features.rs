//! Features of a tumor's mask in its organ, by which made masks are compared with real ones.

use freetumor::mask::BitVolume;
use freetumor::synth::measure::{ShapeMeasures, measure};
use freetumor::volume::{Array3, Connectivity, distance_mm};

/// The label of the organ in a box.
pub const ORGAN: u8 = 1;
/// The label of the tumor in a box.
pub const TUMOR: u8 = 2;
/// The names of the features, in the order of their values.
pub const NAMES: [&str; COUNT] = [
    "diameter_mm",
    "convexity",
    "sphericity",
    "thickness",
    "without_necks",
    "major_over_middle",
    "middle_over_minor",
    "exterior",
];
/// The number of features.
pub const COUNT: usize = 8;
/// The features of shape alone that the reference distributions do not contain, as indices in [`NAMES`].
pub const THICKNESS_NECKS_CONVEXITY: [usize; 3] = [3, 4, 1];
/// The number of half-spaces whose intersection is the hull of a mask: with 1000, that of a ball is 0.3% larger than the ball.
const HALF_SPACES: usize = 1000;
/// The rows of a voxel along y and along z in which the volume of a hull is computed.
const ROWS_PER_VOXEL: usize = 2;

/// Returns the features of the tumor of a box with its organ; `None` without a tumor.
///
/// - `convexity`: volume of the tumor's mesh over that of the convex hull of the mesh.
/// - `thickness`: diameter of the largest inscribed ball over the diameter of the ball of the same volume.
/// - `without_necks`: share of the largest part of the voxels that are deeper than half of the maximum depth; 1 for a body without necks.
/// - `exterior`: share of the faces between the tumor and other voxels that are not between tumor and organ.
pub fn features(labels: &Array3<u8>, spacing_mm: [f64; 3]) -> Option<[f64; COUNT]> {
    let tumor = framed(&labels.map(|&label| u8::from(label == TUMOR)));
    let measures = measure(&tumor, spacing_mm)?;
    let [major, middle, minor] = measures.axes_mm;
    let depth = distance_mm(&tumor, spacing_mm, 2.0 * measures.diameter_mm, |&inside| inside == 0);
    let deepest = depth.as_slice().iter().copied().fold(0.0, f32::max);
    let core = BitVolume::from_fn(tumor.shape(), |voxel| depth[voxel] > 0.5 * deepest);
    let largest = core.components(Connectivity::Faces).voxels().into_iter().max().unwrap_or(0);
    Some([
        measures.diameter_mm,
        mesh_mm3(&measures) / hull_mm3(&tumor, spacing_mm),
        measures.sphericity,
        2.0 * f64::from(deepest) / measures.diameter_mm,
        largest as f64 / core.count().max(1) as f64,
        major / middle,
        middle / minor,
        exterior(&framed(labels)),
    ])
}

/// Returns a box with a frame of two zeros on every side.
fn framed(array: &Array3<u8>) -> Array3<u8> {
    let mut framed = Array3::filled(array.shape().map(|length| length + 4), 0);
    framed.paste([2; 3], array);
    framed
}

/// Returns the volume of the mesh from its sphericity, π^⅓ (6V)^⅔ / A.
fn mesh_mm3(measures: &ShapeMeasures) -> f64 {
    (measures.sphericity * measures.surface_mm2 / std::f64::consts::PI.cbrt()).powf(1.5) / 6.0
}

/// Returns the volume of the convex hull of a mask's marching-cubes mesh: of the intersection of half-spaces that contain the mesh, whose
/// vertices are midpoints between a set voxel and a clear neighbour.
fn hull_mm3(mask: &Array3<u8>, spacing_mm: [f64; 3]) -> f64 {
    let [nx, ny, nz] = mask.shape();
    let rows: Vec<[usize; 4]> = (0..ny * nz)
        .filter_map(|row| {
            let (y, z) = (row % ny, row / ny);
            let first = mask.row(y, z).iter().position(|&inside| inside != 0)?;
            let last = mask.row(y, z).iter().rposition(|&inside| inside != 0)?;
            Some([y, z, first, last])
        })
        .collect();
    let golden = std::f64::consts::PI * (3.0 - 5.0f64.sqrt());
    // For each half-space, its normal per voxel and its greatest product with a vertex.
    let half_spaces: Vec<([f64; 3], f64)> = (0..HALF_SPACES)
        .map(|index| {
            let z = 1.0 - (2 * index + 1) as f64 / HALF_SPACES as f64;
            let (radius, angle) = ((1.0 - z * z).sqrt(), golden * index as f64);
            let [a, b, c] =
                [radius * angle.cos() * spacing_mm[0], radius * angle.sin() * spacing_mm[1], z * spacing_mm[2]];
            // The vertices around the first and the last voxel of a row contain those between in their hull.
            let beside = b.abs().max(c.abs());
            let greatest = rows.iter().map(|&[y, z, first, last]| {
                let across = b * y as f64 + c * z as f64;
                (a * first as f64 + 0.5 * beside.max(-a)).max(a * last as f64 + 0.5 * beside.max(a)) + across
            });
            ([a, b, c], greatest.fold(f64::NEG_INFINITY, f64::max))
        })
        .collect();
    let along_row = |row: usize| {
        let at = |index: usize| (index as f64 + 0.5) / ROWS_PER_VOXEL as f64 - 0.5;
        let (y, z) = (at(row % (ROWS_PER_VOXEL * ny)), at(row / (ROWS_PER_VOXEL * ny)));
        let (mut low, mut high) = (0.0f64, nx as f64);
        for ([a, b, c], greatest) in &half_spaces {
            let rest = greatest - b * y - c * z;
            match *a {
                slope if slope > 1e-9 => high = high.min(rest / slope),
                slope if slope < -1e-9 => low = low.max(rest / slope),
                _ if rest < 0.0 => return 0.0,
                _ => {}
            }
        }
        (high - low).max(0.0)
    };
    let rows = ROWS_PER_VOXEL * ROWS_PER_VOXEL * ny * nz;
    let voxels = (0..rows).map(along_row).sum::<f64>() / (ROWS_PER_VOXEL * ROWS_PER_VOXEL) as f64;
    voxels * spacing_mm.iter().product::<f64>()
}

/// Returns the share of the tumor's faces that are not between tumor and organ. The frame of the box must be without tumor.
fn exterior(labels: &Array3<u8>) -> f64 {
    let [nx, ny, nz] = labels.shape();
    let (mut all, mut outside) = (0usize, 0usize);
    for z in 1..nz - 1 {
        for y in 1..ny - 1 {
            for x in (1..nx - 1).filter(|&x| labels[[x, y, z]] == TUMOR) {
                let neighbours =
                    [[x - 1, y, z], [x + 1, y, z], [x, y - 1, z], [x, y + 1, z], [x, y, z - 1], [x, y, z + 1]];
                for label in neighbours.map(|voxel| labels[voxel]).into_iter().filter(|&label| label != TUMOR) {
                    all += 1;
                    outside += usize::from(label != ORGAN);
                }
            }
        }
    }
    outside as f64 / all.max(1) as f64
}
