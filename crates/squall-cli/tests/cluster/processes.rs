//! A scheduler and executors as processes, which are killed when they are dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process of the program.
pub(crate) struct Process {
    child: Child,
    /// What stands behind the last space of its first line: its address, or its name.
    pub(crate) name: String,
}

impl Process {
    fn start(squall: &Path, arguments: &[&str], environment: &[(String, String)]) -> Self {
        let mut child = Command::new(squall)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("an output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let name = line.trim_end().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(!name.is_empty(), "{arguments:?} did not start");
        Self { child, name }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// A signal by its name: STOP stops the process, CONT has it go on.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("the signal is sent").success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a process").is_some()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A scheduler and its executors.
pub(crate) struct Processes {
    squall: PathBuf,
    pub(crate) executors: Vec<Process>,
    pub(crate) scheduler: Process,
    environment: Vec<(String, String)>,
}

impl Processes {
    /// Starts them, each executor with one task at a time.
    pub(crate) fn start(squall: &Path, executors: usize, environment: &[(String, String)]) -> Self {
        let scheduler = Process::start(squall, &["scheduler", "--bind", "127.0.0.1:0"], environment);
        let mut own = Self {
            squall: squall.to_owned(),
            executors: Vec::new(),
            scheduler,
            environment: environment.to_vec(),
        };
        for _ in 0..executors {
            own.add();
        }
        own
    }

    /// Starts one more executor.
    pub(crate) fn add(&mut self) {
        self.add_with(&self.environment.clone());
    }

    /// Starts one more executor, in an environment of its own.
    pub(crate) fn add_with(&mut self, environment: &[(String, String)]) {
        let arguments = [
            "executor",
            "--scheduler",
            &self.scheduler.name,
            "--concurrent-tasks",
            "1",
        ];
        let executor = Process::start(&self.squall, &arguments, environment);
        self.executors.push(executor);
    }

    /// A conversion on them that has begun.
    pub(crate) fn convert(&self, source: &str, destination: &str, options: &[&str]) -> Child {
        let scheduler = format!("df://{}", self.scheduler.name);
        let engine = [
            "--engine",
            "ballista",
            "--scheduler",
            &scheduler,
            "--format",
            "json",
            "--quiet",
        ];
        Command::new(&self.squall)
            .args(["convert", source, destination])
            .args(engine)
            .args(options)
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the conversion starts")
    }
}

/// What a conversion said at its end.
pub(crate) fn end(mut conversion: Child) -> Output {
    let until = Instant::now() + PATIENCE;
    while conversion.try_wait().expect("a process").is_none() {
        if Instant::now() > until {
            let _ = conversion.kill();
            panic!("the conversion does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    conversion.wait_with_output().expect("an output")
}

/// Waits until it holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The files below a directory, hidden ones too, by their paths in it.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    fn collect(root: &Path, directory: &Path, found: &mut Vec<String>) {
        // What vanishes meanwhile is not there.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => collect(root, &path, found),
                false => found.extend(path.strip_prefix(root).map(|path| path.display().to_string())),
            }
        }
    }
    let mut found = Vec::new();
    collect(directory, directory, &mut found);
    found.sort();
    found
}
