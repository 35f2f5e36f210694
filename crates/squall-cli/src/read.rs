//! `squall read`

use std::fs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use squall::{
    BatchReader, Error, ErrorKind, Ledger, Partition, ReaderState, Row, SampleBatch, columns, make_batch_reader,
};

use crate::json::{self, Arrays};
use crate::options::ReadOptions;
use crate::{Failure, save};

/// Reads a dataset as one rank of a training run would, and prints its rows.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall read /data/train --rank 0 --world-size 2 --seed 7 --columns id,label --format jsonl | head\n  squall read /data/table --pack features=f0,f1,f2 --arrays values --memory-budget 256MiB --max-batches 1"
)]
pub(crate) struct Read {
    #[command(flatten)]
    options: ReadOptions,
    /// This rank, from 0 [default: 0]
    #[arg(long)]
    rank: Option<u64>,
    /// Take rank and number of ranks from the environment: torchrun, Horovod, Open MPI, MPICH, srun. Those given must be the same
    #[arg(long)]
    rank_from_env: bool,
    /// How often the rows are read
    #[arg(long, default_value_t = 1)]
    epochs: u64,
    /// Go on where this state was saved
    #[arg(long, value_name = "FILE")]
    state_in: Option<PathBuf>,
    /// Save the state behind the last batch
    #[arg(long, value_name = "FILE")]
    state_out: Option<PathBuf>,
    /// Write down what is read in this directory, for squall verify
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// Stop after so many batches
    #[arg(long, value_name = "N")]
    max_batches: Option<u64>,
    /// How rows are printed
    #[arg(long, value_enum, default_value = "jsonl")]
    format: RowFormat,
    /// How arrays are printed
    #[arg(long, value_enum, default_value = "digest")]
    arrays: Arrays,
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
        for bad in reader.bad_rows() {
            eprintln!("squall: skipped: {bad}");
        }
        if let Some(path) = &self.state_out {
            save(path, &(reader.state().to_json() + "\n"), "the state")?;
        }
        Ok(())
    }

    fn reader(&self) -> Result<BatchReader, Error> {
        if let (Some(_), Partition::RowGroups) = (&self.state_out, self.options.partition()) {
            return Err(Error::invalid(
                "ranks that partition row groups are not in lock-step: there is no state to save",
            ));
        }
        let mut reader = self.options.apply(make_batch_reader(&self.options.url), self.rank)?;
        reader = reader.epochs(self.epochs);
        if self.rank_from_env {
            reader = reader.rank_from_env();
        }
        if let Some(directory) = &self.ledger {
            reader = reader.ledger(Ledger::new(directory));
        }
        if let Arrays::Digest = self.arrays {
            reader = reader.keep_encoded(json::needs_cells);
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
