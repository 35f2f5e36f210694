//! What directory names tell of a clause.
//!
//! In: a clause, and a row group. Out: whether the values in the names of its directories decide it, and what is left of it
//! if they do not. Nothing is read for it.

use std::collections::HashMap;

use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use squall_schema::Result;

use super::conjunct::Known;
use super::floats::canonical;
use super::parse::Clause;
use crate::columns::Columns;
use crate::scan::Scan;
use crate::select::SelectedPiece;

/// What directory names leave of a clause. Directories with the same values share it, and so do those of which the same is left.
pub(super) struct Partitions<'a> {
    scan: &'a Scan,
    clause: &'a Clause,
    /// The columns of the clause that stand in directory names.
    columns: Columns,
    by_values: HashMap<Vec<ScalarValue>, Known>,
    by_rest: HashMap<Expr, Known>,
    /// The file of the last piece, and what is left there.
    last: Option<(u32, Known)>,
}

impl<'a> Partitions<'a> {
    pub(super) fn new(scan: &'a Scan, clause: &'a Clause) -> Result<Self> {
        let fields = scan.dataset.partition_fields();
        let names: Vec<_> = clause
            .schema
            .names()
            .filter(|name| fields.iter().any(|field| field.name == *name))
            .collect();
        Ok(Self {
            scan,
            clause,
            columns: Columns::new(&scan.dataset, clause.schema.project(&names)?)?,
            by_values: HashMap::new(),
            by_rest: HashMap::new(),
            last: None,
        })
    }

    /// What is left of the clause in the directory of a piece.
    pub(super) fn known(&mut self, selected: &SelectedPiece) -> Result<Known> {
        let file = self.scan.dataset.pieces()[selected.piece as usize].file;
        if let Some((last, known)) = &self.last
            && *last == file
        {
            return Ok(known.clone());
        }
        let known = self.known_of_file(selected)?;
        self.last = Some((file, known.clone()));
        Ok(known)
    }

    fn known_of_file(&mut self, selected: &SelectedPiece) -> Result<Known> {
        let row = self.scan.directory_row(selected.piece, &self.columns)?;
        let values = row
            .columns()
            .iter()
            .map(|column| ScalarValue::try_from_array(&canonical(column), 0));
        let values = values
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.clause.failed(error))?;
        if let Some(known) = self.by_values.get(&values) {
            return Ok(known.clone());
        }
        let names = self.columns.schema().names().map(str::to_owned);
        let named: Vec<_> = names.zip(values.iter().cloned()).collect();
        let known = self.clause.guard(|| {
            let rest = self.clause.with(&named)?;
            let known = match self.by_rest.get(&rest) {
                Some(known) => known.clone(),
                None => self.clause.conjuncts(rest.clone())?,
            };
            Ok((rest, known))
        });
        let (rest, known) = known.map_err(|error| {
            let dataset = &self.scan.dataset;
            let piece = dataset.pieces()[selected.piece as usize];
            error
                .at("row group", piece.row_group)
                .at("file", &dataset.file_of(&piece).path)
                .at("URL", dataset.url())
        })?;
        self.by_rest.insert(rest, known.clone());
        self.by_values.insert(values, known.clone());
        Ok(known)
    }
}
