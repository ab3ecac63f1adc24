//! The largest connected part of a binary shape.

use crate::volume::Array3;

/// A stretch of set voxels in one row.
struct Run {
    row: usize,
    from: usize,
    to: usize,
}

/// Clears every voxel that is not in the largest 26-connected part; gives the number of voxels kept.
///
/// Runs of voxels are joined, not single voxels, so that the cost follows the surface.
pub(crate) fn keep_largest(mask: &mut Array3<u8>) -> usize {
    let [nx, ny, nz] = mask.shape();
    let mut runs: Vec<Run> = Vec::new();
    let mut first_of_row = Vec::with_capacity(ny * nz + 1);
    for row in 0..ny * nz {
        first_of_row.push(runs.len());
        let line = &mask.as_slice()[row * nx..(row + 1) * nx];
        let mut x = 0;
        while let Some(gap) = next(&line[x..], |value| value != 0) {
            let from = x + gap;
            x = next(&line[from..], |value| value == 0).map_or(nx, |length| from + length);
            runs.push(Run { row, from, to: x });
        }
    }
    first_of_row.push(runs.len());

    let mut parent: Vec<usize> = (0..runs.len()).collect();
    for z in 0..nz {
        for y in 0..ny {
            let row = z * ny + y;
            let above = (z > 0).then(|| (z - 1) * ny + y);
            let neighbours = [
                (y > 0).then(|| row - 1),
                above.filter(|_| y > 0).map(|other| other - 1),
                above,
                above.filter(|_| y + 1 < ny).map(|other| other + 1),
            ];
            for other in neighbours.into_iter().flatten() {
                join_rows(&runs, &mut parent, first_of_row[row]..first_of_row[row + 1], {
                    first_of_row[other]..first_of_row[other + 1]
                });
            }
        }
    }

    let mut sizes = vec![0usize; runs.len()];
    for (index, run) in runs.iter().enumerate() {
        sizes[root(&mut parent, index)] += run.to - run.from;
    }
    // The first of equals, so that the answer does not depend on how parts were joined.
    let Some(largest) = (0..sizes.len()).rev().max_by_key(|&index| sizes[index]) else { return 0 };
    for (index, run) in runs.iter().enumerate() {
        if root(&mut parent, index) != largest {
            mask.as_mut_slice()[run.row * nx + run.from..run.row * nx + run.to].fill(0);
        }
    }
    sizes[largest]
}

/// Where the first voxel lies for which `holds` holds, looked for a stretch at a time.
fn next(line: &[u8], holds: impl Fn(u8) -> bool) -> Option<usize> {
    const STRETCH: usize = 16;
    let passed = line.chunks_exact(STRETCH).take_while(|stretch| !stretch.iter().fold(false, |any, &v| any | holds(v)));
    let start = STRETCH * passed.count();
    line[start..].iter().position(|&value| holds(value)).map(|at| start + at)
}

fn join_rows(runs: &[Run], parent: &mut [usize], here: std::ops::Range<usize>, there: std::ops::Range<usize>) {
    let (mut a, mut b) = (here.start, there.start);
    while a < here.end && b < there.end {
        // Runs touch, also by a corner, where they overlap after one of them grew by a voxel.
        if runs[a].from <= runs[b].to && runs[b].from <= runs[a].to {
            let (one, other) = (root(parent, a), root(parent, b));
            parent[one.max(other)] = one.min(other);
        }
        if runs[a].to <= runs[b].to {
            a += 1;
        } else {
            b += 1;
        }
    }
}

fn root(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        parent[index] = parent[parent[index]];
        index = parent[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    /// The same by flooding from every voxel.
    fn flooded(mask: &Array3<u8>) -> usize {
        let shape = mask.shape();
        let mut seen = mask.map(|_| false);
        let mut largest = 0;
        for start in 0..mask.as_slice().len() {
            if mask.as_slice()[start] == 0 || seen.as_slice()[start] {
                continue;
            }
            seen.as_mut_slice()[start] = true;
            let (mut stack, mut size) = (vec![start], 0);
            while let Some(index) = stack.pop() {
                size += 1;
                let voxel = [index % shape[0], index / shape[0] % shape[1], index / shape[0] / shape[1]];
                for step in 0..27usize {
                    let next = [0, 1, 2].map(|k| (voxel[k] + step / 3usize.pow(k as u32) % 3).wrapping_sub(1));
                    if (0..3).all(|k| next[k] < shape[k]) && mask[next] != 0 && !seen[next] {
                        seen[next] = true;
                        stack.push(mask.index_of(next));
                    }
                }
            }
            largest = largest.max(size);
        }
        largest
    }

    #[test]
    fn keeps_what_flooding_keeps() {
        for seed in 0..40 {
            let mut draws = Key::root(seed).draws("components");
            let share = draws.uniform(0.02, 0.2);
            let mut mask = Array3::from_fn([9, 8, 7], |_| u8::from(draws.chance(share)));
            let expected = flooded(&mask);
            assert_eq!(keep_largest(&mut mask), expected);
            assert_eq!(mask.as_slice().iter().map(|&v| usize::from(v)).sum::<usize>(), expected);
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        assert_eq!(keep_largest(&mut Array3::filled([3, 3, 3], 0)), 0);
    }
}
