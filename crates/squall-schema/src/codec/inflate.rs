//! Inflating small streams (RFC 1950 and 1951) whose size is known, one after the other with the same tables.
//!
//! The crates that inflate are made for streams of any length: an image of 28×28 pixels costs them more for tables and states
//! than for its bytes. What is made here is compared with the stream's checksum, and where anything is wrong, or unusual, there
//! is no result: the caller goes to a crate, which decides. So this can be slow for some streams, and wrong for none.

use simd_adler32::adler32;

/// Bits that are looked up at once. Longer codes are rare, and found by their length.
const LITERAL_BITS: u32 = 10;
const DISTANCE_BITS: u32 = 8;

/// The longest code.
const MAX_BITS: usize = 15;
const MAX_LITERALS: usize = 288;
const MAX_DISTANCES: usize = 30;

/// Where the lengths of the codes of lengths stand.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Inflates streams. It keeps its tables from one to the next.
pub(super) struct Inflater {
    literals: Table<{ 1 << LITERAL_BITS }>,
    distances: Table<{ 1 << DISTANCE_BITS }>,
    lengths: Table<{ 1 << 7 }>,
    /// Whether the tables are those of blocks with fixed codes.
    is_fixed: bool,
}

impl Default for Inflater {
    fn default() -> Self {
        Self {
            literals: Table::new(),
            distances: Table::new(),
            lengths: Table::new(),
            is_fixed: false,
        }
    }
}

impl Inflater {
    /// Fills `out` with a zlib stream that holds as many bytes, ends with `data`, and has the right checksum.
    pub(super) fn zlib(&mut self, data: &[u8], out: &mut [u8]) -> Option<()> {
        let ([method, flags], rest) = data.split_first_chunk::<2>()?;
        let is_deflate = method & 15 == 8 && method >> 4 <= 7 && flags & 0x20 == 0;
        if !is_deflate || u16::from_be_bytes([*method, *flags]) % 31 != 0 {
            return None;
        }
        let (body, checksum) = rest.split_last_chunk::<4>()?;
        self.deflate(body, out)?;
        (adler32(&&*out) == u32::from_be_bytes(*checksum)).then_some(())
    }

    /// Fills `out` with a stream without a head that holds as many bytes and ends with `data`. Nothing is compared.
    fn deflate(&mut self, data: &[u8], out: &mut [u8]) -> Option<()> {
        let mut bits = Bits {
            data,
            at: 0,
            buffer: 0,
            count: 0,
        };
        let mut end = 0;
        loop {
            bits.fill();
            let is_last = bits.take(1)? == 1;
            match bits.take(2)? {
                0 => end = bits.stored(out, end)?,
                1 => {
                    self.fixed_tables()?;
                    end = self.block(&mut bits, out, end)?;
                }
                2 => {
                    self.own_tables(&mut bits)?;
                    end = self.block(&mut bits, out, end)?;
                }
                _ => return None,
            }
            if is_last {
                let is_whole = end == out.len() && bits.at == data.len() && bits.count < 8;
                return is_whole.then_some(());
            }
        }
    }

    fn fixed_tables(&mut self) -> Option<()> {
        if !self.is_fixed {
            let mut lengths = [8; MAX_LITERALS];
            lengths[144..256].fill(9);
            lengths[256..280].fill(7);
            self.literals.build(&lengths, literal)?;
            // Two of its 32 codes have no meaning.
            self.distances.build(&[5; 32], distance)?;
            self.is_fixed = true;
        }
        Some(())
    }

    /// Reads the tables at the beginning of a block.
    fn own_tables(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.is_fixed = false;
        bits.fill();
        let n_literals = bits.take(5)? as usize + 257;
        let n_distances = bits.take(5)? as usize + 1;
        let n_lengths = bits.take(4)? as usize + 4;
        if n_literals > 286 || n_distances > MAX_DISTANCES {
            return None;
        }
        let mut own = [0; 19];
        for place in &ORDER[..n_lengths] {
            if bits.count < 3 {
                bits.fill();
            }
            own[*place] = bits.take(3)? as u8;
        }
        self.lengths.build(&own, |symbol| Some((symbol as Entry) << PAYLOAD))?;
        let mut lengths = [0u8; MAX_LITERALS + MAX_DISTANCES];
        let lengths = &mut lengths[..n_literals + n_distances];
        let mut at = 0;
        while at < lengths.len() {
            bits.fill();
            let symbol = self.lengths.next(bits)? >> PAYLOAD;
            let (value, repeat) = match symbol {
                0..=15 => {
                    lengths[at] = symbol as u8;
                    at += 1;
                    continue;
                }
                16 => (*lengths.get(at.checked_sub(1)?)?, 3 + bits.take(2)?),
                17 => (0, 3 + bits.take(3)?),
                _ => (0, 11 + bits.take(7)?),
            };
            lengths.get_mut(at..at + repeat as usize)?.fill(value);
            at += repeat as usize;
        }
        let (literals, distances) = lengths.split_at(n_literals);
        self.literals.build(literals, literal)?;
        self.distances.build(distances, distance)
    }

    /// Inflates a block behind the first `end` bytes; gives where it ends.
    fn block(&self, bits: &mut Bits<'_>, out: &mut [u8], mut end: usize) -> Option<usize> {
        loop {
            bits.fill();
            let mut entry = self.literals.next(bits)?;
            // Three literals, and no more, take less than what a fill gives.
            for _ in 0..2 {
                if entry & LITERAL == 0 {
                    break;
                }
                *out.get_mut(end)? = (entry >> PAYLOAD) as u8;
                end += 1;
                entry = self.literals.next(bits)?;
            }
            if entry & LITERAL != 0 {
                *out.get_mut(end)? = (entry >> PAYLOAD) as u8;
                end += 1;
                continue;
            }
            if entry & END != 0 {
                return Some(end);
            }
            bits.fill();
            let length = (entry >> PAYLOAD) as usize + bits.take(entry >> EXTRA & 15)? as usize;
            let entry = self.distances.next(bits)?;
            let distance = (entry >> PAYLOAD) as usize + bits.take(entry >> EXTRA & 15)? as usize;
            repeat(out, end, distance, length)?;
            end += length;
        }
    }
}

/// Writes `length` bytes at `end` that are those `distance` before them.
#[inline]
fn repeat(out: &mut [u8], end: usize, distance: usize, length: usize) -> Option<()> {
    let start = end.checked_sub(distance)?;
    let all = out.get_mut(start..end.checked_add(length)?)?;
    if distance == 1 {
        let byte = all[0];
        all[1..].fill(byte);
    } else if distance >= length {
        all.copy_within(..length, distance);
    } else {
        for i in distance..all.len() {
            all[i] = all[i - distance];
        }
    }
    Some(())
}

/// An entry of a table: the length of its code in the lowest [`LENGTH`] bits, bits that follow the code from [`EXTRA`] on, what it
/// stands for from [`PAYLOAD`] on.
type Entry = u32;
const LENGTH: Entry = 0x0f;
const EXTRA: u32 = 4;
const LITERAL: Entry = 0x100;
const END: Entry = 0x200;
const PAYLOAD: u32 = 16;

/// The entry of a literal, of a length or of the end of a block, without its code.
fn literal(symbol: usize) -> Option<Entry> {
    const BASES: [u16; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227,
        258,
    ];
    Some(match symbol {
        0..256 => LITERAL | (symbol as Entry) << PAYLOAD,
        256 => END,
        _ => {
            let place = symbol - 257;
            let extra = match place {
                0..4 | 28 => 0,
                _ => (place as u32 - 4) / 4,
            };
            Entry::from(*BASES.get(place)?) << PAYLOAD | extra << EXTRA
        }
    })
}

/// The entry of a distance, without its code.
fn distance(symbol: usize) -> Option<Entry> {
    let (base, extra) = match symbol {
        0..4 => (symbol as u32 + 1, 0),
        4..MAX_DISTANCES => {
            let extra = (symbol as u32 - 2) / 2;
            (((2 + symbol as u32 % 2) << extra) + 1, extra)
        }
        _ => return None,
    };
    Some(base << PAYLOAD | extra << EXTRA)
}

/// A Huffman code: of `N` entries, a power of 2, found by the next bits; the lowest bit is the first.
struct Table<const N: usize> {
    entries: [Entry; N],
    /// For the codes that are longer: where those of each length end, as 15 bits of which the highest is the first; and what to
    /// take from a code of that length for the place of its entry.
    ends: [(u32, u32); MAX_BITS + 1],
    sorted: [Entry; MAX_LITERALS],
}

impl<const N: usize> Table<N> {
    const BITS: usize = N.trailing_zeros() as usize;

    fn new() -> Self {
        Self {
            entries: [0; N],
            ends: [(0, 0); MAX_BITS + 1],
            sorted: [0; MAX_LITERALS],
        }
    }

    /// The canonical code with these lengths by symbol. It must use all codes that there are, or have a single one.
    fn build(&mut self, lengths: &[u8], entry_of: impl Fn(usize) -> Option<Entry>) -> Option<()> {
        let mut counts = [0usize; MAX_BITS + 1];
        lengths.iter().for_each(|length| counts[usize::from(length & 15)] += 1);
        let n_codes = lengths.len() - counts[0];
        counts[0] = 0;
        let (mut places, mut place, mut code) = ([0usize; MAX_BITS + 1], 0, 0u32);
        for length in 1..=MAX_BITS {
            places[length] = place;
            code <<= 1;
            self.ends[length].1 = code.wrapping_sub(place as u32);
            code += counts[length] as u32;
            place += counts[length];
            self.ends[length].0 = code << (MAX_BITS - length);
        }
        let is_single = n_codes <= 1 && counts[1] == n_codes;
        if code != 1 << MAX_BITS && !is_single {
            return None;
        }
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length != 0) {
            let place = &mut places[usize::from(*length)];
            // A symbol without a meaning may have a code: it must not come.
            self.sorted[*place] = entry_of(symbol).map_or(0, |entry| entry | Entry::from(*length));
            *place += 1;
        }
        self.entries.fill(0);
        let (mut sorted, mut code) = (self.sorted[..n_codes].iter(), 0usize);
        for length in 1..=Self::BITS {
            // Each code so far is two, with a bit more.
            let half = 1 << (length - 1);
            self.entries.copy_within(..half, half);
            for entry in sorted.by_ref().take(counts[length]) {
                *self.entries.get_mut(code)? = *entry;
                // The next code: the highest bit counts least.
                let mut bit = half;
                while code & bit != 0 {
                    code ^= bit;
                    bit >>= 1;
                }
                code |= bit;
            }
        }
        Some(())
    }

    /// Takes the next code. At least 15 bits must be there, or those that are left.
    #[inline]
    fn next(&self, bits: &mut Bits<'_>) -> Option<Entry> {
        let entry = self.entries[bits.buffer as usize & (N - 1)];
        if entry != 0 {
            bits.take(entry & LENGTH)?;
            return Some(entry);
        }
        self.next_long(bits)
    }

    #[cold]
    fn next_long(&self, bits: &mut Bits<'_>) -> Option<Entry> {
        let code = (bits.buffer as u32).reverse_bits() >> (32 - MAX_BITS);
        // Shorter codes would have been found.
        if code < self.ends[Self::BITS].0 {
            return None;
        }
        let length = (Self::BITS + 1..=MAX_BITS).find(|length| code < self.ends[*length].0)?;
        let place = (code >> (MAX_BITS - length)).wrapping_sub(self.ends[length].1);
        let entry = *self.sorted.get(place as usize)?;
        bits.take(length as u32)?;
        (entry & LENGTH == length as Entry).then_some(entry)
    }
}

/// The bits of a stream, the lowest first.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    buffer: u64,
    count: u32,
}

impl Bits<'_> {
    /// Takes in what fits: 56 bits or more, if so many are there.
    #[inline]
    fn fill(&mut self) {
        match self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            Some(word) => {
                // The part of a byte that does not count yet is the same when it comes again.
                self.buffer |= u64::from_le_bytes(*word) << self.count;
                self.at += (63 - self.count as usize) / 8;
                self.count |= 56;
            }
            None => {
                while self.count < 56 {
                    let Some(byte) = self.data.get(self.at) else {
                        return;
                    };
                    self.buffer |= u64::from(*byte) << self.count;
                    self.at += 1;
                    self.count += 8;
                }
            }
        }
    }

    #[inline]
    fn take(&mut self, count: u32) -> Option<u32> {
        self.count = self.count.checked_sub(count)?;
        let bits = self.buffer & ((1 << count) - 1);
        self.buffer >>= count;
        Some(bits as u32)
    }

    /// Copies a block that is not compressed.
    fn stored(&mut self, out: &mut [u8], end: usize) -> Option<usize> {
        self.at -= self.count as usize / 8;
        (self.buffer, self.count) = (0, 0);
        let head = self.data.get(self.at..)?.first_chunk::<4>()?;
        let (length, inverse) = (
            u16::from_le_bytes([head[0], head[1]]),
            u16::from_le_bytes([head[2], head[3]]),
        );
        let length = (length == !inverse).then_some(usize::from(length))?;
        let bytes = self.data.get(self.at + 4..)?.get(..length)?;
        out.get_mut(end..end + length)?.copy_from_slice(bytes);
        self.at += 4 + length;
        Some(end + length)
    }
}

#[cfg(test)]
mod tests;
