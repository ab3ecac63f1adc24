//! From stored numbers to HU and to labels, a block at a time.

use super::header::{ByteOrder, Datatype, Header, Rescale};
use crate::error::{Fault, FaultKind};
use crate::volume::{Array3, Voxels};

/// A number type as it is stored. Narrowing says whether it was exact instead of branching, so that loops over it
/// become vector code.
trait Stored: Copy {
    fn of(bytes: &[u8]) -> Self;
    fn i16(self) -> (i16, bool);
    fn u16(self) -> (u16, bool);
    fn f32(self) -> f32;
    fn f64(self) -> f64;
}

macro_rules! stored {
    ($($number:ty, compared as $wide:ty;)*) => {$(
        impl Stored for $number {
            #[inline(always)]
            fn of(bytes: &[u8]) -> Self {
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
            fn u16(self) -> (u16, bool) {
                let narrow = self as u16;
                (narrow, self as $wide == narrow as $wide)
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

// The type compared in holds every value of both sides, so nothing wraps.
stored! {
    u8, compared as i32;
    i8, compared as i32;
    u16, compared as i32;
    i16, compared as i32;
    u32, compared as i64;
    i32, compared as i64;
    u64, compared as i128;
    i64, compared as i128;
    f32, compared as f32;
    f64, compared as f64;
}

/// Calls a generic function with the type that a [`Datatype`] stands for.
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

/// Whether a header alone shows that every voxel is a whole HU in the range of i16.
pub(super) fn is_surely_i16(header: &Header) -> bool {
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

/// HU that arrive in blocks: i16 as long as every one of them is a whole number in its range, then f32.
pub(super) struct HuVoxels {
    total: usize,
    growing: Growing,
}

enum Growing {
    I16(Vec<i16>),
    F32(Vec<f32>),
}

impl HuVoxels {
    /// Room for `first` of `total` voxels; the rest is had as they arrive.
    pub fn with_room(first: usize, total: usize) -> Result<Self, Fault> {
        let mut whole = Vec::new();
        make_room(&mut whole, first.min(total), total)?;
        Ok(Self { total, growing: Growing::I16(whole) })
    }

    /// Appends a block of stored voxels; `block` is changed where its byte order has to be.
    pub fn append(&mut self, block: &mut [u8], header: &Header) -> Result<(), Fault> {
        to_little_endian(block, header);
        let count = block.len() / header.datatype.bytes();
        if let Growing::I16(whole) = &mut self.growing {
            make_room(whole, count, self.total)?;
            let before = whole.len();
            if with_type!(header.datatype, append_i16(block, header.rescale, whole)) {
                return Ok(());
            }
            whole.truncate(before);
            let mut floats = Vec::new();
            make_room(&mut floats, whole.capacity(), self.total)?;
            floats.extend(whole.iter().map(|&hu| f32::from(hu)));
            self.growing = Growing::F32(floats);
        }
        let Growing::F32(floats) = &mut self.growing else { return Ok(()) };
        make_room(floats, count, self.total)?;
        let before = floats.len();
        if with_type!(header.datatype, append_f32(block, header.rescale, floats)) {
            return Ok(());
        }
        let first = floats[before..].iter().position(|hu| !hu.is_finite()).unwrap_or(0);
        Err(Fault::read(
            FaultKind::NonFinite,
            format!("expected finite HU, voxel {} holds {}", before + first, floats[before + first]),
        ))
    }

    /// The voxels, all of which must have arrived.
    pub fn into_voxels(self, shape: [usize; 3]) -> Voxels {
        match self.growing {
            Growing::I16(whole) => Voxels::I16(Array3::from_vec(shape, whole)),
            Growing::F32(floats) => Voxels::F32(Array3::from_vec(shape, floats)),
        }
    }
}

/// Labels that arrive in blocks.
pub(super) struct LabelVoxels {
    total: usize,
    ids: Vec<u16>,
}

impl LabelVoxels {
    /// Room for `first` of `total` voxels; the rest is had as they arrive.
    pub fn with_room(first: usize, total: usize) -> Result<Self, Fault> {
        let mut ids = Vec::new();
        make_room(&mut ids, first.min(total), total)?;
        Ok(Self { total, ids })
    }

    /// Appends a block of stored voxels; `block` is changed where its byte order has to be.
    pub fn append(&mut self, block: &mut [u8], header: &Header) -> Result<(), Fault> {
        to_little_endian(block, header);
        make_room(&mut self.ids, block.len() / header.datatype.bytes(), self.total)?;
        let before = self.ids.len();
        if with_type!(header.datatype, append_u16(block, header.rescale, &mut self.ids)) {
            return Ok(());
        }
        let (place, value) = with_type!(header.datatype, first_no_label(block, header.rescale));
        let kind = if value.is_finite() { FaultKind::Unsupported } else { FaultKind::NonFinite };
        Err(Fault::read(
            kind,
            format!("expected labels that are whole numbers in 0..65535, voxel {} holds {value}", before + place),
        ))
    }

    /// The labels, all of which must have arrived.
    pub fn into_array(self, shape: [usize; 3]) -> Array3<u16> {
        Array3::from_vec(shape, self.ids)
    }
}

fn append_i16<T: Stored>(block: &[u8], rescale: Option<Rescale>, out: &mut Vec<i16>) -> bool {
    let mut exact = true;
    let numbers = block.chunks_exact(size_of::<T>()).map(T::of);
    let mut keep = |(hu, fits): (i16, bool)| {
        exact &= fits;
        hu
    };
    match rescale {
        None => out.extend(numbers.map(|number| keep(number.i16()))),
        Some(rescale) => out.extend(numbers.map(|number| keep(rescale.apply(number).i16()))),
    }
    exact
}

fn append_u16<T: Stored>(block: &[u8], rescale: Option<Rescale>, out: &mut Vec<u16>) -> bool {
    let mut exact = true;
    let numbers = block.chunks_exact(size_of::<T>()).map(T::of);
    let mut keep = |(label, fits): (u16, bool)| {
        exact &= fits;
        label
    };
    match rescale {
        None => out.extend(numbers.map(|number| keep(number.u16()))),
        Some(rescale) => out.extend(numbers.map(|number| keep(rescale.apply(number).u16()))),
    }
    exact
}

fn append_f32<T: Stored>(block: &[u8], rescale: Option<Rescale>, out: &mut Vec<f32>) -> bool {
    let mut finite = true;
    let numbers = block.chunks_exact(size_of::<T>()).map(T::of);
    let mut keep = |hu: f32| {
        finite &= hu.is_finite();
        hu
    };
    match rescale {
        None => out.extend(numbers.map(|number| keep(number.f32()))),
        Some(rescale) => out.extend(numbers.map(|number| keep(rescale.apply(number).f32()))),
    }
    finite
}

/// Where in a block the first value lies that is no label, and what it is.
fn first_no_label<T: Stored>(block: &[u8], rescale: Option<Rescale>) -> (usize, f64) {
    let values = block.chunks_exact(size_of::<T>()).map(|bytes| match rescale {
        None => T::of(bytes).f64(),
        Some(rescale) => rescale.apply(T::of(bytes)),
    });
    values.enumerate().find(|(_, value)| !value.u16().1).unwrap_or((0, f64::NAN))
}

impl Rescale {
    #[inline(always)]
    fn apply(self, number: impl Stored) -> f64 {
        number.f64() * self.slope + self.intercept
    }
}

fn to_little_endian(block: &mut [u8], header: &Header) {
    if header.order == ByteOrder::Big {
        block.chunks_exact_mut(header.datatype.bytes()).for_each(<[u8]>::reverse);
    }
}

/// Room for `count` more items. Capacity doubles, so that it stays within twice what has arrived, and never exceeds
/// `total`.
fn make_room<T>(items: &mut Vec<T>, count: usize, total: usize) -> Result<(), Fault> {
    let needed = items.len() + count;
    if needed <= items.capacity() {
        return Ok(());
    }
    let capacity = needed.max(items.capacity().saturating_mul(2).min(total));
    items.try_reserve_exact(capacity - items.len()).map_err(|_| {
        Fault::read(FaultKind::TooLarge, format!("the system has no memory for {capacity} of {total} voxels"))
    })
}
