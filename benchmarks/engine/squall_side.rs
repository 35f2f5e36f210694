//! Epochs of each set as a trainer takes them: batches on the host, from a loader.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::Value;
use squall::{
    DType, Field, IntoLoader, LoaderBuilder, ReaderBuilder, Remainder, Shape, Shuffle, TransformSpec,
    make_batch_reader, make_reader,
};
use squall_benchmarks::Result;
use squall_benchmarks::sets::Set;

const SEED: u64 = 1;
/// Floats of a row of the table.
const FEATURES: usize = 20;

/// Rows of a batch. Peers get the same.
pub(crate) fn batch_size(set: &str) -> u64 {
    match set {
        "tabular" => 1024,
        "jpeg" => 64,
        _ => 256,
    }
}

/// How an epoch is read.
pub(crate) struct Read<'a> {
    pub(crate) set: &'a Set,
    pub(crate) threads: usize,
    pub(crate) shuffle: Shuffle,
    pub(crate) lanes: Option<u64>,
    pub(crate) window: Option<u64>,
}

pub(crate) struct Epoch {
    pub(crate) rows: usize,
    /// From the first call, which opens the dataset, to the first batch.
    pub(crate) first_batch: Duration,
}

pub(crate) fn read_epoch(read: &Read<'_>) -> Result<Epoch> {
    let began = Instant::now();
    let batch_size = batch_size(&read.set.name);
    let loader: LoaderBuilder<_> = match read.set.name.as_str() {
        "tabular" => packed(ordered(make_batch_reader(read.set.url()), read))
            .build()?
            .into_loader(batch_size),
        "png" => ordered(make_reader(read.set.url()), read)
            .transform(scaled())
            .build()?
            .into_loader(batch_size),
        _ => ordered(make_reader(read.set.url()), read)
            .build()?
            .into_loader(batch_size),
    };
    let mut rows = 0;
    let mut first_batch = None;
    for batch in loader.remainder(Remainder::Keep).build()? {
        let batch = black_box(batch?);
        if read.set.name == "tabular" && batch.slice::<f32>("features")?.len() != batch.len() * FEATURES {
            return Err("the features are not packed".into());
        }
        rows += batch.len();
        first_batch.get_or_insert_with(|| began.elapsed());
    }
    Ok(Epoch {
        rows,
        first_batch: first_batch.ok_or("no batch")?,
    })
}

/// Rows that are in the windows of all lanes together.
pub(crate) fn rows_in_windows(read: &Read<'_>) -> Result<u64> {
    let state = ordered(make_batch_reader(read.set.url()), read).build()?.state();
    let state: Value = serde_json::from_str(&state.to_json())?;
    let number = |name: &str| state[name].as_u64().ok_or(format!("the state has no {name}"));
    Ok(number("lanes")? * number("window")?)
}

fn ordered<R>(reader: ReaderBuilder<R>, read: &Read<'_>) -> ReaderBuilder<R> {
    let mut reader = reader.shuffle(read.shuffle).seed(SEED).workers(read.threads);
    if let (Some(lanes), Shuffle::Windows) = (read.lanes, read.shuffle) {
        reader = reader.lanes(lanes);
    }
    if let (Some(window), Shuffle::Windows) = (read.window, read.shuffle) {
        reader = reader.window(window);
    }
    reader
}

/// The 20 floats as one tensor `[rows, 20]`, beside id and label.
fn packed<R>(reader: ReaderBuilder<R>) -> ReaderBuilder<R> {
    reader.pack("features", (0..FEATURES).map(|i| format!("f{i}")))
}

/// uint8 to `float32 / 255`, row by row.
fn scaled() -> TransformSpec {
    TransformSpec::per_row(|row| {
        let x = row.tensor("x")?.map(|pixel: u8| f32::from(pixel) / 255.0)?;
        row.set("x", x);
        Ok(())
    })
    .edit(Field::new("x", DType::Float32, Shape::fixed(&[28, 28])))
}
