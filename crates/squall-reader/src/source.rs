//! One dataset that is read: its options, and what comes of them when it is opened.

use std::sync::Arc;

use squall_dataset::{Dataset, DatasetUrl, OpenOptions};
use squall_schema::{Result, Schema};

use crate::columns::Columns;
use crate::fetch::Footers;
use crate::narrow::RowOptions;
use crate::order::{Order, OrderOptions, Shuffle};
use crate::reader::Io;
use crate::scan::Scan;
use crate::select::Selection;
use crate::transform::TransformSpec;
use crate::view::View;

/// Lanes when none are given. Every batch mixes rows of so many places of the dataset.
pub const DEFAULT_LANES: u64 = 32;
/// Bytes of a window when none is given, and its bounds in rows.
const WINDOW_BYTES: u64 = 4 << 20;
const WINDOW_ROWS: (u64, u64) = (64, 8192);

/// What is read of a dataset, and how it is shuffled.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceOptions {
    pub(crate) url: String,
    pub(crate) time_zone: Option<String>,
    pub(crate) view: View,
    pub(crate) rows: RowOptions,
    pub(crate) transform: TransformSpec,
    pub(crate) shuffle: Option<Shuffle>,
    pub(crate) lanes: Option<u64>,
    pub(crate) window: Option<u64>,
}

/// A dataset that is open, its rows selected.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) footers: Arc<Footers>,
    pub(crate) selection: Arc<Selection>,
    /// The columns that are read, as they are stored: binary cells where they have a codec.
    pub(crate) columns: Arc<Columns>,
    /// The same columns decoded.
    pub(crate) decoded: Arc<Schema>,
    pub(crate) transform: TransformSpec,
    /// The columns behind the transform.
    pub(crate) schema: Arc<Schema>,
    pub(crate) order: OrderOptions,
}

impl SourceOptions {
    /// The first option that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            ("the time zone", self.time_zone.is_some()),
            ("the choice of columns", self.view.is_given()),
            ("the choice of rows", self.rows.is_given()),
            ("the transform", self.transform.is_given()),
            ("the shuffle mode", self.shuffle.is_some()),
            ("the number of lanes", self.lanes.is_some()),
            ("the window", self.window.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// Opens the dataset and checks the options against it. No data is read but for the selection of rows.
    ///
    /// Order options that are not given are those of `saved`, or the defaults.
    pub(crate) fn open(&self, workers: usize, io: &Arc<Io>, seed: u64, saved: Option<&OrderOptions>) -> Result<Source> {
        let url = DatasetUrl::parse(&self.url)?;
        let mut options = OpenOptions::default();
        if let Some(zone) = &self.time_zone {
            options = options.with_time_zone(zone.parse()?);
        }
        let dataset = Arc::new(io.wait(async move { Dataset::open_with(&url, &options).await })?);
        let decoded = self.view.schema(&dataset)?;
        let schema = self.transform.schema(&decoded)?;
        squall_schema::arrow::schema_to_arrow(&schema)?;
        let columns = Columns::new(&dataset, decoded.stored())?;
        let footers = Arc::new(Footers::new(&dataset));
        let scan = Scan {
            dataset: dataset.clone(),
            footers: footers.clone(),
            io: io.clone(),
            workers,
        };
        let selection = self.rows.select(&scan, &self.view.all(&dataset)?)?;
        let window = self.window.or(saved.map(|saved| saved.window));
        let order = OrderOptions {
            shuffle: self.shuffle.or(saved.map(|saved| saved.shuffle)).unwrap_or_default(),
            seed,
            lanes: self.lanes.or(saved.map(|saved| saved.lanes)).unwrap_or(DEFAULT_LANES),
            window: window.unwrap_or_else(|| default_window(&dataset)),
        };
        // Checks the options; each epoch makes its own.
        Order::new(&selection.rows_per_piece(), &order, 0)?;
        Ok(Source {
            order,
            dataset,
            footers,
            selection: Arc::new(selection),
            columns: Arc::new(columns),
            decoded: Arc::new(decoded),
            transform: self.transform.clone(),
            schema: Arc::new(schema),
        })
    }
}

/// Rows that make [`WINDOW_BYTES`] in this dataset, all columns counted: the order does not depend on those selected.
fn default_window(dataset: &Dataset) -> u64 {
    let bytes: u64 = dataset.pieces().iter().map(|piece| piece.uncompressed_bytes).sum();
    let row = (bytes / dataset.rows().max(1)).max(1);
    (WINDOW_BYTES / row).clamp(WINDOW_ROWS.0, WINDOW_ROWS.1)
}
