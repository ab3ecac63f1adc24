//! Connected components of a set of voxels, computed from its runs along x.
//!
//! A chest of 512×512×600 voxels has a hundred million voxels of air but only a few million runs. Union-find over runs needs
//! tens of megabytes.

use super::Array3;

/// The neighbours that connect voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// The four neighbours in the same slice (same z): every slice has separate components.
    InPlane,
    /// The six neighbours that share a face.
    Faces,
    /// The twenty-six neighbours that share a face, an edge or a corner.
    Corners,
}

/// A run of voxels along x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoxelRun {
    /// The component of the run, 0 for the first.
    pub component: usize,
    /// The row of the run.
    pub y: usize,
    /// The slice of the run.
    pub z: usize,
    /// The first voxel along x.
    pub start: usize,
    /// The index after the last voxel along x.
    pub end: usize,
}

/// The components of a set of voxels.
pub struct Components {
    shape: [usize; 3],
    /// The index of the first run of each row, and the number of runs.
    rows: Vec<u32>,
    runs: Vec<[u16; 2]>,
    component: Vec<u32>,
    count: usize,
}

impl Components {
    /// Finds the components of a set in a box of `shape`, numbered in memory order of their first voxels. `row_runs` returns
    /// the runs of the row at `(y, z)`, each as its first voxel and the index after its last, in ascending order.
    ///
    /// ```
    /// use freetumor::volume::{Components, Connectivity};
    /// // Two slices of one row: voxels 0 and 1 below, voxels 2 and 3 above.
    /// let runs = |_, z: usize| [[2 * z, 2 * z + 2]].into_iter();
    /// assert_eq!(Components::new([4, 1, 2], Connectivity::Faces, runs).count(), 2);
    /// assert_eq!(Components::new([4, 1, 2], Connectivity::Corners, runs).count(), 1);
    /// ```
    ///
    /// # Panics
    /// If the box has more than 65,535 voxels along x.
    pub fn new<R>(shape: [usize; 3], connectivity: Connectivity, row_runs: impl Fn(usize, usize) -> R) -> Self
    where
        R: Iterator<Item = [usize; 2]>,
    {
        assert!(shape[0] <= usize::from(u16::MAX), "expected at most 65535 voxels along x");
        let mut rows = Vec::with_capacity(shape[1] * shape[2] + 1);
        rows.push(0u32);
        let (mut runs, mut parent) = (Vec::new(), Vec::new());
        for z in 0..shape[2] {
            for y in 0..shape[1] {
                runs.extend(row_runs(y, z).map(|run| run.map(|x| x as u16)));
                parent.extend(parent.len() as u32..runs.len() as u32);
                rows.push(runs.len() as u32);
                let row = rows.len() - 2;
                let reach = u16::from(connectivity == Connectivity::Corners);
                let mut join = |other| join(&rows, &runs, &mut parent, [other, row], reach);
                if y > 0 {
                    join(row - 1);
                }
                if z > 0 && connectivity != Connectivity::InPlane {
                    let below = row - shape[1];
                    join(below);
                    if connectivity == Connectivity::Corners {
                        if y > 0 {
                            join(below - 1);
                        }
                        if y + 1 < shape[1] {
                            join(below + 1);
                        }
                    }
                }
            }
        }
        let mut count = 0;
        // A root precedes all of its runs, so one pass numbers them.
        for run in 0..parent.len() {
            parent[run] = if parent[run] as usize == run {
                count += 1;
                count - 1
            } else {
                parent[parent[run] as usize]
            };
        }
        Self { shape, rows, runs, component: parent, count: count as usize }
    }

    /// Returns the number of components.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns all runs in memory order.
    pub fn runs(&self) -> impl Iterator<Item = VoxelRun> {
        (0..self.rows.len() - 1).flat_map(move |row| {
            let [y, z] = [row % self.shape[1], row / self.shape[1]];
            (self.rows[row] as usize..self.rows[row + 1] as usize).map(move |run| {
                let [start, end] = self.runs[run].map(usize::from);
                VoxelRun { component: self.component[run] as usize, y, z, start, end }
            })
        })
    }

    /// Returns the number of voxels of each component.
    pub fn voxels(&self) -> Vec<usize> {
        let mut voxels = vec![0; self.count];
        self.runs().for_each(|run| voxels[run.component] += run.end - run.start);
        voxels
    }
}

/// Finds the root of a run and halves its path. The root is always the earliest run.
fn root(parent: &mut [u32], mut run: u32) -> u32 {
    while parent[run as usize] != run {
        parent[run as usize] = parent[parent[run as usize] as usize];
        run = parent[run as usize];
    }
    run
}

/// Joins the runs of two rows that overlap along x, or are at most `reach` voxels apart.
fn join(rows: &[u32], runs: &[[u16; 2]], parent: &mut [u32], [row, other]: [usize; 2], reach: u16) {
    let (mut a, mut b) = (rows[row], rows[other]);
    while a < rows[row + 1] && b < rows[other + 1] {
        let ([from, to], [start, end]) = (runs[a as usize], runs[b as usize]);
        if u32::from(from) < u32::from(end) + u32::from(reach) && u32::from(start) < u32::from(to) + u32::from(reach) {
            let (first, second) = (root(parent, a), root(parent, b));
            parent[first.max(second) as usize] = first.min(second);
        }
        if to <= end {
            a += 1;
        } else {
            b += 1;
        }
    }
}

/// Clears every voxel outside the largest component by [`Connectivity::Corners`], the first of equally large components.
/// Returns the number of voxels kept.
pub(crate) fn keep_largest(mask: &mut Array3<u8>) -> usize {
    let components = Components::new(mask.shape(), Connectivity::Corners, |y, z| row_runs(mask.row(y, z)));
    let voxels = components.voxels();
    let Some(largest) = (0..voxels.len()).rev().max_by_key(|&component| voxels[component]) else { return 0 };
    for run in components.runs().filter(|run| run.component != largest) {
        mask.row_mut(run.y, run.z)[run.start..run.end].fill(0);
    }
    voxels[largest]
}

/// Returns the runs of voxels of a row that are not 0.
fn row_runs(row: &[u8]) -> impl Iterator<Item = [usize; 2]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = at + first(&row[at..], |value| value != 0)?;
        at = first(&row[from..], |value| value == 0).map_or(row.len(), |length| from + length);
        Some([from, at])
    })
}

/// Returns the index of the first value for which `predicate` is true, searching block by block.
fn first(values: &[u8], predicate: impl Fn(u8) -> bool) -> Option<usize> {
    const BLOCK: usize = 16;
    let passed = values.chunks_exact(BLOCK).take_while(|block| !block.iter().fold(false, |any, &v| any | predicate(v)));
    let start = BLOCK * passed.count();
    values[start..].iter().position(|&value| predicate(value)).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use proptest::prelude::*;

    fn speckles(seed: u64, shape: [usize; 3], share: f64) -> Array3<u8> {
        let mut random = Key::root(seed).stream("speckles");
        Array3::from_fn(shape, |_| u8::from(random.chance(share)))
    }

    /// Returns the component of each voxel, by a flood fill from every voxel.
    fn flood_fill(mask: &Array3<u8>, connectivity: Connectivity) -> Vec<Option<usize>> {
        let [nx, ny, _] = mask.shape();
        let mut component = vec![None; mask.as_slice().len()];
        let mut count = 0;
        for start in 0..component.len() {
            let voxel = |i: usize| [i % nx, i / nx % ny, i / (nx * ny)];
            if component[start].is_some() || mask.as_slice()[start] == 0 {
                continue;
            }
            let mut open = vec![start];
            component[start] = Some(count);
            while let Some(at) = open.pop() {
                let [x, y, z] = voxel(at);
                for (next, assigned) in component.iter_mut().enumerate() {
                    let [u, v, w] = voxel(next);
                    let steps = [x.abs_diff(u), y.abs_diff(v), z.abs_diff(w)];
                    let is_near = match connectivity {
                        Connectivity::InPlane => steps[2] == 0 && steps[0] + steps[1] == 1,
                        Connectivity::Faces => steps.iter().sum::<usize>() == 1,
                        Connectivity::Corners => steps.iter().all(|step| *step <= 1),
                    };
                    if is_near && assigned.is_none() && mask.as_slice()[next] != 0 {
                        *assigned = Some(count);
                        open.push(next);
                    }
                }
            }
            count += 1;
        }
        component
    }

    proptest! {
        #[test]
        fn components_equal_flood_fill(
            seed in any::<u64>(), shape in [1usize..70, 1usize..6, 1usize..5], share in 0.05f64..0.8, kind in 0usize..3,
        ) {
            let mask = speckles(seed, shape, share);
            let connectivity = [Connectivity::InPlane, Connectivity::Faces, Connectivity::Corners][kind];
            let mut found = vec![None; mask.as_slice().len()];
            let components = Components::new(shape, connectivity, |y, z| row_runs(mask.row(y, z)));
            for run in components.runs() {
                for x in run.start..run.end {
                    found[x + shape[0] * (run.y + shape[1] * run.z)] = Some(run.component);
                }
            }
            prop_assert_eq!(found.iter().flatten().max().map_or(0, |m| m + 1), components.count());
            for (component, voxels) in components.voxels().into_iter().enumerate() {
                prop_assert_eq!(found.iter().filter(|id| **id == Some(component)).count(), voxels);
            }
            prop_assert_eq!(found, flood_fill(&mask, connectivity));
        }
    }

    #[test]
    fn keep_largest_keeps_first_of_equally_large_components() {
        for seed in 0..40 {
            let mut mask = speckles(seed, [9, 8, 7], 0.02 + 0.0045 * seed as f64);
            let component = flood_fill(&mask, Connectivity::Corners);
            let size = |id: usize| component.iter().filter(|assigned| **assigned == Some(id)).count();
            let count = component.iter().flatten().max().map_or(0, |last| last + 1);
            let largest = (0..count).map(size).max().unwrap_or(0);
            let kept = (0..count).find(|&component| size(component) == largest);
            assert_eq!(keep_largest(&mut mask), largest);
            let expected: Vec<u8> = component.iter().map(|id| u8::from(id.is_some() && *id == kept)).collect();
            assert_eq!(mask.as_slice(), expected);
        }
    }

    #[test]
    fn keep_largest_of_empty_mask_keeps_nothing() {
        assert_eq!(keep_largest(&mut Array3::filled([3, 3, 3], 0)), 0);
    }
}
