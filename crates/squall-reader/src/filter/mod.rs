//! A where-clause, as the rows for which it is true.
//!
//! The number of selected rows is not in any footer, and equal steps need it, so a clause is evaluated before anything else; what
//! is kept is a bitmap per row group. The files stand in the order of the data: `parse` makes a checked expression of what
//! the user gave, with the bounds of `depth` and the floats of `floats`; `conjunct` takes it apart, `partition` puts in what
//! directory names tell, `place`, `statistics`, `bloom` and `pages` say which row groups and pages cannot have a row, in the
//! order of `prune`; `evaluate` reads what is left. `shared` and `stored` save doing it twice.

mod depth;
mod floats;
mod functions;
mod leaves;
mod parse;

mod conjunct;
mod partition;

mod bloom;
mod pages;
mod place;
mod prune;
mod statistics;

mod evaluate;

mod shared;
mod stored;

use std::path::PathBuf;
use std::sync::Arc;

use datafusion_expr::Expr;
use futures::{StreamExt, TryStreamExt, stream};
use squall_schema::{Error, Result, Schema};

use crate::report::{SelectionReport, SelectionSource};
use crate::scan::Scan;
use crate::select::SelectedPiece;
use conjunct::{Conjuncts, Known};
use parse::Clause;
use partition::Partitions;

/// Files that are asked for their footers and indexes at the same time.
const FILES_AT_ONCE: usize = 16;

/// The where-clause of a reader.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilterOptions {
    /// All of them must hold.
    given: Vec<Given>,
    /// Where selections are stored.
    pub(crate) cache: Option<PathBuf>,
}

/// A clause as the user gave it.
#[derive(Debug, Clone)]
enum Given {
    Sql(String),
    /// Of bounded depth; otherwise why it is refused. Cloning and dropping go as deep as it is.
    Expression(Result<Expr, String>),
}

impl FilterOptions {
    pub(crate) fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    pub(crate) fn add_sql(&mut self, sql: String) {
        self.given.push(Given::Sql(sql));
    }

    pub(crate) fn add_expression(&mut self, expression: Expr) {
        let bounded = depth::on_large_stack(|| Ok(depth::balanced(expression)));
        let bounded = bounded.unwrap_or_else(|error| Err(error.to_string()));
        self.given.push(Given::Expression(bounded));
    }

    /// Makes the directory of the selections: one that cannot be is a mistake, which no later run would show.
    fn make_directory(&self) -> Result<()> {
        let Some(directory) = &self.cache else { return Ok(()) };
        std::fs::create_dir_all(directory).map_err(|error| {
            let directory = directory.display();
            Error::invalid(format!(
                "the directory {directory} of the selection cache cannot be made"
            ))
            .with_source(error)
        })
    }
}

/// The rows for which a clause is true.
#[derive(Debug)]
pub(crate) struct Filtered {
    /// Pieces without a row are not among them.
    pub(crate) pieces: Vec<SelectedPiece>,
    pub(crate) report: SelectionReport,
    /// The clause, for messages.
    pub(crate) text: String,
    /// Where others find it as long as it lives.
    slot: Option<Arc<shared::Slot>>,
}

/// A row group whose rows have to be looked at, as far as it is known by now.
#[derive(Debug, Clone)]
struct Work {
    selected: SelectedPiece,
    conjuncts: Arc<Conjuncts>,
    /// The parts that are not known to be true for every row.
    open: Vec<usize>,
}

/// Those of the rows of `pieces` for which the clause is true. It may name the columns of `schema`, the dataset's as a whole or
/// with its structs taken apart. As long as the result is held by some reader of the process, others share it; the source that
/// is returned says what was done.
pub(crate) fn select(
    scan: &Scan,
    pieces: Vec<SelectedPiece>,
    schema: &Schema,
    options: &FilterOptions,
) -> Result<(Arc<Filtered>, SelectionSource)> {
    // What is encoded in cells is binary to a where-clause.
    let stored_columns = schema.stored();
    let clause = depth::on_large_stack(|| Clause::parse(options, &stored_columns));
    let clause = Arc::new(clause?);
    options.make_directory()?;
    let key = shared::Key::new(&scan.dataset, &clause, &pieces);
    let stored = options
        .cache
        .as_ref()
        .and_then(|directory| stored::Place::new(directory, &key, &clause));
    let mut source = SelectionSource::Shared;
    let filtered = shared::get_or_make(key, || {
        if let Some(pieces) = stored.as_ref().and_then(|place| place.load(&pieces)) {
            source = SelectionSource::Stored;
            let rows = pieces.iter().map(|piece| piece.rows.len()).sum();
            let report = SelectionReport {
                rows,
                source,
                ..SelectionReport::default()
            };
            return Ok(Filtered {
                pieces,
                report,
                text: clause.text.clone(),
                slot: None,
            });
        }
        source = SelectionSource::Evaluated;
        let filtered = evaluate_clause(scan, &clause, pieces.clone())?;
        if let Some(place) = &stored {
            place.save(&pieces, &filtered.pieces);
        }
        Ok(filtered)
    })?;
    tracing::debug!(clause = %clause.text, report = ?filtered.report, ?source, "a where-clause selected rows");
    Ok((filtered, source))
}

fn evaluate_clause(scan: &Scan, clause: &Arc<Clause>, pieces: Vec<SelectedPiece>) -> Result<Filtered> {
    let footers_before = scan.footers.loaded();
    let mut report = SelectionReport {
        row_groups: pieces.len() as u64,
        ..SelectionReport::default()
    };
    let mut kept = Vec::new();
    // Pieces come file by file.
    let mut by_file: Vec<(u32, Vec<Work>)> = Vec::new();
    let known = depth::on_large_stack(|| {
        let mut partitions = Partitions::new(scan, clause)?;
        pieces
            .iter()
            .map(|selected| partitions.known(selected))
            .collect::<Result<Vec<_>>>()
    })?;
    for (selected, known) in pieces.into_iter().zip(known) {
        let piece = scan.dataset.pieces()[selected.piece as usize];
        let conjuncts = match known {
            Known::Open(conjuncts) => conjuncts,
            Known::Decided(true) => {
                report.matched += 1;
                kept.push(selected);
                continue;
            }
            Known::Decided(false) => {
                report.pruned_by_partition += 1;
                continue;
            }
        };
        let work = Work {
            selected,
            open: (0..conjuncts.parts.len()).collect(),
            conjuncts,
        };
        match by_file.last_mut() {
            Some((file, own)) if *file == piece.file => own.push(work),
            _ => by_file.push((piece.file, vec![work])),
        }
    }
    let at_once = scan.workers + 1;
    let pruning: Vec<_> = by_file
        .into_iter()
        .map(|(_, work)| prune::prune_file(scan.clone(), clause.clone(), work))
        .collect();
    let pruned: Vec<_> = scan.io.wait(async move {
        let pruning = stream::iter(pruning).buffered(FILES_AT_ONCE);
        pruning.try_collect().await
    })?;
    let mut scans = Vec::new();
    for pruned in pruned {
        let prune::Pruned {
            matched,
            open,
            report: own,
        } = pruned;
        report += own;
        kept.extend(matched);
        scans.extend(open.into_iter().map(|work| {
            let piece = work.selected.piece;
            let rows = evaluate::evaluate(scan.clone(), clause.clone(), work);
            async move { Ok::<_, Error>((piece, rows.await?)) }
        }));
    }
    let scanned: Vec<_> = scan
        .io
        .wait(async move { stream::iter(scans).buffered(at_once).try_collect().await })?;
    for (piece, (rows, bytes)) in scanned {
        report.bytes += bytes;
        kept.push(SelectedPiece { piece, rows });
    }
    kept.retain(|piece| !piece.rows.is_empty());
    kept.sort_by_key(|piece| piece.piece);
    report.rows = kept.iter().map(|piece| piece.rows.len()).sum();
    report.footers = scan.footers.loaded() - footers_before;
    Ok(Filtered {
        pieces: kept,
        report,
        text: clause.text.clone(),
        slot: None,
    })
}
