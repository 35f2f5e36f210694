//! What an epoch is, without reading it: which rows a rank takes at a step, and who takes a row.
//!
//! The answers come from the schedule that the pipeline runs, so they are what is delivered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use squall_dataset::{Dataset, Piece};
use squall_schema::{Error, Result, RowId};

use crate::order::Order;
use crate::picked::Picked;
use crate::plan::{ReadPlan, Schedule};
use crate::select::Selection;

/// An epoch of a reader, to be asked. Made by [`Reader::epoch_plan`](crate::Reader::epoch_plan).
pub struct EpochPlan {
    plan: Arc<ReadPlan>,
    epoch: u64,
    /// The first sample of the first step that is a multiple of the global batch from where the reader began: 0, but in an epoch
    /// that was resumed with another global batch.
    offset: u64,
    /// The orders that were needed for the answers so far.
    schedule: Mutex<Schedule>,
}

/// Where a sample is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleOrigin {
    /// The place in the global order of the epoch.
    pub sample: u64,
    /// The dataset, by its place in a mixture; 0 where one dataset is read.
    pub dataset: u32,
    /// The file, by its path below the dataset's directory.
    pub file: String,
    /// The row group in the file.
    pub row_group: u32,
    /// The row in the row group.
    pub row: u64,
    /// Whether it stands a second time in its epoch, to fill the last batch.
    pub padded: bool,
}

/// When a row is delivered, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Delivery {
    /// The dataset, by its place in a mixture; 0 where one dataset is read.
    pub dataset: u32,
    /// The step in the epoch.
    pub step: u64,
    /// The rank that takes it; with a [`Topology`](crate::Topology), the group of ranks.
    pub rank: u64,
    /// Its place in the batch of that rank.
    pub place: u64,
    /// The place in the global order of the epoch.
    pub sample: u64,
    /// Whether it stands a second time in its epoch, to fill the last batch.
    pub padded: bool,
}

impl EpochPlan {
    /// `begin` is the sample of the epoch that the reader began with.
    pub(crate) fn new(plan: Arc<ReadPlan>, epoch: u64, begin: u64) -> Self {
        // Of the epoch that is asked about, whether or not the reader comes to it.
        let schedule = Schedule::new(Arc::new(ReadPlan {
            epochs: None,
            ..ReadPlan::clone(&plan)
        }));
        Self {
            offset: begin % plan.share.global_batch,
            plan,
            epoch,
            schedule: Mutex::new(schedule),
        }
    }

    /// The epoch, from 0.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Samples of the epoch, on all ranks together.
    pub fn len(&self) -> u64 {
        self.plan.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Steps of every rank, up to the end of the epoch.
    pub fn steps(&self) -> u64 {
        let before = u64::from(self.offset > 0);
        before + self.plan.share.steps(self.len(), self.offset)
    }

    /// The first sample of a step.
    fn first_of(&self, step: u64) -> Result<u64> {
        if step >= self.steps() {
            return Err(Error::invalid(format!(
                "expected a step below the {} of an epoch, found {step}",
                self.steps()
            )));
        }
        let global_batch = self.plan.share.global_batch;
        match (self.offset, step.checked_sub(1)) {
            (0, _) => Ok(step * global_batch),
            (offset, Some(before)) => Ok(offset + before * global_batch),
            (offset, None) => Err(Error::invalid(format!(
                "the samples before {offset} came in batches of another size, before the reader resumed"
            ))),
        }
    }

    /// The samples of a rank's batch, in its order. The first answer takes as long as planning an epoch, whatever the step.
    ///
    /// Steps count from the beginning of the epoch, in batches of the reader's global batch, as
    /// [`SampleBatch::step`](crate::SampleBatch::step) does.
    pub fn explain(&self, step: u64, rank: u64) -> Result<Vec<SampleOrigin>> {
        let rows = self.rows(step, rank)?;
        Ok(rows.into_iter().map(|row| self.origin(row)).collect())
    }

    /// As [`EpochPlan::explain`], by the identities of the rows.
    fn rows(&self, step: u64, rank: u64) -> Result<Vec<RowId>> {
        let share = self.plan.share;
        let rank = match self.plan.shard {
            None => rank,
            Some((own, _)) if own == rank => 0,
            Some((own, world_size)) => {
                return Err(Error::invalid(format!(
                    "where row groups are partitioned each rank has an order of its own: this is rank {own} of {world_size}, found {rank}"
                )));
            }
        };
        if rank >= share.world_size {
            return Err(Error::invalid(format!(
                "expected a rank below the world size {}, found {rank}",
                share.world_size
            )));
        }
        let first = self.first_of(step)?;
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = schedule.batch_at(rank, self.epoch, first)?;
        let batch = batch.ok_or_else(|| Error::internal("a step of the epoch has no batch"))?;
        Ok(Picked::new(&batch).ids)
    }

    /// Where these samples of the epoch are stored.
    pub(crate) fn origins(&self, samples: &[u64]) -> Result<Vec<SampleOrigin>> {
        let mut origins = Vec::with_capacity(samples.len());
        let mut orders: HashMap<(usize, u64), (Order, Arc<Selection>)> = HashMap::new();
        for sample in samples {
            let stretch = self.plan.sequence.stretches(self.epoch, *sample..*sample + 1, 0);
            let stretch = stretch
                .first()
                .ok_or_else(|| Error::internal("a sample of no dataset"))?;
            let (order, selection) = match orders.entry((stretch.source, stretch.epoch)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let source = &self.plan.sources[stretch.source];
                    let selection = source.rows(stretch.epoch)?;
                    let order = Order::new(&selection.rows_per_piece(), &source.order, stretch.epoch)?;
                    new.insert((order, selection))
                }
            };
            let (place, n) = order
                .locate(stretch.samples.start)
                .ok_or_else(|| Error::internal("a sample behind its epoch"))?;
            let selected = &selection.pieces()[place as usize];
            origins.push(self.origin(RowId {
                epoch: self.epoch,
                sample: *sample,
                dataset: stretch.source as u32,
                piece: selected.piece,
                row: selected.rows.nth(n),
                padded: false,
            }));
        }
        Ok(origins)
    }

    fn origin(&self, row: RowId) -> SampleOrigin {
        let dataset = &self.plan.sources[row.dataset as usize].dataset;
        let piece = &dataset.pieces()[row.piece as usize];
        SampleOrigin {
            sample: row.sample,
            dataset: row.dataset,
            file: dataset.file_of(piece).path.to_string(),
            row_group: piece.row_group,
            row: row.row,
            padded: row.padded,
        }
    }

    /// When a stored row is delivered in this epoch, in the order of datasets and steps; as part of an n-gram, in each of its windows. Nothing where it is not selected, or left out
    /// at the end of the epoch.
    ///
    /// Where row groups are partitioned, only the rows of the reader's own rank have an answer.
    ///
    /// `file` is a path below the directory of a dataset; of a mixture every dataset that has such a row
    /// answers.
    pub fn where_is(&self, file: &str, row_group: u32, row: u64) -> Result<Vec<Delivery>> {
        let mut answers = Vec::new();
        let mut refused = None;
        for (place, source) in self.plan.sources.iter().enumerate() {
            let dataset = &source.dataset;
            let Some(file) = dataset.files().iter().position(|own| own.path.as_ref() == file) else {
                continue;
            };
            match self.find(dataset, file, row_group, row) {
                Ok(ordinal) => answers.push((place, ordinal)),
                Err(error) => {
                    let at = |error: Error| error.at("file", &dataset.files()[file].path).at("URL", dataset.url());
                    refused = refused.or(Some(at(error)));
                }
            }
        }
        if answers.is_empty() {
            let unknown = || Error::invalid(format!("no dataset that is read has a file {file:?}"));
            return Err(refused.unwrap_or_else(unknown));
        }
        let mut deliveries = Vec::new();
        for (place, ordinal) in answers {
            let mut samples = Vec::new();
            self.samples_of(place, ordinal, row, &mut samples)?;
            for sample in samples {
                self.deliveries_of(place as u32, sample, &mut deliveries)?;
            }
        }
        deliveries.sort_unstable();
        Ok(deliveries)
    }

    /// The ordinal of a row group that has this row.
    fn find(&self, dataset: &Dataset, file: usize, row_group: u32, row: u64) -> Result<u32> {
        let same = |(piece, _): &(&Piece, u32)| (piece.file as usize, piece.row_group) == (file, row_group);
        let Some((piece, ordinal)) = dataset.pieces().iter().zip(0u32..).find(same) else {
            return Err(Error::invalid(format!(
                "expected a row group below the {} of the file, found {row_group}",
                dataset.n_row_groups(file as u32)
            )));
        };
        if row >= piece.rows {
            let wrong = format!("expected a row below the {} of the row group, found {row}", piece.rows);
            return Err(Error::invalid(wrong).at("row group", row_group));
        }
        match self.plan.shard {
            Some((own, world_size)) if u64::from(ordinal) % world_size != own => Err(Error::invalid(format!(
                "where row groups are partitioned each rank has an order of its own: this is rank {own} of {world_size}, and the row group is that of rank {}",
                u64::from(ordinal) % world_size
            ))),
            _ => Ok(ordinal),
        }
    }

    /// The samples of the epoch that a row is.
    fn samples_of(&self, source: usize, piece: u32, row: u64, samples: &mut Vec<u64>) -> Result<()> {
        let own = &self.plan.sources[source];
        for epoch in self.plan.sequence.epochs_of(source, self.epoch) {
            let selection = own.rows(epoch)?;
            let place = selection
                .pieces()
                .binary_search_by_key(&piece, |selected| selected.piece);
            let Ok(place) = place else {
                continue;
            };
            let indices = selection.pieces()[place].rows.indices_of(row);
            if indices.is_empty() {
                continue;
            }
            let order = Order::new(&selection.rows_per_piece(), &own.order, epoch)?;
            let sequence = &self.plan.sequence;
            let number = |sample| sequence.number(source, self.epoch, epoch, sample);
            samples.extend(indices.filter_map(|index| order.sample_of(place as u32, index).and_then(number)));
        }
        Ok(())
    }

    fn deliveries_of(&self, dataset: u32, sample: u64, deliveries: &mut Vec<Delivery>) -> Result<()> {
        let share = self.plan.share;
        let steps = self.steps();
        let step = match (self.offset, sample.checked_sub(self.offset)) {
            (0, _) => sample / share.global_batch,
            (_, Some(behind)) => 1 + behind / share.global_batch,
            // It came in a batch of another size.
            (_, None) => u64::MAX,
        };
        let mut in_steps = vec![step];
        // Padding repeats samples in the last batch.
        in_steps.extend(steps.checked_sub(1).filter(|last| *last != step));
        for step in in_steps.into_iter().filter(|step| *step < steps) {
            for place in 0..share.world_size {
                let rank = self.plan.shard.map_or(place, |(own, _)| own);
                let rows = self.rows(step, rank)?;
                let same = (0u64..).zip(&rows).filter(|(_, row)| row.sample == sample);
                deliveries.extend(same.map(|(place, row)| Delivery {
                    dataset,
                    step,
                    rank,
                    place,
                    sample,
                    padded: row.padded,
                }));
            }
        }
        Ok(())
    }
}
