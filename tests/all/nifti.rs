//! NIfTI files: real scans, and encoded headers of every kind.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::error::FaultKind;
use freetumor::ingest::nifti::{self, ByteOrder, Datatype, Header, Limits};
use freetumor::volume::{Affine, Grid, Labels, Volume, Voxels};
use proptest::prelude::*;

use crate::common;

fn volume(file: &[u8]) -> Volume {
    nifti::read_volume_from(file, file.len() as u64, &Limits::default()).unwrap()
}

fn labels(file: &[u8]) -> Labels {
    nifti::read_labels_from(file, file.len() as u64, &Limits::default()).unwrap()
}

/// A NIfTI-1 header with all fields that a test may set, encoded without the encoder of the crate.
#[derive(Clone, Debug)]
struct TestHeader {
    big: bool,
    dim: Vec<i16>,
    datatype: i16,
    pixdim: [f32; 4],
    offset: f32,
    scale: [f32; 2],
    units: u8,
    codes: [i16; 2],
    quaternion: [f32; 6],
    sform: [[f32; 4]; 3],
}

impl Default for TestHeader {
    fn default() -> Self {
        Self {
            big: false,
            dim: vec![3, 3, 2, 1],
            datatype: 4,
            pixdim: [1.0, 2.0, 3.0, 4.0],
            offset: 352.0,
            scale: [0.0, 0.0],
            units: 2,
            codes: [0, 1],
            quaternion: [0.0; 6],
            sform: [[2.0, 0.0, 0.0, -7.0], [0.0, 3.0, 0.0, 8.0], [0.0, 0.0, 4.0, -9.0]],
        }
    }
}

impl TestHeader {
    fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0; 352];
        let mut put = |at: usize, mut little: Vec<u8>| {
            if self.big {
                little.reverse();
            }
            file[at..at + little.len()].copy_from_slice(&little);
        };
        put(0, 348i32.to_le_bytes().into());
        for (n, size) in self.dim.iter().enumerate() {
            put(40 + 2 * n, size.to_le_bytes().into());
        }
        put(70, self.datatype.to_le_bytes().into());
        let floats = |at: usize, values: &[f32]| {
            values.iter().enumerate().map(|(n, value)| (at + 4 * n, *value)).collect::<Vec<_>>()
        };
        let rows: Vec<f32> = self.sform.iter().flatten().copied().collect();
        for (at, value) in [
            floats(76, &self.pixdim),
            floats(108, &[self.offset, self.scale[0], self.scale[1]]),
            floats(256, &self.quaternion),
            floats(280, &rows),
        ]
        .concat()
        {
            put(at, value.to_le_bytes().into());
        }
        put(123, vec![self.units]);
        put(252, self.codes[0].to_le_bytes().into());
        put(254, self.codes[1].to_le_bytes().into());
        file[344..348].copy_from_slice(b"n+1\0");
        file
    }

    /// Returns the file with these voxels after its header.
    fn file<const N: usize>(&self, voxels: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        let mut file = self.bytes();
        file.resize(self.offset as usize, 0);
        for mut voxel in voxels {
            if self.big {
                voxel.reverse();
            }
            file.extend(voxel);
        }
        file
    }
}

/// Returns a file of six voxels of a type, in the byte order of the header.
fn file_of_six(datatype: Datatype, header: &TestHeader, values: [i8; 6]) -> Vec<u8> {
    let header = TestHeader { datatype: datatype.code(), ..header.clone() };
    match datatype {
        Datatype::U8 => header.file(values.map(|v| (v as u8).to_le_bytes())),
        Datatype::I8 => header.file(values.map(i8::to_le_bytes)),
        Datatype::U16 => header.file(values.map(|v| (v as u16).to_le_bytes())),
        Datatype::I16 => header.file(values.map(|v| i16::from(v).to_le_bytes())),
        Datatype::U32 => header.file(values.map(|v| (v as u32).to_le_bytes())),
        Datatype::I32 => header.file(values.map(|v| i32::from(v).to_le_bytes())),
        Datatype::U64 => header.file(values.map(|v| (v as u64).to_le_bytes())),
        Datatype::I64 => header.file(values.map(|v| i64::from(v).to_le_bytes())),
        Datatype::F32 => header.file(values.map(|v| f32::from(v).to_le_bytes())),
        Datatype::F64 => header.file(values.map(|v| f64::from(v).to_le_bytes())),
    }
}

#[test]
fn all_types_and_byte_orders_decode_to_same_integers() {
    for big in [false, true] {
        let header = TestHeader { big, ..TestHeader::default() };
        for datatype in Datatype::ALL {
            let file = file_of_six(datatype, &header, [0, 1, 2, 3, 126, 127]);
            let read = volume(&file);
            assert_eq!(read.grid.affine.0, TestHeader::default().sform.map(|row| row.map(f64::from)));
            let Voxels::I16(array) = &read.voxels else { panic!("{datatype:?}: integer HU are read as i16") };
            assert_eq!(array.as_slice(), [0, 1, 2, 3, 126, 127], "{datatype:?}, big endian: {big}");
            assert_eq!(labels(&file).ids.as_slice(), [0, 1, 2, 3, 126, 127], "{datatype:?}, big endian: {big}");
        }
        for datatype in [Datatype::I8, Datatype::I16, Datatype::I32, Datatype::I64, Datatype::F32, Datatype::F64] {
            let read = volume(&file_of_six(datatype, &header, [-128, -127, -1, 0, 1, 127]));
            assert_eq!((0..6).map(|n| read.voxels.hu(n)).collect::<Vec<_>>(), [-128.0, -127.0, -1.0, 0.0, 1.0, 127.0]);
        }
    }
}

#[test]
fn values_beyond_i16_are_floats_without_overflow() {
    let header = |datatype: Datatype| TestHeader { datatype: datatype.code(), ..TestHeader::default() };
    let hu = |file: Vec<u8>| match volume(&file).voxels {
        Voxels::F32(array) => array.into_vec(),
        Voxels::I16(array) => panic!("{:?} became integers", array.as_slice()),
    };
    assert_eq!(hu(header(Datatype::U16).file([0u16, 1, 2, 3, 4, 40_000].map(u16::to_le_bytes)))[5], 40_000.0);
    assert_eq!(hu(header(Datatype::I32).file([65_536i32, 1, 2, 3, 4, 5].map(i32::to_le_bytes)))[0], 65_536.0);
    assert_eq!(hu(header(Datatype::U64).file([1 << 40, 1, 2, 3, 4, 5u64].map(u64::to_le_bytes)))[0], 2f32.powi(40));
    assert_eq!(hu(header(Datatype::I64).file([i64::MIN, 1, 2, 3, 4, 5].map(i64::to_le_bytes)))[0], -(2f32.powi(63)));
    // Whole numbers before the first fraction keep their values.
    assert_eq!(
        hu(header(Datatype::F64).file([-1000.0, 1.0, 2.0, 3.0, 4.0, 0.1f64].map(f64::to_le_bytes))),
        [-1000.0, 1.0, 2.0, 3.0, 4.0, 0.1]
    );
    assert_eq!(
        hu(header(Datatype::F32).file([-0.5f32, 32768.0, 0.0, 0.0, 0.0, 0.0].map(f32::to_le_bytes)))[1],
        32768.0
    );
}

#[test]
fn slope_and_intercept_are_applied_in_double_precision() {
    let read = |scale: [f32; 2]| {
        volume(
            &TestHeader { scale, ..TestHeader::default() }.file([0i16, 1, 2, 1000, 3000, 4095].map(i16::to_le_bytes)),
        )
        .voxels
    };
    let all = |voxels: &Voxels| (0..6).map(|n| voxels.hu(n)).collect::<Vec<_>>();
    let shifted = read([1.0, -1024.0]);
    assert!(matches!(shifted, Voxels::I16(_)));
    assert_eq!(all(&shifted), [-1024.0, -1023.0, -1022.0, -24.0, 1976.0, 3071.0]);
    for identity in [[0.0, 5.0], [f32::NAN, 5.0], [f32::INFINITY, 0.0], [1.0, 0.0]] {
        assert_eq!(all(&read(identity)), [0.0, 1.0, 2.0, 1000.0, 3000.0, 4095.0], "{identity:?}");
    }
    let expected = [0, 1, 2, 1000, 3000, 4095].map(|stored| (f64::from(stored) * f64::from(0.1f32) - 3.0) as f32);
    assert_eq!(all(&read([0.1, -3.0])), expected);
}

#[test]
fn sform_precedes_qform_and_qform_precedes_spacing() {
    let half = std::f32::consts::FRAC_1_SQRT_2;
    let six = [0i16; 6].map(i16::to_le_bytes);
    let rows = |header: TestHeader| volume(&header.file(six)).grid.affine.0;
    let base = TestHeader {
        // A rotation by 90° about z: x runs along A, y along L.
        quaternion: [0.0, 0.0, half, 10.0, 20.0, 30.0],
        ..TestHeader::default()
    };
    assert_eq!(rows(TestHeader { codes: [1, 1], ..base.clone() })[0], [2.0, 0.0, 0.0, -7.0]);
    let check_qfac = |qfac: f32, z: f64| {
        let header = TestHeader { codes: [1, 0], pixdim: [qfac, 2.0, 3.0, 4.0], ..base.clone() };
        let expected = Affine([[0.0, -3.0, 0.0, 10.0], [2.0, 0.0, 0.0, 20.0], [0.0, 0.0, z, 30.0]]);
        assert!(Affine(rows(header)).agrees_with(&expected, [3, 2, 2], 1e-5), "qfac {qfac}");
    };
    check_qfac(1.0, 4.0);
    check_qfac(-1.0, -4.0);
    check_qfac(0.0, 4.0);
    // Without a position, left and right are unknown.
    let file = TestHeader { codes: [0, 0], ..base.clone() }.file(six);
    for fault in [
        nifti::read_volume_from(&file[..], file.len() as u64, &Limits::default()).unwrap_err(),
        nifti::read_labels_from(&file[..], file.len() as u64, &Limits::default()).unwrap_err(),
    ] {
        assert_eq!(fault.kind, FaultKind::Geometry);
        assert!(fault.message.contains("got sform_code 0 and qform_code 0"), "{fault}");
    }
    // Micrometres.
    let sform = base.sform.map(|row| row.map(|value| value * 1000.0));
    let small = rows(TestHeader { codes: [0, 1], units: 3, sform, ..base });
    assert!((small[0][0] - 2.0).abs() < 1e-12 && (small[2][3] + 9.0).abs() < 1e-12, "{small:?}");
}

#[test]
fn trailing_dimensions_of_one_and_gaps_before_voxels_are_ignored() {
    let six = [-5i16, 1, 2, 3, 4, 5].map(i16::to_le_bytes);
    let read = volume(&TestHeader { dim: vec![5, 3, 2, 1, 1, 1], ..TestHeader::default() }.file(six));
    assert_eq!(read.grid.shape, [3, 2, 1]);
    let mut file = TestHeader { offset: 13168.0, ..TestHeader::default() }.file(six);
    assert_eq!(volume(&file), read, "the flag of extensions is 0");
    // Two extensions, followed by padding.
    file[348] = 1;
    file[352..356].copy_from_slice(&32i32.to_le_bytes());
    file[384..388].copy_from_slice(&12000i32.to_le_bytes());
    assert_eq!(volume(&file), read);
    file.extend([0; 512]);
    assert_eq!(volume(&file), read, "a tape block of zeros follows the voxels");
    // Sizes below one beyond the third dimension are one, as in the reference implementation.
    let zero = TestHeader { dim: vec![4, 3, 2, 1, 0], ..TestHeader::default() };
    assert_eq!(volume(&zero.file(six)).grid.shape, [3, 2, 1]);
}

#[test]
fn bytes_after_voxels_are_ignored_but_checksum_is_verified() {
    let file = file_of_six(Datatype::I16, &TestHeader::default(), [0, 1, 2, 3, 4, 5]);
    let expected = volume(&file);
    let compress = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let longer = [&file[..], b"garbage after the voxels"].concat();
    let packed = compress(&file);
    for (name, bytes) in [
        ("plain", longer.clone()),
        ("within the member", compress(&longer)),
        ("after the member", [&packed[..], b"garbage"].concat()),
        ("after the member, with the first byte of gzip", [&packed[..], &[0x1f, 0, 0]].concat()),
        ("another member", [&packed[..], &compress(b"more")].concat()),
        ("zeros", [&packed[..], &[0; 1 << 16]].concat()),
    ] {
        assert_eq!(volume(&bytes), expected, "{name}");
    }
    let mut damaged = compress(&longer);
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 1;
    let read = nifti::read_volume_from(&damaged[..], damaged.len() as u64, &Limits::default());
    assert_eq!(read.unwrap_err().kind, FaultKind::Corrupt);
}

#[test]
fn labels_within_a_thousandth_of_whole_numbers_are_rounded() {
    // Integers as nibabel stores them with a slope: 5 becomes 5.000000177 or 4.9999999988.
    for (slope, stored, label) in [(0.019_607_844f32, 255u8, 5u16), (0.2, 5, 1), (0.999_999_94, 200, 200)] {
        let header = TestHeader { scale: [slope, 0.0], datatype: Datatype::U8.code(), ..TestHeader::default() };
        let file = header.file([0, stored, 0, 0, stored, 0].map(|value: u8| [value]));
        assert_eq!(labels(&file).ids.as_slice(), [0, label, 0, 0, label, 0], "slope {slope}");
    }
    // One step of a fine slope, because the last number is not representable; two stored numbers are not one label.
    for (stored, is_valid) in [([0u8, 255, 255], true), ([0, 255, 254], false), ([0, 128, 255], false)] {
        let header = TestHeader { scale: [1.0 / 256.0, 0.0], datatype: Datatype::U8.code(), ..TestHeader::default() };
        let file =
            header.file([stored, stored].concat().try_into().map(|all: [u8; 6]| all.map(|value| [value])).unwrap());
        match nifti::read_labels_from(&file[..], file.len() as u64, &Limits::default()) {
            Ok(labels) => assert!(is_valid && labels.ids.as_slice() == [0, 1, 1, 0, 1, 1], "{stored:?}"),
            Err(fault) => assert!(!is_valid && fault.message.contains("with the slope 0.00390625"), "{fault}"),
        }
    }
    let floats = |value: f32| {
        let header = TestHeader { datatype: Datatype::F32.code(), ..TestHeader::default() };
        header.file([0.0f32, value, 1.0, 2.0, 3.0, 4.0].map(f32::to_le_bytes))
    };
    for (value, label) in [(4.9995, 5), (-0.0005, 0), (1000.0006, 1000), (65_535.0, 65_535)] {
        assert_eq!(labels(&floats(value)).ids.as_slice()[1], label, "{value}");
    }
    for value in [2.5, 4.98, -0.01, 65_535.5, f32::NAN, f32::INFINITY] {
        let file = floats(value);
        assert!(nifti::read_labels_from(&file[..], file.len() as u64, &Limits::default()).is_err(), "{value}");
    }
}

#[test]
fn gzip_members_are_one_stream() {
    let file = file_of_six(Datatype::I16, &TestHeader::default(), [0, 1, 2, 3, 4, 5]);
    let compress = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let expected = volume(&file);
    // Split inside the header and inside a voxel; an empty member is allowed at any position.
    for cut in [1, 100, 348, 352, 355, file.len()] {
        let packed = [compress(&file[..cut]), compress(&[]), compress(&file[cut..])].concat();
        assert_eq!(volume(&packed), expected, "cut at {cut}");
        assert_eq!(volume(&[packed, vec![0; 300]].concat()), expected, "padded");
    }
}

#[test]
fn nifti_2_file_equals_nifti_1_file() {
    for big in [false, true] {
        let mut file = vec![0; 544];
        let mut put = |at: usize, mut little: Vec<u8>| {
            if big {
                little.reverse();
            }
            file[at..at + little.len()].copy_from_slice(&little);
        };
        put(0, 540i32.to_le_bytes().into());
        put(12, 4i16.to_le_bytes().into());
        for (n, size) in [3i64, 3, 2, 1, 1, 1, 1, 1].into_iter().enumerate() {
            put(16 + 8 * n, size.to_le_bytes().into());
        }
        put(168, 544i64.to_le_bytes().into());
        put(348, 1i32.to_le_bytes().into());
        for (n, value) in [2.0, 0.0, 0.0, -7.0, 0.0, 3.0, 0.0, 8.0, 0.0, 0.0, 4.0, -9.0f64].into_iter().enumerate() {
            put(400 + 8 * n, value.to_le_bytes().into());
        }
        file[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
        for value in [0i16, 1, 2, 3, 4, 5] {
            file.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
        assert_eq!(volume(&file), volume(&file_of_six(Datatype::I16, &TestHeader::default(), [0, 1, 2, 3, 4, 5])));
    }
}

/// Generates grids with all kinds of rotations, spacings and flips.
fn any_grid() -> impl Strategy<Value = Grid> {
    let rotation = prop_oneof![
        prop::array::uniform4(-1.0f64..1.0),
        // Rotations by 90° and 180°, for which parts of the quaternion are zero.
        prop::array::uniform4(prop::sample::select(vec![-1.0, 0.0, 1.0])),
    ];
    let origin = prop::array::uniform3(-500.0f64..500.0);
    let spacing = prop::array::uniform3(0.3f64..10.0);
    let shape = [1usize..600, 1usize..600, 1usize..600];
    (rotation, spacing, origin, any::<bool>(), shape).prop_filter_map(
        "the quaternion must not be zero",
        |(quaternion, spacing, origin, left, shape)| {
            let length = quaternion.iter().map(|part| part * part).sum::<f64>().sqrt();
            let [a, b, c, d] = quaternion.map(|part| part / length);
            (length > 1e-3).then(|| {
                let rotation = [
                    [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
                    [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
                    [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
                ];
                let signs = [1.0, 1.0, if left { -1.0 } else { 1.0 }];
                let affine = Affine([0, 1, 2].map(|r| {
                    let column = |c: usize| f64::from((rotation[r][c] * spacing[c] * signs[c]) as f32);
                    [column(0), column(1), column(2), f64::from(origin[r] as f32)]
                }));
                Grid { shape, affine }
            })
        },
    )
}

proptest! {
    #[test]
    fn encoded_header_parses_to_its_grid(grid in any_grid(), which in 0usize..10, text in ".{0,100}") {
        let datatype = Datatype::ALL[which];
        let bytes = nifti::encode_header(&grid, datatype, &text).unwrap();
        let header = Header::parse(&bytes[..348]).unwrap();
        prop_assert_eq!(header.grid, grid, "the sform is exact");
        prop_assert_eq!((header.datatype, header.order, header.rescale), (datatype, ByteOrder::Little, None));
        prop_assert_eq!(header.voxel_offset, 352);
        // If the header has a qform, the affine without the sform is the same.
        let mut by_qform = bytes;
        by_qform[254] = 0;
        let tolerance = 0.0101 * grid.spacing_mm().into_iter().fold(f64::INFINITY, f64::min);
        if by_qform[252] != 0 {
            let qform = Header::parse(&by_qform[..348]).unwrap();
            prop_assert!(qform.grid.affine.agrees_with(&grid.affine, grid.shape, tolerance));
        }
        prop_assert_eq!(nifti::encode_header(&grid, datatype, &text).unwrap(), bytes);
    }

    /// Both byte orders of a header parse to the same header.
    #[test]
    fn byte_order_does_not_change_header(
        codes in prop::array::uniform2(0i16..2),
        quaternion in prop::array::uniform6(-0.5f32..0.5),
        pixdim in prop::array::uniform4(0.5f32..4.0),
        scale in prop::array::uniform2(-3.0f32..3.0),
        which in 0usize..10,
    ) {
        let codes = if codes == [0, 0] { [1, 0] } else { codes };
        let header = TestHeader { codes, quaternion, pixdim, scale, datatype: Datatype::ALL[which].code(), ..TestHeader::default() };
        let little = Header::parse(&header.bytes()[..348]).unwrap();
        let big = Header::parse(&TestHeader { big: true, ..header }.bytes()[..348]).unwrap();
        prop_assert_eq!(Header { order: ByteOrder::Little, ..big }, little);
        prop_assert_eq!(big.order, ByteOrder::Big);
    }
}

#[test]
fn sheared_affine_is_encoded_as_sform_only() {
    // A shear of 0.45°, and one of 7.1°, which is not read.
    let sheared = |shear: f64| Affine([[1.0, 0.0, shear, 3.0], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 2.0, 1.0]]);
    let affine = sheared(0.015625);
    let grid = Grid { shape: [64, 64, 32], affine };
    let bytes = nifti::encode_header(&grid, Datatype::U8, "").unwrap();
    assert_eq!((bytes[252], bytes[254]), (0, 1));
    let expected = affine.with_right_angles().unwrap();
    assert_eq!(
        Header::parse(&bytes[..348]).unwrap().grid.affine,
        expected,
        "scans of half a degree become perpendicular"
    );
    let bytes = nifti::encode_header(&Grid { affine: sheared(0.25), ..grid }, Datatype::U8, "").unwrap();
    let fault = Header::parse(&bytes[..348]).unwrap_err();
    assert!(fault.message.contains("sheared by 7.1"), "{fault}");
    let long = Grid { shape: [40_000, 1, 1], affine };
    assert_eq!(nifti::encode_header(&long, Datatype::U8, "").unwrap_err().kind, freetumor::error::FaultKind::TooLarge);
}

/// Counts the voxels of a label.
fn count(ids: &[u16], label: u16) -> usize {
    ids.iter().filter(|&&id| id == label).count()
}

#[test]
fn abdomen_has_documented_shape_and_labels() {
    let Some(folder) = common::shared("ct/totalseg_abdomen") else { return };
    let volume = nifti::read_volume(folder.join("ct.nii.gz")).unwrap();
    assert_eq!(volume.grid.shape, [122, 101, 112]);
    assert!(volume.grid.spacing_mm().iter().all(|spacing| (spacing - 3.0).abs() < 1e-4));
    assert!(matches!(volume.voxels, Voxels::I16(_)), "an int32 file of integer HU is read as i16");

    let labels = nifti::read_labels(folder.join("labels.nii.gz")).unwrap();
    assert!(labels.grid.agrees_with(&volume.grid));
    let ids = labels.ids.as_slice();
    assert_eq!(
        [1, 2, 3, 5, 7, 52].map(|label| count(ids, label)),
        [9668, 7134, 5090, 41692, 695, 1839],
        "spleen, kidneys, liver, pancreas, aorta"
    );
}

#[test]
fn float_scan_with_empty_sform_uses_qform() {
    let Some(folder) = common::shared("ct/sts_002") else { return };
    let volume = nifti::read_volume(folder.join("ct.nii.gz")).unwrap();
    let labels = nifti::read_labels(folder.join("tumor.nii.gz")).unwrap();
    assert!(labels.grid.agrees_with(&volume.grid));
    assert_eq!(count(labels.ids.as_slice(), 1), 17090);
    assert_ne!(volume.grid.affine, Affine::from_spacing(volume.grid.spacing_mm()));
    let spacing = volume.grid.spacing_mm();
    assert!((spacing[0] - 0.977).abs() < 1e-3 && (spacing[2] - 3.27).abs() < 1e-2, "{spacing:?}");
}

#[test]
fn header_bounds_memory_of_reading() {
    let Some(path) = common::shared("ct/lung1_001/ct.nii.gz") else { return };
    let header = nifti::read_header(&path).unwrap();
    let volume = nifti::read_volume(&path).unwrap();
    assert_eq!(header.grid, volume.grid);
    assert!(volume.voxels.bytes() as u64 <= header.volume_bytes && header.volume_bytes <= header.read_bytes);
    let insufficient = nifti::Limits { held_bytes: header.read_bytes - 1 };
    let fault = nifti::read_volume_within(&path, &insufficient).unwrap_err();
    assert_eq!(fault.kind, freetumor::error::FaultKind::TooLarge);
    assert!(nifti::read_volume_within(&path, &nifti::Limits { held_bytes: header.read_bytes }).is_ok());
}

/// Parses an encoded header with the crate nifti.
#[test]
fn encoded_header_is_parsed_by_crate_nifti() {
    let affine = Affine([[-0.75, 0.0, 0.0, 120.5], [0.0, 0.75, 0.0, -80.25], [0.0, 0.0, 2.5, 33.0]]);
    let grid = Grid { shape: [17, 9, 5], affine };
    let bytes = nifti::encode_header(&grid, Datatype::I16, "a description").unwrap();
    let header = ::nifti::NiftiHeader::from_reader(&bytes[..]).unwrap();
    assert_eq!((header.sizeof_hdr, header.dim, header.vox_offset), (348, [3, 17, 9, 5, 1, 1, 1, 1], 352.0));
    assert_eq!(header.data_type().unwrap(), ::nifti::NiftiType::Int16);
    let rows = [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from));
    assert_eq!(rows, affine.0);
    assert!(header.descrip.starts_with(b"a description\0"));
}
