//! The memory that a rank needs for rows: windows, fetched bytes and batches at the moment when most of them are alive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use squall_schema::Result;

use super::batches::{Batches, walk};
use super::fetches::{fetched_from, segment_of};
use super::{Coverage, Memory, Sizes};
use crate::pipeline::PLAN_AHEAD;

/// Most steps of the epoch that are looked at, and of all ranks together; never fewer than two.
const STEPS: u64 = 64;
const STEPS_OF_ALL: u64 = 4096;

/// What a reader keeps in work beside the rows themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hands {
    pub(crate) workers: u64,
    /// Batches that are made before they are asked for.
    pub(crate) prefetch: u64,
}

/// For each rank the most memory over evenly spaced steps.
pub(crate) fn memory(batches: &Batches, hands: Hands, sizes: &dyn Sizes) -> Result<(Vec<Memory>, Coverage)> {
    let steps = (STEPS_OF_ALL / batches.share.world_size).clamp(2, STEPS);
    let steps = steps.min(batches.steps);
    let ranks = (0..batches.share.world_size).map(|rank| {
        let mut most = Memory::default();
        for i in 0..steps {
            let step = (u128::from(i) * u128::from(batches.steps) / u128::from(steps)) as u64;
            let now = at_step(batches, hands, sizes, (rank, step))?;
            if now.total() > most.total() {
                most = now;
            }
        }
        Ok(most)
    });
    let coverage = Coverage {
        taken: steps,
        of: batches.steps,
    };
    Ok((ranks.collect::<Result<_>>()?, coverage))
}

/// While the batch of this step is delivered, all in work are, and the pipeline has planned as far ahead as it does.
fn at_step(batches: &Batches, hands: Hands, sizes: &dyn Sizes, (rank, step): (u64, u64)) -> Result<Memory> {
    let lanes = batches.order.lanes();
    // By lane, the starts and ends of the windows that are open; of the batches before, only the last one of each lane.
    let mut open: BTreeMap<u64, BTreeSet<(u64, u64)>> = BTreeMap::new();
    let mut windows_ahead = 0;
    let in_work = step.saturating_add(hands.prefetch);
    for batch in step.saturating_sub(lanes.min(PLAN_AHEAD as u64))..batches.steps {
        let planned = batch.saturating_sub(in_work);
        if planned >= PLAN_AHEAD as u64 || (planned > 0 && windows_ahead > lanes) {
            break;
        }
        let samples = batches.samples(batch);
        walk(lanes, &samples, batches.mine(batch, rank), |lane, places| {
            let windows = batches.order.windows(lane);
            let own = open.entry(lane).or_default();
            let mut at = places.start;
            while at < places.end {
                let Range { start, end } = windows.of(at).1;
                at = end;
                let new = own.insert((start, end));
                windows_ahead += u64::from(new && batch >= in_work);
            }
            if batch < step {
                while own.len() > 1 {
                    own.pop_first();
                }
            }
        });
    }
    let mut memory = Memory::default();
    let (mut rows, mut bytes) = (0u64, 0u64);
    for (lane, own) in &open {
        rows += own.iter().map(|(start, end)| end - start).sum::<u64>();
        let Some((start, end)) = own.last().copied() else {
            continue;
        };
        let windows = batches.order.windows(*lane);
        let end = windows.of(end.min(batches.order.lane_len(*lane) - 1)).1.end;
        let mut at = start;
        while at < end {
            let segment = segment_of(batches, *lane, at);
            at = segment.rows.end;
            // Padding goes back to segments that were not fetched for the rows before it.
            let from = fetched_from(batches, &windows, &segment, rank).unwrap_or(segment.rows.start);
            bytes += segment.bytes(from, sizes)?;
        }
    }
    let (stored, delivered) = sizes.row();
    let batch = batches.share.global_batch / batches.share.world_size;
    let batch = batch.min(batches.order.len()) as f64;
    // Besides those in work, one waits to be taken, and the trainer has one.
    let whole = (hands.prefetch + 2).min(batches.steps) as f64;
    let cells = hands.workers.min(hands.prefetch).min(batches.steps) as f64;
    memory.windows = (rows as f64 * stored) as u64;
    memory.fetched = bytes;
    memory.batches = (whole * batch * delivered + cells * batch * stored) as u64;
    Ok(memory)
}
