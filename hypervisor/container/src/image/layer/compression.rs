//! Layers are compressed by gzip (RFC 1952), zstd (RFC 8878) or not at all: the first bytes tell.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::BlockDecodingStrategy;
use ruzstd::decoding::FrameDecoder;

use super::super::Limits;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes of an archive. A tar archive begins with a name, which begins with neither mark.
    pub(in super::super) fn of(first: &[u8]) -> Self {
        if first.starts_with(&GZIP) {
            Self::Gzip
        } else if first.starts_with(&ZSTD) || is_skippable(first) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Reads what is in a layer, whatever it is compressed by.
pub(in super::super) enum Decompress<R: Read> {
    None(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<Zstd<BufReader<R>>>),
}

impl<R: Read> Decompress<R> {
    pub(in super::super) fn new(inner: R) -> io::Result<Self> {
        let mut inner = BufReader::with_capacity(CHUNK, inner);
        Ok(match Compression::of(inner.fill_buf()?) {
            Compression::None => Self::None(inner),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(inner))),
            Compression::Zstd => Self::Zstd(Box::new(Zstd::new(inner))),
        })
    }

    /// What is compressed, as far as it has not been read.
    pub(in super::super) fn inner_mut(&mut self) -> &mut BufReader<R> {
        match self {
            Self::None(inner) => inner,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => &mut decoder.inner,
        }
    }

    pub(in super::super) fn into_inner(self) -> BufReader<R> {
        match self {
            Self::None(inner) => inner,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.inner,
        }
    }
}

impl<R: Read> Read for Decompress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(inner) => inner.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Frames of zstd one behind the other; `ruzstd` decodes one.
pub(in super::super) struct Zstd<R> {
    inner: R,
    decoder: FrameDecoder,
    /// Whether a frame is being decoded.
    within: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            decoder: FrameDecoder::new(),
            within: false,
        }
    }

    /// Goes to the next frame with content; false at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.inner.fill_buf()?.is_empty() {
            let mut magic = [0; 4];
            self.inner.read_exact(&mut magic)?;
            if is_skippable(&magic) {
                let mut length = [0; 4];
                self.inner.read_exact(&mut length)?;
                let length = u64::from(u32::from_le_bytes(length));
                if io::copy(&mut (&mut self.inner).take(length), &mut io::sink())? != length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            // Checked before the decoder sees it, because that makes room at once.
            let header = read_header(magic, &mut self.inner)?;
            self.decoder.reset(header.as_slice()).map_err(invalid)?;
            self.within = true;
            return Ok(true);
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within && !self.next_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let some = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.inner, some).map_err(invalid)?;
            }
            let count = Read::read(&mut self.decoder, buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.within = false;
        }
    }
}

fn is_skippable(magic: &[u8]) -> bool {
    magic.len() >= 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == [0x2a, 0x4d, 0x18]
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Reads the header of a frame, and refuses one whose history would take too much memory (RFC 8878,
/// 3.1.1.1).
fn read_header(magic: [u8; 4], inner: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut header = magic.to_vec();
    let mut more = |count: usize| -> io::Result<u64> {
        let mut bytes = [0; 8];
        inner.read_exact(&mut bytes[..count])?;
        header.extend(&bytes[..count]);
        Ok(u64::from_le_bytes(bytes))
    };
    let descriptor = more(1)? as usize;
    let single_segment = descriptor & 0x20 != 0;
    let mut window = 0;
    if !single_segment {
        let byte = more(1)?;
        let base = 1_u64 << (10 + (byte >> 3));
        window = base + base / 8 * (byte & 7);
    }
    more([0, 1, 2, 4][descriptor & 3])?;
    let content = match (descriptor >> 6, single_segment) {
        (0, false) => 0,
        (0, true) => more(1)?,
        (1, _) => more(2)? + 256,
        (2, _) => more(4)?,
        _ => more(8)?,
    };
    if single_segment {
        // The content is the window.
        window = content;
    }
    if window > Limits::WINDOW {
        return Err(invalid(format!(
            "a zstd window of {window} bytes is more than the {} allowed",
            Limits::WINDOW
        )));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompress::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn each_kind_is_known_by_its_first_bytes() {
        let text = b"a layer ".repeat(1000);
        for packed in [text.clone(), gzip(&text), zstd(&text)] {
            assert_eq!(read(&packed).unwrap(), text);
        }
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn members_and_frames_one_behind_the_other_are_one_stream() {
        assert_eq!(read(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frames = [skipped.clone(), zstd(b"one "), skipped, zstd(b""), zstd(b"two")].concat();
        assert_eq!(read(&frames).unwrap(), b"one two");
    }

    #[test]
    fn what_is_cut_short_is_an_error_wherever_it_is_cut() {
        for packed in [gzip(&[7; 3000]), zstd(&[7; 3000])] {
            for length in 4..packed.len() {
                assert!(read(&packed[..length]).is_err(), "{length} of {}", packed.len());
            }
        }
    }

    #[test]
    fn a_window_of_a_terabyte_is_refused() {
        let mut frame = ZSTD.to_vec();
        frame.extend([0, 0xf0, 1, 0, 0]);
        let error = read(&frame).unwrap_err().to_string();
        assert!(error.contains("window"), "{error}");
        let mut frame = ZSTD.to_vec();
        frame.push(0xe0);
        frame.extend((1_u64 << 40).to_le_bytes());
        frame.extend([1, 0, 0]);
        assert!(read(&frame).unwrap_err().to_string().contains("window"));
    }
}
