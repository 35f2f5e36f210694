//! The memory that a rank needs for rows: windows, fetched bytes and batches at the moment when most of them are alive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use squall_schema::Result;

use super::batches::{Batches, walk};
use super::fetches::{fetched_from, segment_of};
use super::{Coverage, Memory, Sizes};
use crate::pipeline::{PLAN_AHEAD, windows_ahead as windows_ahead_of};
use crate::share::Remainder;

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
    let mut looked_at: Vec<_> = (0..steps)
        .map(|i| (u128::from(i) * u128::from(batches.steps) / u128::from(steps)) as u64)
        .collect();
    // Padding is at the end alone, and takes windows of its own.
    if batches.share.remainder == Remainder::Pad && looked_at.last().is_some_and(|last| last + 1 < batches.steps) {
        looked_at.push(batches.steps - 1);
    }
    let ranks = (0..batches.share.world_size).map(|rank| {
        let mut most = Memory::default();
        for step in &looked_at {
            let now = at_step(batches, hands, sizes, (rank, *step))?;
            if now.total() > most.total() {
                most = now;
            }
        }
        Ok(most)
    });
    let coverage = Coverage {
        taken: looked_at.len() as u64,
        of: batches.steps,
    };
    Ok((ranks.collect::<Result<_>>()?, coverage))
}

/// The windows of a lane that are open in a pass, by their starts and ends.
type Open = BTreeMap<(u64, u64), BTreeSet<(u64, u64)>>;

/// Opens the windows of what a rank gets of the padding, in passes of their own where it goes back to windows before those
/// of the rows before it: the rule of the schedule.
fn open_padding(batches: &Batches, rank: u64, open: &mut Open) {
    let Some(last) = batches.steps.checked_sub(1) else {
        return;
    };
    let (samples, mine) = (batches.samples(last), batches.mine(last, rank));
    let (mut rows, total) = (samples.end - samples.start, batches.rows(last));
    let mut pass = 0;
    while rows < total {
        let samples = 0..(total - rows).min(batches.order.len());
        let offsets = mine.start.saturating_sub(rows)..mine.end.saturating_sub(rows);
        walk(batches.order.lanes(), &samples, offsets, |lane, places| {
            let windows = batches.order.windows(lane);
            let mut at = places.start;
            while at < places.end {
                let Range { start, end } = windows.of(at).1;
                at = end;
                let newest = open.get(&(pass, lane)).and_then(|own| own.last().copied());
                let newest = newest.map(|(start, _)| start).or_else(|| {
                    let last = batches.last_place(lane, rank).filter(|_| pass == 0)?;
                    Some(windows.of(last).1.start)
                });
                pass += u64::from(newest.is_some_and(|newest| newest > start));
                open.entry((pass, lane)).or_default().insert((start, end));
            }
        });
        rows += samples.end;
    }
}

/// While the batch of this step is delivered, all in work are, and the pipeline has planned as far ahead as it does.
fn at_step(batches: &Batches, hands: Hands, sizes: &dyn Sizes, (rank, step): (u64, u64)) -> Result<Memory> {
    let lanes = batches.order.lanes();
    // Of the batches before, only the last window of each lane.
    let mut open = Open::new();
    let mut windows_ahead = 0;
    let most_ahead = windows_ahead_of(lanes, hands.workers);
    let in_work = step.saturating_add(hands.prefetch);
    let mut planned_all = true;
    for batch in step.saturating_sub(lanes.min(PLAN_AHEAD as u64))..batches.steps {
        let planned = batch.saturating_sub(in_work);
        if planned >= PLAN_AHEAD as u64 || (planned > 0 && windows_ahead > most_ahead) {
            planned_all = false;
            break;
        }
        let samples = batches.samples(batch);
        walk(lanes, &samples, batches.mine(batch, rank), |lane, places| {
            let windows = batches.order.windows(lane);
            let own = open.entry((0, lane)).or_default();
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
    if planned_all {
        open_padding(batches, rank, &mut open);
    }
    let mut memory = Memory::default();
    let (mut rows, mut bytes) = (0u64, 0u64);
    for ((pass, lane), own) in &open {
        rows += own.iter().map(|(start, end)| end - start).sum::<u64>();
        let (Some((first, _)), Some((start, end))) = (own.first().copied(), own.last().copied()) else {
            continue;
        };
        let windows = batches.order.windows(*lane);
        let end = windows.of(end.min(batches.order.lane_len(*lane) - 1)).1.end;
        let mut at = start;
        while at < end {
            let segment = segment_of(batches, *lane, at);
            at = segment.rows.end;
            // Padding goes back to segments that were not fetched for the rows before it.
            let before = match pass {
                0 => fetched_from(batches, &windows, &segment, rank),
                _ => None,
            };
            let from = before.unwrap_or(segment.rows.start.max(first));
            bytes += segment.bytes(from, sizes)?;
        }
    }
    let (stored, delivered) = sizes.row();
    // The first batch is as large as any, padding included.
    let batch = batches.mine(0, rank);
    let batch = (batch.end - batch.start) as f64;
    // Besides those in work, one waits to be taken, and the trainer has one.
    let whole = hands.prefetch.saturating_add(2).min(batches.steps) as f64;
    let cells = hands.workers.min(hands.prefetch).min(batches.steps) as f64;
    memory.windows = (rows as f64 * stored) as u64;
    memory.fetched = bytes;
    memory.batches = (whole * batch * delivered + cells * batch * stored) as u64;
    Ok(memory)
}
