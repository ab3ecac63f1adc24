//! The digest of a scan's content, whatever file it came from.

use sha2::{Digest, Sha256};

use crate::volume::{Grid, Volume, Voxels};

/// SHA-256 over shape, spacing (to a thousandth of a millimetre) and HU in RAS order, in hexadecimal.
///
/// The same scan has the same digest as DICOM series and as NIfTI file, stored LPS or RAS, as i16 or as floats that
/// happen to be whole: that is how an archive's duplicates are found.
pub fn content_digest(volume: &Volume) -> String {
    let order = ras_order(&volume.grid);
    let shape = volume.grid.shape;
    let spacing_mm = volume.grid.spacing_mm();
    let mut hash = Sha256::new_with_prefix(b"freetumor scan 1");
    for (axis, _) in order {
        hash.update((shape[axis] as u64).to_le_bytes());
        hash.update(((spacing_mm[axis] * 1000.0).round() as u64).to_le_bytes());
    }
    match &volume.voxels {
        Voxels::I16(hu) => feed(&mut hash, shape, order, hu.as_slice(), b"i16", |hu| hu.to_le_bytes()),
        Voxels::F32(hu) if hu.as_slice().iter().all(|&hu| f32::from(hu as i16) == hu) => {
            feed(&mut hash, shape, order, hu.as_slice(), b"i16", |hu| (hu as i16).to_le_bytes());
        }
        Voxels::F32(hu) => feed(&mut hash, shape, order, hu.as_slice(), b"f32", |hu| hu.to_le_bytes()),
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For R, A and S the voxel axis that runs along it most closely, and whether towards the positive end.
fn ras_order(grid: &Grid) -> [(usize, bool); 3] {
    let rows = grid.affine.0;
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let spacing_mm = grid.spacing_mm();
    let fit = |order: &[usize; 3]| -> f64 { (0..3).map(|w| (rows[w][order[w]] / spacing_mm[order[w]]).abs()).sum() };
    let best = orders.into_iter().fold(orders[0], |best, order| if fit(&order) > fit(&best) { order } else { best });
    [0, 1, 2].map(|world| (best[world], rows[world][best[world]] >= 0.0))
}

/// Feeds voxels row by row in RAS order.
fn feed<T: Copy, const N: usize>(
    hash: &mut Sha256,
    shape: [usize; 3],
    order: [(usize, bool); 3],
    voxels: &[T],
    kind: &[u8; 3],
    bytes: impl Fn(T) -> [u8; N],
) {
    hash.update(kind);
    let strides = [1, shape[0], shape[0] * shape[1]];
    let at = |world: usize, i: usize| {
        let (axis, positive) = order[world];
        strides[axis] * if positive { i } else { shape[axis] - 1 - i }
    };
    let count = order.map(|(axis, _)| shape[axis]);
    let columns: Vec<usize> = (0..count[0]).map(|x| at(0, x)).collect();
    let mut row = vec![0u8; count[0] * N];
    for z in 0..count[2] {
        for y in 0..count[1] {
            let start = at(1, y) + at(2, z);
            for (chunk, column) in row.chunks_exact_mut(N).zip(&columns) {
                chunk.copy_from_slice(&bytes(voxels[start + column]));
            }
            hash.update(&row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Array3};

    fn volume(rows: [[f64; 4]; 3], hu: Array3<i16>) -> Volume {
        Volume { grid: Grid { shape: hu.shape(), affine: Affine(rows) }, voxels: Voxels::I16(hu) }
    }

    #[test]
    fn storage_does_not_matter_but_content_does() {
        let hu = Array3::from_fn([4, 3, 2], |[x, y, z]| (x * 100 + y * 10 + z) as i16);
        let ras = volume([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]], hu.clone());
        // The same voxels with axes [S, L, A].
        let turned = Array3::from_fn([2, 4, 3], |[z, x, y]| hu[[3 - x, y, z]]);
        let other = volume([[0.0, -1.0, 0.0, 3.0], [0.0, 0.0, 2.0, 0.0], [5.0, 0.0, 0.0, 0.0]], turned);
        assert_eq!(content_digest(&ras), content_digest(&other));
        let floats = Volume { voxels: Voxels::F32(hu.map(|&hu| f32::from(hu))), ..ras.clone() };
        assert_eq!(content_digest(&ras), content_digest(&floats));

        let mut changed = hu.clone();
        changed[[3, 2, 1]] += 1;
        assert_ne!(content_digest(&ras), content_digest(&volume(ras.grid.affine.0, changed)));
        let mirrored = volume([[-1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]], hu.clone());
        assert_ne!(content_digest(&ras), content_digest(&mirrored));
        let mut halves = hu.map(|&hu| f32::from(hu));
        halves[[0, 0, 0]] = 0.5;
        assert_ne!(content_digest(&ras), content_digest(&Volume { voxels: Voxels::F32(halves), ..ras }));
    }
}
