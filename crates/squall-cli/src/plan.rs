//! `squall plan`

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use squall::{BatchReader, Coverage, DatasetUrl, Error, Forecast, ForecastOptions, RankForecast, make_batch_reader};

use crate::options::ReadOptions;
use crate::picture::estimate;
use crate::{Failure, picture, save};

/// Above so many ranks the table has the least, the middle and the most of them.
const RANKS_SHOWN: usize = 16;

/// Says what an epoch takes of each rank, without reading it: steps, rows, bytes, memory, and how well it is shuffled.
///
/// Ranks are simulated: a world size may be larger than any machine at hand. docs/plan.md defines the figures.
#[derive(Args)]
#[command(
    after_help = "Example:\n  squall plan /data/train --world-size 1024 --batch-size 64 --seed 7\n  squall plan /data/train --world-size 8 --format svg --output epoch.svg"
)]
pub(crate) struct Plan {
    #[command(flatten)]
    options: ReadOptions,
    /// The epoch, from 0
    #[arg(long, default_value_t = 0)]
    epoch: u64,
    /// How often the rows are read, for the number of all steps
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Print where the samples of a step are stored, instead of the figures
    #[arg(long, value_name = "STEP", conflicts_with = "where_is")]
    explain: Option<u64>,
    /// The rank whose samples are explained; with --partition row-groups, whose order is asked
    #[arg(long, default_value_t = 0)]
    rank: u64,
    /// Print at which step a stored row comes, and to which rank, instead of the figures
    #[arg(long, value_name = "FILE:ROW_GROUP:ROW", value_parser = stored_row)]
    where_is: Option<StoredRow>,
    /// Print every rank, however many there are
    #[arg(long)]
    all_ranks: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value = "text")]
    format: PlanFormat,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlanFormat {
    /// For people: a table
    Text,
    /// One JSON object with every rank
    Json,
    /// A picture: which row groups are read when, and by whom
    Svg,
}

/// A row as it is stored.
#[derive(Debug, Clone)]
struct StoredRow {
    file: String,
    row_group: u32,
    row: u64,
}

fn stored_row(text: &str) -> Result<StoredRow, String> {
    let parse = || {
        let (rest, row) = text.rsplit_once(':')?;
        let (file, row_group) = rest.rsplit_once(':')?;
        Some(StoredRow {
            file: file.to_owned(),
            row_group: row_group.parse().ok()?,
            row: row.parse().ok()?,
        })
    };
    parse()
        .ok_or_else(|| "expected a file below the dataset, a row group and a row, as in part-0.parquet:0:17".to_owned())
}

impl Plan {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let url = DatasetUrl::parse(&self.options.url)?;
        let reader = self
            .options
            .apply(make_batch_reader(&self.options.url), Some(self.rank))?;
        if self.explain.is_some() || self.where_is.is_some() {
            let text = self.answer(&reader.build()?)?;
            return self.write(&text);
        }
        let mut options = ForecastOptions::default().with_epoch(self.epoch);
        if self.format == PlanFormat::Svg {
            options = options.with_map(picture::SIZE);
        }
        let forecast = reader.forecast(&options)?;
        let text = match self.format {
            PlanFormat::Text => self.text(&url.to_string(), &forecast),
            PlanFormat::Json => self.json(&url.to_string(), &forecast)?.to_string() + "\n",
            PlanFormat::Svg => picture::svg(&url.to_string(), &forecast),
        };
        self.write(&text)
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        match &self.output {
            Some(path) => save(path, text, "the plan")?,
            None => std::io::stdout().lock().write_all(text.as_bytes())?,
        }
        Ok(())
    }

    /// What the order says of a step, or of a stored row: a line for each sample.
    fn answer(&self, reader: &BatchReader) -> Result<String, Error> {
        let epoch = reader.epoch_plan(self.epoch);
        let json = match self.format {
            PlanFormat::Json => true,
            PlanFormat::Text => false,
            PlanFormat::Svg => {
                return Err(Error::invalid(
                    "there is no picture of single samples: expected text or json",
                ));
            }
        };
        let mut text = String::new();
        if let Some(step) = self.explain {
            for origin in epoch.explain(step, self.rank)? {
                // Writing to a String does not fail.
                let _ = match json {
                    true => writeln!(text, "{}", json!(origin)),
                    false => writeln!(
                        text,
                        "sample {}: {}, row group {}, row {}{}",
                        origin.sample,
                        origin.file,
                        origin.row_group,
                        origin.row,
                        if origin.padded { ", padded" } else { "" }
                    ),
                };
            }
        }
        if let Some(StoredRow { file, row_group, row }) = &self.where_is {
            let deliveries = epoch.where_is(file, *row_group, *row)?;
            if deliveries.is_empty() && !json {
                text += "not in this epoch: the row is not selected, or left out at the end\n";
            }
            for delivery in deliveries {
                let _ = match json {
                    true => writeln!(text, "{}", json!(delivery)),
                    false => writeln!(
                        text,
                        "step {}, rank {}, place {} of its batch (sample {}){}",
                        delivery.step,
                        delivery.rank,
                        delivery.place,
                        delivery.sample,
                        if delivery.padded { ", padded" } else { "" }
                    ),
                };
            }
        }
        Ok(text)
    }

    fn all_steps(&self, forecast: &Forecast) -> u64 {
        forecast.steps.saturating_mul(self.epochs)
    }

    fn json(&self, url: &str, forecast: &Forecast) -> Result<Value, Error> {
        let figures = serde_json::to_value(forecast);
        let figures = figures.map_err(|error| Error::internal("a plan has no JSON form").with_source(error))?;
        let mut plan = json!({"url": url, "epochs": self.epochs, "steps_of_all_epochs": self.all_steps(forecast)});
        if let (Value::Object(plan), Value::Object(figures)) = (&mut plan, figures) {
            plan.extend(figures);
        }
        Ok(plan)
    }

    fn text(&self, url: &str, forecast: &Forecast) -> String {
        let mut text = format!("{url}: epoch {}, seed {}\n", forecast.epoch, forecast.seed);
        let groups = match forecast.groups == forecast.world_size {
            true => String::new(),
            false => format!(" in {} groups that take the same samples", forecast.groups),
        };
        let mut line = |name: &str, value: String| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {name:16} {value}");
        };
        line(
            "selected",
            format!(
                "{} rows in {} row groups, {}",
                forecast.rows,
                forecast.row_groups,
                size(forecast.bytes)
            ),
        );
        line(
            "ranks",
            format!(
                "{}{groups}, {} rows a global batch, remainder {}, partition {}",
                forecast.world_size, forecast.global_batch, forecast.remainder, forecast.partition
            ),
        );
        if !forecast.ranks_without_rows.is_empty() {
            line("without rows", without_rows(&forecast.ranks_without_rows));
        }
        line(
            "order",
            format!(
                "shuffle {}, {} lanes, windows of {} rows",
                forecast.shuffle, forecast.lanes, forecast.window
            ),
        );
        let all = match self.epochs {
            1 => String::new(),
            epochs => format!(", {} in {epochs} epochs", self.all_steps(forecast)),
        };
        line("steps", format!("{}{all}", forecast.steps));
        let left = forecast.rows - forecast.delivered;
        let left = (left > 0).then(|| format!(", {left} left out"));
        let padded = (forecast.padded > 0).then(|| format!(", {} padded", forecast.padded));
        line(
            "delivered",
            format!(
                "{} rows{}{}",
                forecast.delivered,
                left.unwrap_or_default(),
                padded.unwrap_or_default()
            ),
        );
        line(
            "fetched",
            format!(
                "{}, read amplification {:.3}; {} of {} row groups",
                size(forecast.bytes_fetched),
                forecast.read_amplification,
                forecast.row_groups_fetched,
                forecast.row_groups
            ),
        );
        let quality = &forecast.quality;
        line(
            "shuffle quality",
            format!(
                "{} of global batches, {} of a rank's batches (1 = a random permutation)",
                estimate(quality.quality, quality.standard_error),
                estimate(quality.rank_quality, quality.rank_standard_error)
            ),
        );
        if quality.epochs > 1 {
            let judged = format!(
                "{} batches of {} epochs, for the quality",
                quality.batches, quality.epochs
            );
            line("judged", judged);
        }
        line(
            "mixing",
            format!(
                "{:.1} row groups in a global batch, {:.1} in a random one",
                quality.row_groups_per_batch, quality.row_groups_per_random_batch
            ),
        );
        let samples = [
            (forecast.row_groups_taken, "row groups for what is fetched"),
            (forecast.batches_taken, "batches for the quality"),
            (forecast.memory_steps_taken, "steps for the memory"),
        ];
        for (Coverage { taken, of }, what) in samples.into_iter().filter(|(coverage, _)| coverage.is_sample()) {
            line("sampled", format!("{taken} of {of} {what}"));
        }
        text.push('\n');
        text + &self.table(&forecast.ranks)
    }

    fn table(&self, ranks: &[RankForecast]) -> String {
        const NAMES: [&str; 9] = [
            "rank",
            "steps",
            "rows",
            "padded",
            "row groups",
            "rows fetched",
            "per row",
            "fetched",
            "memory",
        ];
        let cells = |name: String, n: [u64; 7], per_row: f64| -> Vec<String> {
            let [steps, rows, padded, row_groups, rows_fetched, bytes, memory] = n;
            let counts = [steps, rows, padded, row_groups, rows_fetched].map(|n| n.to_string());
            let rest = [format!("{per_row:.3}"), size(bytes), size(memory)];
            [name].into_iter().chain(counts).chain(rest).collect()
        };
        let figures = |rank: &RankForecast| {
            [
                rank.steps,
                rank.rows,
                rank.padded,
                rank.row_groups,
                rank.rows_fetched,
                rank.bytes_fetched,
                rank.memory.total(),
            ]
        };
        let per_row = |rank: &RankForecast| rank.rows_fetched as f64 / (rank.rows + rank.padded).max(1) as f64;
        let mut rows = vec![NAMES.map(String::from).to_vec()];
        if self.all_ranks || ranks.len() <= RANKS_SHOWN {
            rows.extend((ranks.iter()).map(|rank| cells(rank.rank.to_string(), figures(rank), per_row(rank))));
        } else {
            for (name, at) in [
                ("least", 0),
                ("median", (ranks.len() - 1) / 2),
                ("most", ranks.len() - 1),
            ] {
                // Of each figure by itself: the ranks with the least of two figures may be others.
                let nth = |column: usize| {
                    let mut values: Vec<_> = ranks.iter().map(|rank| figures(rank)[column]).collect();
                    values.sort_unstable();
                    values[at]
                };
                let mut per_row: Vec<_> = ranks.iter().map(per_row).collect();
                per_row.sort_unstable_by(f64::total_cmp);
                rows.push(cells(name.into(), std::array::from_fn(nth), per_row[at]));
            }
        }
        let widths: Vec<usize> = (0..NAMES.len())
            .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
            .collect();
        let mut table = String::new();
        for row in rows {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}"));
            table.extend(padded);
            table.push('\n');
        }
        table
    }
}

/// Ranks that cannot read, by their numbers while they are few.
fn without_rows(ranks: &[u64]) -> String {
    let shown: Vec<_> = ranks.iter().take(RANKS_SHOWN).map(u64::to_string).collect();
    let more = ranks.len() - shown.len();
    let more = (more > 0).then(|| format!(" and {more} more"));
    format!(
        "{} {}{}: no selected row is in their row groups, such a rank cannot read",
        if ranks.len() == 1 { "rank" } else { "ranks" },
        shown.join(", "),
        more.unwrap_or_default()
    )
}

/// Bytes for people, in powers of 1024.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}
