//! Transfer syntaxes: the encoding of the elements and pixels of a file.

use dicom_encoding::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::error::{Fault, FaultKind};

/// A supported transfer syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
    Deflated,
    Rle,
    JpegLossless,
    JpegLosslessFirstOrder,
    Jpeg2000Lossless,
    Jpeg2000,
    HighThroughputLossless,
    HighThroughputLosslessRpcl,
    HighThroughput,
}

impl Syntax {
    const ALL: [(Self, &'static str); 12] = [
        (Self::ImplicitLittle, "1.2.840.10008.1.2"),
        (Self::ExplicitLittle, "1.2.840.10008.1.2.1"),
        (Self::ExplicitBig, "1.2.840.10008.1.2.2"),
        (Self::Deflated, "1.2.840.10008.1.2.1.99"),
        (Self::Rle, "1.2.840.10008.1.2.5"),
        (Self::JpegLossless, "1.2.840.10008.1.2.4.57"),
        (Self::JpegLosslessFirstOrder, "1.2.840.10008.1.2.4.70"),
        (Self::Jpeg2000Lossless, "1.2.840.10008.1.2.4.90"),
        (Self::Jpeg2000, "1.2.840.10008.1.2.4.91"),
        (Self::HighThroughputLossless, "1.2.840.10008.1.2.4.201"),
        (Self::HighThroughputLosslessRpcl, "1.2.840.10008.1.2.4.202"),
        (Self::HighThroughput, "1.2.840.10008.1.2.4.203"),
    ];

    /// Returns the syntax of an identifier. The fault of an unsupported syntax contains its name in the standard; any other
    /// value is not repeated, because it could contain free text.
    pub fn of(uid: &str) -> Result<Self, Fault> {
        if let Some((syntax, _)) = Self::ALL.iter().find(|(_, known)| *known == uid) {
            return Ok(*syntax);
        }
        let name = TransferSyntaxRegistry.get(uid).map_or("an unknown transfer syntax", |syntax| syntax.name());
        Err(Fault::read(
            FaultKind::Unsupported,
            format!(
                "expected uncompressed, RLE, JPEG lossless, JPEG 2000 or HTJ2K pixel data, got {name}: transcode the series"
            ),
        ))
    }

    /// Returns the index in the list of syntaxes, for the protocol between a program and its decoder.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Returns the syntax at an index in the list of syntaxes, or `None` if the list is shorter.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).map(|(syntax, _)| *syntax)
    }

    /// Returns whether pixels are compressed.
    pub fn is_compressed(self) -> bool {
        !matches!(self, Self::ImplicitLittle | Self::ExplicitLittle | Self::ExplicitBig | Self::Deflated)
    }

    /// Returns whether numbers, including pixels, are stored with the most significant byte first.
    pub fn is_big_endian(self) -> bool {
        self == Self::ExplicitBig
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_identifiers_round_trip() {
        for (syntax, uid) in Syntax::ALL {
            assert_eq!(Syntax::of(uid), Ok(syntax));
            assert_eq!(Syntax::from_code(syntax.code()), Some(syntax));
        }
        assert_eq!(Syntax::from_code(12), None);
    }

    #[test]
    fn unsupported_syntax_is_named_unless_value_is_free_text() {
        let unsupported = Syntax::of("1.2.840.10008.1.2.4.80").unwrap_err();
        assert_eq!(unsupported.kind, FaultKind::Unsupported);
        assert!(unsupported.message.contains("JPEG-LS"), "{unsupported}");
        let text = Syntax::of("Jane Doe").unwrap_err();
        assert!(text.message.contains("unknown transfer syntax") && !text.message.contains("Doe"), "{text}");
    }
}
