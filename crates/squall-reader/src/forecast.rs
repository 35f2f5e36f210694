//! What an epoch will take, told before it is read: steps, rows, row groups and bytes of each rank, memory, and how well it is
//! shuffled.
//!
//! Pure but for `sizes`, which reads footers: an order, a share and the sizes of row groups go in, a [`Forecast`] comes out.
//! `docs/plan.md` defines the figures. What would take too long is answered from an even sample, and says so.

mod batches;
mod fetches;
mod figures;
mod memory;
mod quality;
mod sizes;

use std::ops::Range;

use squall_schema::{Error, Result};

use self::batches::Batches;
pub use self::figures::{Coverage, DeliveryMap, Forecast, Memory, Quality, RankForecast};
use self::memory::Hands;
use self::quality::Stored;
use self::sizes::FooterSizes;
use crate::io::Io;
use crate::options::Partition;
use crate::order::Order;
use crate::plan::ReadPlan;
use crate::select::Selection;
use crate::share::{Remainder, Share};

/// Most ranks of a forecast.
const MAX_RANKS: u64 = 1 << 16;
/// Most cells of a map.
const MAX_CELLS: usize = 1 << 22;

/// What is forecast besides the figures.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ForecastOptions {
    /// The epoch; that in which the reader would begin if not given.
    pub epoch: Option<u64>,
    /// Rows, columns and groups of ranks of a [`DeliveryMap`]; none is made if not given. There are never more rows than row
    /// groups, columns than steps, or groups than ranks.
    pub map: Option<(usize, usize, usize)>,
}

impl ForecastOptions {
    /// Forecasts this epoch, from 0.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// Makes a map of so many rows, columns and groups of ranks.
    #[must_use]
    pub fn with_map(mut self, rows: usize, columns: usize, groups: usize) -> Self {
        self.map = Some((rows, columns, groups));
        self
    }
}

/// What rows take. Pieces are those of a selection, rows those that are selected of them.
pub(crate) trait Sizes {
    /// Bytes that fetching rows of a piece takes.
    fn fetch(&self, piece: u32, rows: Range<u64>) -> Result<u64>;

    /// Bytes of memory of a row as its cells are stored, and as it is delivered.
    fn row(&self) -> (f64, f64);
}

/// Ranks that share one order: all of them, or one where row groups are partitioned.
pub(crate) struct Party<'a> {
    first_rank: u64,
    batches: Batches<'a>,
    sizes: &'a dyn Sizes,
    /// The pieces of the order, by their places in the selection of all parties; the same if not given.
    pieces: Option<Vec<u32>>,
}

/// Forecasts what the ranks of a plan do; its own rank does not matter.
pub(crate) fn of_plan(plan: &ReadPlan, io: &Io, partition: Partition, options: &ForecastOptions) -> Result<Forecast> {
    let [source] = &*plan.sources else {
        return Err(Error::unsupported(
            "a mixture has no row groups of its own: forecast its datasets one by one",
        ));
    };
    let share = Share { rank: 0, ..plan.share };
    if share.world_size > MAX_RANKS {
        return Err(Error::unsupported(format!(
            "expected at most {MAX_RANKS} ranks in a forecast, found {}",
            share.world_size
        )));
    }
    let epoch = options.epoch.unwrap_or(plan.start.0);
    let selected = source.rows(epoch)?;
    let footers = FooterSizes::load(source, &selected, io)?;
    // The selection and the share of each party of ranks, and its first rank.
    let parties = match partition {
        Partition::Even => vec![(Selection::clone(&selected), share)],
        Partition::RowGroups => (0..share.world_size)
            .map(|rank| {
                let own = Selection::clone(&selected);
                Ok((
                    own.shard(&source.dataset, rank, share.world_size)?,
                    Share {
                        rank: 0,
                        world_size: 1,
                        global_batch: share.global_batch / share.world_size,
                        remainder: share.remainder,
                    },
                ))
            })
            .collect::<Result<_>>()?,
    };
    let orders = parties.iter().map(|(selection, share)| {
        share.validate_for(selection.rows())?;
        Order::new(&selection.rows_per_piece(), &source.order, epoch)
    });
    let orders = orders.collect::<Result<Vec<_>>>()?;
    let sizes = parties.iter().map(|(selection, _)| footers.of(selection));
    let sizes = sizes.collect::<Result<Vec<_>>>()?;
    let of_all = |selection: &Selection| {
        let all = selected.pieces();
        let place = |ordinal| all.partition_point(|piece| piece.piece < ordinal) as u32;
        selection.pieces().iter().map(|piece| place(piece.piece)).collect()
    };
    let mut first_rank = 0;
    let parties = parties.iter().zip(&orders).zip(&sizes);
    let parties = parties.map(|(((selection, share), order), sizes)| {
        let party = Party {
            first_rank,
            batches: Batches::new(order, *share),
            sizes,
            pieces: (partition == Partition::RowGroups).then(|| of_all(selection)),
        };
        first_rank += share.world_size;
        party
    });
    let parties: Vec<_> = parties.collect();
    let hands = Hands {
        workers: plan.workers as u64,
        prefetch: plan.prefetch as u64,
    };
    let stored = Stored::new(&selected.rows_per_piece(), share.global_batch);
    let bytes = footers.of(&selected)?.all()?;
    let mut forecast = of_parties(&parties, &stored, (hands, bytes), options)?;
    forecast.seed = plan.seed;
    forecast.shuffle = crate::state::shuffle_name(source.order.shuffle);
    forecast.window = source.order.window;
    forecast.global_batch = share.global_batch;
    if partition == Partition::RowGroups {
        forecast.partition = "row-groups";
    }
    Ok(forecast)
}

/// The figures of these parties; what they do not know of the options is left for the caller.
fn of_parties(
    parties: &[Party],
    stored: &Stored,
    (hands, bytes): (Hands, u64),
    options: &ForecastOptions,
) -> Result<Forecast> {
    let steps = parties.iter().map(|party| party.batches.steps).max().unwrap_or(0);
    let world_size: u64 = parties.iter().map(|party| party.batches.share.world_size).sum();
    let mut map = options
        .map
        .map(|size| map(size, (stored.pieces(), steps, world_size)))
        .transpose()?;
    let (quality, batches_taken) = quality::judge(parties, stored, map.as_mut());
    let mut ranks = Vec::new();
    let (mut row_groups_fetched, mut pieces_taken, mut steps_taken) = (0, (0, 0), (0, 0));
    let mut delivered = 0;
    for Party { batches, sizes, .. } in parties {
        let all = fetches::fetches(batches, *sizes)?;
        let (memory, steps) = memory::memory(batches, hands, *sizes)?;
        row_groups_fetched += all.row_groups;
        pieces_taken = (pieces_taken.0 + all.coverage.taken, pieces_taken.1 + all.coverage.of);
        steps_taken = (steps_taken.0 + steps.taken, steps_taken.1 + steps.of);
        for ((rank, fetches), memory) in (0..).zip(all.ranks).zip(memory) {
            let (rows, padded) = batches.rows_of(rank);
            delivered += rows;
            ranks.push(RankForecast {
                rank: ranks.len() as u64,
                steps: batches.steps,
                rows,
                padded,
                row_groups: fetches.row_groups,
                rows_fetched: fetches.rows,
                bytes_fetched: fetches.bytes,
                memory,
            });
        }
    }
    let bytes_fetched = ranks.iter().map(|rank| rank.bytes_fetched).sum();
    let first = parties.first().map(|party| &party.batches);
    Ok(Forecast {
        epoch: first.map_or(0, |batches| batches.order.epoch()),
        seed: 0,
        shuffle: "",
        lanes: first.map_or(0, |batches| batches.order.lanes()),
        window: 0,
        world_size,
        global_batch: 0,
        remainder: match first.map(|batches| batches.share.remainder) {
            Some(Remainder::Drop) => "drop",
            Some(Remainder::Pad) => "pad",
            Some(Remainder::Keep) | None => "keep",
        },
        partition: "even",
        steps,
        rows: parties.iter().map(|party| party.batches.order.len()).sum(),
        delivered,
        padded: ranks.iter().map(|rank| rank.padded).sum(),
        row_groups: stored.pieces(),
        row_groups_fetched,
        bytes,
        bytes_fetched,
        rows_fetched: ranks.iter().map(|rank| rank.rows_fetched).sum(),
        read_amplification: if bytes > 0 {
            bytes_fetched as f64 / bytes as f64
        } else {
            0.0
        },
        ranks,
        quality,
        row_groups_taken: Coverage {
            taken: pieces_taken.0,
            of: pieces_taken.1,
        },
        memory_steps_taken: Coverage {
            taken: steps_taken.0,
            of: steps_taken.1,
        },
        batches_taken,
        map,
    })
}

/// An empty map, no finer than what it shows.
fn map((rows, columns, groups): (usize, usize, usize), most: (u64, u64, u64)) -> Result<DeliveryMap> {
    let size = |wanted: usize, most: u64| wanted.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1);
    let size = (size(rows, most.0), size(columns, most.1), size(groups, most.2));
    let cells = size.0.checked_mul(size.1).and_then(|cells| cells.checked_mul(size.2));
    if cells.is_none_or(|cells| cells > MAX_CELLS) {
        return Err(Error::invalid(format!(
            "expected a map of at most {MAX_CELLS} cells, found {rows} rows, {columns} columns and {groups} groups"
        )));
    }
    Ok(DeliveryMap::new(size))
}

#[cfg(test)]
mod tests;
