//! The QR code of a text as a PNG image.

use flate2::Crc;
use keepfast_crypto::Zeroizing;
use keepfast_framework::{Error, Result};
use qrcodegen::{QrCode, QrCodeEcc};

use super::records::TotpSettings;
use super::totp::CodeForm;

/// The light border that scanners need, in modules (ISO/IEC 18004).
const BORDER: usize = 4;
/// The most bytes of a stored block of DEFLATE (RFC 1951, 3.2.4).
const BLOCK: usize = 0xffff;
const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];
/// One bit per pixel, gray, without filter by image and without interlace.
const FORMAT: [u8; 5] = [1, 0, 0, 0, 0];

/// A QR code with this number of pixels in each direction. The text is a secret, so all buffers are wiped: the image is
/// stored and not compressed.
///
/// # Errors
/// 400 when the text does not fit into a code, or the code not into the image.
pub(super) fn png(text: &str, size: usize) -> Result<Zeroizing<Vec<u8>>> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium)
        .map_err(|_| Error::invalid("key_size and issuer are too large for a QR code"))?;
    let modules = usize::try_from(code.size()).unwrap_or_default();
    if size < modules {
        return Err(Error::invalid(format!("a QR code of this secret needs a qr_size of at least {modules}")));
    }
    // A smaller image has no room for the border.
    let scale = (size / (modules + 2 * BORDER)).max(1);
    let margin = (size - scale * modules) / 2;
    let is_dark = |x: usize, y: usize| {
        let module = |at: usize| at.checked_sub(margin).map(|at| at / scale).filter(|at| *at < modules);
        match (module(x), module(y)) {
            (Some(x), Some(y)) => code.get_module(i32::try_from(x).unwrap_or(-1), i32::try_from(y).unwrap_or(-1)),
            _ => false,
        }
    };
    // Each row begins with its filter: none.
    let width = 1 + size.div_ceil(8);
    let mut pixels = Zeroizing::new(vec![0_u8; width * size]);
    for (y, row) in pixels.chunks_exact_mut(width).enumerate() {
        for x in (0..size).filter(|x| !is_dark(*x, y)) {
            row[1 + x / 8] |= 0x80 >> (x % 8);
        }
    }
    image(size, &pixels)
}

/// Checks that the QR codes of the secrets of a method fit into its image.
///
/// # Errors
/// 400.
pub(super) fn check(settings: &TotpSettings) -> Result<()> {
    if settings.qr_size == 0 {
        return Ok(());
    }
    let TotpSettings { algorithm, digits, period, skew, .. } = *settings;
    let form = CodeForm { algorithm, digits, period, skew };
    // Every secret has the same length, and so has every id of an entity.
    let url = form.url(&vec![0; settings.key_size], &settings.issuer, "00000000-0000-0000-0000-000000000000");
    png(url.expose(), settings.qr_size).map(drop)
}

/// A PNG image of rows of pixels (ISO/IEC 15948).
fn image(size: usize, pixels: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let side = u32::try_from(size).map_err(Error::internal)?.to_be_bytes();
    let header = [&side[..], &side, &FORMAT].concat();
    let data = stored(pixels);
    let mut out = Zeroizing::new(Vec::with_capacity(SIGNATURE.len() + 3 * 12 + header.len() + data.len()));
    out.extend_from_slice(&SIGNATURE);
    for (kind, content) in [(b"IHDR", &header[..]), (b"IDAT", &data), (b"IEND", &[])] {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(content);
        out.extend_from_slice(&u32::try_from(content.len()).map_err(Error::internal)?.to_be_bytes());
        out.extend_from_slice(kind);
        out.extend_from_slice(content);
        out.extend_from_slice(&crc.sum().to_be_bytes());
    }
    Ok(out)
}

/// Bytes in the zlib form (RFC 1950), in stored blocks.
fn stored(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let blocks = bytes.len().div_ceil(BLOCK).max(1);
    let mut out = Zeroizing::new(Vec::with_capacity(6 + 5 * blocks + bytes.len()));
    out.extend_from_slice(&[0x78, 0x01]);
    for (at, block) in bytes.chunks(BLOCK).enumerate() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(at + 1 == blocks));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    out.extend_from_slice(&(high << 16 | low).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const TEXT: &str = "otpauth://totp/Vault:id?algorithm=SHA1&digits=6&issuer=Vault&period=30&secret=MZXW6YTBOI";

    /// The rows of an image, as light pixels.
    fn pixels(image: &[u8]) -> Vec<Vec<bool>> {
        assert_eq!(image[..8], SIGNATURE);
        let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap()) as usize;
        let (mut at, mut size, mut rows) = (8, 0, Vec::new());
        while at < image.len() {
            let (length, kind) = (number(at), &image[at + 4..at + 8]);
            let content = &image[at + 8..at + 8 + length];
            let mut crc = Crc::new();
            crc.update(&image[at + 4..at + 8 + length]);
            assert_eq!(number(at + 8 + length), crc.sum() as usize);
            match kind {
                b"IHDR" => size = number(at + 8),
                b"IDAT" => {
                    let mut bytes = Vec::new();
                    flate2::read::ZlibDecoder::new(content).read_to_end(&mut bytes).unwrap();
                    let light = |row: &[u8], x: usize| row[1 + x / 8] & 0x80 >> (x % 8) != 0;
                    let width = 1 + size.div_ceil(8);
                    rows = bytes.chunks(width).map(|row| (0..size).map(|x| light(row, x)).collect()).collect();
                }
                _ => assert_eq!((kind, length), (&b"IEND"[..], 0)),
            }
            at += 12 + length;
        }
        assert_eq!(rows.len(), size);
        rows
    }

    #[test]
    fn the_image_has_the_modules_of_the_code() {
        let code = QrCode::encode_text(TEXT, QrCodeEcc::Medium).unwrap();
        let modules = code.size() as usize;
        for size in [modules, 200, 1000] {
            let rows = pixels(&png(TEXT, size).unwrap());
            let scale = (size / (modules + 2 * BORDER)).max(1);
            let margin = (size - scale * modules) / 2;
            for (y, row) in rows.iter().enumerate() {
                for (x, light) in row.iter().enumerate() {
                    let at = |at: usize| (at as i32 - margin as i32).div_euclid(scale as i32);
                    assert_eq!(!light, code.get_module(at(x), at(y)), "{x},{y} of {size}");
                }
            }
        }
        assert!(png(TEXT, modules - 1).is_err());
        assert!(png(&"x".repeat(3000), 1000).is_err());
    }
}
