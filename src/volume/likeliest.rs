//! The likeliest class of each voxel.

use super::Array3;

/// Returns the index of the largest value of each voxel (argmax) over arrays of one shape, the first of equal values. `None` if
/// there are no arrays.
///
/// Memory does not grow with the number of classes: only the largest value so far is kept.
///
/// ```
/// use freetumor::volume::{Array3, likeliest};
/// let classes = [[0.5, 0.4, 0.2], [0.5, 0.6, 0.1], [0.0, 0.0, 0.7]];
/// let classes = classes.map(|values| Array3::from_vec([3, 1, 1], values.to_vec()));
/// assert_eq!(likeliest(classes).unwrap().as_slice(), [0, 1, 2]);
/// ```
///
/// # Panics
/// If the arrays differ in shape, or there are more than 65,536 arrays.
pub fn likeliest(classes: impl IntoIterator<Item = Array3<f32>>) -> Option<Array3<u16>> {
    let mut classes = classes.into_iter();
    let mut best = classes.next()?;
    let mut ids = Array3::filled(best.shape(), 0u16);
    for (index, class) in classes.enumerate() {
        assert_eq!(class.shape(), best.shape(), "expected classes on one grid");
        let id = u16::try_from(index + 1).expect("at most 65,536 classes");
        for ((best, best_id), value) in best.as_mut_slice().iter_mut().zip(ids.as_mut_slice()).zip(class.as_slice()) {
            if value > best {
                (*best, *best_id) = (*value, id);
            }
        }
    }
    Some(ids)
}
