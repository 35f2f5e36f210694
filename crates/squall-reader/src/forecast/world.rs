//! The ranks of a forecast, and what each of them has of an epoch: rows, order and share.

use std::sync::Arc;

use squall_schema::Result;

use super::batches::Batches;
use super::{Forecast, RankForecast};
use crate::options::Partition;
use crate::order::Order;
use crate::rank::Topology;
use crate::select::Selection;
use crate::share::Share;
use crate::source::Source;

/// The ranks of a forecast.
pub(crate) struct World {
    pub(crate) ranks: u64,
    pub(crate) topology: Option<Topology>,
    pub(crate) partition: Partition,
}

/// Ranks that share one order: all of them, or one where row groups are partitioned. The ranks of a group of the topology
/// are one here.
pub(crate) struct Party<'a> {
    pub(crate) first_rank: u64,
    pub(crate) batches: Batches<'a>,
    /// The pieces of the order, by their places in the selection of all parties; the same if not given.
    pub(crate) pieces: Option<Vec<u32>>,
}

/// An epoch as its ranks have it.
pub(crate) struct EpochOrders {
    /// The rows of all ranks.
    pub(crate) selected: Arc<Selection>,
    pub(crate) shards: Vec<Shard>,
    partition: Partition,
}

/// Rows that are in one order. No shard is empty.
pub(crate) struct Shard {
    first_rank: u64,
    pub(crate) selection: Selection,
    share: Share,
    order: Order,
}

impl EpochOrders {
    /// An epoch of a dataset for ranks with this share.
    pub(crate) fn new(source: &Source, share: Share, partition: Partition, epoch: u64) -> Result<Self> {
        let selected = source.rows(epoch)?;
        let shard = |first_rank: u64, selection: Selection, share: Share| {
            share.validate_for(selection.rows())?;
            let order = Order::new(&selection.rows_per_piece(), &source.order, epoch)?;
            Ok(Shard {
                first_rank,
                selection,
                share,
                order,
            })
        };
        let shards = match partition {
            Partition::Even => vec![shard(0, Selection::clone(&selected), share)?],
            Partition::RowGroups => {
                let too_few = source.dataset.pieces().len() < share.world_size as usize;
                let ranks = 0..share.world_size;
                // What cannot be partitioned at all is refused by the first rank; one that has no rows has no batches.
                let ranks = ranks.filter(|rank| too_few || selected.has_shard(*rank, share.world_size));
                let shards = ranks.map(|rank| {
                    let own = Selection::clone(&selected).shard(&source.dataset, rank, share.world_size)?;
                    let alone = Share {
                        rank: 0,
                        world_size: 1,
                        global_batch: share.global_batch / share.world_size,
                        remainder: share.remainder,
                    };
                    shard(rank, own, alone)
                });
                shards.collect::<Result<_>>()?
            }
        };
        Ok(Self {
            selected,
            shards,
            partition,
        })
    }

    pub(crate) fn parties(&self) -> Vec<Party<'_>> {
        let all = self.selected.pieces();
        let place = |ordinal| all.partition_point(|piece| piece.piece < ordinal) as u32;
        let parties = self.shards.iter().map(|shard| {
            let pieces = shard.selection.pieces().iter();
            Party {
                first_rank: shard.first_rank,
                batches: Batches::new(&shard.order, shard.share),
                pieces: (self.partition == Partition::RowGroups)
                    .then(|| pieces.map(|piece| place(piece.piece)).collect()),
            }
        });
        parties.collect()
    }
}

impl World {
    /// Makes figures of ranks of those of groups.
    pub(crate) fn spread(&self, forecast: &mut Forecast) -> Result<()> {
        let Some(topology) = &self.topology else {
            return Ok(());
        };
        let groups = topology.group_of_each(self.ranks)?;
        let without_rows = std::mem::take(&mut forecast.ranks_without_rows);
        let ranks = (0..).zip(&groups).map(|(rank, group)| RankForecast {
            rank,
            group: *group,
            ..forecast.ranks[*group as usize]
        });
        forecast.ranks = ranks.collect();
        let empty = (0..)
            .zip(&groups)
            .filter(|(_, group)| without_rows.binary_search(group).is_ok());
        forecast.ranks_without_rows = empty.map(|(rank, _)| rank).collect();
        forecast.world_size = self.ranks;
        Ok(())
    }
}
