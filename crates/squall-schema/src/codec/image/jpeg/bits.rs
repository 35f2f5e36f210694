//! Huffman tables and the bits of a scan.

use crate::{Error, Result};

/// Codes of up to so many bits are found by one look.
const LOOK: u32 = 9;

pub(super) fn broken(what: &str) -> Error {
    Error::corrupt(format!("a jpeg image with damaged data: {what}"))
}

/// A Huffman table, as libjpeg derives it.
pub(super) struct Table {
    /// Length and symbol by the next [`LOOK`] bits; length 0 for the longer codes.
    look: Vec<(u8, u8)>,
    /// By length: the first code of the next length, aligned to this one, and what to add to a code for its symbol's place.
    ends: [(u32, i64); 17],
    symbols: Vec<u8>,
}

impl Table {
    pub(super) fn new(counts: &[u8], symbols: &[u8]) -> Result<Self> {
        let mut look = vec![(0, 0); 1 << LOOK];
        let mut ends = [(0, 0); 17];
        let (mut code, mut place) = (0u32, 0usize);
        for (length, count) in (1u32..).zip(counts) {
            ends[length as usize].1 = place as i64 - i64::from(code);
            for _ in 0..*count {
                if code >= 1 << length {
                    return Err(broken("a Huffman table with more codes than there can be"));
                }
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    look[first..first + (1 << (LOOK - length))].fill((length as u8, symbols[place]));
                }
                code += 1;
                place += 1;
            }
            ends[length as usize].0 = code;
            code <<= 1;
        }
        Ok(Self {
            look,
            ends,
            symbols: symbols.to_vec(),
        })
    }
}

/// The bits of a scan, up to the next marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    pub(super) at: usize,
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8], at: usize) -> Self {
        let (buffer, count) = (0, 0);
        Self {
            data,
            at,
            buffer,
            count,
        }
    }

    /// Takes in what fits, at least 57 bits if so many are there.
    #[inline]
    fn fill(&mut self) {
        if let Some(Ok(bytes)) = self.data.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            let word = u64::from_be_bytes(bytes);
            // No byte is ff: none needs a look at the next one.
            if word & (!word).wrapping_sub(0x0101_0101_0101_0101) & 0x8080_8080_8080_8080 == 0 {
                // The part of a byte that does not count yet is the same when it comes again.
                self.buffer |= word >> self.count;
                self.at += (63 - self.count as usize) / 8;
                self.count |= 56;
                return;
            }
        }
        self.fill_by_bytes();
    }

    fn fill_by_bytes(&mut self) {
        while self.count <= 56 {
            let Some(byte) = self.data.get(self.at) else {
                return;
            };
            if *byte == 0xff {
                if self.data.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.buffer |= u64::from(*byte) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Result<u32> {
        if self.count < count {
            self.fill();
            if self.count < count {
                return Err(broken("it ends before the last block"));
            }
        }
        // A shift by all 64 bits would be none.
        let bits = (self.buffer >> 1 >> (63 - count)) as u32;
        self.buffer <<= count;
        self.count -= count;
        Ok(bits)
    }

    /// A code, and as many bits behind it as the lower half of its symbol says.
    #[inline]
    pub(super) fn coefficient(&mut self, table: &Table) -> Result<u8> {
        if self.count < 32 {
            self.fill();
        }
        let (length, symbol) = table.look[(self.buffer >> (64 - LOOK)) as usize];
        let all = u32::from(length) + u32::from(symbol & 15);
        if length != 0 && all <= self.count {
            self.buffer <<= all;
            self.count -= all;
            return Ok(symbol);
        }
        let symbol = self.symbol(table)?;
        self.take((symbol & 15).into())?;
        Ok(symbol)
    }

    #[inline]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8> {
        if self.count < 16 {
            self.fill();
        }
        let (length, symbol) = table.look[(self.buffer >> (64 - LOOK)) as usize];
        if length != 0 {
            self.take(length.into())?;
            return Ok(symbol);
        }
        for length in LOOK + 1..=16 {
            let code = (self.buffer >> (64 - length)) as u32;
            let (end, offset) = table.ends[length as usize];
            if code < end {
                self.take(length)?;
                let place = usize::try_from(i64::from(code) + offset).ok();
                let symbol = place.and_then(|place| table.symbols.get(place)).copied();
                return symbol.ok_or_else(|| broken("a code that its Huffman table does not have"));
            }
        }
        Err(broken("a code that its Huffman table does not have"))
    }

    /// Drops what fills up the last byte. Gives the marker that stands there.
    pub(super) fn end(&mut self) -> Result<Option<u8>> {
        let buffered = self.count / 8;
        (self.buffer, self.count) = (0, 0);
        loop {
            match self.data.get(self.at..).unwrap_or_default() {
                [0xff, 0xff, ..] => self.at += 1,
                [0xff, marker @ 1..=255, ..] if buffered == 0 => return Ok(Some(*marker)),
                [] | [_] => return Ok(None),
                _ => return Err(broken("something is left over after the last block")),
            }
        }
    }
}
