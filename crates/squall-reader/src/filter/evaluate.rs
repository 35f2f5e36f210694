//! The scan of what nothing could rule out.
//!
//! In: a row group, the rows of it that may fulfil the clause, and the parts of the clause that are open there. Out: the rows that
//! do. The parts are asked one after the other, that of the fewest bytes first, and each reads only the pages of the rows
//! that still stand. A column is read once: a part behind takes it from the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_select::concat::concat;
use arrow_select::filter::filter;
use datafusion_physical_expr::PhysicalExpr;
use parquet::file::metadata::ParquetMetaData;
use squall_schema::{Error, Result};

use super::Work;
use super::conjunct::Conjuncts;
use super::floats::canonical;
use super::parse::Clause;
use crate::columns::Columns;
use crate::decode::{DECODE_ROWS, Decoder};
use crate::fetch::{Fetched, Wanted, fetch};
use crate::row_set::RowSet;
use crate::scan::{Scan, blocking};

/// Bytes of a row group's columns below which a request of their own costs more time than reading them for rows that an
/// earlier part rules out.
const LATE_BYTES: u64 = 64 * 1024;

/// Some columns of some rows, by name.
type Held = BTreeMap<String, ArrayRef>;

/// Columns that are fetched together, and the parts that are asked when they are there.
#[derive(Debug)]
struct Stage {
    columns: Vec<String>,
    parts: Vec<usize>,
    /// Columns of it that a later stage needs too.
    kept: Vec<String>,
}

/// What a stage works on.
struct Here {
    fetched: Fetched,
    columns: Arc<Columns>,
    /// Rows that stand.
    n_rows: u64,
    /// Columns of these rows that earlier stages have read.
    held: Held,
}

/// The rows that fulfil all open parts, and the bytes that were fetched to know it.
pub(super) async fn evaluate(scan: Scan, clause: Arc<Clause>, work: Work) -> Result<(RowSet, u64)> {
    let piece = scan.dataset.pieces()[work.selected.piece as usize];
    let at = |error: Error| {
        error
            .at("row group", piece.row_group)
            .at("file", &scan.dataset.file_of(&piece).path)
            .at("URL", scan.dataset.url())
    };
    let footer = scan.footers.get(&scan.dataset, &piece).await.map_err(at)?;
    let stages = stages(&work, &clause, footer.metadata(), piece.row_group as usize);
    let mut rows = work.selected.rows.clone();
    let (mut held, mut bytes) = (Held::new(), 0);
    for stage in stages {
        if rows.is_empty() {
            break;
        }
        let columns = Arc::new(Columns::new(&scan.dataset, clause.schema.project(&stage.columns)?)?);
        let n_rows = rows.len();
        let fetched = fetch(Wanted {
            dataset: &scan.dataset,
            footers: &scan.footers,
            piece: &piece,
            rows: rows.runs(&(0..n_rows)),
            columns: &columns,
        })
        .await?;
        bytes += fetched.bytes.held_bytes() as u64;
        let here = Here {
            fetched,
            columns,
            n_rows,
            held,
        };
        let (clause, conjuncts) = (clause.clone(), work.conjuncts.clone());
        let ask = move || stage.ask(&here, &conjuncts, &clause);
        let (keep, left) = blocking(ask).await.map_err(at)?;
        rows = rows.narrow(&keep);
        held = left;
    }
    Ok((rows, bytes))
}

impl Stage {
    /// Which of the rows stand, and of those the columns that are kept.
    fn ask(&self, here: &Here, conjuncts: &Conjuncts, clause: &Clause) -> Result<(BooleanBuffer, Held)> {
        let Here { n_rows, held, .. } = here;
        let mut decoder = Decoder::new(&here.fetched, 0, DECODE_ROWS, here.columns.clone(), Arc::from([]))?;
        let mut keep = BooleanBufferBuilder::new(0);
        let mut parts: BTreeMap<&str, Vec<ArrayRef>> = BTreeMap::new();
        let mut done = 0;
        while done < *n_rows {
            let mut batches = Vec::new();
            decoder.take_all((n_rows - done).min(DECODE_ROWS), &mut batches)?;
            for batch in batches {
                let n = batch.num_rows();
                let earlier = held
                    .iter()
                    .map(|(name, column)| (name.clone(), column.slice(done as usize, n)));
                let own = self.columns.iter().cloned().zip(batch.columns().iter().map(canonical));
                let all: Held = earlier.chain(own).collect();
                let bits = self.truth(&all, n, conjuncts, clause)?;
                for name in &self.kept {
                    parts.entry(name).or_default().push(filtered(&all[name], &bits)?);
                }
                keep.append_buffer(&bits);
                done += n as u64;
            }
        }
        let joined = parts.into_iter().map(|(name, parts)| {
            let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
            let joined =
                concat(&parts).map_err(|error| Error::internal("columns that do not join").with_source(error))?;
            Ok((name.to_owned(), joined))
        });
        let joined = joined.collect::<Result<_>>()?;
        Ok((keep.finish(), joined))
    }

    /// The rows of a batch for which all parts are true. A part is not asked about rows that one before it has ruled out.
    fn truth(&self, all: &Held, n_rows: usize, conjuncts: &Conjuncts, clause: &Clause) -> Result<BooleanBuffer> {
        let mut standing = BooleanBuffer::new_set(n_rows);
        for part in &self.parts {
            let part = &conjuncts.parts[*part];
            let n_standing = standing.count_set_bits();
            if n_standing == 0 {
                break;
            }
            let columns = part.schema.names().map(|name| filtered(&all[name], &standing));
            let options = RecordBatchOptions::new().with_row_count(Some(n_standing));
            let batch =
                RecordBatch::try_new_with_options(part.arrow.clone(), columns.collect::<Result<_>>()?, &options)
                    .map_err(|error| Error::internal("columns that do not fit a clause").with_source(error))?;
            let holds = truth(&part.expression, &batch, clause)?;
            if holds.count_set_bits() == n_standing {
                continue;
            }
            let mut bits = BooleanBufferBuilder::new(n_rows);
            bits.append_n(n_rows, false);
            for (row, holds) in standing.set_indices().zip(&holds) {
                bits.set_bit(row, holds);
            }
            standing = bits.finish();
        }
        Ok(standing)
    }
}

/// The open parts in the order in which they are asked. Those that may fail come last, as they are written: what stands before
/// them may be their guard.
fn stages(work: &Work, clause: &Clause, footer: &ParquetMetaData, row_group: usize) -> Vec<Stage> {
    let parts = &work.conjuncts.parts;
    let row_group = footer.row_group(row_group);
    let cost = |name: &str| -> u64 {
        let below = |path: &str| {
            path.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let leaves = row_group
            .columns()
            .iter()
            .filter(|leaf| below(&leaf.column_path().string()));
        leaves
            .map(|leaf| u64::try_from(leaf.compressed_size()).unwrap_or(0))
            .sum()
    };
    let costs: BTreeMap<&str, u64> = clause.schema.names().map(|name| (name, cost(name))).collect();
    let mut open = work.open.clone();
    let mut loaded: Vec<String> = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    // What each part needs that is not loaded yet. It changes only when a part brings columns, which most of many parts do not.
    let mut missing: BTreeMap<usize, u64> = BTreeMap::new();
    while !open.is_empty() {
        let new = |part: usize| -> Vec<String> {
            let names = parts[part].schema.names();
            names
                .filter(|name| !loaded.iter().any(|own| own == name))
                .map(str::to_owned)
                .collect()
        };
        let bytes = |part: usize| -> u64 { new(part).iter().map(|name| costs[name.as_str()]).sum() };
        if missing.is_empty() {
            missing.extend(open.iter().map(|part| (*part, bytes(*part))));
        }
        let any_safe = open.iter().any(|part| !parts[*part].may_fail);
        let next = match any_safe {
            true => open
                .iter()
                .filter(|part| !parts[**part].may_fail)
                .min_by_key(|part| missing[*part]),
            false => open.first(),
        };
        let Some(next) = next.copied() else { break };
        let (columns, bytes) = (new(next), bytes(next));
        open.retain(|part| *part != next);
        if !columns.is_empty() {
            missing.clear();
        }
        loaded.extend(columns.iter().cloned());
        match stages.last_mut() {
            Some(stage) if bytes < LATE_BYTES => {
                stage.columns.extend(columns);
                stage.parts.push(next);
            }
            _ => stages.push(Stage {
                columns,
                parts: vec![next],
                kept: Vec::new(),
            }),
        }
    }
    for i in 0..stages.len() {
        let (now, later) = stages.split_at(i + 1);
        let needed = |name: &&String| {
            let mut later = later.iter().flat_map(|stage| &stage.parts);
            later.any(|part| parts[*part].schema.get(name).is_some())
        };
        let here = now.iter().flat_map(|stage| &stage.columns);
        let kept = here.filter(needed).cloned().collect();
        stages[i].kept = kept;
    }
    stages
}

/// For each row whether the expression is true. Unknown is not true.
pub(super) fn truth(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch, clause: &Clause) -> Result<BooleanBuffer> {
    let evaluate = || expression.evaluate(batch)?.into_array(batch.num_rows());
    let array = clause.guard(|| evaluate().map_err(|error| clause.failed(error)))?;
    let holds = array.as_boolean_opt().cloned();
    let holds = holds.ok_or_else(|| Error::internal(format!("a where-clause gave a {}", array.data_type())))?;
    Ok(match holds.nulls() {
        Some(known) => holds.values() & known.inner(),
        None => holds.values().clone(),
    })
}

fn filtered(column: &ArrayRef, bits: &BooleanBuffer) -> Result<ArrayRef> {
    if bits.count_set_bits() == column.len() {
        return Ok(column.clone());
    }
    let kept = filter(column, &BooleanArray::new(bits.clone(), None));
    kept.map_err(|error| Error::internal("a column that cannot be filtered").with_source(error))
}
