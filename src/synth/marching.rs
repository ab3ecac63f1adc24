//! Area and volume of the marching-cubes surface of a binary mask.
//!
//! On a binary mask every vertex is the midpoint of an edge of the cell between eight voxel centres, so what a cell
//! adds depends only on which of its corners are set: 256 cases, computed once for a spacing.

use crate::volume::{Array3, RowSpans, hull};

/// What a closed mesh measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Surface {
    pub area_mm2: f64,
    pub volume_mm3: f64,
}

/// What one case of a cell adds: area, area vector (outward), and ∫ p·n over it from the cell's own first corner.
#[derive(Clone, Copy, Default)]
struct Case {
    area: f64,
    vector: [f64; 3],
    flux: f64,
}

/// The four corners of each face of a cell, counter-clockwise as seen from outside; bit k of a corner is its step
/// along axis k.
const FACES: [[usize; 4]; 6] = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];

/// The marching-cubes surface at 0.5 of a mask that is clear outside its box.
pub(crate) fn surface(mask: &Array3<u8>, spacing_mm: [f64; 3]) -> Surface {
    let cases: Vec<Case> = (0..256).map(|corners| case(corners, spacing_mm)).collect();
    let [nx, ny, nz] = mask.shape();
    let (mut area, mut flux) = (0.0, 0.0);
    let clear = vec![0u8; nx];
    let set = RowSpans::of(mask, |&value| value != 0);
    let row = |[y, z]: [usize; 2]| {
        // Indices run from one before the first row.
        let is_there = y >= 1 && z >= 1 && y <= ny && z <= nz;
        if is_there { (mask.row(y - 1, z - 1), set.row(y - 1, z - 1)) } else { (&clear[..], 0..0) }
    };
    for z in 0..=nz {
        for y in 0..=ny {
            let rows = [[y, z], [y + 1, z], [y, z + 1], [y + 1, z + 1]].map(row);
            let stretch = rows.iter().fold(0..0, |all, (_, stretch)| hull(all, stretch.clone()));
            if stretch.is_empty() {
                continue;
            }
            let rows = rows.map(|(row, _)| row);
            let mut before = 0usize;
            for x in stretch.start..=stretch.end {
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

/// Builds the polygons of one case: on each face the set corners are cut off from the clear ones, and the cuts of
/// neighbouring faces join into closed loops.
fn case(corners: usize, spacing_mm: [f64; 3]) -> Case {
    let set = |corner: usize| corners >> corner & 1 == 1;
    // next[edge] is where the cut that enters at `edge` leaves; an edge is named by its two corners' bits.
    let mut next = [None; 256];
    let name = |a: usize, b: usize| 1usize << a | 1usize << b;
    for face in FACES {
        for side in 0..4 {
            let (from, to) = (face[side], face[(side + 1) % 4]);
            if !set(from) || set(to) {
                continue;
            }
            // Walk back over the set corners to where they began.
            let mut first = side;
            while set(face[(first + 3) % 4]) {
                first = (first + 3) % 4;
            }
            next[name(from, to) & 255] = Some(name(face[(first + 3) % 4], face[first]) & 255);
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
        // Loops run clockwise as seen from outside.
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
    fn one_voxel_is_an_octahedron() {
        let one = surface(&Array3::filled([1, 1, 1], 1), [1.0; 3]);
        assert!((one.volume_mm3 - 1.0 / 6.0).abs() < 1e-12, "{one:?}");
        assert!((one.area_mm2 - 3f64.sqrt()).abs() < 1e-12, "{one:?}");
        let stretched = surface(&Array3::filled([1, 1, 1], 1), [1.0, 2.0, 5.0]);
        assert!((stretched.volume_mm3 - 10.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn a_block_is_a_box_with_cut_edges() {
        let n = 20usize;
        let block = surface(&Array3::filled([n, n, n], 1), [1.0; 3]);
        let side = (n - 1) as f64;
        // The flat faces, twelve edges cut at 45 degrees, eight corner triangles.
        let area = 6.0 * side * side + 12.0 * side * 0.5f64.sqrt() + 8.0 * 3f64.sqrt() / 8.0;
        assert!((block.area_mm2 - area).abs() < 1e-9, "{} {area}", block.area_mm2);
    }

    #[test]
    fn every_case_closes() {
        // A mesh is closed where the area vectors of all its cells cancel.
        let mut draws = crate::random::Key::root(9).draws("marching");
        let mask = Array3::from_fn([9, 8, 7], |_| u8::from(draws.chance(0.5)));
        let centred = surface(&mask, [1.0, 1.5, 2.0]);
        let mut moved = Array3::filled([20, 20, 20], 0u8);
        moved.paste([6, 7, 8], &mask);
        let moved = surface(&moved, [1.0, 1.5, 2.0]);
        assert!((centred.volume_mm3 - moved.volume_mm3).abs() < 1e-6, "{centred:?} {moved:?}");
        assert!((centred.area_mm2 - moved.area_mm2).abs() < 1e-6);
    }
}
