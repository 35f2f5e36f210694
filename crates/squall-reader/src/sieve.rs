//! Predicates at work: on the directory names of pieces, and on the values that one scan reads.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use squall_schema::columns::value_at;
use squall_schema::{Error, Field, Result, Row, RowId, Schema, Value};

use crate::cells::decode_cells;
use crate::columns::Columns;
use crate::equal::{Key, any_element};
use crate::predicate::{Node, Predicate, Reduce, built, guard};
use crate::python::python_str;
use crate::scan::Scan;
use crate::select::SelectedPiece;

/// Rows whose cells are decoded at once: one of them may be an image of many megabytes.
const DECODED_ROWS: usize = 64;

/// Predicates that are all to be true, and the columns that they ask for.
#[derive(Clone)]
pub(crate) struct Sieve {
    predicates: Arc<[Predicate]>,
    schema: Arc<Schema>,
    names: Arc<[Arc<str>]>,
    columns: Arc<Columns>,
}

impl Sieve {
    /// `schema` is that of the dataset, and the predicates were checked against it.
    pub(crate) fn new(scan: &Scan, predicates: Vec<Predicate>, schema: &Schema) -> Result<Self> {
        let asked: HashSet<_> = predicates.iter().flat_map(Predicate::fields).collect();
        // Each once, in an order that does not depend on the set's.
        let mut names: Vec<_> = asked.into_iter().collect();
        names.sort_unstable();
        let schema = schema.select(&names)?;
        Ok(Self {
            columns: Arc::new(Columns::new(&scan.dataset, schema.stored())?),
            names: schema.names().map(Arc::from).collect(),
            schema: Arc::new(schema),
            predicates: predicates.into(),
        })
    }

    /// Whether all that is asked for stands in directory names.
    pub(crate) fn in_directories_only(&self) -> bool {
        self.columns.in_directories_only()
    }

    /// Those of the pieces whose directories fulfil the predicates, and rows that are left after each predicate.
    /// Nothing is read.
    pub(crate) fn sift_directories(&self, scan: &Scan, mut pieces: Vec<SelectedPiece>) -> Result<Vec<SelectedPiece>> {
        let mut failed = None;
        pieces.retain(|piece| {
            let holds = || {
                let batch = scan.directory_row(piece.piece, &self.columns)?;
                let ids = |row| RowId {
                    piece: piece.piece,
                    row,
                    ..RowId::default()
                };
                let mut standing = BooleanBuffer::new_set(1);
                for predicate in &*self.predicates {
                    standing = self.evaluate(predicate, &batch, &ids, standing)?;
                }
                Ok(standing.value(0))
            };
            failed.is_none()
                && holds().unwrap_or_else(|error: Error| {
                    let info = &scan.dataset.pieces()[piece.piece as usize];
                    let error = error
                        .without_place("batch row")
                        .at("file", &scan.dataset.file_of(info).path);
                    failed = Some(error.at("URL", scan.dataset.url()));
                    false
                })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(pieces),
        }
    }

    /// Those of the rows that fulfil the predicates, and how many are left after each of them.
    pub(crate) fn sift(self, scan: &Scan, pieces: Vec<SelectedPiece>) -> Result<(Vec<SelectedPiece>, Vec<u64>)> {
        let (n_predicates, columns) = (self.predicates.len(), self.columns.clone());
        let start = move |piece: &SelectedPiece| Sifted {
            piece: piece.clone(),
            bits: BooleanBufferBuilder::new(0),
            left: vec![0; n_predicates],
        };
        let step = move |sifted: &mut Sifted, batch: RecordBatch| {
            let at_once = match self.schema.fields().iter().any(|field| field.codec.is_some()) {
                true => DECODED_ROWS,
                false => batch.num_rows().max(1),
            };
            for from in (0..batch.num_rows()).step_by(at_once) {
                self.step(sifted, batch.slice(from, at_once.min(batch.num_rows() - from)))?;
            }
            Ok(())
        };
        let sifted = scan.fold(&pieces, &columns, start, step)?;
        let mut left = vec![0; n_predicates];
        let narrowed = sifted.into_iter().map(|mut sifted| {
            left.iter_mut().zip(&sifted.left).for_each(|(all, own)| *all += own);
            SelectedPiece {
                piece: sifted.piece.piece,
                rows: sifted.piece.rows.narrow(&sifted.bits.finish()),
            }
        });
        let narrowed = narrowed.collect();
        Ok((narrowed, left))
    }

    fn step(&self, sifted: &mut Sifted, batch: RecordBatch) -> Result<()> {
        let done = sifted.bits.len() as u64;
        let piece = &sifted.piece;
        let ids = |row| RowId {
            piece: piece.piece,
            row: piece.rows.nth(done + row),
            ..RowId::default()
        };
        let sift = || {
            let batch = decode_cells(batch, &self.schema)?;
            let mut standing = BooleanBuffer::new_set(batch.num_rows());
            for (predicate, left) in self.predicates.iter().zip(&mut sifted.left) {
                standing = self.evaluate(predicate, &batch, &ids, standing)?;
                *left += standing.count_set_bits() as u64;
            }
            Ok(standing)
        };
        let standing =
            sift().map_err(
                |error: Error| match error.place("batch row").and_then(|row| row.parse().ok()) {
                    Some(row) => error.without_place("batch row").at("row", ids(row).row),
                    None => error,
                },
            )?;
        sifted.bits.append_buffer(&standing);
        Ok(())
    }

    /// Of the standing rows of a batch those that fulfil the predicate.
    fn evaluate(
        &self,
        predicate: &Predicate,
        batch: &RecordBatch,
        ids: &dyn Fn(u64) -> RowId,
        standing: BooleanBuffer,
    ) -> Result<BooleanBuffer> {
        match predicate.node() {
            Node::Set { field, keys, .. } => {
                let keys = built(keys)?;
                self.each(field, batch, &standing, |value, _| {
                    Ok(Key::of(&value)?.is_some_and(|key| keys.contains(&key)))
                })
            }
            Node::Intersection { field, keys, .. } => {
                let keys = built(keys)?;
                self.each(field, batch, &standing, |value, _| {
                    any_element(&value, &|key| keys.contains(key))
                })
            }
            Node::PseudorandomSplit { field, buckets, .. } => {
                let buckets = built(buckets)?;
                self.each(field, batch, &standing, |value, field| {
                    Ok(buckets.has(&python_str(&value, field)?))
                })
            }
            Node::Split { field, buckets, .. } => {
                let buckets = built(buckets)?;
                self.each(field, batch, &standing, |value, _| buckets.has_value(&value))
            }
            Node::Lambda { fields, function } => {
                let places = fields.iter().map(|name| self.place(name)).collect::<Result<Vec<_>>>()?;
                test(&standing, |i| {
                    let values = places.iter().map(|place| {
                        let value = value_at(batch.column(*place), &self.schema.fields()[*place], i)?;
                        Ok((self.names[*place].clone(), value))
                    });
                    let row = Row::new(ids(i as u64), values.collect::<Result<_>>()?);
                    guard(|| function(&row)).map_err(|error| error.at("predicate", predicate))
                })
            }
            Node::Negate(predicate) => {
                let holds = self.evaluate(predicate, batch, ids, standing.clone())?;
                Ok(&standing & &!&holds)
            }
            Node::Reduce { predicates, reduce } => match reduce {
                Reduce::All => predicates.iter().try_fold(standing, |standing, predicate| {
                    self.evaluate(predicate, batch, ids, standing)
                }),
                Reduce::Any => {
                    let (mut asked, mut holds) = (standing.clone(), BooleanBuffer::new_unset(standing.len()));
                    for predicate in predicates {
                        let found = self.evaluate(predicate, batch, ids, asked.clone())?;
                        asked = &asked & &!&found;
                        holds = &holds | &found;
                    }
                    Ok(holds)
                }
                Reduce::Custom(function) => {
                    let answers = predicates
                        .iter()
                        .map(|own| self.evaluate(own, batch, ids, standing.clone()));
                    let answers = answers.collect::<Result<Vec<_>>>()?;
                    test(&standing, |i| {
                        let answers: Vec<_> = answers.iter().map(|answers| answers.value(i)).collect();
                        guard(|| Ok(function(&answers))).map_err(|error| error.at("predicate", predicate))
                    })
                }
            },
        }
    }

    /// A test of each standing value of a field.
    fn each(
        &self,
        name: &str,
        batch: &RecordBatch,
        standing: &BooleanBuffer,
        holds: impl Fn(Value, &Field) -> Result<bool>,
    ) -> Result<BooleanBuffer> {
        let place = self.place(name)?;
        let (column, field): (&ArrayRef, _) = (batch.column(place), &self.schema.fields()[place]);
        test(standing, |i| {
            let value = value_at(column, field, i)?;
            holds(value, field).map_err(|error| error.at("column", name))
        })
    }

    fn place(&self, name: &str) -> Result<usize> {
        self.schema.position(name).ok_or_else(|| self.schema.unknown(name))
    }
}

/// What is known of a piece while it is read.
struct Sifted {
    piece: SelectedPiece,
    /// Whether each of the rows that were read fulfils all predicates.
    bits: BooleanBufferBuilder,
    /// Rows that are left after each predicate.
    left: Vec<u64>,
}

/// Of the standing rows those for which `holds` is true. An error names the row of the batch.
fn test(standing: &BooleanBuffer, mut holds: impl FnMut(usize) -> Result<bool>) -> Result<BooleanBuffer> {
    let mut bits = BooleanBufferBuilder::new(standing.len());
    bits.append_n(standing.len(), false);
    for i in standing.set_indices() {
        if holds(i).map_err(|error| error.at("batch row", i))? {
            bits.set_bit(i, true);
        }
    }
    Ok(bits.finish())
}
