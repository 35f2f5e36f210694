//! The flags that say which rows are read.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use squall::{Error, Predicate, ReaderBuilder, RowGroupSelector, Sampler, Split};

#[derive(Args)]
#[command(next_help_heading = "Rows")]
pub(crate) struct Rows {
    /// Read only rows for which this is true
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// Keep the rows that --where selects in this directory, for the next run
    #[arg(long, value_name = "DIR", requires = "filter")]
    selection_cache: Option<PathBuf>,
    /// Read only these rows of the stored ones, from 0: 0..100, 100.., ..100; given again, those too
    #[arg(long, value_name = "A..B", value_parser = range)]
    rows: Vec<(Option<u64>, Option<u64>)>,
    /// Leave out so many rows of those that all other flags leave, in stored order
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Read no more than so many rows of those that all other flags leave, in stored order
    #[arg(long, value_name = "N")]
    take: Option<u64>,
    /// Read only the row groups with one of these values, by the row-group index of this name; given again, those that
    /// have both
    #[arg(long, value_name = "INDEX=VALUE[,VALUE]", value_parser = selector)]
    select: Vec<RowGroupSelector>,
    /// Split the rows in parts of these sizes, and read one: 0.8,0.1,0.1
    #[arg(long, value_name = "FRACTIONS", value_delimiter = ',', requires = "subset")]
    split: Option<Vec<f64>>,
    /// The part of the split that is read, from 0
    #[arg(long, value_name = "N", requires = "split")]
    subset: Option<usize>,
    /// Rows with the same value in this column are in the same part [default: rows are on their own]
    #[arg(long, value_name = "COLUMN", requires = "split")]
    split_by: Option<String>,
    /// Seed of the split [default: 0]
    #[arg(long, value_name = "N", requires = "split")]
    split_seed: Option<u64>,
    /// How rows are split
    #[arg(long, value_enum, default_value = "squall", requires = "split")]
    split_rule: SplitRule,
    /// Draw each value of this column equally often
    #[arg(long, value_name = "COLUMN", conflicts_with = "weight")]
    balance: Option<String>,
    /// Draw rows in proportion to this column
    #[arg(long, value_name = "COLUMN")]
    weight: Option<String>,
    /// Samples of an epoch that are drawn [default: as many as there are rows]
    #[arg(long, value_name = "N")]
    samples: Option<u64>,
    /// Draw no row twice in an epoch
    #[arg(long)]
    no_replacement: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitRule {
    /// By XXH3, with a seed
    Squall,
    /// As Petastorm's in_pseudorandom_split does: by MD5 of a column, without a seed
    Petastorm,
}

impl Rows {
    pub(crate) fn apply<R>(&self, mut reader: ReaderBuilder<R>) -> Result<ReaderBuilder<R>, Error> {
        if let Some(sql) = &self.filter {
            reader = reader.filter(sql);
        }
        if let Some(directory) = &self.selection_cache {
            reader = reader.selection_cache(directory);
        }
        for range in &self.rows {
            reader = match *range {
                (None, None) => reader,
                (Some(start), None) => reader.rows(start..),
                (start, Some(end)) => reader.rows(start.unwrap_or(0)..end),
            };
        }
        reader = match &self.select[..] {
            [] => reader,
            [selector] => reader.row_group_selector(selector.clone()),
            all => reader.row_group_selector(RowGroupSelector::intersect(all.iter().cloned())),
        };
        if let (Some(fractions), Some(subset)) = (&self.split, self.subset) {
            reader = self.split(reader, fractions, subset)?;
        }
        if let Some(sampler) = self.sampler()? {
            reader = reader.sampler(sampler);
        }
        reader = reader.skip(self.skip);
        Ok(match self.take {
            Some(n) => reader.take(n),
            None => reader,
        })
    }

    fn sampler(&self) -> Result<Option<Sampler>, Error> {
        let mut sampler = match (&self.balance, &self.weight) {
            (Some(column), _) => Sampler::balanced(column),
            (None, Some(column)) => Sampler::weighted(column),
            (None, None) if self.samples.is_some() || self.no_replacement => {
                return Err(Error::invalid(
                    "--samples and --no-replacement are those of a draw: give --balance or --weight with them",
                ));
            }
            (None, None) => return Ok(None),
        };
        sampler = sampler.replacement(!self.no_replacement);
        if let Some(samples) = self.samples {
            sampler = sampler.samples(samples);
        }
        Ok(Some(sampler))
    }

    fn split<R>(&self, reader: ReaderBuilder<R>, fractions: &[f64], subset: usize) -> Result<ReaderBuilder<R>, Error> {
        let split = match (self.split_rule, &self.split_by) {
            (SplitRule::Petastorm, Some(column)) if self.split_seed.is_none() => {
                return Ok(reader.predicate(Predicate::in_pseudorandom_split(fractions, subset, column)));
            }
            (SplitRule::Petastorm, Some(_)) => {
                return Err(Error::invalid("Petastorm's split has no seed: leave out --split-seed"));
            }
            (SplitRule::Petastorm, None) => {
                return Err(Error::invalid("Petastorm splits by a column: give one with --split-by"));
            }
            (SplitRule::Squall, Some(column)) => Split::by_column(column, fractions, subset),
            (SplitRule::Squall, None) => Split::by_row(fractions, subset),
        };
        Ok(reader.split(split.seed(self.split_seed.unwrap_or(0))))
    }
}

fn range(text: &str) -> Result<(Option<u64>, Option<u64>), String> {
    let wrong = || format!("expected two row numbers such as 0..100, 100.. or ..100, found {text:?}");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| wrong()),
    };
    Ok((number(start)?, number(end)?))
}

fn selector(text: &str) -> Result<RowGroupSelector, String> {
    match text.split_once('=') {
        Some((index, values)) if !index.is_empty() => Ok(RowGroupSelector::single_from_text(index, values.split(','))),
        _ => Err(format!(
            "expected an index and values such as by_label=3,5, found {text:?}"
        )),
    }
}
