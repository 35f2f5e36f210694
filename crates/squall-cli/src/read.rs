//! `squall read`

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;
use squall::{
    BatchReader, Error, ErrorKind, Partition, ReaderState, Remainder, Row, SampleBatch, Shuffle, columns,
    make_batch_reader,
};

use crate::Failure;
use crate::json::{self, Arrays};
use crate::rows::Rows;

/// Reads a dataset as one rank of a training run would, and prints its rows.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall read /data/train --rank 0 --world-size 2 --seed 7 --columns id,label --format jsonl | head"
)]
pub(crate) struct Read {
    /// The dataset: a path or a URL
    url: String,
    /// This rank, from 0
    #[arg(long, default_value_t = 0)]
    rank: u64,
    /// Number of ranks
    #[arg(long, default_value_t = 1)]
    world_size: u64,
    /// How often the rows are read
    #[arg(long, default_value_t = 1)]
    epochs: u64,
    /// Seed of the order [default: 0, or that of --state-in]
    #[arg(long)]
    seed: Option<u64>,
    /// Rows come as they are stored
    #[arg(long)]
    no_shuffle: bool,
    /// Rows of a batch of one rank [default: 64]
    #[arg(long, value_name = "ROWS", conflicts_with = "global_batch")]
    batch_size: Option<u64>,
    /// Rows of a batch of all ranks together
    #[arg(long, value_name = "ROWS")]
    global_batch: Option<u64>,
    /// Columns to read, in this order [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Read the columns whose whole names match one of these regular expressions
    #[arg(long, value_name = "RE")]
    columns_matching: Vec<String>,
    /// Take structs apart: a column a with a member b is read as a.b
    #[arg(long)]
    flatten_structs: bool,
    /// The zone of times in directory names, as Spark's session had it: Europe/Zurich, +02:00
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// Places of the dataset that are read side by side [default: 32]
    #[arg(long)]
    lanes: Option<u64>,
    /// Rows that are shuffled together in a lane [default: as many as make 4 MiB]
    #[arg(long, value_name = "ROWS")]
    window: Option<u64>,
    /// What happens to rows at the end of an epoch that do not fill a global batch
    #[arg(long, value_enum, default_value = "keep")]
    remainder: RemainderFlag,
    /// How rows are divided among the ranks
    #[arg(long, value_enum, default_value = "even")]
    partition: PartitionFlag,
    /// Go on where this state was saved
    #[arg(long, value_name = "FILE")]
    state_in: Option<PathBuf>,
    /// Save the state behind the last batch
    #[arg(long, value_name = "FILE")]
    state_out: Option<PathBuf>,
    /// Stop after so many batches
    #[arg(long, value_name = "N")]
    max_batches: Option<u64>,
    /// How rows are printed
    #[arg(long, value_enum, default_value = "jsonl")]
    format: RowFormat,
    /// How arrays are printed
    #[arg(long, value_enum, default_value = "digest")]
    arrays: Arrays,
    #[command(flatten)]
    rows: Rows,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RemainderFlag {
    /// They are left out
    Drop,
    /// The batch is filled with rows from the beginning, marked "padded"
    Pad,
    /// The last batch is short
    Keep,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PartitionFlag {
    /// Equal slices of each global batch
    Even,
    /// Whole row groups, as Petastorm does
    RowGroups,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RowFormat {
    /// A JSON object a row: {"epoch":…,"batch":…,"row":{…}}
    Jsonl,
    /// Not at all: rows are read and counted
    None,
}

impl Read {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut reader = self.reader()?;
        let mut out = BufWriter::new(std::io::stdout().lock());
        let (mut n_batches, mut n_rows) = (0, 0);
        while self.max_batches.is_none_or(|most| n_batches < most)
            && let Some(batch) = reader.next_samples()
        {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    // What came before the failure is valid.
                    out.flush()?;
                    return Err(error.into());
                }
            };
            n_batches += 1;
            n_rows += batch.ids.len();
            if self.format == RowFormat::Jsonl {
                self.print(&batch, &reader, &mut out)?;
            }
        }
        if self.format == RowFormat::None {
            writeln!(out, "{}", json!({ "rows": n_rows, "batches": n_batches }))?;
        }
        out.flush()?;
        if let Some(path) = &self.state_out {
            save(
                path,
                &(reader.state().to_json()
                    + "
"),
            )?;
        }
        Ok(())
    }

    fn reader(&self) -> Result<BatchReader, Error> {
        if let (Some(_), PartitionFlag::RowGroups) = (&self.state_out, self.partition) {
            return Err(Error::invalid(
                "ranks that partition row groups are not in lock-step: there is no state to save",
            ));
        }
        let mut reader = make_batch_reader(&self.url)
            .rank(self.rank, self.world_size)
            .epochs(self.epochs)
            .remainder(match self.remainder {
                RemainderFlag::Drop => Remainder::Drop,
                RemainderFlag::Pad => Remainder::Pad,
                RemainderFlag::Keep => Remainder::Keep,
            })
            .partition(match self.partition {
                PartitionFlag::Even => Partition::Even,
                PartitionFlag::RowGroups => Partition::RowGroups,
            });
        if self.no_shuffle {
            reader = reader.shuffle(Shuffle::None);
        }
        if let Some(seed) = self.seed {
            reader = reader.seed(seed);
        }
        if let Some(rows) = self.batch_size {
            reader = reader.batch_size(rows);
        }
        if let Some(rows) = self.global_batch {
            reader = reader.global_batch(rows);
        }
        if let Some(names) = &self.columns {
            reader = reader.columns(names.iter().map(|name| name.trim()));
        }
        if let Arrays::Digest = self.arrays {
            reader = reader.keep_encoded(json::needs_cells);
        }
        reader = reader.time_zone(&self.time_zone);
        if self.flatten_structs {
            reader = reader.flatten_structs();
        }
        if !self.columns_matching.is_empty() {
            reader = reader.columns_matching(&self.columns_matching);
        }
        reader = self.rows.apply(reader)?;
        if let Some(lanes) = self.lanes {
            reader = reader.lanes(lanes);
        }
        if let Some(rows) = self.window {
            reader = reader.window(rows);
        }
        if let Some(path) = &self.state_in {
            let text = fs::read_to_string(path);
            let text = text.map_err(|error| {
                Error::new(ErrorKind::NotFound, "cannot read the state")
                    .at("file", path.display())
                    .with_source(error)
            })?;
            let state = ReaderState::from_json(&text).map_err(|error| error.at("file", path.display()))?;
            reader = reader.resume(state);
        }
        reader.build()
    }

    fn print(&self, batch: &SampleBatch, reader: &BatchReader, out: &mut impl Write) -> Result<(), Failure> {
        let fields = reader.schema().fields();
        for (i, id) in batch.ids.iter().enumerate() {
            let cells = fields.iter().zip(batch.columns.columns());
            let cells =
                cells.map(|(field, column)| Ok((field.name.as_str().into(), columns::value_at(column, field, i)?)));
            let row = Row::new(*id, cells.collect::<Result<_, Error>>()?);
            let mut line = json!({ "epoch": batch.epoch, "batch": batch.step, "row": json::row(&row, reader.schema(), reader.dataset().schema(), self.arrays)? });
            if id.padded {
                line["padded"] = json!(true);
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

/// Writes a file beside its place and moves it there: a crash leaves the old state or the new one.
fn save(path: &Path, text: &str) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let saved = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    saved.map_err(|error| {
        Error::new(ErrorKind::Storage, "cannot write the state")
            .at("file", path.display())
            .with_source(error)
    })
}
