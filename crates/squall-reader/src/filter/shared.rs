//! Selections that readers of this process share.
//!
//! In: what decides a selection, and how to make it. Out: the selection, made once: by the first who asks, while the others wait,
//! and again only when no reader holds it any more.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::Hasher;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use datafusion_expr::Expr;
use squall_dataset::Dataset;
use squall_schema::Result;
use xxhash_rust::xxh3::Xxh3;

use super::Filtered;
use super::parse::Clause;
use crate::select::{SelectedPiece, digest_of};

/// All that decides which rows a clause selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Where the dataset is. Not of what is stored: a copy of a dataset has the same rows.
    pub(super) url: String,
    pub(super) fingerprint: String,
    pub(super) expression: Expr,
    /// The columns of the clause, by name and type.
    pub(super) columns: String,
    /// A digest of the values in directory names, which depend on the time zone that they are read in.
    pub(super) partitions: u64,
    /// A digest of the rows in question.
    pub(super) rows: u64,
}

impl Key {
    pub(super) fn new(dataset: &Dataset, clause: &Clause, pieces: &[SelectedPiece]) -> Self {
        let mut partitions = Xxh3::new();
        for file in dataset.files() {
            let mut text = String::new();
            let _ = write!(text, "{:?}", file.partition);
            partitions.update(text.as_bytes());
            partitions.write_u8(0);
        }
        Self {
            url: dataset.url().to_string(),
            fingerprint: dataset.fingerprint().to_owned(),
            expression: clause.expression.clone(),
            columns: format!("{:?}", clause.schema),
            partitions: partitions.digest(),
            rows: digest_of(pieces),
        }
    }
}

/// A selection, or the place where one is being made.
pub(super) type Slot = Mutex<Weak<Filtered>>;

static SLOTS: LazyLock<Mutex<HashMap<Key, Weak<Slot>>>> = LazyLock::new(Mutex::default);

/// The selection of this key that some reader holds; otherwise the one that `make` makes.
pub(super) fn get_or_make(key: Key, make: impl FnOnce() -> Result<Filtered>) -> Result<Arc<Filtered>> {
    let slot = {
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.strong_count() > 0);
        match slots.get(&key).and_then(Weak::upgrade) {
            Some(slot) => slot,
            None => {
                let slot = Arc::new(Slot::default());
                slots.insert(key, Arc::downgrade(&slot));
                slot
            }
        }
    };
    // Whoever comes while it is made waits here. If it fails, the next one tries.
    let mut place = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(filtered) = place.upgrade() {
        return Ok(filtered);
    }
    let mut filtered = make()?;
    filtered.slot = Some(slot.clone());
    let filtered = Arc::new(filtered);
    *place = Arc::downgrade(&filtered);
    Ok(filtered)
}
