//! Transfer syntaxes: how a file encodes its elements and its pixels.

use dicom_encoding::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::error::{Fault, FaultKind};

/// The transfer syntaxes that are read.
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
}

impl Syntax {
    const ALL: [(Self, &'static str); 9] = [
        (Self::ImplicitLittle, "1.2.840.10008.1.2"),
        (Self::ExplicitLittle, "1.2.840.10008.1.2.1"),
        (Self::ExplicitBig, "1.2.840.10008.1.2.2"),
        (Self::Deflated, "1.2.840.10008.1.2.1.99"),
        (Self::Rle, "1.2.840.10008.1.2.5"),
        (Self::JpegLossless, "1.2.840.10008.1.2.4.57"),
        (Self::JpegLosslessFirstOrder, "1.2.840.10008.1.2.4.70"),
        (Self::Jpeg2000Lossless, "1.2.840.10008.1.2.4.90"),
        (Self::Jpeg2000, "1.2.840.10008.1.2.4.91"),
    ];

    /// The syntax of an identifier. Unsupported ones are named where the standard names them; anything else in the
    /// element is not repeated, for it could be any text.
    pub fn of(uid: &str) -> Result<Self, Fault> {
        if let Some((syntax, _)) = Self::ALL.iter().find(|(_, known)| *known == uid) {
            return Ok(*syntax);
        }
        let name = TransferSyntaxRegistry.get(uid).map_or("an unknown transfer syntax", |syntax| syntax.name());
        Err(Fault::read(
            FaultKind::Unsupported,
            format!(
                "pixel data in {name}; expected uncompressed, RLE, JPEG lossless or JPEG 2000: transcode the series"
            ),
        ))
    }

    /// Its unique identifier.
    pub fn uid(self) -> &'static str {
        Self::ALL[self.code() as usize].1
    }

    /// Its place in the list, for the wire between a program and its decoder.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The syntax at a place in the list.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).map(|(syntax, _)| *syntax)
    }

    /// Whether pixels are compressed.
    pub fn is_compressed(self) -> bool {
        !matches!(self, Self::ImplicitLittle | Self::ExplicitLittle | Self::ExplicitBig | Self::Deflated)
    }

    /// Whether numbers, pixels included, are stored with the most significant byte first.
    pub fn is_big_endian(self) -> bool {
        self == Self::ExplicitBig
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_identifiers_name_the_same_syntax() {
        for (syntax, uid) in Syntax::ALL {
            assert_eq!(Syntax::of(uid), Ok(syntax));
            assert_eq!((Syntax::from_code(syntax.code()), syntax.uid()), (Some(syntax), uid));
        }
        assert_eq!(Syntax::from_code(9), None);
    }

    #[test]
    fn what_is_unsupported_is_named_unless_it_is_free_text() {
        let known = Syntax::of("1.2.840.10008.1.2.4.80").unwrap_err();
        assert_eq!(known.kind, FaultKind::Unsupported);
        assert!(known.message.contains("JPEG-LS"), "{known}");
        let free = Syntax::of("Jane Doe").unwrap_err();
        assert!(free.message.contains("unknown transfer syntax") && !free.message.contains("Doe"), "{free}");
    }
}
