//! Conversion of stored numbers to HU and to labels, block by block.

use std::collections::BTreeMap;

use super::header::{ByteOrder, Datatype, Header, Rescale};
use crate::error::{Fault, FaultKind};
use crate::volume::{Array3, Voxels};

/// A stored number type. Narrowing conversions return whether they were exact instead of branching, so that loops over
/// numbers are vectorized.
trait StoredNumber: Copy {
    fn from_bytes(bytes: &[u8]) -> Self;
    fn i16(self) -> (i16, bool);
    /// Returns the number as a label.
    fn label(self) -> (u16, bool);
    fn f32(self) -> f32;
    fn f64(self) -> f64;
}

/// Maximum distance of a label from a whole number. A file that stores integers with a slope has such labels: 5.000000177 for 5.
const LABEL_TOLERANCE: f64 = 1e-3;

/// With a smaller slope, labels may be one step of the stored numbers from a whole number.
const FINE_SLOPE: f64 = 0.01;

macro_rules! impl_stored_number {
    ($($number:ty, compared as $wide:ty, label by $label:ident;)*) => {$(
        impl StoredNumber for $number {
            #[inline(always)]
            fn from_bytes(bytes: &[u8]) -> Self {
                let mut number = [0; size_of::<$number>()];
                number.copy_from_slice(bytes);
                Self::from_le_bytes(number)
            }
            #[inline(always)]
            fn i16(self) -> (i16, bool) {
                let narrow = self as i16;
                (narrow, self as $wide == narrow as $wide)
            }
            #[inline(always)]
            fn label(self) -> (u16, bool) {
                $label!(self, $wide)
            }
            #[inline(always)]
            fn f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

macro_rules! conversion {
    ($number:expr, $wide:ty) => {{
        let narrow = $number as u16;
        (narrow, $number as $wide == narrow as $wide)
    }};
}

macro_rules! rounding {
    ($number:expr, $wide:ty) => {{
        // A conversion truncates and is vectorized, unlike `round`.
        let narrow = ($number + 0.5) as u16;
        (narrow, ($number - narrow as $wide).abs() <= LABEL_TOLERANCE as $wide)
    }};
}

// The type of the comparison represents every value of both sides, so that no value wraps.
impl_stored_number! {
    u8, compared as i32, label by conversion;
    i8, compared as i32, label by conversion;
    u16, compared as i32, label by conversion;
    i16, compared as i32, label by conversion;
    u32, compared as i64, label by conversion;
    i32, compared as i64, label by conversion;
    u64, compared as i128, label by conversion;
    i64, compared as i128, label by conversion;
    f32, compared as f32, label by rounding;
    f64, compared as f64, label by rounding;
}

/// Calls a generic function with the Rust type of a [`Datatype`].
macro_rules! with_type {
    ($datatype:expr, $function:ident($($argument:expr),*)) => {
        match $datatype {
            Datatype::U8 => $function::<u8>($($argument),*),
            Datatype::I8 => $function::<i8>($($argument),*),
            Datatype::U16 => $function::<u16>($($argument),*),
            Datatype::I16 => $function::<i16>($($argument),*),
            Datatype::U32 => $function::<u32>($($argument),*),
            Datatype::I32 => $function::<i32>($($argument),*),
            Datatype::U64 => $function::<u64>($($argument),*),
            Datatype::I64 => $function::<i64>($($argument),*),
            Datatype::F32 => $function::<f32>($($argument),*),
            Datatype::F64 => $function::<f64>($($argument),*),
        }
    };
}

/// Returns whether the header alone shows that every voxel is an integer HU in the range of i16.
pub(super) fn is_always_i16(header: &Header) -> bool {
    let (low, high) = match header.datatype {
        Datatype::U8 => (0.0, 255.0),
        Datatype::I8 => (-128.0, 127.0),
        Datatype::U16 => (0.0, 65535.0),
        Datatype::I16 => (-32768.0, 32767.0),
        _ => return false,
    };
    let Rescale { slope, intercept } = header.rescale.unwrap_or(Rescale { slope: 1.0, intercept: 0.0 });
    let fits = |hu: f64| (-32768.0..=32767.0).contains(&hu);
    slope.fract() == 0.0 && intercept.fract() == 0.0 && fits(slope * low + intercept) && fits(slope * high + intercept)
}

/// HU that are appended in blocks: i16 as long as every value is an integer in the range of i16, then f32.
pub(super) struct HuVoxels {
    total: usize,
    buffer: VoxelBuffer,
}

enum VoxelBuffer {
    I16(Vec<i16>),
    F32(Vec<f32>),
}

impl HuVoxels {
    /// Reserves memory for `initial` of `total` voxels; the capacity grows as blocks are appended.
    pub fn with_capacity(initial: usize, total: usize) -> Result<Self, Fault> {
        let mut integers = Vec::new();
        reserve(&mut integers, initial.min(total), total)?;
        Ok(Self { total, buffer: VoxelBuffer::I16(integers) })
    }

    /// Appends a block of stored voxels; a big-endian `block` is converted in place.
    pub fn append(&mut self, block: &mut [u8], header: &Header) -> Result<(), Fault> {
        to_little_endian(block, header);
        let count = block.len() / header.datatype.bytes();
        if let VoxelBuffer::I16(integers) = &mut self.buffer {
            reserve(integers, count, self.total)?;
            let before = integers.len();
            if with_type!(header.datatype, append_i16(block, header.rescale, integers)) {
                return Ok(());
            }
            integers.truncate(before);
            let mut floats = Vec::new();
            reserve(&mut floats, integers.capacity(), self.total)?;
            floats.extend(integers.iter().map(|&hu| f32::from(hu)));
            self.buffer = VoxelBuffer::F32(floats);
        }
        let VoxelBuffer::F32(floats) = &mut self.buffer else { return Ok(()) };
        reserve(floats, count, self.total)?;
        let before = floats.len();
        if with_type!(header.datatype, append_f32(block, header.rescale, floats)) {
            return Ok(());
        }
        let first = floats[before..].iter().position(|hu| !hu.is_finite()).unwrap_or(0);
        Err(Fault::read(
            FaultKind::NonFinite,
            format!("expected finite HU, got {1} in voxel {0}", before + first, floats[before + first]),
        ))
    }

    /// Returns the voxels, all of which must have been appended.
    pub fn into_voxels(self, shape: [usize; 3]) -> Voxels {
        match self.buffer {
            VoxelBuffer::I16(integers) => Voxels::I16(Array3::from_vec(shape, integers)),
            VoxelBuffer::F32(floats) => Voxels::F32(Array3::from_vec(shape, floats)),
        }
    }
}

/// Labels that are appended in blocks.
pub(super) struct LabelVoxels {
    total: usize,
    ids: Vec<u16>,
    /// The first value of each label, for labels that are stored with a fractional slope.
    stored: BTreeMap<u16, f64>,
}

impl LabelVoxels {
    /// Reserves memory for `initial` of `total` voxels; the capacity grows as blocks are appended.
    pub fn with_capacity(initial: usize, total: usize) -> Result<Self, Fault> {
        let mut ids = Vec::new();
        reserve(&mut ids, initial.min(total), total)?;
        Ok(Self { total, ids, stored: BTreeMap::new() })
    }

    /// Appends a block of stored voxels; a big-endian `block` is converted in place.
    pub fn append(&mut self, block: &mut [u8], header: &Header) -> Result<(), Fault> {
        to_little_endian(block, header);
        reserve(&mut self.ids, block.len() / header.datatype.bytes(), self.total)?;
        let before = self.ids.len();
        let fractional = header.rescale.filter(|rescale| rescale.slope.fract() != 0.0);
        let is_valid = match fractional {
            Some(rescale) => {
                with_type!(header.datatype, append_rescaled(block, rescale, &mut self.stored, &mut self.ids))
            }
            None => with_type!(header.datatype, append_labels(block, header.rescale, &mut self.ids)),
        };
        if is_valid {
            return Ok(());
        }
        self.ids.truncate(before);
        let (index, value) = with_type!(header.datatype, first_invalid_label(block, header.rescale));
        let kind = if value.is_finite() { FaultKind::Unsupported } else { FaultKind::NonFinite };
        let advice = fractional.map(|Rescale { slope, .. }| {
            format!(": the file stores its labels with the slope {slope}, save it with integers and without a slope")
        });
        Err(Fault::read(
            kind,
            format!(
                "expected labels that are integers in 0..65535, got {value} in voxel {}{}",
                before + index,
                advice.unwrap_or_default()
            ),
        ))
    }

    /// Returns the labels, all of which must have been appended.
    pub fn into_array(self, shape: [usize; 3]) -> Array3<u16> {
        Array3::from_vec(shape, self.ids)
    }
}

fn append_i16<T: StoredNumber>(block: &[u8], rescale: Option<Rescale>, out: &mut Vec<i16>) -> bool {
    let mut exact = true;
    let numbers = block.chunks_exact(size_of::<T>()).map(T::from_bytes);
    let mut check = |(hu, fits): (i16, bool)| {
        exact &= fits;
        hu
    };
    match rescale {
        None => out.extend(numbers.map(|number| check(number.i16()))),
        Some(rescale) => out.extend(numbers.map(|number| check(rescale.apply(number).i16()))),
    }
    exact
}

fn append_labels<T: StoredNumber>(block: &[u8], rescale: Option<Rescale>, out: &mut Vec<u16>) -> bool {
    let mut exact = true;
    let numbers = block.chunks_exact(size_of::<T>()).map(T::from_bytes);
    let mut check = |(label, fits): (u16, bool)| {
        exact &= fits;
        label
    };
    match rescale {
        None => out.extend(numbers.map(|number| check(number.label()))),
        Some(rescale) => out.extend(numbers.map(|number| check(rescale.apply(number).label()))),
    }
    exact
}

/// Appends labels that are stored with a fractional slope. Each must be within a thousandth, or one step of a fine slope, of a whole
/// number, and no two stored numbers may be the same label beyond that thousandth.
fn append_rescaled<T: StoredNumber>(
    block: &[u8],
    rescale: Rescale,
    stored: &mut BTreeMap<u16, f64>,
    out: &mut Vec<u16>,
) -> bool {
    let tolerance = if rescale.slope.abs() <= FINE_SLOPE { 1.001 * rescale.slope.abs() } else { LABEL_TOLERANCE };
    for number in block.chunks_exact(size_of::<T>()).map(T::from_bytes) {
        let value = rescale.apply(number);
        let label = value.round();
        if !(0.0..=65_535.0).contains(&label) || (value - label).abs() > tolerance.max(LABEL_TOLERANCE) {
            return false;
        }
        let first = *stored.entry(label as u16).or_insert(value);
        if (first - value).abs() > LABEL_TOLERANCE {
            return false;
        }
        out.push(label as u16);
    }
    true
}

fn append_f32<T: StoredNumber>(block: &[u8], rescale: Option<Rescale>, out: &mut Vec<f32>) -> bool {
    let mut finite = true;
    let numbers = block.chunks_exact(size_of::<T>()).map(T::from_bytes);
    let mut check = |hu: f32| {
        finite &= hu.is_finite();
        hu
    };
    match rescale {
        None => out.extend(numbers.map(|number| check(number.f32()))),
        Some(rescale) => out.extend(numbers.map(|number| check(rescale.apply(number).f32()))),
    }
    finite
}

/// Returns index and value of the first number in a block that is not a label.
fn first_invalid_label<T: StoredNumber>(block: &[u8], rescale: Option<Rescale>) -> (usize, f64) {
    let values = block.chunks_exact(size_of::<T>()).map(|bytes| match rescale {
        None => T::from_bytes(bytes).f64(),
        Some(rescale) => rescale.apply(T::from_bytes(bytes)),
    });
    values.enumerate().find(|(_, value)| !value.label().1).unwrap_or((0, f64::NAN))
}

impl Rescale {
    #[inline(always)]
    fn apply(self, number: impl StoredNumber) -> f64 {
        number.f64() * self.slope + self.intercept
    }
}

fn to_little_endian(block: &mut [u8], header: &Header) {
    if header.order == ByteOrder::Big {
        block.chunks_exact_mut(header.datatype.bytes()).for_each(<[u8]>::reverse);
    }
}

/// Reserves memory for `count` more items. The capacity doubles, so that it is at most twice the number of items, and never
/// exceeds `total`.
fn reserve<T>(items: &mut Vec<T>, count: usize, total: usize) -> Result<(), Fault> {
    let needed = items.len() + count;
    if needed <= items.capacity() {
        return Ok(());
    }
    let capacity = needed.max(items.capacity().saturating_mul(2).min(total));
    items.try_reserve_exact(capacity - items.len()).map_err(|_| {
        Fault::read(FaultKind::TooLarge, format!("cannot allocate memory for {capacity} of {total} voxels"))
    })
}
