//! What is asked of the values of a row to know whether it is read, with Petastorm's names.
//!
//! A predicate is built by a user and checked against the schema; [`Sieve`](crate::sieve) evaluates it, column after
//! column of a batch that a scan has read, on the rows that are still standing.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use squall_schema::{DType, Error, ErrorKind, Field, Result, Row, Schema, Value, panic_text};

use crate::equal::Key;
use crate::split::{Buckets, PetastormBuckets, Split};

/// Which rows are read, by their values: Petastorm's predicates.
///
/// Values are those that [`make_reader`](crate::make_reader) yields, decoded; the columns need not be among those that
/// are read. They are read once while the reader is built, and a predicate over partition columns reads nothing: it is
/// asked once for each row group, and so is each part of a [`Reduce::All`].
///
/// ```
/// use squall_reader::{Predicate, Reduce, make_reader};
///
/// let digits = Predicate::in_set([3, 5], "digit");
/// let dark = Predicate::in_lambda(["pixels"], |row| {
///     let pixels = row.tensor("pixels")?;
///     Ok(pixels.as_slice::<i8>()?.iter().all(|pixel| *pixel < 8))
/// });
/// let reader = make_reader("/data/digits").predicate(Predicate::in_reduce([digits, dark], Reduce::All));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Predicate(Arc<Node>);

/// What [`Predicate::in_reduce`] makes of the answers of its predicates.
#[derive(Clone)]
pub enum Reduce {
    /// All of them are true. Those behind a false one are not asked.
    All,
    /// One of them is true. Those behind a true one are not asked.
    Any,
    /// What this closure says of the answers, in the order of the predicates.
    Custom(Arc<ReduceFn>),
}

/// A closure over the answers of some predicates.
pub type ReduceFn = dyn Fn(&[bool]) -> bool + Send + Sync;

pub(crate) type RowFn = dyn Fn(&Row) -> Result<bool> + Send + Sync;

pub(crate) enum Node {
    Set {
        field: String,
        keys: Result<HashSet<Key>, Error>,
    },
    Intersection {
        field: String,
        keys: Result<HashSet<Key>, Error>,
    },
    Lambda {
        fields: Vec<String>,
        function: Arc<RowFn>,
    },
    Negate(Predicate),
    Reduce {
        predicates: Vec<Predicate>,
        reduce: Reduce,
    },
    PseudorandomSplit {
        field: String,
        fractions: Vec<f64>,
        subset: usize,
        buckets: Result<PetastormBuckets, Error>,
    },
    /// A split by the values of a column.
    Split {
        field: String,
        split: Split,
        buckets: Result<Buckets, Error>,
    },
}

impl Reduce {
    /// [`Reduce::Custom`] of a closure.
    pub fn custom(function: impl Fn(&[bool]) -> bool + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(function))
    }
}

impl Predicate {
    /// The value is one of these. Numbers are compared by value whatever their dtypes, as Python compares them; `nan`
    /// is never found. [`Value::Null`] among the values stands for missing ones.
    pub fn in_set<V: Into<Value>>(values: impl IntoIterator<Item = V>, field: impl Into<String>) -> Self {
        Self::new(Node::Set {
            field: field.into(),
            keys: keys(values),
        })
    }

    /// An array or a list has one of these values among its elements, of any dimension. A missing one has none.
    pub fn in_intersection<V: Into<Value>>(values: impl IntoIterator<Item = V>, field: impl Into<String>) -> Self {
        Self::new(Node::Intersection {
            field: field.into(),
            keys: keys(values),
        })
    }

    /// What a closure says of a row, which has the values of these fields alone. Of its [`RowId`](squall_schema::RowId)
    /// the row group and the row are told.
    ///
    /// It must say the same each time: ranks ask it on their own, and a resumed reader asks again. A reader that
    /// resumes finds out by the digest of the selected rows, which is part of its state. An error and a panic become an
    /// error that names file, row group and row.
    pub fn in_lambda<S: Into<String>>(
        fields: impl IntoIterator<Item = S>,
        function: impl Fn(&Row) -> Result<bool> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Node::Lambda {
            fields: fields.into_iter().map(Into::into).collect(),
            function: Arc::new(function),
        })
    }

    /// The predicate is not true.
    pub fn in_negate(predicate: Self) -> Self {
        Self::new(Node::Negate(predicate))
    }

    /// What `reduce` makes of the answers of some predicates.
    pub fn in_reduce(predicates: impl IntoIterator<Item = Self>, reduce: Reduce) -> Self {
        Self::new(Node::Reduce {
            predicates: predicates.into_iter().collect(),
            reduce,
        })
    }

    /// Petastorm's split, row for row: the value's text as Python prints it, by MD5 into one of 2^63 - 1 buckets, and
    /// of these the part of the fractions that is the subset, from 0.
    ///
    /// The field is a scalar of a dtype whose text is the same in all versions of numpy that Petastorm works with. A
    /// float that is missing counts as `nan`, as Petastorm has it, anything else as `None`; a time that is missing is
    /// refused. There is no seed: see [`Split`] for one.
    pub fn in_pseudorandom_split(fractions: impl Into<Vec<f64>>, subset: usize, field: impl Into<String>) -> Self {
        let fractions = fractions.into();
        Self::new(Node::PseudorandomSplit {
            field: field.into(),
            buckets: PetastormBuckets::new(&fractions, subset),
            fractions,
            subset,
        })
    }

    /// The rows of a split by the values of a column; `None` for a split by row.
    pub(crate) fn in_split(split: &Split) -> Option<Self> {
        Some(Self::new(Node::Split {
            field: split.column()?.to_owned(),
            buckets: split.buckets(),
            split: split.clone(),
        }))
    }

    /// The fields whose values are asked for.
    pub fn fields(&self) -> BTreeSet<&str> {
        match &*self.0 {
            Node::Set { field, .. }
            | Node::Intersection { field, .. }
            | Node::PseudorandomSplit { field, .. }
            | Node::Split { field, .. } => [field.as_str()].into(),
            Node::Lambda { fields, .. } => fields.iter().map(String::as_str).collect(),
            Node::Negate(predicate) => predicate.fields(),
            Node::Reduce { predicates, .. } => predicates.iter().flat_map(Self::fields).collect(),
        }
    }

    /// Whether it is a [`Split`].
    pub(crate) fn is_split(&self) -> bool {
        matches!(*self.0, Node::Split { .. })
    }

    fn new(node: Node) -> Self {
        Self(Arc::new(node))
    }

    pub(crate) fn node(&self) -> &Node {
        &self.0
    }

    /// Predicates that are all true where this one is.
    pub(crate) fn conjuncts(&self) -> Vec<Self> {
        match &*self.0 {
            Node::Reduce {
                predicates,
                reduce: Reduce::All,
            } => predicates.iter().flat_map(Self::conjuncts).collect(),
            _ => vec![self.clone()],
        }
    }

    /// Refuses what cannot be evaluated on rows of this schema.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        self.check_node(schema).map_err(|error| error.at("predicate", self))
    }

    fn check_node(&self, schema: &Schema) -> Result<()> {
        let names: Vec<_> = self.fields().into_iter().collect();
        let fields = schema.select(&names)?;
        let field = fields.fields().first();
        match (&*self.0, field) {
            (_, None) => Err(Error::invalid("a predicate asks for no field: expected at least one")),
            (Node::Set { keys, .. }, Some(field)) => {
                built(keys)?;
                expect_scalar(field)
            }
            (Node::Intersection { keys, .. }, Some(field)) => {
                built(keys)?;
                match field.dtype {
                    DType::Complex64 | DType::Complex128 => Err(Error::unsupported(format!(
                        "the elements of {field} are not compared: expected numbers, text, bytes or times"
                    ))),
                    _ => Ok(()),
                }
            }
            (Node::PseudorandomSplit { buckets, .. }, Some(field)) => {
                built(buckets)?;
                match field.codec {
                    Some(_) => Err(not_scalar(field)),
                    None => expect_scalar(field),
                }
            }
            (Node::Split { buckets, .. }, Some(field)) => {
                built(buckets)?;
                expect_scalar(field)
            }
            (Node::Lambda { .. }, _) => Ok(()),
            (Node::Negate(predicate), _) => predicate.check_node(schema),
            (Node::Reduce { predicates, .. }, _) => {
                predicates.iter().try_for_each(|predicate| predicate.check_node(schema))
            }
        }
    }
}

fn keys<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Result<HashSet<Key>> {
    let keys = values.into_iter().map(|value| Key::all_of(&value.into()));
    Ok(keys.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// What a constructor made, or the error that it kept until the reader is built.
pub(crate) fn built<T>(made: &Result<T, Error>) -> Result<&T> {
    made.as_ref()
        .map_err(|error| Error::new(error.kind(), error.to_string()))
}

fn expect_scalar(field: &Field) -> Result<()> {
    if field.shape.is_scalar() && field.dtype != DType::Nested {
        return Ok(());
    }
    Err(not_scalar(field))
}

fn not_scalar(field: &Field) -> Error {
    Error::invalid(format!("expected a column of scalars, found {field}"))
}

/// Runs a closure of the user: what it returns as an error and what it panics with come back as an error.
pub(crate) fn guard<T>(function: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(function)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::new(ErrorKind::Transform, "the predicate failed").with_source(error)),
        Err(panic) => Err(Error::new(
            ErrorKind::Transform,
            format!("the predicate panicked: {}", panic_text(&*panic)),
        )),
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Node::Set { field, .. } => write!(f, "in_set({field})"),
            Node::Intersection { field, .. } => write!(f, "in_intersection({field})"),
            Node::Lambda { fields, .. } => write!(f, "in_lambda({})", fields.join(", ")),
            Node::Negate(predicate) => write!(f, "in_negate({predicate})"),
            Node::Reduce { predicates, reduce } => {
                write!(f, "in_reduce({reduce:?}:")?;
                for (i, predicate) in predicates.iter().enumerate() {
                    write!(f, "{} {predicate}", if i > 0 { "," } else { "" })?;
                }
                f.write_str(")")
            }
            Node::PseudorandomSplit {
                field,
                fractions,
                subset,
                ..
            } => {
                write!(f, "in_pseudorandom_split({fractions:?}, {subset}, {field})")
            }
            Node::Split { split, .. } => split.fmt(f),
        }
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Reduce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Any => "any",
            Self::Custom(_) => "custom",
        })
    }
}
