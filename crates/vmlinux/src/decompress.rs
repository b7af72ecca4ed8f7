//! The compressors that a kernel may be packed with, each behind a bound on its output.
//!
//! Decides nothing about what is inside. Works on a bzImage payload and on a whole compressed file
//! (`.ko.xz`). A decoder that fails half way is an error: half a vmlinux is no vmlinux.

use std::io::Read;

use thiserror::Error;

use crate::bytes::u32_at;
use crate::lzo;

/// No decompressed image is larger than this, in bytes. The largest vmlinux without debug sections that
/// an allyesconfig gives is some 500 MB.
pub const LIMIT: usize = 1 << 30;

/// A method of compression, by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The old `.lzma` format.
    Lzma,
    /// `.xz`, with the x86 filter where the kernel uses it.
    Xz,
    /// `lzop`.
    Lzo,
    /// The legacy frame of `lz4 -l`, which the kernel uses.
    Lz4Legacy,
    /// `.zst`.
    Zstd,
}

impl Compression {
    /// The method that `bytes` starts with; the magic numbers are those of lib/decompress.c.
    pub fn detect(bytes: &[u8]) -> Option<Compression> {
        const MAGICS: [(&[u8], Compression); 8] = [
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (b"\x5d\0\0", Compression::Lzma),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x89LZO\0\x0d\x0a\x1a\x0a", Compression::Lzo),
            (b"\x02\x21\x4c\x18", Compression::Lz4Legacy),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            // The second gzip magic of lib/decompress.c is a leftover of the first versions of gzip.
            (b"\x1f\x9e\x08", Compression::Gzip),
        ];
        MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, c)| c)
    }

    /// The name that the program which makes it has.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Bzip2 => "bzip2",
            Compression::Lzma => "lzma",
            Compression::Xz => "xz",
            Compression::Lzo => "lzop",
            Compression::Lz4Legacy => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Why a payload could not be unpacked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// The setup header names no payload.
    #[error("boot protocol {}.{:02} names no payload, so the vmlinux inside cannot be found; hand over the vmlinux itself", protocol >> 8, protocol & 0xff)]
    NoPayload {
        /// Protocol of the setup header.
        protocol: u16,
    },
    /// The magic number is none of the kernel's.
    #[error(
        "the payload starts with {start}, which is no compression that the kernel uses; hand over the vmlinux itself"
    )]
    UnknownMethod {
        /// The first bytes in hex.
        start: String,
    },
    /// The compressed data is damaged.
    #[error("cannot unpack the {} payload: {why}; the file is damaged, copy it again or rebuild it", compression.name())]
    Damaged {
        /// The method.
        compression: Compression,
        /// What the decoder said.
        why: String,
    },
    /// The output would grow beyond the bound.
    #[error("the {} payload unpacks to more than {limit} bytes, which no kernel does", compression.name())]
    TooLarge {
        /// The method.
        compression: Compression,
        /// The bound, in bytes.
        limit: usize,
    },
}

/// Unpacks `bytes`. `expected` is the length that the container declares; it sizes the buffer (within
/// reason), and another length is damage.
pub fn decompress(
    compression: Compression,
    bytes: &[u8],
    expected: Option<usize>,
) -> Result<Vec<u8>, DecompressError> {
    let out = decode(compression, bytes, expected)?;
    match expected {
        Some(expected) if expected != out.len() => Err(DecompressError::Damaged {
            compression,
            why: format!("it gives {} bytes where {expected} are promised", out.len()),
        }),
        _ => Ok(out),
    }
}

fn decode(
    compression: Compression,
    bytes: &[u8],
    expected: Option<usize>,
) -> Result<Vec<u8>, DecompressError> {
    let expected = expected.filter(|&e| e > 0 && e <= LIMIT);
    let damaged = |why: String| DecompressError::Damaged { compression, why };
    // A length field alone must not make us allocate: no kernel compresses better than 1:64.
    let capacity = expected.unwrap_or(0).min(bytes.len().saturating_mul(64));
    match compression {
        Compression::Lz4Legacy => lz4_legacy(bytes, capacity).map_err(|e| e.with(compression)),
        Compression::Lzo => lzo::decompress(bytes, LIMIT, capacity).map_err(|e| match e {
            lzo::LzoError::TooLarge => DecompressError::TooLarge { compression, limit: LIMIT },
            other => damaged(other.to_string()),
        }),
        Compression::Zstd => zstd(bytes, capacity)
            .map_err(damaged)?
            .ok_or(DecompressError::TooLarge { compression, limit: LIMIT }),
        _ => {
            let mut out = Vec::with_capacity(capacity);
            let reader = reader(compression, bytes).map_err(&damaged)?;
            let read = reader.take(LIMIT as u64 + 1).read_to_end(&mut out);
            if out.len() > LIMIT {
                return Err(DecompressError::TooLarge { compression, limit: LIMIT });
            }
            read.map_err(|e| damaged(e.to_string()))?;
            Ok(out)
        }
    }
}

/// The first `limit` bytes of what is inside, as far as they can be had.
pub(crate) fn peek(compression: Compression, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let out = match compression {
        Compression::Lz4Legacy | Compression::Lzo => return None,
        _ => crate::recognise::read_up_to(reader(compression, bytes).ok()?, limit as u64),
    };
    (!out.is_empty()).then_some(out)
}

fn reader(compression: Compression, bytes: &[u8]) -> Result<Box<dyn Read + '_>, String> {
    /// The kernel's presets stay below 128 MiB of dictionary (scripts/xz_wrap.sh, since v6.1).
    const MEMORY_KIB: u32 = 400 << 10;
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Compression::Bzip2 => Box::new(bzip2::read::BzDecoder::new(bytes)),
        Compression::Lzma => Box::new(
            lzma_rust2::LzmaReader::new_mem_limit(bytes, MEMORY_KIB, None)
                .map_err(|e| e.to_string())?,
        ),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(bytes, false, MEMORY_KIB)),
        Compression::Zstd => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|e| e.to_string())?)
        }
        Compression::Lz4Legacy | Compression::Lzo => return Err("not a stream".into()),
    })
}

/// One zstd frame; `None` when it is larger than [`LIMIT`]. The streaming reader of the same crate does
/// not compare the checksum, which is what a flipped bit shows in.
fn zstd(bytes: &[u8], capacity: usize) -> Result<Option<Vec<u8>>, String> {
    use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
    let mut input = bytes;
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut input).map_err(|e| e.to_string())?;
    let mut out = Vec::with_capacity(capacity);
    loop {
        let step = BlockDecodingStrategy::UptoBytes(4 << 20);
        decoder.decode_blocks(&mut input, step).map_err(|e| e.to_string())?;
        decoder.collect_to_writer(&mut out).map_err(|e| e.to_string())?;
        if out.len() > LIMIT {
            return Ok(None);
        }
        if decoder.is_finished() && decoder.can_collect() == 0 {
            break;
        }
    }
    match decoder.get_checksum_from_data() {
        Some(sum) if Some(sum) != decoder.get_calculated_checksum() => {
            Err("the checksum is wrong".into())
        }
        _ => Ok(Some(out)),
    }
}

enum Lz4Error {
    Damaged(String),
    TooLarge,
}

impl Lz4Error {
    fn with(self, compression: Compression) -> DecompressError {
        match self {
            Lz4Error::Damaged(why) => DecompressError::Damaged { compression, why },
            Lz4Error::TooLarge => DecompressError::TooLarge { compression, limit: LIMIT },
        }
    }
}

/// The legacy frame: a magic number, then blocks, each with its compressed length in front and at most
/// 8 MiB inside. There is no end mark; the kernel's build appends four bytes of length, which are too
/// few for a block (lib/decompress_unlz4.c reads it the same way).
fn lz4_legacy(bytes: &[u8], capacity: usize) -> Result<Vec<u8>, Lz4Error> {
    const BLOCK: usize = 8 << 20;
    let mut out = Vec::with_capacity(capacity);
    let mut at = 4;
    while let Some(length) = u32_at(bytes, at) {
        at += 4;
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        let Some(block) = rest.get(..length as usize) else {
            return Err(Lz4Error::Damaged(format!("block at {at:#x} runs past the end")));
        };
        at += block.len();
        let start = out.len();
        if start + BLOCK > LIMIT {
            return Err(Lz4Error::TooLarge);
        }
        out.resize(start + BLOCK, 0);
        let space = out.get_mut(start..).unwrap_or_default();
        let written = lz4_flex::block::decompress_into(block, space)
            .map_err(|e| Lz4Error::Damaged(format!("block at {at:#x}: {e}")))?;
        out.truncate(start + written);
        if written < BLOCK {
            break;
        }
    }
    if out.is_empty() {
        return Err(Lz4Error::Damaged("no block follows the magic number".into()));
    }
    Ok(out)
}
