//! The options that `read` and `plan` share: what is read, in which order, and how it is divided.

use clap::{Args, ValueEnum};
use squall::{Error, OnBadRow, Partition, ReaderBuilder, Remainder, Shuffle};

use crate::cache::Cache;
use crate::machine::Machine;
use crate::rows::Rows;

/// Which rows and columns, in which order, in which batches.
#[derive(Args)]
pub(crate) struct ReadOptions {
    /// The dataset: a path or a URL
    pub(crate) url: String,
    /// Number of ranks [default: 1]
    #[arg(long)]
    world_size: Option<u64>,
    /// Seed of the order [default: 0, or that of a saved state]
    #[arg(long)]
    seed: Option<u64>,
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
    /// Deliver scalar columns of one type as one array of this name: features=f0,f1,f2; may be given several times
    #[arg(long, value_name = "NAME=COLUMNS", value_parser = pack)]
    pack: Vec<Pack>,
    /// Take structs apart: a column a with a member b is read as a.b
    #[arg(long)]
    flatten_structs: bool,
    /// The zone of times in directory names, as Spark's session had it: Europe/Zurich, +02:00
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// How rows are shuffled [default: windows, or as in a saved state]
    #[arg(long, value_enum, value_name = "MODE")]
    shuffle: Option<ShuffleFlag>,
    /// Rows come as they are stored: --shuffle none
    #[arg(long, conflicts_with = "shuffle")]
    no_shuffle: bool,
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
    /// What becomes of a row that cannot be decoded: fail, or skip:100 to put others in the place of up to 100
    #[arg(long, value_name = "POLICY", default_value = "fail", value_parser = on_bad_row)]
    on_bad_row: OnBadRow,
    #[command(flatten)]
    storage: Storage,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    rows: Rows,
}

/// Columns that are delivered as one.
#[derive(Debug, Clone)]
struct Pack {
    name: String,
    columns: Vec<String>,
}

fn pack(text: &str) -> Result<Pack, String> {
    let wrong = || format!("expected a name and columns such as features=f0,f1,f2, found {text:?}");
    let (name, columns) = text.split_once('=').ok_or_else(wrong)?;
    let columns: Vec<_> = columns.split(',').map(|column| column.trim().to_owned()).collect();
    if name.is_empty() || columns.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(Pack {
        name: name.to_owned(),
        columns,
    })
}

fn on_bad_row(text: &str) -> Result<OnBadRow, String> {
    let at_most = text.strip_prefix("skip:").map(str::parse);
    match (text, at_most) {
        ("fail", _) => Ok(OnBadRow::Fail),
        (_, Some(Ok(at_most))) => Ok(OnBadRow::Skip { at_most }),
        _ => Err(format!(
            "expected fail, or skip: and how many rows at most as in skip:100, found {text:?}"
        )),
    }
}

/// How stores are reached.
#[derive(Args)]
pub(crate) struct Storage {
    /// A setting of the store by object_store's name: endpoint=https://…, skip_signature=true; may be given several times
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    options: Vec<String>,
}

impl Storage {
    /// Gives the options to a reader.
    pub(crate) fn apply<R>(&self, reader: ReaderBuilder<R>) -> Result<ReaderBuilder<R>, Error> {
        match self.pairs()? {
            none if none.is_empty() => Ok(reader),
            pairs => Ok(reader.storage_options(pairs)),
        }
    }

    /// The names and values. An error shows neither: a key may be where a name should be.
    pub(crate) fn pairs(&self) -> Result<Vec<(&str, &str)>, Error> {
        let pairs = self.options.iter().map(|option| option.split_once('='));
        let malformed = || Error::invalid("expected --storage-option KEY=VALUE, found one without =");
        pairs.map(|pair| pair.ok_or_else(malformed)).collect()
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShuffleFlag {
    /// Not at all
    None,
    /// Row groups, and rows in windows of many lanes
    Windows,
    /// One permutation of all rows
    Full,
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

impl ReadOptions {
    pub(crate) fn partition(&self) -> Partition {
        match self.partition {
            PartitionFlag::Even => Partition::Even,
            PartitionFlag::RowGroups => Partition::RowGroups,
        }
    }

    /// Gives the options to a reader of this rank.
    pub(crate) fn apply<R>(&self, mut reader: ReaderBuilder<R>, rank: Option<u64>) -> Result<ReaderBuilder<R>, Error> {
        if rank.is_some() || self.world_size.is_some() {
            reader = reader.rank(rank.unwrap_or(0), self.world_size.unwrap_or(1));
        }
        reader = reader
            .remainder(match self.remainder {
                RemainderFlag::Drop => Remainder::Drop,
                RemainderFlag::Pad => Remainder::Pad,
                RemainderFlag::Keep => Remainder::Keep,
            })
            .partition(self.partition())
            .on_bad_row(self.on_bad_row)
            .time_zone(&self.time_zone);
        reader = self.storage.apply(reader)?;
        reader = self.machine.apply(self.cache.apply(reader));
        let shuffle = match (self.shuffle, self.no_shuffle) {
            (Some(ShuffleFlag::None), _) | (None, true) => Some(Shuffle::None),
            (Some(ShuffleFlag::Windows), _) => Some(Shuffle::Windows),
            (Some(ShuffleFlag::Full), _) => Some(Shuffle::Full),
            (None, false) => None,
        };
        if let Some(shuffle) = shuffle {
            reader = reader.shuffle(shuffle);
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
        for pack in &self.pack {
            reader = reader.pack(&pack.name, &pack.columns);
        }
        if self.flatten_structs {
            reader = reader.flatten_structs();
        }
        if !self.columns_matching.is_empty() {
            reader = reader.columns_matching(&self.columns_matching);
        }
        if let Some(lanes) = self.lanes {
            reader = reader.lanes(lanes);
        }
        if let Some(rows) = self.window {
            reader = reader.window(rows);
        }
        self.rows.apply(reader)
    }
}
