//! One dataset that is read: its options, and what comes of them when it is opened.

use std::any::Any;
use std::sync::Arc;

use arrow_array::RecordBatch;
use squall_dataset::cache::{CacheOptions, RangeCache};
use squall_dataset::{Dataset, DatasetUrl, OpenOptions, StoreOptions};
use squall_schema::{Error, Result, RowId, Schema};

use crate::cells::UsedMemory;
use crate::columns::Columns;
use crate::expand::SampleColumns;
use crate::fetch::Footers;
use crate::footprint::{Footprint, LEAST_SLICE_BYTES, Least};
use crate::gather::Gathering;
use crate::image::{ImageSpec, Images};
use crate::io::Io;
use crate::narrow::RowOptions;
use crate::ngram::{Layout, NGram};
use crate::order::{Order, OrderOptions, Shuffle};
use crate::pack::pack;
use crate::report::SelectionReport;
use crate::resident::Resident;
use crate::sampler::{Draws, Sampler};
use crate::scan::Scan;
use crate::select::Selection;
use crate::transform::{Rows, TransformSpec};
use crate::view::View;

/// Lanes when none are given. Every batch mixes rows of so many places of the dataset.
pub const DEFAULT_LANES: u64 = 32;
/// Bytes of a window when none is given, and its bounds in rows.
const WINDOW_BYTES: u64 = 4 << 20;
const WINDOW_ROWS: (u64, u64) = (16, 8192);

/// What is read of a dataset, and how it is shuffled.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceOptions {
    pub(crate) url: String,
    pub(crate) store: Option<StoreOptions>,
    pub(crate) time_zone: Option<String>,
    pub(crate) view: View,
    pub(crate) rows: RowOptions,
    pub(crate) sampler: Option<Sampler>,
    pub(crate) ngram: Option<NGram>,
    /// What is shown of the images of some fields.
    pub(crate) images: Vec<(String, ImageSpec)>,
    pub(crate) transform: TransformSpec,
    pub(crate) shuffle: Option<Shuffle>,
    pub(crate) lanes: Option<u64>,
    pub(crate) window: Option<u64>,
    pub(crate) cache: Option<CacheOptions>,
    /// Whether the selected rows are read once and kept.
    pub(crate) in_memory: bool,
}

/// A dataset that is open, its rows selected.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) footers: Arc<Footers>,
    /// The rows, or windows of rows, that there are to choose from.
    pub(crate) selection: Arc<Selection>,
    /// A digest of the selected rows, before windows are made of them.
    pub(crate) digest: u64,
    /// Chooses those of an epoch, where not all are taken once.
    draws: Option<Arc<Draws>>,
    pub(crate) report: SelectionReport,
    /// What other readers share while this one lives.
    _shared: Option<Arc<dyn Any + Send + Sync>>,
    /// The columns that are read, as they are stored: binary cells where they have a codec.
    pub(crate) columns: Arc<Columns>,
    /// How samples are made of them.
    pub(crate) samples: SampleColumns,
    /// How batches are made of samples.
    pub(crate) gathering: Arc<Gathering>,
    /// The columns of batches, decoded, but for images that are shown in part: these stay cells.
    pub(crate) decoded: Arc<Schema>,
    images: Option<Arc<Images>>,
    /// Whether the selected rows are to be kept in memory, and where they are once they were read.
    pub(crate) in_memory: bool,
    pub(crate) resident: Option<Arc<Resident>>,
    pub(crate) transform: TransformSpec,
    /// Where samples are windows of rows.
    pub(crate) layout: Option<Layout>,
    /// The columns behind the transform.
    pub(crate) schema: Arc<Schema>,
    pub(crate) order: OrderOptions,
    /// What its samples take in memory.
    pub(crate) footprint: Footprint,
    /// What decides how samples are made of the selected rows, for the state.
    pub(crate) sampling: String,
    /// For the columns of batches that are decoded.
    pub(crate) used: UsedMemory,
}

impl Source {
    /// Samples of an epoch.
    pub(crate) fn len(&self) -> u64 {
        match &self.draws {
            Some(draws) => draws.samples(),
            None => self.selection.rows(),
        }
    }

    /// Lanes of an epoch.
    pub(crate) fn lanes(&self) -> u64 {
        match self.order.shuffle {
            Shuffle::Windows => self.order.lanes.min(self.len().max(1)),
            Shuffle::None | Shuffle::Full => 1,
        }
    }

    /// The least memory that its windows need, in slices of this size, and two batches of so many rows.
    pub(crate) fn least_memory(&self, rows_of_batch: u64, slice_size: Option<u64>) -> Least {
        let lanes = match self.in_memory {
            true => 0,
            false => self.lanes(),
        };
        let window = match self.order.shuffle {
            _ if self.in_memory => 0,
            Shuffle::Full => self.len(),
            Shuffle::None | Shuffle::Windows => self.order.window.min(self.len().div_ceil(lanes.max(1))),
        };
        Least {
            lanes,
            window,
            rows_of_batch: rows_of_batch.min(self.len()),
            // A slice has whole pages, however small it is to be.
            slice: slice_size.unwrap_or(0).max(LEAST_SLICE_BYTES),
            footprint: self.footprint,
        }
    }

    /// The samples of an epoch, in stored order.
    pub(crate) fn rows(&self, epoch: u64) -> Result<Arc<Selection>> {
        match &self.draws {
            Some(draws) => Ok(Arc::new(draws.epoch(self.order.seed, epoch)?)),
            None => Ok(self.selection.clone()),
        }
    }

    /// A decoded batch behind the transform, with the columns that are delivered.
    pub(crate) fn transform(&self, batch: RecordBatch, ids: &[RowId], seed: u64) -> Result<RecordBatch> {
        let (batch, source) = match &self.images {
            Some(images) => (images.decode(&batch, ids, seed, &self.used)?, &images.schema),
            None => (batch, &*self.decoded),
        };
        let rows = Rows {
            ids,
            seed,
            source,
            target: &self.schema,
        };
        match &self.layout {
            Some(layout) => layout.apply(&self.transform, &batch, rows),
            None => self.transform.apply(batch, rows),
        }
    }
}

impl Source {
    /// Whether [`transform`](Self::transform) does anything.
    pub(crate) fn is_changed(&self) -> bool {
        self.transform.is_given() || self.images.is_some()
    }

    /// Whether a column has cells that are decoded.
    pub(crate) fn has_cells(&self) -> bool {
        self.images.is_some() || self.decoded.fields().iter().any(|field| field.codec.is_some())
    }
}

impl SourceOptions {
    /// The first option that was given and is none of these.
    pub(crate) fn given(&self, allowed: &[&str]) -> Option<&'static str> {
        let given = [
            ("the storage options", self.store.is_some()),
            ("the time zone", self.time_zone.is_some()),
            ("the choice of columns", self.view.is_given()),
            ("the choice of rows", self.rows.is_given()),
            ("the sampler", self.sampler.is_some()),
            ("the n-gram", self.ngram.is_some()),
            ("the views of images", !self.images.is_empty()),
            ("the transform", self.transform.is_given()),
            ("the shuffle mode", self.shuffle.is_some()),
            ("the number of lanes", self.lanes.is_some()),
            ("the window", self.window.is_some()),
            ("the local cache", self.cache.is_some()),
            ("the rows in memory", self.in_memory),
        ];
        let found = given
            .into_iter()
            .find(|(name, given)| *given && !allowed.contains(name));
        found.map(|(name, _)| name)
    }

    /// Opens the dataset and checks the options against it. No data is read but for the selection of rows.
    ///
    /// Order options that are not given are those of `saved`, or the defaults.
    pub(crate) fn open(&self, workers: usize, io: &Arc<Io>, seed: u64, saved: Option<&OrderOptions>) -> Result<Source> {
        let url = DatasetUrl::parse(&self.url)?;
        let mut options = OpenOptions::default();
        if let Some(store) = &self.store {
            options = options.with_store(store.clone());
        }
        if let Some(zone) = &self.time_zone {
            options = options.with_time_zone(zone.parse()?);
        }
        if let Some(cache) = &self.cache {
            options = options.with_cache(RangeCache::open(cache)?);
        }
        let dataset = Arc::new(io.wait(async move { Dataset::open_with(&url, &options).await })?);
        let mut selected = self.view.schema(&dataset)?;
        let (mut decoded, outputs) = pack(&selected, &self.view.packs)?;
        let images = Images::new(&self.images, &decoded).map_err(|error| error.at("URL", dataset.url()))?;
        if images.is_some() && self.ngram.is_some() {
            return Err(Error::unsupported(
                "images are cropped and resized in rows: a view of them cannot be given with an n-gram",
            ));
        }
        let mut schema = match &images {
            Some(images) => {
                decoded = images.encoded.clone();
                self.transform.schema(&images.schema)?
            }
            None => self.transform.schema(&decoded)?,
        };
        let transformed = self.transform.is_given();
        if self.in_memory && self.ngram.is_some() {
            return Err(Error::unsupported(
                "rows are kept in memory one by one: in_memory cannot be given with an n-gram",
            ));
        }
        let span = self.ngram.as_ref().map_or(Ok(1), NGram::span)?;
        let layout = match &self.ngram {
            Some(_) if !self.view.packs.is_empty() => {
                return Err(Error::unsupported(
                    "the columns of an n-gram cannot be packed: it has each of them once for each of its rows",
                ));
            }
            Some(ngram) => {
                if !transformed {
                    let named = ngram.layout(&decoded, &schema, false)?;
                    decoded = named.fields_of(&decoded)?;
                    schema = decoded.clone();
                    selected = decoded.clone();
                }
                Some(ngram.layout(&decoded, &schema, transformed)?)
            }
            None => None,
        };
        squall_schema::arrow::schema_to_arrow(&schema)?;
        let columns = Columns::new(&dataset, selected.stored())?;
        let footers = Arc::new(Footers::new(&dataset));
        let scan = Scan {
            dataset: dataset.clone(),
            footers: footers.clone(),
            io: io.clone(),
            workers,
            bytes: Arc::default(),
        };
        let all = self.view.all(&dataset)?;
        let narrowed = self.rows.select(&scan, &all)?;
        let mut selection = Arc::new(narrowed.selection);
        let digest = selection.digest();
        let mut sampling = String::new();
        if let Some(ngram) = &self.ngram {
            selection = Arc::new(ngram.windows(&scan, &all, &selection)?);
            sampling += &ngram.text();
        }
        let draws = match (&self.sampler, &self.ngram) {
            (Some(_), Some(_)) => {
                return Err(Error::unsupported(
                    "a sampler draws rows: it cannot be given with an n-gram",
                ));
            }
            (Some(sampler), None) => {
                sampling += &sampler.text();
                Some(Arc::new(sampler.prepare(&scan, &all, &selection)?))
            }
            (None, _) => None,
        };
        let window = self.window.or(saved.map(|saved| saved.window));
        let order = OrderOptions {
            shuffle: self.shuffle.or(saved.map(|saved| saved.shuffle)).unwrap_or_default(),
            seed,
            lanes: self.lanes.or(saved.map(|saved| saved.lanes)).unwrap_or(DEFAULT_LANES),
            window: window.unwrap_or_else(|| default_window(&dataset, span)),
        };
        // Checks the options; each epoch makes its own.
        Order::new(&selection.rows_per_piece(), &order, 0)?;
        let (samples, decoded, schema) = match &layout {
            Some(layout) => (layout.columns.clone(), layout.decoded.clone(), layout.schema.clone()),
            None => {
                let columns = SampleColumns {
                    from: (0..selected.fields().len()).map(|place| (0, place)).collect(),
                    schema: Arc::new(columns.schema().clone()),
                };
                (columns, Arc::new(decoded), Arc::new(schema))
            }
        };
        let footprint = Footprint::new(&dataset, span, &samples.schema, &schema, &order);
        let gathering = Gathering::new(&samples.schema, &decoded, outputs, order.shuffle)?;
        Ok(Source {
            order,
            gathering: Arc::new(gathering),
            footprint,
            dataset,
            footers,
            selection,
            report: narrowed.report,
            _shared: narrowed.shared,
            digest,
            draws,
            columns: Arc::new(columns),
            samples,
            decoded,
            images: images.map(Arc::new),
            in_memory: self.in_memory,
            resident: None,
            transform: self.transform.clone(),
            layout,
            schema,
            sampling,
            used: UsedMemory::default(),
        })
    }
}

/// Samples that make [`WINDOW_BYTES`] in this dataset, all columns counted: the order does not depend on those selected.
fn default_window(dataset: &Dataset, rows_of_sample: u64) -> u64 {
    let bytes: u64 = dataset.pieces().iter().map(|piece| piece.uncompressed_bytes).sum();
    let sample = (bytes / dataset.rows().max(1)).max(1).saturating_mul(rows_of_sample);
    (WINDOW_BYTES / sample).clamp(WINDOW_ROWS.0, WINDOW_ROWS.1)
}
