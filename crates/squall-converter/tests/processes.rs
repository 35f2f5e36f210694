//! Conversions in processes of their own: at the same time, and killed, on a disk and in S3.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use squall_converter::{Converter, SaveMode, convert_directory, session};
use squall_dataset::{Dataset, DatasetUrl, OpenOptions, StoreOptions};
use squall_testkit::S3Server;
use tempfile::TempDir;

use super::order::column_at as column;
use super::run;

/// Rows of the table that is converted.
const ROWS: u64 = 300_000;
/// After how long a silence a marker is taken over where a conversion was killed.
const SILENCE: Duration = Duration::from_secs(2);

/// Where conversions write to, empty at first.
struct Place {
    directory: TempDir,
    server: Option<S3Server>,
}

impl Place {
    fn on_disk() -> Self {
        Self {
            directory: TempDir::new().expect("a directory"),
            server: None,
        }
    }

    fn in_s3() -> Self {
        let directory = TempDir::new().expect("a directory");
        std::fs::create_dir(directory.path().join("bucket")).expect("a bucket");
        Self {
            server: Some(S3Server::start(directory.path())),
            directory,
        }
    }

    fn url(&self) -> String {
        match self.server {
            Some(_) => "s3://bucket/cache".to_owned(),
            None => self.path().display().to_string(),
        }
    }

    /// The directory of the cache.
    fn path(&self) -> PathBuf {
        match self.server {
            Some(_) => self.directory.path().join("bucket").join("cache"),
            None => self.directory.path().join("cache"),
        }
    }

    fn options(&self) -> Vec<(String, String)> {
        self.server.as_ref().map(S3Server::options).unwrap_or_default()
    }

    fn spawn(&self, source: &str, mode: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "processes::child", "--nocapture"]);
        let options = serde_json::to_string(&self.options()).expect("JSON");
        command.env("CONVERT_FROM", source).env("CONVERT_TO", self.url());
        command.env("CONVERT_OPTIONS", options).env("CONVERT_MODE", mode);
        command.env("CONVERT_SPILL", self.directory.path().join("spill"));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process")
    }

    fn open(&self, url: &str) -> squall_schema::Result<Dataset> {
        let store = StoreOptions::default().with_options(self.options());
        let url = DatasetUrl::parse(url).expect("a URL");
        run(Dataset::open_with(&url, &OpenOptions::default().with_store(store)))
    }

    /// The datasets of the cache that are not hidden, and whether each can be opened.
    fn datasets(&self) -> Vec<(PathBuf, squall_schema::Result<Dataset>)> {
        let entries = std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let seen = names.filter(|name| !name.starts_with('.'));
        seen.map(|name| (self.path().join(&name), self.open(&format!("{}/{name}", self.url()))))
            .collect()
    }
}

/// Runs as a process of its own, and converts a table to the place that it was told.
#[test]
fn child() {
    let told = |name: &str| std::env::var(name).ok();
    let (Some(source), Some(destination)) = (told("CONVERT_FROM"), told("CONVERT_TO")) else {
        return;
    };
    let options: Vec<(String, String)> =
        serde_json::from_str(&told("CONVERT_OPTIONS").expect("options")).expect("pairs");
    let converter = Converter::new(destination)
        .row_group_bytes(64 << 10)
        .file_bytes(256 << 10)
        .storage_options(options);
    let converter = match told("CONVERT_MODE").as_deref() {
        Some("append") => converter.mode(SaveMode::Append),
        Some("killed") => converter.cached().take_over_after(SILENCE),
        Some("go on") => converter.take_over_after(SILENCE),
        Some("go on, shuffled") => {
            let spill = told("CONVERT_SPILL").expect("a directory");
            converter.shuffle(7).spill_directory(spill).take_over_after(SILENCE)
        }
        _ => converter.cached(),
    };
    let converted = run(convert_directory(&source, converter, None)).expect("a dataset");
    println!(
        "rows {} hit {} resumed {} fingerprint {}",
        converted.rows(),
        converted.is_hit(),
        converted.resumed() > 0,
        converted.fingerprint()
    );
}

/// What a child printed of its conversion.
fn said(child: Child) -> String {
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.find("rows ").map(|at| line[at..].to_owned()));
    line.unwrap_or_else(|| panic!("it says nothing of its rows: {text}"))
}

/// A table that takes a while to convert.
fn large() -> (TempDir, String) {
    let directory = TempDir::new().expect("a directory");
    let url = directory.path().join("table").display().to_string();
    let made = run(async {
        let sql = format!(
            "SELECT value AS id, value * 0.5 AS x, CAST(value AS VARCHAR) AS name FROM generate_series(1, {ROWS})"
        );
        let rows = session().sql(&sql).await.expect("a query");
        Converter::new(&url).convert(rows).await
    });
    assert_eq!(made.expect("a table").rows(), ROWS);
    (directory, url)
}

/// Moments of a conversion, the same in every run, from the start of its process to about its end.
fn moments() -> impl Iterator<Item = Duration> {
    let mut state = 7u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Duration::from_millis(state >> 54)
    })
}

/// Kills the process at a moment; false if it had ended.
fn kill(mut child: Child, moment: Duration) -> bool {
    let until = Instant::now() + moment;
    while Instant::now() < until && child.try_wait().expect("a look").is_none() {
        std::thread::yield_now();
    }
    let lives = child.try_wait().expect("a look").is_none();
    child.kill().expect("SIGKILL");
    child.wait().expect("an end");
    lives
}

/// All files below a directory that are not hidden.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            hidden if entry.file_name().to_string_lossy().starts_with('.') => drop(hidden),
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

#[test]
fn processes_at_the_same_time_make_one_dataset() {
    let (_kept, source) = large();
    for place in [Place::on_disk(), Place::in_s3()] {
        let children: Vec<_> = (0..4).map(|_| place.spawn(&source, "cache")).collect();
        let mut said: Vec<_> = children.into_iter().map(said).collect();
        said.sort();
        assert!(
            said[0].starts_with("rows 300000 hit false"),
            "{}: {said:?}",
            place.url()
        );
        assert!(
            said[1..].iter().all(|line| line.starts_with("rows 300000 hit true")),
            "{said:?}"
        );
    }
}

fn killed_conversions_are_cleaned_up(place: impl Fn() -> Place) {
    let (_kept, source) = large();
    let mut killed = 0;
    for moment in moments().take(20) {
        let place = place();
        killed += usize::from(kill(place.spawn(&source, "killed"), moment));
        for (path, dataset) in place.datasets() {
            match dataset {
                Ok(dataset) => assert_eq!(dataset.rows(), ROWS),
                Err(error) => {
                    let is_refused = error.to_string().contains("half-written") || files(&path).is_empty();
                    assert!(is_refused, "{}: {error}", path.display());
                }
            }
        }
        assert!(said(place.spawn(&source, "killed")).starts_with("rows 300000"));
        // The dataset, and nothing that the killed one left.
        let datasets = place.datasets();
        let [(path, Ok(dataset))] = &datasets[..] else {
            panic!("expected one dataset, found {datasets:?}");
        };
        assert_eq!(files(path).len(), dataset.files().len() + 1, "{:?}", files(path));
        if place.server.is_none() {
            let left: Vec<_> = std::fs::read_dir(place.path()).expect("a cache").flatten().collect();
            assert_eq!(left.len(), 1, "{left:?}");
        }
    }
    println!("{killed} of 20 conversions were killed before they ended");
    assert!(killed > 0);
}

#[test]
fn conversions_killed_on_a_disk_leave_nothing_and_the_next_one_succeeds() {
    killed_conversions_are_cleaned_up(Place::on_disk);
}

#[test]
fn conversions_killed_in_s3_leave_nothing_visible_and_the_next_one_succeeds() {
    killed_conversions_are_cleaned_up(Place::in_s3);
}

#[test]
fn killed_appends_leave_the_dataset_as_it_was() {
    let (_kept, source) = large();
    for place in [Place::on_disk(), Place::in_s3()] {
        assert!(said(place.spawn(&source, "append")).starts_with("rows 300000 hit false"));
        let mut expected = ROWS;
        for moment in moments().skip(3).take(4) {
            // It may have been killed behind its commit.
            kill(place.spawn(&source, "append"), moment);
            let found = place.open(&place.url()).expect("a dataset").rows();
            assert!(
                found == expected || found == expected + ROWS,
                "{found} rows, expected {expected}"
            );
            expected = found;
        }
        assert!(said(place.spawn(&source, "append")).starts_with(&format!("rows {} ", expected + ROWS)));
    }
}

/// How many files below a directory have names that begin and end so, hidden ones too.
fn named(directory: &Path, (prefix, suffix): (&str, &str)) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let found = entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path().is_dir() {
            true => named(&entry.path(), (prefix, suffix)),
            false => usize::from(name.starts_with(prefix) && name.ends_with(suffix)),
        }
    });
    found.sum()
}

#[test]
fn a_killed_conversion_is_gone_on_with() {
    let (_kept, source) = large();
    let parts = TempDir::new().expect("a directory");
    let source = run(async {
        let converter = Converter::new(parts.path().join("parts").display().to_string()).file_bytes(128 << 10);
        convert_directory(&source, converter, None).await
    });
    let source = source.expect("a table of several files");
    assert!(source.files().len() >= 8, "{} files", source.files().len());
    let left = |place: &Place, mode: &str, records: &str| {
        let mut child = place.spawn(&source.url(), mode);
        let until = Instant::now() + Duration::from_secs(60);
        while named(place.directory.path(), (records, ".json")) == 0 && Instant::now() < until {
            assert!(
                child.try_wait().expect("a look").is_none(),
                "it ended before it was killed"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("an end");
        assert!(place.open(&place.url()).is_err(), "{mode}");
    };
    let whole = |place: &Place| {
        let dataset = place.open(&place.url()).expect("a dataset");
        let found = named(&place.path(), ("", ""));
        assert_eq!(found, dataset.files().len() + 1, "files of no dataset");
        let mut ids = column(&place.url(), "id");
        ids.sort_unstable();
        assert!(ids.into_iter().eq(1..=ROWS as i64), "not each row once");
    };
    let expected = |mode: &str| {
        let said = said(Place::on_disk().spawn(&source.url(), mode));
        assert!(said.starts_with("rows 300000 hit false resumed false"), "{said}");
        said.replace("resumed false", "resumed true")
    };
    let (plain, shuffled) = (expected("go on"), expected("go on, shuffled"));
    for (mode, records, expected) in [
        ("go on", "write-", &plain),
        ("go on, shuffled", "sort-", &shuffled),
        ("go on, shuffled", "gather-", &shuffled),
    ] {
        let place = Place::on_disk();
        left(&place, mode, records);
        assert_eq!(&said(place.spawn(&source.url(), mode)), expected, "{records}");
        whole(&place);
    }
    // Killed again and again.
    let place = Place::on_disk();
    for _ in 0..3 {
        kill(
            place.spawn(&source.url(), "go on, shuffled"),
            Duration::from_millis(700),
        );
    }
    if place.open(&place.url()).is_err() {
        let again = said(place.spawn(&source.url(), "go on, shuffled"));
        assert_eq!(again.rsplit(' ').next(), shuffled.rsplit(' ').next());
    }
    whole(&place);
    // Another conversion to the same place takes nothing over.
    let place = Place::on_disk();
    left(&place, "go on, shuffled", "gather-");
    let other = said(place.spawn(&source.url(), "go on"));
    assert_eq!(other.replace("resumed false", "resumed true"), plain);
    assert!(other.contains("resumed false"), "{other}");
    whole(&place);
}
