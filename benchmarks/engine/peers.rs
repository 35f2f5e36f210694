//! The peers, which `peers.py` measures in processes of their own.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use squall_benchmarks::Result;
use squall_benchmarks::sets::Set;
use squall_benchmarks::timing::Rates;

use crate::report::Measured;
use crate::squall_side::batch_size;

/// Petastorm with both of its pools, of which the faster counts, and DALI where there are jpeg images. `queue` is the size of
/// Petastorm's shuffling queue in rows.
pub(crate) fn measure(set: &Set, threads: usize, repeat: usize, queue: u64) -> Result<Vec<Measured>> {
    let petastorm = env::var("SQUALL_PETASTORM_PYTHON")
        .map_err(|_| "SQUALL_PETASTORM_PYTHON is not set: eval \"$(cargo xtask env)\" sets it")?;
    // What a queue costs matters beside rows that cost nothing else. It is left out where that is in Petastorm's favour.
    let queues: &[(&str, u64)] = match set.name.as_str() {
        "tabular" => &[("petastorm", queue), ("petastorm, row groups shuffled", 0)],
        _ => &[("petastorm", 0)],
    };
    let mut all = Vec::new();
    for (name, queue) in queues {
        let pools: Vec<_> = ["thread", "process"]
            .into_iter()
            .map(|pool| {
                let mut arguments = vec!["petastorm".to_owned(), set.name.clone(), set.url()];
                arguments.extend(["--pool".into(), pool.into(), "--shuffle".into(), queue.to_string()]);
                let measured = run(&petastorm, arguments, set, threads, repeat)?;
                Ok((pool, measured))
            })
            .collect::<Result<_>>()?;
        let better = pools
            .into_iter()
            .max_by(|(_, one), (_, other)| one.0.best().total_cmp(&other.0.best()));
        if let Some((pool, (rates, first_batch, note))) = better {
            let mut measured = Measured::new(&set.name, name, rates);
            measured.first_batch = first_batch;
            measured.note = if note.is_empty() { format!("{pool} pool") } else { note };
            all.push(measured);
        }
    }
    if set.name == "jpeg" {
        let (rates, first_batch, note) = run("python3", vec!["dali".into(), set.url()], set, threads, repeat)?;
        let mut measured = Measured::new(&set.name, "dali", rates);
        measured.first_batch = first_batch;
        measured.note = if note.is_empty() {
            "on the CPU, cells in memory".into()
        } else {
            note
        };
        all.push(measured);
    }
    Ok(all)
}

/// Rates, the fastest first batch, and what went wrong if something did.
fn run(
    python: &str,
    arguments: Vec<String>,
    set: &Set,
    threads: usize,
    repeat: usize,
) -> Result<(Rates, Option<Duration>, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers.py");
    let (mut rates, mut first_batch, mut note) = (Rates::default(), None, String::new());
    for _ in 0..repeat {
        let output = Command::new(python)
            .arg(&script)
            .args(&arguments)
            .args(["--workers", &threads.to_string()])
            .args(["--batch", &batch_size(&set.name).to_string()])
            .stderr(Stdio::null())
            .output()?;
        let line = String::from_utf8(output.stdout)?;
        let found: Value = serde_json::from_str(&line).map_err(|_| format!("peers.py gave {line:?}"))?;
        if let Some(error) = found["error"].as_str() {
            note = error.to_owned();
            break;
        }
        let number = |name: &str| found[name].as_f64().ok_or(format!("peers.py gave no {name}"));
        rates.add(
            number("rows")?,
            number("seconds")?,
            found["cpu_seconds"].as_f64().unwrap_or(0.0),
        );
        let first = Duration::from_secs_f64(number("first_batch")?);
        first_batch = Some(first_batch.map_or(first, |best: Duration| best.min(first)));
    }
    Ok((rates, first_batch, note))
}
