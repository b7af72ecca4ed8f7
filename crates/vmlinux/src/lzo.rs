//! lzop files, as `lzop -9` makes them for a kernel: the container and the LZO1X stream inside.
//!
//! The stream is described in Documentation/staging/lzo.rst, the container in lib/decompress_unlzo.c.

use thiserror::Error;

use crate::bytes::array_at;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum LzoError {
    #[error("the lzop header is damaged")]
    Header,
    #[error("block at {0:#x} runs past the end")]
    Block(usize),
    #[error("the compressed stream of the block at {0:#x} is damaged")]
    Stream(usize),
    #[error("more than the limit")]
    TooLarge,
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_be_bytes)
}

fn u16_be(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

/// Unpacks an lzop file to at most `limit` bytes.
pub(crate) fn decompress(bytes: &[u8], limit: usize, capacity: usize) -> Result<Vec<u8>, LzoError> {
    let (mut at, flags) = blocks_start(bytes).ok_or(LzoError::Header)?;
    let (sums_unpacked, sums_packed) = (flags & 0x101, flags & 0x202);
    let mut out = Vec::with_capacity(capacity);
    loop {
        let block_at = at;
        let damaged = LzoError::Block(block_at);
        let unpacked = u32_be(bytes, at).ok_or(damaged.clone())? as usize;
        if unpacked == 0 {
            return Ok(out);
        }
        let packed = u32_be(bytes, at + 4).ok_or(damaged.clone())? as usize;
        // Checksums follow (Adler-32 and CRC-32 of what is inside, then of the block), as the flags ask;
        // a block that is stored as it is has only the former. The kernel does not check them either.
        at += 8 + 4 * sums_unpacked.count_ones() as usize;
        if packed < unpacked {
            at += 4 * sums_packed.count_ones() as usize;
        }
        let block = at.checked_add(packed).and_then(|end| bytes.get(at..end)).ok_or(damaged)?;
        at += packed;
        if out.len().saturating_add(unpacked) > limit {
            return Err(LzoError::TooLarge);
        }
        let start = out.len();
        if packed == unpacked {
            out.extend_from_slice(block);
        } else {
            lzo1x(block, &mut out, unpacked).ok_or(LzoError::Stream(block_at))?;
        }
        if out.len() - start != unpacked {
            return Err(LzoError::Stream(block_at));
        }
    }
}

/// Length and flags of the lzop header: magic, versions, method, level, flags, mode, times, name, checksum.
fn blocks_start(bytes: &[u8]) -> Option<(usize, u32)> {
    const HAS_FILTER: u32 = 0x800;
    let version = u16_be(bytes, 9)?;
    let mut at = 9 + 2 + 2;
    if version >= 0x940 {
        at += 2;
    }
    at += 1;
    if version >= 0x940 {
        at += 1;
    }
    let flags = u32_be(bytes, at)?;
    at += 4;
    if flags & HAS_FILTER != 0 {
        at += 4;
    }
    // Mode and the low word of the time; the high word came with 0.940.
    at += 4 + 4;
    if version >= 0x940 {
        at += 4;
    }
    let name = usize::from(*bytes.get(at)?);
    Some((at + 1 + name + 4, flags))
}

/// Decodes one LZO1X stream of at most `limit` bytes behind what `out` holds. Matches may not reach
/// back before this block.
fn lzo1x(input: &[u8], out: &mut Vec<u8>, limit: usize) -> Option<()> {
    let base = out.len();
    let mut stream = Stream { input, at: 0 };
    // How many literals the last instruction copied: 0, 1 to 3, or 4 for "four or more".
    let mut literals = 0usize;
    let first = *input.first()?;
    if first > 17 {
        stream.at = 1;
        let n = usize::from(first) - 17;
        stream.literals(out, n)?;
        literals = n.min(4);
    }
    loop {
        if out.len() - base > limit {
            return None;
        }
        let op = usize::from(stream.byte()?);
        let (distance, length, trailing) = match op {
            0..16 if literals == 0 => {
                let n = if op == 0 { stream.long(15)?.checked_add(3)? } else { op + 3 };
                if n > limit {
                    return None;
                }
                stream.literals(out, n)?;
                literals = 4;
                continue;
            }
            0..16 => {
                let h = usize::from(stream.byte()?);
                let distance = (h << 2) + (op >> 2) + 1;
                if literals < 4 { (distance, 2, op & 3) } else { (distance + 2048, 3, op & 3) }
            }
            16..32 => {
                let short = op & 7;
                let length = if short == 0 { stream.long(7)?.checked_add(2)? } else { short + 2 };
                let tail = stream.u16()?;
                let distance = 16384 + ((op & 8) << 11) + (tail >> 2);
                if distance == 16384 {
                    // The end mark has a length of 3.
                    return (length == 3).then_some(());
                }
                (distance, length, tail & 3)
            }
            32..64 => {
                let short = op & 31;
                let length = if short == 0 { stream.long(31)?.checked_add(2)? } else { short + 2 };
                let tail = stream.u16()?;
                ((tail >> 2) + 1, length, tail & 3)
            }
            _ => {
                let h = usize::from(stream.byte()?);
                let length = if op < 128 { 3 + ((op >> 5) & 1) } else { 5 + ((op >> 5) & 3) };
                ((h << 3) + ((op >> 2) & 7) + 1, length, op & 3)
            }
        };
        if length > limit || distance > out.len() - base {
            return None;
        }
        for _ in 0..length {
            let byte = *out.get(out.len() - distance)?;
            out.push(byte);
        }
        stream.literals(out, trailing)?;
        literals = trailing;
    }
}

struct Stream<'d> {
    input: &'d [u8],
    at: usize,
}

impl Stream<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.input.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    /// A length that did not fit: `base` plus 255 for each zero byte plus the first other byte.
    fn long(&mut self, base: usize) -> Option<usize> {
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length = length.checked_add(255)?,
                n => return length.checked_add(usize::from(n)),
            }
        }
    }

    fn literals(&mut self, out: &mut Vec<u8>, n: usize) -> Option<()> {
        out.extend_from_slice(self.input.get(self.at..self.at.checked_add(n)?)?);
        self.at += n;
        Some(())
    }
}
