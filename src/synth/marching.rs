//! Area and volume of the marching-cubes surface of a binary mask.
//!
//! On a binary mask every vertex is the midpoint of an edge of the cell between eight voxel centres. The contribution of a cell
//! therefore depends only on its set corners: 256 cases, computed once for a spacing.

use crate::volume::{Array3, RowSpans, hull};

/// Area and volume of a closed mesh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Surface {
    pub area_mm2: f64,
    pub volume_mm3: f64,
}

/// The contribution of one case of a cell: area, area vector (outward), and ∫ p·n over the area, relative to the first corner of the
/// cell.
#[derive(Clone, Copy, Default)]
struct Case {
    area: f64,
    vector: [f64; 3],
    flux: f64,
}

/// The four corners of each face of a cell, counter-clockwise viewed from outside; bit k of a corner is its step along axis k.
const FACES: [[usize; 4]; 6] = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];

/// Measures the marching-cubes surface at 0.5 of a mask that is clear outside its box.
pub(crate) fn surface(mask: &Array3<u8>, spacing_mm: [f64; 3]) -> Surface {
    let cases: Vec<Case> = (0..256).map(|corners| case(corners, spacing_mm)).collect();
    let [nx, ny, nz] = mask.shape();
    let (mut area, mut flux) = (0.0, 0.0);
    let clear = vec![0u8; nx];
    let set = RowSpans::of(mask, |&value| value != 0);
    let row = |[y, z]: [usize; 2]| {
        // Indices start one before the first row.
        let is_inside = y >= 1 && z >= 1 && y <= ny && z <= nz;
        if is_inside { (mask.row(y - 1, z - 1), set.row(y - 1, z - 1)) } else { (&clear[..], 0..0) }
    };
    for z in 0..=nz {
        for y in 0..=ny {
            let rows = [[y, z], [y + 1, z], [y, z + 1], [y + 1, z + 1]].map(row);
            let span = rows.iter().fold(0..0, |all, (_, span)| hull(all, span.clone()));
            if span.is_empty() {
                continue;
            }
            let rows = rows.map(|(row, _)| row);
            let mut before = 0usize;
            for x in span.start..=span.end {
                let mut after = 0usize;
                if x < nx {
                    for (k, row) in rows.iter().enumerate() {
                        after |= usize::from(row[x] != 0) << (2 * k);
                    }
                }
                let corners = before | after << 1;
                before = after;
                if corners == 0 || corners == 255 {
                    continue;
                }
                let case = &cases[corners];
                let origin = [x as f64 * spacing_mm[0], y as f64 * spacing_mm[1], z as f64 * spacing_mm[2]];
                area += case.area;
                flux += case.flux + (0..3).map(|k| origin[k] * case.vector[k]).sum::<f64>();
            }
        }
    }
    Surface { area_mm2: area, volume_mm3: flux / 3.0 }
}

/// Builds the polygons of one case: on each face, segments separate the set corners from the clear ones, and the segments of
/// neighbouring faces form closed loops.
fn case(corners: usize, spacing_mm: [f64; 3]) -> Case {
    let set = |corner: usize| corners >> corner & 1 == 1;
    // next[edge] is the edge at which the segment that enters at `edge` leaves; an edge is identified by the bits of its two corners.
    let mut next = [None; 256];
    let edge_id = |a: usize, b: usize| 1usize << a | 1usize << b;
    for face in FACES {
        for side in 0..4 {
            let (from, to) = (face[side], face[(side + 1) % 4]);
            if !set(from) || set(to) {
                continue;
            }
            // Walk back over the set corners to the first one.
            let mut first = side;
            while set(face[(first + 3) % 4]) {
                first = (first + 3) % 4;
            }
            next[edge_id(from, to) & 255] = Some(edge_id(face[(first + 3) % 4], face[first]) & 255);
        }
    }
    let midpoint = |edge: usize| {
        let mut point = [0.0; 3];
        for corner in (0..8).filter(|corner| edge >> corner & 1 == 1) {
            for (axis, value) in point.iter_mut().enumerate() {
                *value += (corner >> axis & 1) as f64 * spacing_mm[axis] / 2.0;
            }
        }
        point
    };
    let mut result = Case::default();
    for start in 0..256 {
        let Some(mut edge) = next[start].take() else { continue };
        let mut polygon = vec![midpoint(start)];
        while edge != start {
            polygon.push(midpoint(edge));
            match next[edge].take() {
                Some(following) => edge = following,
                None => break,
            }
        }
        add(&mut result, &polygon);
    }
    result
}

fn add(result: &mut Case, polygon: &[[f64; 3]]) {
    let apex = polygon[0];
    for pair in polygon[1..].windows(2) {
        // Loops are clockwise viewed from outside.
        let (u, v) = ([0, 1, 2].map(|k| pair[0][k] - apex[k]), [0, 1, 2].map(|k| pair[1][k] - apex[k]));
        let vector = [0, 1, 2].map(|k| {
            let (a, b) = ((k + 1) % 3, (k + 2) % 3);
            (u[b] * v[a] - u[a] * v[b]) / 2.0
        });
        result.area += libm::sqrt(vector.iter().map(|n| n * n).sum());
        for k in 0..3 {
            result.vector[k] += vector[k];
            result.flux += apex[k] * vector[k];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surface_of_one_voxel_is_octahedron() {
        let voxel = surface(&Array3::filled([1, 1, 1], 1), [1.0; 3]);
        assert!((voxel.volume_mm3 - 1.0 / 6.0).abs() < 1e-12, "{voxel:?}");
        assert!((voxel.area_mm2 - 3f64.sqrt()).abs() < 1e-12, "{voxel:?}");
        let anisotropic = surface(&Array3::filled([1, 1, 1], 1), [1.0, 2.0, 5.0]);
        assert!((anisotropic.volume_mm3 - 10.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn surface_of_block_is_box_with_chamfered_edges() {
        let n = 20usize;
        let block = surface(&Array3::filled([n, n, n], 1), [1.0; 3]);
        let side = (n - 1) as f64;
        // Flat faces, twelve chamfered edges at 45 degrees, eight corner triangles.
        let area = 6.0 * side * side + 12.0 * side * 0.5f64.sqrt() + 8.0 * 3f64.sqrt() / 8.0;
        assert!((block.area_mm2 - area).abs() < 1e-9, "{} {area}", block.area_mm2);
    }

    #[test]
    fn mesh_of_random_mask_is_closed() {
        // In a closed mesh the area vectors of all cells cancel, so its volume does not depend on the position.
        let mut random = crate::random::Key::root(9).stream("marching");
        let mask = Array3::from_fn([9, 8, 7], |_| u8::from(random.chance(0.5)));
        let centred = surface(&mask, [1.0, 1.5, 2.0]);
        let mut moved = Array3::filled([20, 20, 20], 0u8);
        moved.paste([6, 7, 8], &mask);
        let moved = surface(&moved, [1.0, 1.5, 2.0]);
        assert!((centred.volume_mm3 - moved.volume_mm3).abs() < 1e-6, "{centred:?} {moved:?}");
        assert!((centred.area_mm2 - moved.area_mm2).abs() < 1e-6);
    }
}
