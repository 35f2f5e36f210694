//! How far a conversion is, on standard error: a bar on a terminal, lines or JSON elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use squall::convert::{Phase, Progress};

/// Between two lines.
const LINES_APART: Duration = Duration::from_secs(5);
/// Between two JSON events.
const EVENTS_APART: Duration = Duration::from_millis(500);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// A bar on a terminal, lines elsewhere.
    Auto,
    /// A bar with rows, bytes, rate and time left.
    Bar,
    /// A line every few seconds.
    Lines,
    /// A JSON object a line.
    Json,
    /// Nothing.
    None,
}

/// What shows progress; `None` where nothing is shown.
pub(crate) fn reporter(show: Show) -> Option<Box<dyn Fn(Progress) + Send + Sync>> {
    match show {
        Show::Auto if stderr().is_terminal() => Some(bar()),
        Show::Bar => Some(bar()),
        Show::Auto | Show::Lines => Some(apart(LINES_APART, |progress| {
            let moves_rows = matches!(progress.phase, Phase::Sorting | Phase::Writing);
            (moves_rows && !progress.elapsed.is_zero()).then(|| line(progress))
        })),
        Show::Json => Some(apart(EVENTS_APART, |progress| Some(event(progress)))),
        Show::None => None,
    }
}

/// Writes what `text` gives, so far apart; a new phase at once.
fn apart(
    pause: Duration,
    text: impl Fn(&Progress) -> Option<String> + Send + Sync + 'static,
) -> Box<dyn Fn(Progress) + Send + Sync> {
    let last: Mutex<Option<(Phase, Duration)>> = Mutex::new(None);
    Box::new(move |progress| {
        let Ok(mut last) = last.lock() else {
            return;
        };
        let due = match *last {
            Some((phase, at)) => phase != progress.phase || progress.elapsed.saturating_sub(at) >= pause,
            None => true,
        };
        if due {
            *last = Some((progress.phase, progress.elapsed));
            if let Some(text) = text(&progress) {
                // Progress that nobody can read is no reason to fail.
                let _ = writeln!(stderr(), "{text}");
            }
        }
    })
}

fn line(progress: &Progress) -> String {
    let seconds = progress.in_phase.as_secs_f64().max(f64::EPSILON);
    let of = progress
        .total_rows
        .map(|total| format!(" of {total}"))
        .unwrap_or_default();
    format!(
        "squall: {} {} rows{of}, {:.1} MiB, {:.0} rows/s{}",
        name(progress.phase),
        progress.rows,
        progress.bytes as f64 / f64::from(1 << 20),
        progress.rows as f64 / seconds,
        left(progress)
            .map(|left| format!(", {:.0} s left", left.as_secs_f64()))
            .unwrap_or_default()
    )
}

/// How long the rest takes if it goes on like this.
fn left(progress: &Progress) -> Option<Duration> {
    let rest = progress.total_rows?.checked_sub(progress.rows)?;
    (progress.rows > 0).then(|| progress.in_phase.mul_f64(rest as f64 / progress.rows as f64))
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Sorting => "sorting",
        Phase::Writing => "writing",
        Phase::Committing => "committing",
        Phase::Done => "done",
        _ => "working",
    }
}

fn event(progress: &Progress) -> String {
    json!({
        "event": "progress",
        "phase": name(progress.phase),
        "rows": progress.rows,
        "total_rows": progress.total_rows,
        "bytes": progress.bytes,
        "files": progress.files,
        "seconds": progress.elapsed.as_secs_f64(),
        "seconds_left": left(progress).map(|left| left.as_secs_f64()),
    })
    .to_string()
}

fn bar() -> Box<dyn Fn(Progress) + Send + Sync> {
    let bar = ProgressBar::no_length();
    let style =
        |template: &str| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let known = style("{bar:24} {human_pos}/{human_len} rows  {per_sec}  {msg}  {eta} left");
    bar.set_style(style("{spinner} {human_pos} rows  {per_sec}  {msg}  {elapsed}"));
    Box::new(move |progress| {
        if progress.total_rows.is_some() && progress.total_rows != bar.length() {
            bar.set_style(known.clone());
            bar.set_length(progress.total_rows.unwrap_or_default());
        }
        if progress.rows < bar.position() {
            // A new phase: its rate is its own.
            bar.reset();
        }
        bar.set_position(progress.rows);
        let mib = progress.bytes as f64 / f64::from(1 << 20);
        bar.set_message(format!("{}, {mib:.1} MiB", name(progress.phase)));
        if progress.phase == Phase::Done {
            bar.finish_and_clear();
        }
    })
}
