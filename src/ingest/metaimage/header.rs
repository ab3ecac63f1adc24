//! The checked header of a MetaImage file.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::error::{Fault, FaultKind};
use crate::ingest::raster::{
    ByteOrder, DataFile, Datatype, Header, HeaderText, affine_of_lps, decimals, integers, shape_of,
};
use crate::volume::{Affine, Grid};

/// Keys of the format with which a header may start.
const FIRST_KEYS: [&str; 12] = [
    "objecttype",
    "objectsubtype",
    "ndims",
    "comment",
    "name",
    "id",
    "parentid",
    "transformtype",
    "binarydata",
    "binarydatabyteordermsb",
    "compresseddata",
    "dimsize",
];

const TYPES: [(Datatype, &str); 12] = [
    (Datatype::I8, "MET_CHAR"),
    (Datatype::U8, "MET_UCHAR"),
    (Datatype::I16, "MET_SHORT"),
    (Datatype::U16, "MET_USHORT"),
    (Datatype::I32, "MET_INT"),
    (Datatype::U32, "MET_UINT"),
    (Datatype::I32, "MET_LONG"),
    (Datatype::U32, "MET_ULONG"),
    (Datatype::I64, "MET_LONG_LONG"),
    (Datatype::U64, "MET_ULONG_LONG"),
    (Datatype::F32, "MET_FLOAT"),
    (Datatype::F64, "MET_DOUBLE"),
];

/// Returns whether a file with this start has the header of a MetaImage: its first line is `KEY = value` with a key of the format.
pub(in crate::ingest) fn is_metaimage(start: &[u8]) -> bool {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some((key, _)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(['=', ':'])) else {
        return false;
    };
    FIRST_KEYS.contains(&&*key.trim().to_ascii_lowercase())
}

/// A checked MetaImage header.
#[derive(Debug)]
pub(super) struct MetaHeader {
    grid: Grid,
    datatype: Datatype,
    order: ByteOrder,
    /// The modality, if it is known and not CT.
    other_modality: Option<&'static str>,
    pub is_compressed: bool,
    /// Bytes of the compressed voxels, if the header states them.
    pub compressed_bytes: Option<u64>,
    /// Bytes before the voxels in the data file; `None` if the voxels are at the end of the file.
    pub header_size: Option<u64>,
    /// The file of the voxels; `None` if they follow the header.
    pub data_file: Option<DataFile>,
}

impl MetaHeader {
    /// Reads and checks a header.
    ///
    /// # Errors
    /// Returns `corrupt` if the header contradicts the format, `unsupported` if it does not describe one volume of numbers, `geometry` if
    /// the shape or the position in the patient is invalid.
    pub fn read<R: BufRead>(text: &mut HeaderText<R>) -> Result<Self, Fault> {
        let fields = Fields::read(text)?;
        if fields.get("ObjectType").is_some_and(|kind| !kind.eq_ignore_ascii_case("Image")) {
            return Err(unsupported("expected the ObjectType Image, got another object"));
        }
        let [dimensions] = integers(fields.required("NDims")?, "NDims")?;
        let channels = fields.get("ElementNumberOfChannels").map_or(Ok([1]), |text| integers(text, "channels"))?;
        if dimensions != 3 || channels != [1] {
            return Err(unsupported(format!(
                "expected one volume of 3 dimensions and 1 channel, got {dimensions} dimension(s) and {} channel(s)",
                channels[0]
            )));
        }
        if fields.flag(&["BinaryData"])? == Some(false) {
            return Err(unsupported("expected binary voxels, got text (`BinaryData = False`): convert the file first"));
        }
        for (key, neutral) in [("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)] {
            if fields.get(key).map(|text| decimals(text, key)).transpose()?.is_some_and(|value| value != [neutral]) {
                return Err(unsupported(format!(
                    "expected HU as voxels, got a conversion in `{key}`, which other programs ignore"
                )));
            }
        }
        let is_compressed = fields.flag(&["CompressedData"])?.unwrap_or(false);
        Ok(Self {
            grid: Grid {
                shape: shape_of(integers(fields.required("DimSize")?, "DimSize")?)?,
                affine: affine(&fields)?,
            },
            datatype: datatype(fields.required("ElementType")?)?,
            order: match fields.flag(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])? {
                Some(true) => ByteOrder::Big,
                _ => ByteOrder::Little,
            },
            other_modality: other_modality(&fields),
            is_compressed,
            compressed_bytes: if is_compressed { compressed_bytes(&fields)? } else { None },
            header_size: header_size(&fields, is_compressed)?,
            data_file: data_file(fields.required("ElementDataFile")?)?,
        })
    }

    /// Converts to the header that all raster formats share.
    pub fn to_raster_header(&self, header_bytes: usize) -> Header {
        let Self { grid, datatype, order, .. } = *self;
        Header { grid, datatype, order, rescale: None, voxel_offset: 0, header_bytes }
    }

    /// Checks that the image may be a CT.
    ///
    /// # Errors
    /// Returns `unsupported` if the header states another modality.
    pub fn check_modality(&self) -> Result<(), Fault> {
        self.other_modality.map_or(Ok(()), |name| Err(unsupported(format!("expected modality CT, got {name}"))))
    }
}

/// The fields of a header by key, in lower case.
struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads the header, the last line of which is `ElementDataFile`.
    fn read<R: BufRead>(text: &mut HeaderText<R>) -> Result<Self, Fault> {
        let mut fields = BTreeMap::new();
        while let Some(line) = text.line()? {
            if line.trim().is_empty() {
                continue;
            }
            // The line is not repeated in a message, because it may be free text.
            let (key, value) = line.split_once(['=', ':']).ok_or_else(|| {
                corrupt(format!("expected `KEY = value` in line {} of the header, got another line", text.lines()))
            })?;
            let key = key.trim().to_ascii_lowercase();
            let is_last = key == "elementdatafile";
            if fields.insert(key, value.trim().to_owned()).is_some() {
                return Err(corrupt(format!(
                    "expected each key once, line {} of the MetaImage header repeats one",
                    text.lines()
                )));
            }
            if is_last {
                return Ok(Self(fields));
            }
        }
        Err(Fault::read(
            FaultKind::Truncated,
            "expected `ElementDataFile` at the end of the MetaImage header, the file ends before it",
        ))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(&key.to_ascii_lowercase()).map(String::as_str)
    }

    fn required(&self, key: &str) -> Result<&str, Fault> {
        self.get(key).ok_or_else(|| corrupt(format!("expected `{key}` in the MetaImage header, got none")))
    }

    /// Returns the value of a field that has several keys.
    fn one_of<T: PartialEq>(
        &self,
        keys: &[&str],
        parse: impl Fn(&str, &str) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let mut found = None;
        for key in keys {
            let Some(text) = self.get(key) else { continue };
            let value = parse(text, key)?;
            if found.as_ref().is_some_and(|other| *other != value) {
                return Err(corrupt(format!("expected equal values in {}, got different ones", keys.join(", "))));
            }
            found = Some(value);
        }
        Ok(found)
    }

    /// Returns the value of a field that is true or false.
    fn flag(&self, keys: &[&str]) -> Result<Option<bool>, Fault> {
        self.one_of(keys, |text, key| match &*text.to_ascii_lowercase() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(corrupt(format!("expected True or False in `{key}`, got another value"))),
        })
    }
}

fn datatype(name: &str) -> Result<Datatype, Fault> {
    let name = name.to_ascii_uppercase();
    match TYPES.iter().find(|(_, known)| *known == name) {
        Some((datatype, _)) => Ok(*datatype),
        None if name.starts_with("MET_") && name.ends_with("_ARRAY") => {
            Err(unsupported("expected one number per voxel in `ElementType`, got vectors"))
        }
        None => Err(corrupt("expected a type such as MET_SHORT in `ElementType`, got another value")),
    }
}

/// Returns the affine to RAS+ millimetres.
fn affine(fields: &Fields) -> Result<Affine, Fault> {
    if fields.get("DistanceUnits").is_some_and(|unit| !["mm", "?", ""].contains(&unit)) {
        return Err(unsupported("expected millimetres in `DistanceUnits`, got another unit"));
    }
    let spacing = fields.one_of(&["ElementSpacing"], decimals)?;
    let spacing_mm = match spacing {
        Some(spacing) => spacing,
        // The size of a voxel, which is its spacing unless the header states another one.
        None => fields.one_of(&["ElementSize"], decimals)?.ok_or_else(|| {
            Fault::read(FaultKind::Geometry, "expected `ElementSpacing` in the MetaImage header, got none")
        })?,
    };
    if spacing_mm.iter().any(|spacing| *spacing <= 0.0) {
        let message = format!("expected a positive `ElementSpacing`, got {spacing_mm:?}");
        return Err(Fault::read(FaultKind::Geometry, message));
    }
    let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let [a, b, c, d, e, f, g, h, i] =
        fields.one_of(&["TransformMatrix", "Orientation", "Rotation"], decimals)?.unwrap_or(identity);
    let origin_mm = fields.one_of(&["Offset", "Position", "Origin"], decimals)?.unwrap_or([0.0; 3]);
    affine_of_lps([[a, b, c], [d, e, f], [g, h, i]], spacing_mm, origin_mm, "TransformMatrix")
}

/// Returns the name of a modality other than CT.
fn other_modality(fields: &Fields) -> Option<&'static str> {
    match fields.get("Modality")?.to_ascii_uppercase().strip_prefix("MET_MOD_")? {
        "MR" => Some("MR"),
        "NM" => Some("NM"),
        "US" => Some("US"),
        "PT" => Some("PT"),
        _ => None,
    }
}

fn compressed_bytes(fields: &Fields) -> Result<Option<u64>, Fault> {
    let Some(text) = fields.get("CompressedDataSize") else { return Ok(None) };
    let [bytes] = integers(text, "CompressedDataSize")?;
    match u64::try_from(bytes) {
        // Zero and -1 mean that the size is unknown.
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) if bytes == -1 => Ok(None),
        Err(_) => Err(corrupt(format!("expected a `CompressedDataSize` from 0, got {bytes}"))),
    }
}

fn header_size(fields: &Fields, is_compressed: bool) -> Result<Option<u64>, Fault> {
    let Some(text) = fields.get("HeaderSize") else { return Ok(Some(0)) };
    let [bytes] = integers(text, "HeaderSize")?;
    let is_local = fields.get("ElementDataFile").is_some_and(is_local);
    match u64::try_from(bytes) {
        Ok(0) => Ok(Some(0)),
        Ok(_) if is_local => {
            Err(unsupported(format!("expected no `HeaderSize` with voxels after the header, got {bytes}")))
        }
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) if bytes == -1 && !is_compressed => Ok(None),
        Err(_) => Err(unsupported(format!("expected a `HeaderSize` from 0, or -1 for raw voxels, got {bytes}"))),
    }
}

fn is_local(name: &str) -> bool {
    name.eq_ignore_ascii_case("LOCAL")
}

fn data_file(name: &str) -> Result<Option<DataFile>, Fault> {
    if is_local(name) {
        return Ok(None);
    }
    if name.contains('%') || name == "LIST" || name.starts_with("LIST ") {
        return Err(unsupported("expected the voxels in one data file, got several: convert the file first"));
    }
    DataFile::new(name, "ElementDataFile").map(Some)
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

fn unsupported(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
        CompressedData = True\nCompressedDataSize = 24\nTransformMatrix = 0 1 0 -1 0 0 0 0 1\nOffset = 10 20 30\n\
        CenterOfRotation = 0 0 0\nAnatomicalOrientation = PRI\nElementSpacing = 2 3 4\nDimSize = 4 3 2\n\
        ElementType = MET_SHORT\nElementDataFile = ct.zraw\n";

    fn read(text: &str) -> Result<MetaHeader, Fault> {
        MetaHeader::read(&mut HeaderText::new(text.as_bytes()))
    }

    #[test]
    fn row_of_matrix_is_direction_of_axis() {
        let header = read(VALID).unwrap();
        // 4 columns run towards Posterior, 3 rows towards Right.
        let affine = Affine([[0.0, 3.0, 0.0, -10.0], [-2.0, 0.0, 0.0, -20.0], [0.0, 0.0, 4.0, 30.0]]);
        assert_eq!(header.grid, Grid { shape: [4, 3, 2], affine });
        assert_eq!((header.compressed_bytes, header.header_size), (Some(24), Some(0)));
        assert_eq!(header.data_file.unwrap().name(), "ct.zraw");
        let plain = VALID.replace("TransformMatrix = 0 1 0 -1 0 0 0 0 1\nOffset = 10 20 30\n", "");
        let identity = Affine([[-2.0, 0.0, 0.0, 0.0], [0.0, -3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]]);
        assert_eq!(read(&plain).unwrap().grid.affine, identity);
    }

    #[test]
    fn alternative_header_keys_are_accepted() {
        let renamed = VALID
            .replace("TransformMatrix", "Orientation")
            .replace("Offset", "Position")
            .replace("ElementSpacing", "ElementSize")
            .replace("BinaryDataByteOrderMSB = False", "elementbyteordermsb=True")
            .replace('\n', "\r\n");
        let header = read(&renamed).unwrap();
        assert_eq!(header.grid, read(VALID).unwrap().grid);
        assert_eq!(header.order, ByteOrder::Big);
        for (datatype, name) in TYPES {
            assert_eq!(read(&VALID.replace("MET_SHORT", name)).unwrap().datatype, datatype);
        }
    }

    #[test]
    fn metaimage_header_is_recognized_by_its_first_key() {
        for start in [VALID, "NDims=3\n", "Comment = a scan\r\n", "ObjectType: Image"] {
            assert!(is_metaimage(start.as_bytes()), "{start}");
        }
        for start in ["", "key = value\n", "# NDims = 3\n", "NRRD0004\n", "\u{0}\n"] {
            assert!(!is_metaimage(start.as_bytes()), "{start}");
        }
    }

    #[test]
    fn faults_name_key_but_not_its_value() {
        use FaultKind::{Corrupt, Geometry, Truncated, Unsupported};
        for (from, to, kind, message) in [
            ("= Image", "= secret", Unsupported, "ObjectType Image"),
            ("NDims = 3", "NDims = 2", Unsupported, "2 dimension(s)"),
            ("NDims = 3\n", "", Corrupt, "`NDims`"),
            ("DimSize", "ElementNumberOfChannels = 3\nDimSize", Unsupported, "3 channel(s)"),
            ("BinaryData = True", "BinaryData = False", Unsupported, "got text"),
            ("BinaryData = True", "BinaryData = secret", Corrupt, "`BinaryData`"),
            ("MET_SHORT", "MET_SHORT_ARRAY", Unsupported, "vectors"),
            ("MET_SHORT", "secret", Corrupt, "`ElementType`"),
            ("4 3 2", "4 3", Corrupt, "3 integer(s) in `DimSize`"),
            ("4 3 2", "4 -3 2", Geometry, "at least one voxel"),
            ("= 2 3 4", "= 2 3 0", Geometry, "positive"),
            ("ElementSpacing = 2 3 4\n", "", Geometry, "`ElementSpacing`"),
            ("0 1 0 -1", "0 2 0 -1", Geometry, "unit vectors"),
            ("0 1 0 -1 0 0", "0 1 0 0 1 0", Geometry, "independent"),
            ("0 1 0 -1 0 0", "0 1 0 -0.8 0.6 0", Geometry, "sheared"),
            ("DimSize", "Position = 1 2 3\nDimSize", Corrupt, "equal values in Offset, Position"),
            ("DimSize", "DistanceUnits = cm\nDimSize", Unsupported, "DistanceUnits"),
            ("DimSize", "ElementToIntensityFunctionSlope = 2\nDimSize", Unsupported, "other programs ignore"),
            ("DimSize", "HeaderSize = -1\nDimSize", Unsupported, "got -1"),
            ("DimSize", "NDims = 3\nDimSize", Corrupt, "line 12"),
            ("DimSize", "secret\nDimSize", Corrupt, "line 12"),
            ("Size = 24", "Size = -24", Corrupt, "got -24"),
            ("ct.zraw", "../ct.zraw", Unsupported, "folder of its header"),
            ("ct.zraw", "LIST", Unsupported, "one data file"),
            ("ct.zraw", "s%03d.raw 1 9 1", Unsupported, "one data file"),
            ("ElementDataFile = ct.zraw\n", "", Truncated, "`ElementDataFile`"),
        ] {
            let changed = VALID.replacen(from, to, 1);
            assert_ne!(changed, VALID, "{from}");
            let fault = read(&changed).unwrap_err();
            assert_eq!(fault.kind, kind, "{to}: {fault}");
            assert!(fault.message.contains(message) && !fault.message.contains("secret"), "{to}: {fault}");
        }
        let mr = read(&VALID.replace("DimSize", "Modality = MET_MOD_MR\nDimSize")).unwrap();
        assert_eq!(mr.check_modality().unwrap_err().message, "expected modality CT, got MR");
        assert_eq!(read(VALID).unwrap().check_modality(), Ok(()));
    }
}
