//! From a table that Spark wrote to a trained model, on two ranks.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! 1. DataFusion splits the table of handwritten digits by a SQL query, and Squall writes two datasets.
//! 2. Two ranks, here two threads, each open the training set with `make_reader` and load their share of every batch. A
//!    TransformSpec scales the pixels on the worker threads.
//! 3. Each step the ranks average their gradients, as data-parallel training does.
//! 4. At the end of each epoch it is checked that the ranks together saw every row exactly once.

mod rendezvous;
mod softmax;

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use rendezvous::Rendezvous;
use softmax::{PIXELS, Softmax};
use squall::convert::{Converter, convert_directory};
use squall::{HostBatch, IntoLoader, Remainder, TransformSpec, field, make_reader};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WORLD_SIZE: u64 = 2;
const BATCH_SIZE: u64 = 32;
const EPOCHS: u64 = 15;
const LEARNING_RATE: f32 = 0.5;

fn main() -> Result<()> {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits");
    let table = table.to_str().ok_or("the path of the table is not UTF-8")?;
    let scratch = tempfile::tempdir()?;
    let place = |name: &str| scratch.path().join(name).display().to_string();

    // Every fifth row is for testing. In SQL the directory is the table `source`.
    let runtime = tokio::runtime::Runtime::new()?;
    let split = |name, condition: &str| {
        let sql = format!("SELECT id, pixels, CAST(digit AS BIGINT) AS digit FROM source WHERE {condition}");
        runtime.block_on(convert_directory(table, Converter::new(place(name)), Some(&sql)))
    };
    let train = split("train", "id % 5 <> 0")?;
    let test = split("test", "id % 5 = 0")?;
    println!(
        "converted {} rows to train on and {} to test on",
        train.rows(),
        test.rows()
    );
    println!("{}\n", train.schema());

    let ranks = Rendezvous::new(WORLD_SIZE as usize);
    let models = std::thread::scope(|scope| {
        let train = |rank| {
            let (url, ranks) = (train.url(), &ranks);
            scope.spawn(move || {
                let trained = train_rank(rank, &url, ranks);
                if trained.is_err() {
                    ranks.break_up();
                }
                trained
            })
        };
        let threads: Vec<_> = (0..WORLD_SIZE).map(train).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let models = models
        .into_iter()
        .map(|trained| trained.map_err(|_| "a rank panicked")?);
    let models = models.collect::<Result<Vec<_>>>()?;

    let correct = evaluate(&models[0], &test.url())?;
    let accuracy = correct as f64 / test.rows() as f64;
    println!("\ntest accuracy {accuracy:.4} ({correct} of {})", test.rows());
    if accuracy <= 0.90 {
        return Err("the model did not learn: expected an accuracy above 0.90".into());
    }
    Ok(())
}

/// Pixels of 0 to 16 become numbers of 0 to 1.
fn scale_pixels() -> TransformSpec {
    TransformSpec::per_row(|row| {
        let scaled = row.tensor("pixels")?.map(|pixel: i8| f32::from(pixel) / 16.0)?;
        row.set("pixels", scaled);
        Ok(())
    })
    .edit(field!("pixels": f32[64]))
}

/// What the ranks bring to a step: the sums of their gradients and losses, and the rows that they saw.
#[derive(Clone, Default)]
struct Step {
    gradient: Softmax,
    loss: f32,
    seen: Vec<i32>,
}

fn train_rank(rank: u64, url: &str, ranks: &Rendezvous<Step>) -> Result<Softmax> {
    let reader = make_reader(url)
        .rank(rank, WORLD_SIZE)
        .epochs(EPOCHS)
        .seed(7)
        .transform(scale_pixels())
        .build()?;
    let rows = reader.rows_per_epoch();
    // The last batch of an epoch is short: every row is seen in every epoch.
    let mut loader = reader.into_loader(BATCH_SIZE).remainder(Remainder::Keep).build()?;
    let steps = loader.steps_per_epoch();
    let mut model = Softmax::default();
    for epoch in 0..EPOCHS {
        let began = Instant::now();
        let mut total = 0.0;
        let mut seen = HashMap::new();
        for _ in 0..steps {
            let batch = loader.next().ok_or("the loader ended before its epochs did")??;
            let (pixels, digits) = features(&batch)?;
            let (gradient, loss) = model.gradient(pixels, digits);
            let ids = batch.slice("id")?;
            let step = ranks.meet(|step| {
                // The mean over the rows of all ranks: the two parts of a short batch may differ by a row.
                step.gradient.add(&gradient, batch.len() as f32);
                step.loss += loss * batch.len() as f32;
                step.seen.extend_from_slice(ids);
            });
            let step = step.ok_or("another rank failed")?;
            let global_batch = step.seen.len() as f32;
            model.add(&step.gradient, -LEARNING_RATE / global_batch);
            total += step.loss;
            for id in step.seen {
                *seen.entry(id).or_insert(0) += 1;
            }
        }
        check_seen_once(&seen, rows)?;
        if rank == 0 {
            let rate = rows as f64 / began.elapsed().as_secs_f64();
            let loss = total / rows as f32;
            println!("epoch {epoch:2}  loss {loss:.4}  {rate:8.0} rows/s  {rows} rows seen, each exactly once");
        }
    }
    Ok(model)
}

fn check_seen_once(seen: &HashMap<i32, u32>, rows: u64) -> Result<()> {
    let twice = seen.values().filter(|times| **times > 1).count();
    if seen.len() as u64 != rows || twice > 0 {
        return Err(format!("saw {} of {rows} rows, {twice} of them more than once", seen.len()).into());
    }
    Ok(())
}

fn features(batch: &HostBatch) -> Result<(&[f32], &[i64])> {
    Ok((batch.slice("pixels")?, batch.slice("digit")?))
}

/// How many test images the model names right.
fn evaluate(model: &Softmax, url: &str) -> Result<usize> {
    let reader = make_reader(url).transform(scale_pixels()).build()?;
    let mut correct = 0;
    for batch in reader.into_loader(64).remainder(Remainder::Keep).build()? {
        let batch = batch?;
        let (pixels, digits) = features(&batch)?;
        let guesses = pixels.chunks(PIXELS).map(|image| model.classify(image));
        correct += guesses
            .zip(digits)
            .filter(|(guess, digit)| *guess == **digit as usize)
            .count();
    }
    Ok(correct)
}
