//! A reader measured, with a trainer that is made up.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrow_array::{Array, RecordBatch};
use arrow_data::ArrayData;
use serde::Serialize;
use squall_schema::{Error, ErrorKind, Result};

use crate::metrics::{Metrics, Stage, StageTimes, bytes_of, per_second};
use crate::reader::BatchReader;

/// How a reader is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BenchOptions {
    /// Batches that are taken before anything is measured, the first one included.
    pub warmup: u64,
    /// Ends after so many batches; after `duration` alone if not given.
    pub batches: Option<u64>,
    /// Ends after this time.
    pub duration: Duration,
    /// How long the trainer works on a batch, without processor time: on a device.
    pub step: Duration,
    /// Most bytes of batches that are kept, to be replayed from memory.
    pub replay_bytes: u64,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            warmup: 8,
            batches: None,
            duration: Duration::from_secs(10),
            step: Duration::ZERO,
            replay_bytes: 256 << 20,
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct BenchReport {
    /// How long the first batch took.
    pub first_batch_seconds: f64,
    /// Rows a second that the trainer was given.
    pub rows_per_second: f64,
    /// Bytes of batches a second.
    pub bytes_per_second: f64,
    /// How fast each stage would be if it were alone.
    pub stages: Vec<StageSpeed>,
    /// The stage that limits.
    pub limiting_stage: Option<Stage>,
    /// What helps.
    pub advice: Option<&'static str>,
    /// The share of all processor time that loading takes.
    pub cpu_share: Option<f64>,
    /// The same batches taken from memory.
    pub replay: Replay,
    /// The most memory that the process had, all that it ever did counted, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the data ended before the time did.
    pub ended: bool,
    /// All of it.
    pub metrics: Metrics,
}

/// How fast a stage would be if nothing else had to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StageSpeed {
    /// `fetch`, `decode` or `build`.
    pub stage: &'static str,
    /// Rows a second, if all its threads did nothing else.
    pub rows_per_second: Option<f64>,
    /// Bytes a second that it would give.
    pub bytes_per_second: Option<f64>,
}

/// An upper bound: what the trainer alone can take, when batches cost nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Replay {
    /// Batches that were kept, and taken again and again.
    pub kept: u64,
    /// Batches that were taken.
    pub batches: u64,
    /// Rows a second.
    pub rows_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

/// Takes batches for a while, as a trainer would, and says how fast they came and what held them up.
///
/// The trainer copies each batch once, as the way to a device does, and works for [`BenchOptions::step`]. Then it takes batches
/// that it kept, from memory, for as many steps but not longer than it took before: the bound for any loader.
///
/// # Errors
///
/// Those of the reader; and where there is no batch behind those of the warm-up.
pub fn bench(reader: &mut BatchReader, options: &BenchOptions) -> Result<BenchReport> {
    let mut trainer = Trainer::new(options.step);
    for taken in 0..options.warmup {
        let batch = reader.next().ok_or_else(|| too_few(taken, options.warmup))??;
        trainer.step(&batch);
    }
    let before = reader.metrics();
    let began = Instant::now();
    let (mut batches, mut ended) = (0, false);
    let (mut kept, mut kept_bytes) = (Vec::new(), 0);
    while options.batches.is_none_or(|most| batches < most) && began.elapsed() < options.duration {
        let Some(batch) = reader.next() else {
            ended = true;
            break;
        };
        let batch = batch?;
        trainer.step(&batch);
        batches += 1;
        let bytes = bytes_of(&batch);
        if kept_bytes + bytes <= options.replay_bytes {
            kept_bytes += bytes;
            kept.push(batch);
        }
    }
    let all = reader.metrics();
    let metrics = all.since(&before);
    if batches == 0 {
        return Err(too_few(options.warmup, options.warmup));
    }
    let replay = trainer.replay(&kept, batches, began.elapsed());
    let limiting_stage = metrics.limiting_stage();
    Ok(BenchReport {
        first_batch_seconds: all.first_batch.unwrap_or_default().as_secs_f64(),
        rows_per_second: metrics.rows_per_second(),
        bytes_per_second: per_second(metrics.bytes_built, metrics.wall),
        stages: [
            ("fetch", metrics.fetch, metrics.bytes_fetched),
            ("decode", metrics.decode, metrics.bytes_decoded),
            ("build", metrics.build, metrics.bytes_built),
        ]
        .map(|(stage, times, bytes)| alone(stage, times, (metrics.rows, bytes)))
        .to_vec(),
        limiting_stage,
        advice: limiting_stage.map(Stage::advice),
        cpu_share: metrics.cpu_share(),
        replay,
        peak_memory_bytes: peak_memory(),
        ended,
        metrics,
    })
}

fn too_few(found: u64, warmup: u64) -> Error {
    Error::new(
        ErrorKind::NoData,
        format!("nothing is left to measure: expected more than the {warmup} batches of the warm-up, found {found}"),
    )
}

/// The speed of a stage whose busy time was spread over all its slots.
fn alone(stage: &'static str, times: StageTimes, (rows, bytes): (u64, u64)) -> StageSpeed {
    let busy = times.busy.as_secs_f64() / times.slots.max(1) as f64;
    let speed = |n: u64| (busy > 0.0 && n > 0).then(|| n as f64 / busy);
    StageSpeed {
        stage,
        rows_per_second: speed(rows),
        bytes_per_second: speed(bytes),
    }
}

struct Trainer {
    step: Duration,
    /// What a batch is copied to.
    staging: Vec<u8>,
}

impl Trainer {
    fn new(step: Duration) -> Self {
        Self {
            step,
            staging: Vec::new(),
        }
    }

    fn step(&mut self, batch: &RecordBatch) {
        self.staging.clear();
        for column in batch.columns() {
            let data = column.to_data();
            // A slice may belong to buffers that are much larger.
            let mut left = data.get_slice_memory_size().unwrap_or(0);
            copy(&data, &mut left, &mut self.staging);
        }
        std::hint::black_box(&self.staging);
        if !self.step.is_zero() {
            sleep(self.step);
        }
    }

    fn replay(&mut self, kept: &[RecordBatch], batches: u64, at_most: Duration) -> Replay {
        let mut replay = Replay {
            kept: kept.len() as u64,
            ..Replay::default()
        };
        let (mut rows, mut bytes) = (0, 0);
        let sizes: Vec<_> = kept.iter().map(bytes_of).collect();
        let began = Instant::now();
        for (batch, size) in kept.iter().zip(&sizes).cycle() {
            if replay.batches >= batches || began.elapsed() >= at_most {
                break;
            }
            self.step(batch);
            rows += batch.num_rows() as u64;
            bytes += size;
            replay.batches += 1;
        }
        replay.rows_per_second = per_second(rows, began.elapsed());
        replay.bytes_per_second = per_second(bytes, began.elapsed());
        replay
    }
}

fn copy(data: &ArrayData, left: &mut usize, staging: &mut Vec<u8>) {
    for buffer in data.buffers() {
        let now = buffer.len().min(*left);
        staging.extend_from_slice(&buffer.as_slice()[..now]);
        *left -= now;
    }
    for child in data.child_data() {
        copy(child, left, staging);
    }
}

/// The most memory that the process was given at any time.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
