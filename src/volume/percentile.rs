//! Percentiles of HU.

use super::Voxels;

impl Voxels {
    /// Returns the HU at each of these shares of all voxels in ascending order: the value of rank `share · (voxels − 1)`,
    /// rounded. Empty if there are no voxels.
    ///
    /// ```
    /// use freetumor::volume::{Array3, Voxels};
    /// let hu = Voxels::I16(Array3::from_vec([5, 1, 1], vec![40, -1000, 60, 50, 1200]));
    /// assert_eq!(hu.percentiles(&[0.0, 0.5, 1.0]), [-1000.0, 50.0, 1200.0]);
    /// ```
    ///
    /// # Panics
    /// If a share is outside 0..=1.
    pub fn percentiles(&self, shares: &[f64]) -> Vec<f32> {
        let voxels: usize = self.shape().iter().product();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "expected shares in 0..=1, got {shares:?}");
        if voxels == 0 {
            return Vec::new();
        }
        let ranks = shares.iter().map(|share| (share * (voxels - 1) as f64).round() as usize);
        match self {
            Self::I16(array) => {
                let mut counts = vec![0usize; 1 << 16];
                for &hu in array.as_slice() {
                    counts[(i32::from(hu) - i32::from(i16::MIN)) as usize] += 1;
                }
                let mut total = 0;
                counts.iter_mut().for_each(|count| {
                    total += *count;
                    *count = total;
                });
                let value_at = |rank| counts.partition_point(|total| *total <= rank) as f32 + f32::from(i16::MIN);
                ranks.map(value_at).collect()
            }
            Self::F32(array) => {
                let mut sorted = array.as_slice().to_vec();
                ranks.map(|rank| *sorted.select_nth_unstable_by(rank, f32::total_cmp).1).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::volume::Array3;

    proptest! {
        #[test]
        fn percentiles_equal_sorted_values_at_ranks(
            values in prop::collection::vec(any::<i16>(), 1..200),
            shares in prop::collection::vec(0.0f64..=1.0, 1..5),
        ) {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let last = (values.len() - 1) as f64;
            let expected: Vec<f32> =
                shares.iter().map(|share| f32::from(sorted[(share * last).round() as usize])).collect();
            let array = Array3::from_vec([values.len(), 1, 1], values);
            let floats = Voxels::F32(array.map(|hu| f32::from(*hu)));
            prop_assert_eq!(&Voxels::I16(array).percentiles(&shares), &expected);
            prop_assert_eq!(&floats.percentiles(&shares), &expected);
        }
    }

    #[test]
    fn percentiles_of_empty_volume_are_empty() {
        assert!(Voxels::I16(Array3::filled([0, 3, 3], 0)).percentiles(&[0.5]).is_empty());
    }
}
