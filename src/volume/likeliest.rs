//! The likeliest of several classes in each voxel.

use super::Array3;

/// The index of the largest value of each voxel, over arrays of one shape that come one after the other; of equal ones
/// the first. `None` where no array comes.
///
/// Only the best value so far is kept, however many classes there are.
///
/// ```
/// use freetumor::volume::{Array3, likeliest};
/// let classes = [[0.5, 0.4, 0.2], [0.5, 0.6, 0.1], [0.0, 0.0, 0.7]];
/// let classes = classes.map(|values| Array3::from_vec([3, 1, 1], values.to_vec()));
/// assert_eq!(likeliest(classes).unwrap().as_slice(), [0, 1, 2]);
/// ```
///
/// # Panics
/// Where the arrays have several shapes, or there are more than 65,536 of them.
pub fn likeliest(classes: impl IntoIterator<Item = Array3<f32>>) -> Option<Array3<u16>> {
    let mut classes = classes.into_iter();
    let mut best = classes.next()?;
    let mut ids = Array3::filled(best.shape(), 0u16);
    for (index, class) in classes.enumerate() {
        assert_eq!(class.shape(), best.shape(), "classes on one grid");
        let id = u16::try_from(index + 1).expect("no more classes than labels have ids");
        for ((best, id_of), value) in best.as_mut_slice().iter_mut().zip(ids.as_mut_slice()).zip(class.as_slice()) {
            if value > best {
                (*best, *id_of) = (*value, id);
            }
        }
    }
    Some(ids)
}
