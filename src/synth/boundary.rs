//! The distance from a voxel of an organ to the organ's boundary.

use crate::mask::{MaskedScan, Organ};

/// Returns the distance from a voxel's centre to the centre of the nearest voxel that is not healthy organ or is outside the scan.
pub(crate) fn boundary_distance_mm(masked: &MaskedScan, organ: &Organ, voxel: [usize; 3]) -> f64 {
    let labels = &masked.mask.labels;
    let spacing_mm = masked.scan.volume.grid.spacing_mm();
    let shape = labels.shape();
    // The first voxel beyond the border of the scan limits the search.
    let mut nearest =
        (0..3).map(|k| (voxel[k] + 1).min(shape[k] - voxel[k]) as f64 * spacing_mm[k]).fold(f64::INFINITY, f64::min);
    let rows = |axis: usize, reach: usize| {
        let centre = voxel[axis] as i64;
        let length = shape[axis] as i64;
        // From the centre outwards, so that the search range shrinks early.
        (0..=2 * reach as i64)
            .map(move |k| centre + if k % 2 == 0 { k / 2 } else { -(k + 1) / 2 })
            .filter(move |index| (0..length).contains(index))
    };
    for z in rows(2, (nearest / spacing_mm[2]) as usize) {
        let dz = (z - voxel[2] as i64) as f64 * spacing_mm[2];
        if dz.abs() >= nearest {
            continue;
        }
        for y in rows(1, (nearest / spacing_mm[1]) as usize) {
            let dy = (y - voxel[1] as i64) as f64 * spacing_mm[1];
            let across = dy * dy + dz * dz;
            if across >= nearest * nearest {
                continue;
            }
            let reach = (libm::sqrt(nearest * nearest - across) / spacing_mm[0]) as usize;
            let row = labels.row(y as usize, z as usize);
            let outside = |label: &u8| *label != organ.label;
            let after = row[voxel[0]..(voxel[0] + reach + 1).min(shape[0])].iter().position(outside);
            let before = row[voxel[0].saturating_sub(reach)..=voxel[0]].iter().rev().position(outside);
            if let Some(steps) = after.into_iter().chain(before).min() {
                let dx = steps as f64 * spacing_mm[0];
                nearest = nearest.min(libm::sqrt(across + dx * dx));
            }
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::organ::testing::{ball_with_tumor, liver};

    #[test]
    fn boundary_distance_equals_search_over_all_voxels() {
        let spacing_mm = [1.5, 1.2, 3.0];
        let scan = ball_with_tumor(spacing_mm, [34, 42, 13]);
        let shape = scan.mask.labels.shape();
        let mut compared = 0;
        for index in (0..scan.mask.labels.as_slice().len()).step_by(37) {
            let voxel = [index % shape[0], index / shape[0] % shape[1], index / shape[0] / shape[1]];
            if scan.mask.labels[voxel] != 1 {
                continue;
            }
            // Voxels beyond the scan count as outside; one layer is enough.
            let mut nearest = f64::INFINITY;
            for z in -1..=shape[2] as i64 {
                for y in -1..=shape[1] as i64 {
                    for x in -1..=shape[0] as i64 {
                        let at = [x, y, z];
                        let inside = (0..3).all(|k| at[k] >= 0 && at[k] < shape[k] as i64);
                        if inside && scan.mask.labels[at.map(|i| i as usize)] == 1 {
                            continue;
                        }
                        let square: f64 =
                            (0..3).map(|k| ((at[k] - voxel[k] as i64) as f64 * spacing_mm[k]).powi(2)).sum();
                        nearest = nearest.min(square.sqrt());
                    }
                }
            }
            let fast = boundary_distance_mm(&scan, &liver(), voxel);
            assert!((fast - nearest).abs() < 1e-9, "{voxel:?} {fast} {nearest}");
            compared += 1;
        }
        assert!(compared > 50);
    }
}
