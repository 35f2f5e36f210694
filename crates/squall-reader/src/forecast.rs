//! What an epoch will take, told before it is read: steps, rows, row groups and bytes of each rank, memory, and how well it is
//! shuffled.
//!
//! Pure but for `sizes`, which reads footers: an order, a share and the sizes of row groups go in, a [`Forecast`] comes out.
//! `docs/plan.md` defines the figures. What would take too long is answered from an even sample, and says so.

pub(crate) mod batches;
mod fetches;
mod figures;
mod memory;
mod quality;
mod sizes;
mod strata;
mod world;

use std::ops::Range;

use squall_schema::{Error, Result};

pub use self::figures::{Coverage, DeliveryMap, Forecast, MapSize, Memory, Quality, RankForecast};
use self::memory::Hands;
use self::quality::{RANK_WORK, Verdict};
use self::sizes::FooterSizes;
use self::strata::Stored;
pub(crate) use self::world::World;
use self::world::{EpochOrders, Party};
use crate::io::Io;
use crate::options::Partition;
use crate::plan::ReadPlan;
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
    /// The size of a [`DeliveryMap`]; none is made if not given. There are never more rows than row groups, columns than
    /// steps, or groups than ranks.
    pub map: Option<MapSize>,
}

impl ForecastOptions {
    /// Forecasts this epoch, from 0.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// Makes a map of this size.
    #[must_use]
    pub fn with_map(mut self, size: MapSize) -> Self {
        self.map = Some(size);
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

/// Forecasts what the ranks of a plan do; its own rank does not matter.
pub(crate) fn of_plan(plan: &ReadPlan, io: &Io, world: &World, options: &ForecastOptions) -> Result<Forecast> {
    let [source] = &*plan.sources else {
        return Err(Error::unsupported(
            "a mixture has no row groups of its own: forecast its datasets one by one",
        ));
    };
    if source.in_memory {
        return Err(Error::unsupported(
            "a forecast is of what each epoch fetches: a reader with in_memory fetches all rows once, while it is built",
        ));
    }
    let share = Share { rank: 0, ..plan.share };
    if world.ranks > MAX_RANKS {
        return Err(Error::invalid(format!(
            "expected at most {MAX_RANKS} ranks in a forecast, found {}",
            world.ranks
        )));
    }
    let epoch = options.epoch.unwrap_or(plan.start.0);
    let orders = EpochOrders::new(source, share, world.partition, epoch)?;
    let footers = FooterSizes::load(source, &orders.selected, io)?;
    let sizes = orders.shards.iter().map(|shard| footers.of(&shard.selection));
    let sizes = sizes.collect::<Result<Vec<_>>>()?;
    let sizes: Vec<_> = sizes.iter().map(|sizes| sizes as &dyn Sizes).collect();
    let stored = |orders: &EpochOrders| Stored::new(&orders.selected.rows_per_piece(), share.global_batch);
    let (parties, in_order) = (orders.parties(), stored(&orders));
    let steps = parties.iter().map(|party| party.batches.steps).max().unwrap_or(0);
    let most = (in_order.pieces(), steps, share.world_size);
    let mut map = options.map.map(|size| map(size, most)).transpose()?;
    let mut verdict = Verdict::default();
    verdict.add(&parties, &in_order, share.world_size, map.as_mut());
    // What a draw looks at is more than it draws. Judging a rank's batch takes as long as laying out some rows.
    let ranks = share.world_size.saturating_mul(steps).saturating_mul(RANK_WORK);
    let rows = orders.selected.rows().max(source.selection.rows());
    let work = rows.saturating_add(in_order.pieces()).saturating_add(ranks);
    let mut later = epoch;
    while verdict.wants_more(work)
        && let Some(next) = later.checked_add(1)
    {
        later = next;
        let orders = EpochOrders::new(source, share, world.partition, later)?;
        verdict.add(&orders.parties(), &stored(&orders), share.world_size, None);
    }
    let ranks = Ranks {
        world_size: share.world_size,
        hands: Hands {
            workers: plan.workers as u64,
            prefetch: plan.prefetch as u64,
        },
        sizes: &sizes,
        bytes: footers.of(&orders.selected)?.all()?,
    };
    let mut forecast = of_parties(&parties, &in_order, &ranks, verdict)?;
    forecast.map = map;
    forecast.seed = plan.seed;
    forecast.shuffle = crate::state::shuffle_name(source.order.shuffle);
    forecast.window = source.order.window;
    forecast.global_batch = share.global_batch;
    if world.partition == Partition::RowGroups {
        forecast.partition = "row-groups";
    }
    world.spread(&mut forecast)?;
    forecast.bytes_fetched = forecast.ranks.iter().map(|rank| rank.bytes_fetched).sum();
    forecast.rows_fetched = forecast.ranks.iter().map(|rank| rank.rows_fetched).sum();
    if forecast.bytes > 0 {
        forecast.read_amplification = forecast.bytes_fetched as f64 / forecast.bytes as f64;
    }
    Ok(forecast)
}

/// What is known of ranks besides their batches. The ranks of a group are one here.
struct Ranks<'a> {
    world_size: u64,
    hands: Hands,
    /// What the rows of each party take.
    sizes: &'a [&'a dyn Sizes],
    /// Bytes of the rows of all parties.
    bytes: u64,
}

/// The figures of these parties, but for sums over ranks; what they do not know of the options is left for the caller.
fn of_parties(parties: &[Party], stored: &Stored, world: &Ranks, verdict: Verdict) -> Result<Forecast> {
    let steps = parties.iter().map(|party| party.batches.steps).max().unwrap_or(0);
    let mut ranks: Vec<_> = (0..world.world_size).map(RankForecast::without_rows).collect();
    let mut without_rows = vec![true; ranks.len()];
    let (mut row_groups_fetched, mut pieces_taken, mut steps_taken) = (0, (0, 0), (0, 0));
    let mut delivered = 0;
    for (party, sizes) in parties.iter().zip(world.sizes) {
        let batches = &party.batches;
        let all = fetches::fetches(batches, *sizes)?;
        let (memory, steps) = memory::memory(batches, world.hands, *sizes)?;
        row_groups_fetched += all.row_groups;
        pieces_taken = (pieces_taken.0 + all.coverage.taken, pieces_taken.1 + all.coverage.of);
        steps_taken = (steps_taken.0 + steps.taken, steps_taken.1 + steps.of);
        for ((own, fetches), memory) in (0..).zip(all.ranks).zip(memory) {
            let (rows, padded) = batches.rows_of(own);
            delivered += rows;
            let rank = party.first_rank + own;
            without_rows[rank as usize] = false;
            ranks[rank as usize] = RankForecast {
                rank,
                group: rank,
                steps: batches.steps,
                rows,
                padded,
                row_groups: fetches.row_groups,
                rows_fetched: fetches.rows,
                bytes_fetched: fetches.bytes,
                memory,
            };
        }
    }
    let (quality, batches_taken) = verdict.finish();
    let first = parties.first().map(|party| &party.batches);
    Ok(Forecast {
        epoch: first.map_or(0, |batches| batches.order.epoch()),
        seed: 0,
        shuffle: "",
        lanes: first.map_or(0, |batches| batches.order.lanes()),
        window: 0,
        world_size: world.world_size,
        groups: world.world_size,
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
        bytes: world.bytes,
        bytes_fetched: 0,
        rows_fetched: 0,
        read_amplification: 0.0,
        ranks_without_rows: (0..)
            .zip(without_rows)
            .filter_map(|(rank, empty)| empty.then_some(rank))
            .collect(),
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
        map: None,
    })
}

/// An empty map, no finer than what it shows.
fn map(wanted: MapSize, most: (u64, u64, u64)) -> Result<DeliveryMap> {
    let MapSize { rows, columns, groups } = wanted;
    let size = |wanted: usize, most: u64| wanted.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1);
    let size = MapSize {
        rows: size(rows, most.0),
        columns: size(columns, most.1),
        groups: size(groups, most.2),
    };
    let cells = size.rows.checked_mul(size.columns);
    let cells = cells.and_then(|cells| cells.checked_mul(size.groups));
    if cells.is_none_or(|cells| cells > MAX_CELLS) {
        return Err(Error::invalid(format!(
            "expected a map of at most {MAX_CELLS} cells, found {rows} rows, {columns} columns and {groups} groups"
        )));
    }
    Ok(DeliveryMap::new(size))
}

#[cfg(test)]
mod tests;
