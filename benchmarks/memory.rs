//! Peak memory against the budget, over row groups that are larger than it.
//!
//! ```text
//! cargo run --release -p squall-benchmarks --no-default-features --bin memory -- --json memory.json
//! ```
//!
//! The tables have row groups of 1 GiB, of floats and of blobs of 100 kB, with and without a page index, uncompressed and by
//! snappy. They are made one after the other, each for its measurements only. Each measurement is a process of its own:
//! its peak (`VmHWM`) less its base, which is the peak behind reading a tiny table in the same way.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, BinaryArray, Float32Array, Int64Array, RecordBatch};
use clap::{Parser, ValueEnum};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::{Value, json};
use squall::{BatchReader, ByteSize, ReaderBuilder, Shuffle, make_batch_reader};
use squall_benchmarks::{Result, process};

const MIB: u64 = 1 << 20;
const FLOATS: usize = 16;
const BLOB: usize = 100_000;
/// Rows that are made and written at a time.
const CHUNK: usize = 1 << 16;
/// What a measured process may have.
const ADDRESS_SPACE_KIB: u64 = 8 << 20;
/// By how much of the budget the peak may exceed it.
const SLACK: f64 = 0.1;

/// Measures peak memory against the budget.
#[derive(Parser)]
struct Options {
    /// Budgets in MiB
    #[arg(long, value_delimiter = ',', default_value = "256,1024")]
    budgets: Vec<u64>,
    /// MiB of a row group
    #[arg(long, default_value_t = 1024)]
    row_group: u64,
    /// Row groups of a table
    #[arg(long, default_value_t = 2)]
    row_groups: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only tables whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Where the tables are made; a temporary directory if not given
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Writes the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only reads this directory within a budget in MiB, and prints what it took
    #[arg(long, hide = true, requires = "order")]
    read: Option<PathBuf>,
    #[arg(long, hide = true)]
    order: Option<ReadOrder>,
    /// A tiny table of the same columns
    #[arg(long, hide = true)]
    tiny: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReadOrder {
    Stored,
    Shuffled,
}

/// A table, and how it is stored.
struct Table {
    blobs: bool,
    page_index: bool,
    compression: Compression,
}

impl Table {
    fn all() -> impl Iterator<Item = Self> {
        let kinds = [false, true]
            .into_iter()
            .flat_map(|blobs| [true, false].map(|index| (blobs, index)));
        kinds.flat_map(|(blobs, page_index)| {
            [Compression::UNCOMPRESSED, Compression::SNAPPY].map(|compression| Self {
                blobs,
                page_index,
                compression,
            })
        })
    }

    fn name(&self) -> String {
        format!(
            "{}, {}, {}",
            if self.blobs { "blobs" } else { "floats" },
            if self.page_index { "page index" } else { "no page index" },
            match self.compression {
                Compression::SNAPPY => "snappy",
                _ => "uncompressed",
            }
        )
    }

    fn row_bytes(&self) -> usize {
        match self.blobs {
            true => BLOB + 8,
            false => FLOATS * 4 + 8,
        }
    }

    /// Rows of a batch: some megabytes of them at most.
    fn batch_size(&self) -> u64 {
        match self.blobs {
            true => 64,
            false => 1024,
        }
    }

    fn write(&self, directory: &Path, row_groups: usize, rows: usize) -> Result<()> {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(rows))
            .set_compression(self.compression)
            .set_dictionary_enabled(false)
            .set_offset_index_disabled(!self.page_index)
            .set_statistics_enabled(match self.page_index {
                true => EnabledStatistics::Page,
                false => EnabledStatistics::None,
            })
            .build();
        let out = File::create(directory.join("part-00000.parquet"))?;
        let mut writer = ArrowWriter::try_new(out, self.rows(0, 0)?.schema(), Some(properties))?;
        let chunk = if self.blobs { CHUNK * FLOATS * 4 / BLOB } else { CHUNK };
        for group in 0..row_groups {
            let mut at = group * rows;
            while at < (group + 1) * rows {
                let end = (at + chunk).min((group + 1) * rows);
                writer.write(&self.rows(at, end)?)?;
                at = end;
            }
            writer.flush()?;
        }
        writer.close()?;
        Ok(())
    }

    /// The rows of these ids. No structure that an encoding or a compression could use.
    fn rows(&self, from: usize, to: usize) -> Result<RecordBatch> {
        let mut columns: Vec<(String, ArrayRef)> = vec![(
            "id".into(),
            Arc::new(Int64Array::from_iter_values(from as i64..to as i64)),
        )];
        if self.blobs {
            let mut noise = Noise(from as u64);
            let blobs = (from..to).map(|_| {
                (0..BLOB / 8)
                    .flat_map(|_| noise.next().to_le_bytes())
                    .collect::<Vec<u8>>()
            });
            columns.push(("blob".into(), Arc::new(BinaryArray::from_iter_values(blobs))));
        } else {
            for column in 0..FLOATS {
                let mut noise = Noise((from * FLOATS + column) as u64);
                let values = (from..to).map(|_| (noise.next() >> 40) as f32);
                columns.push((format!("f{column}"), Arc::new(Float32Array::from_iter_values(values))));
            }
        }
        Ok(RecordBatch::try_from_iter(columns)?)
    }
}

/// SplitMix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let (Some(directory), Some(order), Some(tiny)) = (&options.read, options.order, &options.tiny) {
        return print_read(&options, directory, order, tiny);
    }
    println!(
        "{:40} {:8} {:>10} {:>10} {:>10} {:>10} {:>15} {:>10}",
        "table", "order", "budget", "base", "counted", "peak", "(peak-base)/b.", "MB/s"
    );
    let mut figures = Vec::new();
    for table in Table::all().filter(|table| table.name().contains(&options.only)) {
        measure(&options, &table, &mut figures)?;
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}

fn measure(options: &Options, table: &Table, figures: &mut Vec<Value>) -> Result<()> {
    let directory = || match &options.scratch {
        Some(scratch) => tempfile::tempdir_in(scratch),
        None => tempfile::tempdir(),
    };
    let (large, tiny) = (directory()?, directory()?);
    let rows = (options.row_group * MIB) as usize / table.row_bytes();
    table.write(large.path(), options.row_groups, rows)?;
    table.write(tiny.path(), 1, 4)?;
    for budget in &options.budgets {
        for order in [ReadOrder::Stored, ReadOrder::Shuffled] {
            // What has no bound ends with an error, and not with the machine.
            let child = Command::new("sh")
                .args(["-c", &format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" \"$@\"")])
                .arg(std::env::current_exe()?)
                .arg("--read")
                .arg(large.path())
                .arg("--tiny")
                .arg(tiny.path())
                .args([
                    "--order",
                    if matches!(order, ReadOrder::Stored) {
                        "stored"
                    } else {
                        "shuffled"
                    },
                ])
                .args(["--budgets", &budget.to_string()])
                .args(["--threads", &options.threads.to_string()])
                .args(["--only", if table.blobs { "blobs" } else { "floats" }])
                .output()?;
            let order = format!("{order:?}").to_lowercase();
            if !child.status.success() {
                let error = format!("{}: {}", child.status, String::from_utf8_lossy(&child.stderr).trim());
                println!("{:40} {order:8} {budget:>6} MiB  FAILED: {error}", table.name());
                figures.push(json!({"table": table.name(), "order": order, "budget_mib": budget, "error": error}));
                continue;
            }
            let read: Value = serde_json::from_slice(&child.stdout)?;
            let number = |name: &str| read[name].as_f64().ok_or(format!("the child gave no {name}"));
            if number("rows")? as usize != rows * options.row_groups {
                return Err(format!("{}: read {read} of {rows} rows a row group", table.name()).into());
            }
            let mib = |name: &str| number(name).map(|bytes| bytes / MIB as f64);
            let (base, counted, peak) = (mib("base")?, mib("counted")?, mib("peak")?);
            let share = (peak - base) / *budget as f64;
            let rate = number("rows")? * table.row_bytes() as f64 / number("seconds")? / 1e6;
            println!(
                "{:40} {order:8} {budget:>6} MiB {base:>6.0} MiB {counted:>6.0} MiB {peak:>6.0} MiB {share:>15.2} {rate:>10.0}  {}",
                table.name(),
                if share <= 1.0 + SLACK { "met" } else { "MISSED" }
            );
            figures.push(json!({
                "table": table.name(), "order": order, "budget_mib": budget, "base_mib": base,
                "counted_mib": counted, "peak_mib": peak,
                "share": share, "megabytes_per_second": rate, "met": share <= 1.0 + SLACK,
            }));
        }
    }
    Ok(())
}

/// In a process of its own: reads the tiny table, then the directory.
fn print_read(options: &Options, directory: &Path, order: ReadOrder, tiny: &Path) -> Result<()> {
    let blobs = options.only == "blobs";
    let table = Table {
        blobs,
        page_index: false,
        compression: Compression::UNCOMPRESSED,
    };
    // The rows, and the most that the reader counted.
    let read = |directory: &Path| -> Result<(usize, u64)> {
        let reader = make_batch_reader(directory.display().to_string())
            .shuffle(match order {
                ReadOrder::Stored => Shuffle::None,
                ReadOrder::Shuffled => Shuffle::Windows,
            })
            .batch_size(table.batch_size())
            .workers(options.threads);
        let mut reader = budgeted(reader, options.budgets[0] * MIB).build()?;
        let mut rows = 0;
        for batch in reader.by_ref() {
            rows += batch?.num_rows();
        }
        Ok((rows, reader.metrics().memory.high_water))
    };
    read(tiny)?;
    let base = process::peak_memory()?;
    let began = Instant::now();
    let (rows, counted) = read(directory)?;
    let seconds = began.elapsed().as_secs_f64();
    let read =
        json!({"rows": rows, "seconds": seconds, "base": base, "counted": counted, "peak": process::peak_memory()?});
    println!("{read}");
    Ok(())
}

/// A reader that holds no more than so many bytes.
fn budgeted(reader: ReaderBuilder<BatchReader>, bytes: u64) -> ReaderBuilder<BatchReader> {
    reader.memory_budget(ByteSize::new(bytes))
}
