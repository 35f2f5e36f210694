//! All that was asked of a reader, and the plan that comes of it.

use std::num::NonZero;
use std::sync::Arc;

use squall_schema::{Error, Field, Result, Schema};

use crate::bad_rows::OnBadRow;
use crate::footprint::memory_budget;
use crate::io::Io;
use crate::ledger::Ledger;
use crate::mix::{Ending, Mix, member_seed};
use crate::order::OrderOptions;
use crate::plan::ReadPlan;
use crate::rank::{self, Topology};
use crate::reader::Opened;
use crate::resident;
use crate::select::Selection;
use crate::sequence::Sequence;
use crate::share::{Remainder, Share};
use crate::source::{Source, SourceOptions};
use crate::state::ReaderState;

/// Rows of a rank's batch when none are given.
pub const DEFAULT_BATCH_SIZE: u64 = 64;

/// How the data is divided among the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partition {
    /// Equal slices of each global batch.
    #[default]
    Even,
    /// Whole row groups, by their ordinal modulo the world size, as Petastorm does. Ranks have unequal numbers of rows
    /// and steps, and the order depends on the world size. For reproducing a run of Petastorm.
    RowGroups,
}

/// Most threads of a reader, and most batches that it makes ahead: more is a mistake.
const MAX_WORKERS: usize = 4096;
const MAX_PREFETCH: usize = 1 << 20;
/// Bytes of batches that are made ahead if no number is given, and most of them. Small batches are made several at a time: to hand
/// each over by itself would cost more than to make it.
const PREFETCH_BYTES: u64 = 4 << 20;
const PREFETCH_BATCHES: usize = 32;

/// The options of a reader. Those of one dataset are in `source`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) source: SourceOptions,
    /// The datasets of a mixture, with their weights.
    pub(crate) members: Option<Vec<(Options, f64)>>,
    pub(crate) ending: Option<Ending>,
    pub(crate) rank: Option<(u64, u64)>,
    pub(crate) rank_from_env: bool,
    pub(crate) topology: Option<Topology>,
    pub(crate) epochs: Option<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) batch_size: Option<u64>,
    pub(crate) global_batch: Option<u64>,
    pub(crate) remainder: Remainder,
    pub(crate) partition: Partition,
    pub(crate) on_bad_row: OnBadRow,
    pub(crate) ledger: Option<Ledger>,
    pub(crate) resume: Option<ReaderState>,
    pub(crate) workers: Option<usize>,
    pub(crate) prefetch: Option<usize>,
    pub(crate) memory_budget: Option<u64>,
    pub(crate) slice_size: Option<u64>,
    pub(crate) cache_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source: SourceOptions::default(),
            members: None,
            ending: None,
            rank: None,
            rank_from_env: false,
            topology: None,
            epochs: Some(1),
            seed: None,
            batch_size: None,
            global_batch: None,
            remainder: Remainder::Keep,
            partition: Partition::Even,
            on_bad_row: OnBadRow::Fail,
            ledger: None,
            resume: None,
            workers: None,
            prefetch: None,
            memory_budget: None,
            slice_size: None,
            cache_bytes: None,
        }
    }
}

impl Options {
    /// This rank and the number of ranks, before a topology makes groups of them.
    pub(crate) fn rank_of_world(&self) -> Result<(u64, u64)> {
        let from_env = if self.rank_from_env {
            rank::from_env(|name| std::env::var(name).ok())?
        } else {
            None
        };
        match (self.rank, from_env) {
            (Some(given), Some(found)) if given != found => Err(Error::invalid(format!(
                "the rank given is {} of {}, but the environment says {} of {}",
                given.0, given.1, found.0, found.1
            ))),
            (given, found) => Ok(given.or(found).unwrap_or((0, 1))),
        }
    }

    fn share(&self) -> Result<Share> {
        let (rank, world_size) = self.rank_of_world()?;
        let (rank, world_size) = match &self.topology {
            Some(topology) => topology.group(rank, world_size)?,
            None => (rank, world_size),
        };
        let global_batch = match (self.batch_size, self.global_batch) {
            (Some(_), Some(_)) => return Err(Error::invalid("give a batch size or a global batch, not both")),
            (None, Some(global_batch)) => global_batch,
            (batch_size, None) => {
                return Share::of_batch_size(
                    rank,
                    world_size,
                    batch_size.unwrap_or(DEFAULT_BATCH_SIZE),
                    self.remainder,
                );
            }
        };
        let share = Share {
            rank,
            world_size,
            global_batch,
            remainder: self.remainder,
        };
        share.validate()?;
        Ok(share)
    }

    /// The process's rank, the number of processes, and its place in its group, where ranks stand in groups.
    fn member(&self) -> Result<Option<(u64, u64, u64)>> {
        let Some(topology) = &self.topology else {
            return Ok(None);
        };
        let (rank, world_size) = self.rank_of_world()?;
        let replica = topology.replica(rank, world_size)?;
        let unequal = || Error::unsupported("groups of ranks that differ in size have no ledger together");
        Ok(Some((rank, world_size, replica.ok_or_else(unequal)?)))
    }

    pub(crate) fn open(self) -> Result<Opened> {
        let ledger = match (&self.ledger, self.partition) {
            (Some(_), Partition::RowGroups) => {
                return Err(Error::unsupported(
                    "ranks that partition row groups are not in lock-step: they have no ledger together",
                ));
            }
            (Some(ledger), Partition::Even) => Some(ledger.open(self.share()?, self.member()?)?),
            (None, _) => None,
        };
        let neighbours = self.neighbours()?;
        let (mut plan, io) = self.plan()?;
        let loaded = resident::load(&mut plan, &io)?;
        Ok(Opened {
            plan,
            io,
            ledger,
            neighbours,
            loaded,
        })
    }

    /// The ranks of this machine, as the share counts them.
    fn neighbours(&self) -> Result<Vec<u64>> {
        let (rank, world_size) = self.rank_of_world()?;
        let ranks = rank::of_machine(rank, world_size, |name| std::env::var(name).ok());
        let Some(topology) = &self.topology else {
            return Ok(ranks.collect());
        };
        let groups = ranks.map(|rank| Ok(topology.group(rank, world_size)?.0));
        let mut groups = groups.collect::<Result<Vec<_>>>()?;
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    pub(crate) fn n_workers(&self) -> Result<usize> {
        match self.workers {
            Some(workers) if !(1..=MAX_WORKERS).contains(&workers) => Err(Error::invalid(format!(
                "expected 1 to {MAX_WORKERS} workers, found {workers}"
            ))),
            Some(workers) => Ok(workers),
            None => Ok(std::thread::available_parallelism()
                .map_or(1, NonZero::get)
                .min(MAX_WORKERS)),
        }
    }

    fn n_prefetch(&self, workers: usize, batch_bytes: u64) -> Result<usize> {
        let several = usize::try_from(PREFETCH_BYTES / batch_bytes.max(1)).unwrap_or(usize::MAX);
        match self.prefetch {
            Some(batches) if batches > MAX_PREFETCH => Err(Error::invalid(format!(
                "expected at most {MAX_PREFETCH} batches that are made ahead, found {batches}"
            ))),
            None => Ok(several.min(PREFETCH_BATCHES).max(2 * workers).max(4)),
            Some(batches) => Ok(batches.max(1)),
        }
    }

    /// Opens the dataset and checks all options against it. No data is read yet, but for where-clauses, predicates,
    /// samplers and n-grams.
    pub(crate) fn plan(self) -> Result<(ReadPlan, Arc<Io>)> {
        let share = self.share()?;
        let workers = self.n_workers()?;
        let io = Arc::new(Io::new()?);
        let saved = self.resume.as_ref().map(ReaderState::options).transpose()?;
        let seed = self.seed.or(saved.as_ref().map(|saved| saved.seed)).unwrap_or(0);
        let (mut sources, mixture) = self.sources(workers, &io, seed, saved.as_ref())?;
        let schema = common_schema(&mut sources)?;

        let shard = (self.partition == Partition::RowGroups).then_some((share.rank, share.world_size));
        let share = match self.partition {
            Partition::Even => share,
            Partition::RowGroups if self.resume.is_some() => {
                return Err(Error::unsupported(
                    "a reader that partitions row groups cannot resume: its ranks are not in lock-step",
                ));
            }
            Partition::RowGroups => {
                let [source] = &mut sources[..] else {
                    return Err(Error::unsupported(
                        "a mixture has no row groups of its own to partition: its ranks take slices of global batches",
                    ));
                };
                if self.source.sampler.is_some() {
                    return Err(Error::unsupported(
                        "a sampler draws from all rows: it cannot be given where row groups are partitioned",
                    ));
                }
                let selection = Selection::clone(&source.selection);
                source.selection = Arc::new(selection.shard(&source.dataset, share.rank, share.world_size)?);
                // The rank has its rows to itself, and makes its batches of them alone.
                Share {
                    rank: 0,
                    world_size: 1,
                    global_batch: share.global_batch / share.world_size,
                    remainder: share.remainder,
                }
            }
        };

        if let (Some(state), Some(epochs)) = (&self.resume, self.epochs)
            && state.epoch > epochs
        {
            return Err(Error::invalid(format!(
                "cannot resume: the state stands in epoch {}, counted from 0, of {epochs}",
                state.epoch
            )));
        }
        let rows_of_batch = share.global_batch.div_ceil(share.world_size);
        let least: Vec<_> = sources
            .iter()
            .map(|source| source.least_memory(rows_of_batch, self.slice_size))
            .collect();
        let row = sources
            .iter()
            .map(|source| source.footprint.delivered)
            .max()
            .unwrap_or(1);
        let batch_bytes = rows_of_batch.saturating_mul(row);
        if self.slice_size == Some(0) {
            return Err(Error::invalid("expected slices of at least one byte, found 0"));
        }
        let plan = ReadPlan {
            slice_size: self.slice_size,
            memory_budget: memory_budget(self.memory_budget, &least)?,
            start: self.resume.as_ref().map_or((0, 0), |state| (state.epoch, state.next)),
            sequence: match mixture {
                Some(mix) => Sequence::Mixed(Arc::new(mix)),
                None => Sequence::One(sources[0].len()),
            },
            schema: Arc::new(schema),
            sources: sources.into(),
            seed,
            share,
            shard,
            epochs: self.epochs,
            on_bad_row: self.on_bad_row,
            workers,
            prefetch: self.n_prefetch(workers, batch_bytes)?,
        };
        if let Some(state) = &self.resume {
            state.check(&plan.identity())?;
        }
        plan.check_steps()?;
        Ok((plan, io))
    }

    /// The datasets that are read, open, and how they are mixed.
    fn sources(
        &self,
        workers: usize,
        io: &Arc<Io>,
        seed: u64,
        saved: Option<&OrderOptions>,
    ) -> Result<(Vec<Source>, Option<Mix>)> {
        let Some(members) = &self.members else {
            if self.ending.is_some() {
                return Err(Error::invalid("one dataset is no mixture: it ends with its last row"));
            }
            return Ok((vec![self.source.open(workers, io, seed, saved)?], None));
        };
        if let Some(option) = self.source.given(&[]) {
            return Err(Error::invalid(format!(
                "{option} concerns a dataset: give it to the builders of those that are mixed"
            )));
        }
        let mut sources = Vec::with_capacity(members.len());
        for (place, (member, _)) in members.iter().enumerate() {
            if let Some(option) = member.run_option(&[]) {
                return Err(Error::invalid(format!(
                    "{option} concerns the run: give it to the mixture, not to dataset {place} of it"
                )));
            }
            sources.push(member.source.open(workers, io, member_seed(seed, place), None)?);
        }
        let lens: Vec<_> = sources.iter().map(Source::len).collect();
        let weights: Vec<_> = members.iter().map(|(_, weight)| *weight).collect();
        let mix = Mix::new(seed, &lens, &weights, self.ending.unwrap_or_default())?;
        Ok((sources, Some(mix)))
    }

    /// The first option that was given and concerns the run, not the dataset, and is none of these.
    pub(crate) fn run_option(&self, allowed: &[&str]) -> Option<&'static str> {
        let given = [
            ("a mixture", self.members.is_some()),
            ("the ending", self.ending.is_some()),
            (
                "the rank",
                self.rank.is_some() || self.rank_from_env || self.topology.is_some(),
            ),
            ("the number of epochs", self.epochs != Some(1)),
            ("the seed", self.seed.is_some()),
            (
                "the batch size",
                self.batch_size.is_some() || self.global_batch.is_some(),
            ),
            ("the remainder", self.remainder != Remainder::Keep),
            ("the partition", self.partition != Partition::Even),
            ("the policy for bad rows", self.on_bad_row != OnBadRow::Fail),
            ("the ledger", self.ledger.is_some()),
            ("the state", self.resume.is_some()),
            ("the number of workers", self.workers.is_some()),
            ("the prefetch", self.prefetch.is_some()),
            ("the memory budget", self.memory_budget.is_some()),
            ("the slice size", self.slice_size.is_some()),
        ];
        let found = given
            .into_iter()
            .find(|(name, given)| *given && !allowed.contains(name));
        found.map(|(name, _)| name)
    }
}

/// The fields that all datasets of a mixture deliver, in the order of the first; theirs are put in this order.
fn common_schema(sources: &mut [Source]) -> Result<Schema> {
    let [first, others @ ..] = sources else {
        return Err(Error::invalid("a mixture of no dataset"));
    };
    let mut fields = first.schema.fields().to_vec();
    for other in others {
        let differ = |field: &Field, found: String| {
            Error::invalid(format!(
                "the datasets of a mixture must have the same fields: {field} is in {}, {found} in {}",
                first.dataset.url(),
                other.dataset.url()
            ))
        };
        if let Some(field) = other
            .schema
            .fields()
            .iter()
            .find(|field| first.schema.get(&field.name).is_none())
        {
            return Err(Error::invalid(format!(
                "the datasets of a mixture must have the same fields: {field} is in {}, but not in {}",
                other.dataset.url(),
                first.dataset.url()
            )));
        }
        let mut own = Vec::with_capacity(fields.len());
        for field in &mut fields {
            let found = other
                .schema
                .get(&field.name)
                .ok_or_else(|| differ(field, "it is not".into()))?;
            if (found.dtype, &found.shape) != (field.dtype, &field.shape) || found.arrow != field.arrow {
                return Err(differ(field, found.to_string()));
            }
            field.nullable |= found.nullable;
            own.push(found.clone());
        }
        other.schema = Arc::new(Schema::new(own)?);
    }
    Schema::new(fields)
}
