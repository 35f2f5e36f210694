//! Whether the entropy-coded data of a jpeg image keeps its format (ITU-T T.81, annexes F and G): every code is in its table,
//! every block is there, restart markers come where and as they must, and little is left over.
//!
//! zune-jpeg does not look: in place of what is damaged it gives grey, or pixels of other places. This walks over the codes as
//! a decoder does and makes nothing of them. It refuses all that libjpeg warns of, and bytes that are left over behind the
//! last block in any number; libjpeg's bit buffer can swallow seven without a word.

use super::bits::{Bits, Table, broken};
use super::frame::{Component, Frame, Input};
use crate::{Error, Result};

/// Checks all scans of an image whose structure is a frame's.
pub(super) fn check(cell: &[u8], frame: &Frame) -> Result<()> {
    let mut state = State::new(frame);
    let mut input = Input { cell, at: 2 };
    loop {
        match input.marker()? {
            0xd9 => return Ok(()),
            0xc4 => state.define_tables(input.segment()?)?,
            0xdd => match *input.segment()? {
                [high, low] => state.restart_interval = u16::from_be_bytes([high, low]).into(),
                _ => return Err(broken("a restart interval of a wrong length")),
            },
            0xda => {
                let header = input.segment()?;
                input.at = state.scan(header, cell, input.at)?;
            }
            _ => {
                input.segment()?;
            }
        }
    }
}

/// How the coefficients of a scan are coded.
#[derive(Clone, Copy)]
struct Band {
    first: usize,
    last: usize,
    refines: bool,
}

/// What is known at a place of the image.
struct State<'a> {
    frame: &'a Frame,
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
    /// For progressive images, by component and block: which coefficients are not zero.
    nonzero: Vec<Vec<u64>>,
}

/// A component of a scan.
struct Part<'a> {
    component: &'a Component,
    blocks: &'a mut [u64],
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
}

impl<'a> State<'a> {
    fn new(frame: &'a Frame) -> Self {
        let units = frame.grid.units();
        let blocks = |own: &Component| match frame.progressive {
            true => units.0 * own.horizontal * units.1 * own.vertical,
            false => 0,
        };
        Self {
            frame,
            dc: Default::default(),
            ac: Default::default(),
            restart_interval: 0,
            nonzero: frame.components.iter().map(|own| vec![0; blocks(own)]).collect(),
        }
    }

    fn define_tables(&mut self, mut segment: &[u8]) -> Result<()> {
        let damaged = || broken("a Huffman table is cut short");
        while let [kind, rest @ ..] = segment {
            let (counts, rest) = rest.split_at_checked(16).ok_or_else(damaged)?;
            let count = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(count).ok_or_else(damaged)?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(damaged()),
            };
            let slot = tables.get_mut(usize::from(kind & 15)).ok_or_else(damaged)?;
            *slot = Some(Table::new(counts, symbols)?);
            segment = rest;
        }
        Ok(())
    }

    /// Walks over a scan that begins at a byte; gives where the marker behind it stands.
    fn scan(&mut self, header: &[u8], cell: &[u8], begin: usize) -> Result<usize> {
        let damaged = || broken("a scan header");
        let [count, ref rest @ ..] = *header else {
            return Err(damaged());
        };
        let (selectors, parameters) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(damaged)?;
        let &[first, last, approximation] = parameters else {
            return Err(damaged());
        };
        let band = Band {
            first: first.into(),
            last: last.into(),
            refines: approximation >> 4 != 0,
        };
        let mut parts = Vec::new();
        for (component, blocks) in self.frame.components.iter().zip(&mut self.nonzero) {
            let Some(selector) = selectors.chunks_exact(2).find(|own| own[0] == component.id) else {
                continue;
            };
            parts.push(Part {
                component,
                blocks,
                dc: self.dc.get(usize::from(selector[1] >> 4)).and_then(Option::as_ref),
                ac: self.ac.get(usize::from(selector[1] & 15)).and_then(Option::as_ref),
            });
        }
        let mut walk = Walk {
            bits: Bits::new(cell, begin),
            band,
            progressive: self.frame.progressive,
            end_of_band: 0,
        };
        let units = self.frame.grid.units().0;
        let interleaved = parts.len() > 1;
        let (across, down) = match &parts[..] {
            [alone] => self.frame.grid.blocks(alone.component),
            _ => self.frame.grid.units(),
        };
        for unit in 0..across * down {
            if self.restart_interval != 0 && unit != 0 && unit % self.restart_interval == 0 {
                walk.restart(unit / self.restart_interval)?;
            }
            let (x, y) = (unit % across, unit / across);
            for part in &mut parts {
                let (horizontal, vertical) = match interleaved {
                    true => (part.component.horizontal, part.component.vertical),
                    false => (1, 1),
                };
                let stride = units * part.component.horizontal;
                for v in 0..vertical {
                    for h in 0..horizontal {
                        walk.block(part, (y * vertical + v) * stride + x * horizontal + h)?;
                    }
                }
            }
        }
        walk.bits.end()?;
        Ok(walk.bits.at)
    }
}

/// The way over a scan.
struct Walk<'a> {
    bits: Bits<'a>,
    band: Band,
    progressive: bool,
    /// How many further blocks have no further coefficients in this band.
    end_of_band: u32,
}

impl Walk<'_> {
    fn restart(&mut self, number: usize) -> Result<()> {
        let expected = 0xd0 + ((number - 1) % 8) as u8;
        if self.bits.end()? != Some(expected) {
            return Err(broken("a restart marker is missing"));
        }
        self.bits.at += 2;
        self.end_of_band = 0;
        Ok(())
    }

    fn block(&mut self, part: &mut Part<'_>, place: usize) -> Result<()> {
        let missing = || broken("a Huffman table is missing");
        if !self.progressive {
            let (dc, ac) = (part.dc.ok_or_else(missing)?, part.ac.ok_or_else(missing)?);
            self.first_coefficient(dc)?;
            return self.band_of_one_block(ac);
        }
        match (self.band.first, self.band.refines) {
            (0, false) => self.first_coefficient(part.dc.ok_or_else(missing)?),
            (0, true) => self.bits.take(1).map(drop),
            (_, refines) => {
                let ac = part.ac.ok_or_else(missing)?;
                let nonzero = part
                    .blocks
                    .get_mut(place)
                    .ok_or_else(|| Error::internal("a block outside the image"))?;
                match refines {
                    false => self.first_of_band(ac, nonzero),
                    true => self.refined_band(ac, nonzero),
                }
            }
        }
    }

    fn first_coefficient(&mut self, table: &Table) -> Result<()> {
        match self.bits.coefficient(table)? {
            ..=15 => Ok(()),
            _ => Err(broken("a first coefficient of more than 15 bits")),
        }
    }

    fn band_of_one_block(&mut self, table: &Table) -> Result<()> {
        let mut k = 1;
        while k < 64 {
            let symbol = self.bits.coefficient(table)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            if size == 0 && run != 15 {
                return Ok(());
            }
            k += usize::from(run) + 1;
        }
        Ok(())
    }

    fn first_of_band(&mut self, table: &Table, nonzero: &mut u64) -> Result<()> {
        if self.end_of_band > 0 {
            self.end_of_band -= 1;
            return Ok(());
        }
        let mut k = self.band.first;
        while k <= self.band.last {
            let symbol = self.bits.coefficient(table)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            if size == 0 && run != 15 {
                self.end_of_band = (1 << run) - 1 + self.bits.take(run.into())?;
                return Ok(());
            }
            k += usize::from(run);
            if size != 0 {
                *nonzero |= 1 << k.min(63);
            }
            k += 1;
        }
        Ok(())
    }

    fn refined_band(&mut self, table: &Table, nonzero: &mut u64) -> Result<()> {
        let mut k = self.band.first;
        while self.end_of_band == 0 && k <= self.band.last {
            let symbol = self.bits.symbol(table)?;
            let (mut run, size) = (symbol >> 4, symbol & 15);
            match size {
                0 if run != 15 => {
                    // This block counts as one of the run.
                    self.end_of_band = (1 << run) + self.bits.take(run.into())?;
                    break;
                }
                0 => {}
                1 => {
                    self.bits.take(1)?;
                }
                _ => return Err(broken("a refinement of more than one bit")),
            }
            while k <= self.band.last {
                if *nonzero >> k & 1 != 0 {
                    self.bits.take(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if size != 0 {
                *nonzero |= 1 << k.min(63);
            }
            k += 1;
        }
        if self.end_of_band > 0 {
            while k <= self.band.last {
                if *nonzero >> k & 1 != 0 {
                    self.bits.take(1)?;
                }
                k += 1;
            }
            self.end_of_band -= 1;
        }
        Ok(())
    }
}
