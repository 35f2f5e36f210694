//! Data-parallel training of a convolutional net with libtorch: a process a rank, gradients averaged each step.
//!
//! ```text
//! cargo run --release --features torch --example train_digits -- --world-size 2
//! ```
//!
//! Started like this it starts its own ranks. torchrun or a cluster's scheduler can start them too: a process that finds
//! `RANK` in its environment is that rank, and finds the others by `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`. With
//! CUDA a rank trains on `cuda:LOCAL_RANK`, otherwise on the CPU.
//!
//! The global batch is the same for every world size, and so are the batches: the loss curve of two ranks is that of one,
//! up to the order in which floating-point numbers are added.

mod launch;
mod net;
mod ranks;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use net::Net;
use ranks::Ranks;
use squall::convert::{Converter, convert_directory};
use squall::torch::ToDevice;
use squall::{DatasetUrl, IntoLoader, Remainder, TransformSpec, field, make_reader};
use tch::{Device, Kind};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Trains a convolutional net on handwritten digits.
#[derive(Parser)]
struct Options {
    /// Ranks to start, where none of them is started from outside
    #[arg(long, default_value_t = 1)]
    world_size: u64,
    /// Rows of a step on all ranks together
    #[arg(long, default_value_t = 64)]
    global_batch: u64,
    #[arg(long, default_value_t = 8)]
    epochs: u64,
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// `auto` is CUDA where it is, else the CPU
    #[arg(long, default_value = "auto", value_parser = ["auto", "cpu", "cuda"])]
    device: String,
    /// Where the converted datasets are, or will be; all ranks must see it. A temporary directory if not given, where the
    /// ranks are started from here
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Options {
    /// Equal parts keep the mean of the ranks' losses the mean over all rows.
    fn check(&self, world_size: u64) -> Result<()> {
        if world_size == 0 || !self.global_batch.is_multiple_of(world_size) {
            let found = self.global_batch;
            return Err(format!(
                "expected a global batch that is a multiple of the world size {world_size}, found {found}"
            )
            .into());
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if launch::is_rank() {
        train(&options)
    } else {
        launch::ranks(&options)
    }
}

fn train(options: &Options) -> Result<()> {
    let mut ranks = Ranks::from_env()?;
    options.check(ranks.world_size())?;
    let data = options
        .data
        .as_ref()
        .ok_or("ranks that are started from outside need --data, a place that all of them see")?;
    let url = |name| data.join(name).display().to_string();
    if ranks.rank() == 0 {
        convert("train", "id % 5 <> 0", &url("train"))?;
        convert("test", "id % 5 = 0", &url("test"))?;
    }
    ranks.barrier()?;

    let device = match options.device.as_str() {
        "cpu" => Device::Cpu,
        "auto" if !tch::Cuda::is_available() => Device::Cpu,
        _ => Device::Cuda(ranks.local_rank()),
    };
    // Ranks share the machine; the loader's threads need room too.
    tch::set_num_threads(1);
    tch::manual_seed(i64::try_from(options.seed)?);
    let mut net = Net::new(device);
    let reader = make_reader(url("train"))
        .rank(ranks.rank(), ranks.world_size())
        .epochs(options.epochs)
        .seed(options.seed)
        .transform(scale_pixels())
        .build()?;
    let rows = reader.rows_per_epoch();
    let batch_size = options.global_batch / ranks.world_size();
    let loader = reader.into_loader(batch_size).to(device)?.build()?;
    let steps = loader.steps_per_epoch();
    if ranks.rank() == 0 {
        println!(
            "{} ranks, {rows} rows, {steps} steps an epoch, on {device:?}",
            ranks.world_size()
        );
    }
    let mut total = 0.0;
    for (step, batch) in (1..).zip(loader) {
        let batch = batch?;
        let loss = net.loss(&batch["pixels"], &batch["digit"]);
        total += ranks.mean_step(&mut net, &loss)?;
        net.step();
        if step % steps == 0 {
            if ranks.rank() == 0 {
                println!("epoch {} loss {:.6}", batch.epoch, total / steps as f64);
            }
            total = 0.0;
        }
    }
    if ranks.rank() == 0 {
        println!("test accuracy {:.4}", accuracy(&net, &url("test"), device)?);
    }
    // The others wait until rank 0 has read the test set: a launcher may take the data away when a rank ends.
    ranks.barrier()
}

/// Writes the rows that fulfil the condition, unless an earlier run has.
fn convert(name: &str, condition: &str, destination: &str) -> Result<()> {
    if Path::new(destination).join("_common_metadata").exists() {
        return Ok(());
    }
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits");
    let sql = format!("SELECT pixels, CAST(digit AS BIGINT) AS digit FROM source WHERE {condition}");
    let runtime = tokio::runtime::Runtime::new()?;
    let converter = Converter::new(destination);
    let converted = runtime.block_on(convert_directory(&table.display().to_string(), converter, Some(&sql)))?;
    let url = DatasetUrl::parse(destination)?;
    println!("converted {} rows to {name}: {url}", converted.rows());
    Ok(())
}

/// Pixels of 0 to 16 become an image of one channel, of 0 to 1.
fn scale_pixels() -> TransformSpec {
    TransformSpec::per_row(|row| {
        let scaled = row.tensor("pixels")?.map(|pixel: i8| f32::from(pixel) / 16.0)?;
        row.set("pixels", scaled.reshape(&[1, 8, 8])?);
        Ok(())
    })
    .edit(field!("pixels": f32[1, 8, 8]))
}

fn accuracy(net: &Net, url: &str, device: Device) -> Result<f64> {
    let reader = make_reader(url).transform(scale_pixels()).build()?;
    let rows = reader.rows_per_epoch();
    let mut correct = 0;
    for batch in reader.into_loader(64).remainder(Remainder::Keep).to(device)?.build()? {
        let batch = batch?;
        let guesses = net.classify(&batch["pixels"]);
        correct += guesses.eq_tensor(&batch["digit"]).sum(Kind::Int64).int64_value(&[]);
    }
    Ok(correct as f64 / rows as f64)
}
