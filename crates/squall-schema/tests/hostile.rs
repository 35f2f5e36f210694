//! Attacks: each must end in an error that says what is wrong, within [`MEMORY`] and [`TIME`].
//!
//! A process of its own reads each of them, so that its peak of resident memory, as the kernel counts it, is that of one
//! attack, with the input, the test program and the memory of C libraries in it.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BinaryArray};
use squall_schema::codec::decode_column;
use squall_schema::{Field, Result};

mod arrays;
mod images;
mod metadata;
mod pickles;

/// Most resident memory of a process.
const MEMORY: usize = 64 << 20;
/// Most time of the processor, in a build without optimisation.
const TIME: Duration = Duration::from_secs(2);

/// Tells a process which attack it reads.
const VARIABLE: &str = "SQUALL_TEST_ATTACK";
/// The line with what it measured.
const ANSWER: &str = "answer: ";

struct Attack {
    name: &'static str,
    input: fn() -> Vec<u8>,
    read: fn(&[u8]) -> Result<()>,
    /// What the error says.
    says: &'static str,
}

fn attack(read: fn(&[u8]) -> Result<()>, name: &'static str, says: &'static str, input: fn() -> Vec<u8>) -> Attack {
    Attack {
        name,
        input,
        read,
        says,
    }
}

fn attacks() -> Vec<Attack> {
    let all = [
        pickles::attacks(),
        arrays::attacks(),
        images::attacks(),
        metadata::attacks(),
    ];
    all.into_iter().flatten().collect()
}

#[test]
fn attacks_are_refused_in_little_time_and_memory() {
    if let Ok(name) = env::var(VARIABLE) {
        return answer(&name);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let mut wrong = Vec::new();
    for attack in attacks() {
        let output = Command::new(env::current_exe().expect("this program"))
            .args([
                "--exact",
                "hostile::attacks_are_refused_in_little_time_and_memory",
                "--nocapture",
            ])
            .env(VARIABLE, attack.name)
            .current_dir(&folder)
            .output()
            .expect("a process");
        let text = String::from_utf8_lossy(&output.stdout);
        let answer = text
            .lines()
            .find_map(|line| Some(line.split_once(ANSWER)?.1.splitn(3, ' ').collect::<Vec<_>>()));
        let Some([memory, time, error]) = answer.as_deref() else {
            wrong.push(format!(
                "{}: {}: {}{text}",
                attack.name,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
            continue;
        };
        println!(
            "{:28} {:>3} MiB {:>5} ms  {error}",
            attack.name,
            number(memory) >> 20,
            number(time) / 1_000_000
        );
        if number(memory) > MEMORY
            || number(time) > TIME.as_nanos() as usize
            || !error.contains(attack.says)
            || error.len() > 500
        {
            wrong.push(format!(
                "{}: {memory} bytes, {time} ns, expected {:?}, found {error}",
                attack.name, attack.says
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The pickles would have made a file.
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
}

/// Decodes a column of one cell.
fn decode(field: &Field, cell: &[u8]) -> Result<()> {
    let column: ArrayRef = Arc::new(BinaryArray::from(vec![cell]));
    decode_column(&column, field).map(|_| ())
}

/// Reads one attack, and prints the peak of memory, the time of the processor and the error.
fn answer(name: &str) {
    let attack = attacks()
        .into_iter()
        .find(|attack| attack.name == name)
        .expect("an attack");
    let input = (attack.input)();
    let before = processor_time();
    let error = (attack.read)(&input).expect_err("an attack");
    println!("{ANSWER}{} {} {error}", peak_memory(), processor_time() - before);
}

/// Bytes.
fn peak_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    number(peak.trim_end_matches("kB").trim()) << 10
}

/// Nanoseconds of this thread.
fn processor_time() -> usize {
    let times = fs::read_to_string("/proc/thread-self/schedstat").expect("times");
    number(times.split(' ').next().expect("a time"))
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}
