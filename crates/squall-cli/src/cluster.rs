//! `squall scheduler` and `squall executor`: the processes of a cluster.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use clap::Args;
use squall::convert::{ExecutorOptions, SchedulerOptions, run_executor, run_scheduler};
use squall::{ByteSize, Error, Result};

use crate::{Failure, log};

/// What a scheduler says when it listens, before its address; and an executor, before its name.
const LISTENS: &str = "scheduler listens on ";
const IS_CALLED: &str = "executor is called ";
/// Plans are trees, and are walked by calls that call themselves.
const STACK_BYTES: usize = 16 << 20;

/// Runs the scheduler of a cluster: it divides conversions among executors.
///
/// Whoever reaches its address can have the executors read and write all that they may. It ends on SIGTERM.
#[derive(Args)]
#[command(after_help = "Example:
  squall scheduler --bind 127.0.0.1:50050")]
pub(crate) struct Scheduler {
    /// Where it listens; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50050")]
    bind: SocketAddr,
    /// End when standard input does: with the process that started this one
    #[arg(long, hide = true)]
    until_input_ends: bool,
    /// Say more on standard error
    #[arg(long, short)]
    verbose: bool,
}

impl Scheduler {
    pub(crate) fn run(self) -> Result<(), Failure> {
        log::begin(self.verbose);
        if self.until_input_ends {
            end_with_input();
        }
        let ready = |address: SocketAddr| say(&format!("{LISTENS}{address}"));
        Ok(runtime()?.block_on(run_scheduler(SchedulerOptions::new(self.bind), ready))?)
    }
}

/// Runs an executor of a cluster: it runs parts of queries and writes files.
///
/// Stores are reached with the credentials in its environment. On SIGTERM it takes no more work, and ends what it has.
#[derive(Args)]
#[command(after_help = "Example:
  squall executor --scheduler 127.0.0.1:50050 --concurrent-tasks 4 --memory-limit 8GiB")]
pub(crate) struct Executor {
    /// The scheduler that it asks for work
    #[arg(long, value_name = "[df://]HOST:PORT", default_value = "127.0.0.1:50050")]
    scheduler: String,
    /// Where it gives intermediate results to other executors; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// The name or address by which others reach it, if not that of --bind
    #[arg(long)]
    host: Option<String>,
    /// What it is called in results [default: host and port]
    #[arg(long)]
    name: Option<String>,
    /// Where it keeps intermediate results and spills [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Tasks at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    concurrent_tasks: Option<NonZeroUsize>,
    /// Memory of the operators of queries, all tasks together [default: 70 % of the machine's]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
    /// End when standard input does: with the process that started this one
    #[arg(long, hide = true)]
    until_input_ends: bool,
    /// Say more on standard error
    #[arg(long, short)]
    verbose: bool,
}

impl Executor {
    pub(crate) fn run(self) -> Result<(), Failure> {
        log::begin(self.verbose);
        if self.until_input_ends {
            end_with_input();
        }
        let mut options = ExecutorOptions::new(self.scheduler).bind(self.bind);
        if let Some(host) = self.host {
            options = options.host(host);
        }
        if let Some(name) = self.name {
            options = options.name(name);
        }
        if let Some(directory) = self.work_dir {
            options = options.work_directory(directory);
        }
        if let Some(n) = self.concurrent_tasks {
            options = options.concurrent_tasks(n);
        }
        if let Some(limit) = self.memory_limit {
            options = options.memory_limit(limit);
        }
        Ok(runtime()?.block_on(run_executor(options, |name| say(&format!("{IS_CALLED}{name}"))))?)
    }
}

/// A process that is killed closes its pipes, and cannot end what it started otherwise.
fn end_with_input() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.enable_all().thread_stack_size(STACK_BYTES).build();
    built.map_err(|error| Error::internal("cannot start the threads of the process").with_source(error))
}

/// Whoever started the process may wait for the line, or may have closed the pipe.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A scheduler and its executors on loopback, which end when this is dropped, or its process is killed.
pub(crate) struct Started {
    /// The scheduler's address.
    pub(crate) scheduler: String,
    processes: Vec<Child>,
}

impl Started {
    pub(crate) fn begin(executors: NonZeroUsize) -> Result<Self> {
        let mut started = Self {
            scheduler: String::new(),
            processes: Vec::new(),
        };
        let address = started.start(&["scheduler", "--bind", "127.0.0.1:0"], LISTENS)?;
        started.scheduler = format!("df://{address}");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let tasks = cores.div_ceil(executors.get()).to_string();
        for _ in 0..executors.get() {
            let arguments = ["executor", "--scheduler", &address, "--concurrent-tasks", &tasks];
            started.start(&arguments, IS_CALLED)?;
        }
        Ok(started)
    }

    /// Starts a process of this program; gives what stands behind `before` in its first line.
    fn start(&mut self, arguments: &[&str], before: &str) -> Result<String> {
        let failed = |error: std::io::Error| {
            Error::internal(format!("squall {} did not start", arguments[0])).with_source(error)
        };
        let program = std::env::current_exe().map_err(failed)?;
        let mut process = Command::new(program)
            .args(arguments)
            .arg("--until-input-ends")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let out = process.stdout.take();
        self.processes.push(process);
        let mut line = String::new();
        if let Some(out) = out {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        match line.trim_end().strip_prefix(before) {
            Some(rest) => Ok(rest.to_owned()),
            None => Err(failed(std::io::Error::other("it ended"))),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
