//! The one error type of the workspace.
//!
//! It crosses every crate unchanged. Its kind says what the caller can do about it; its context is added while the
//! error travels up, innermost first, so that the sentence names URL, file, row group, column and row.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request cannot be meant: a rank outside the world size, a column that is not there. Change the request.
    InvalidInput,
    /// What was named does not exist.
    NotFound,
    /// The dataset is fine, but no row of it is left for this selection or for this rank. Select other rows, or take fewer
    /// ranks.
    NoData,
    /// The destination exists already and is not overwritten.
    AlreadyExists,
    /// The bytes break their format: a truncated file, a wrong magic number. Replace the data.
    Corrupt,
    /// Valid, but not something that Squall reads or writes.
    Unsupported,
    /// The store failed: network, permissions, disk.
    Storage,
    /// A closure of the user failed or panicked.
    Transform,
    /// The query engine failed.
    Engine,
    /// The work was stopped before its end.
    Cancelled,
    /// A broken invariant of Squall itself.
    Internal,
}

/// What went wrong, where, and why.
///
/// It prints as one sentence: the message, then the places from the innermost outwards, then the cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

// An error travels through every `Result` of the hot path.
const _: () = assert!(size_of::<Error>() == size_of::<usize>());

impl Error {
    /// An error of this kind. `message` names the thing, what was expected and what was found, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// [`ErrorKind::InvalidInput`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The cause, printed after the message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Where it happened: `("file", path)`, `("row group", 3)`. Called again on the way up, for the wider places.
    #[must_use]
    pub fn at(mut self, place: &'static str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        // Two layers may know the same place.
        if !self.0.context.iter().any(|own| *own == (place, value.clone())) {
            self.0.context.push((place, value));
        }
        self
    }

    /// The same error with another value for a place that [`Error::at`] named: a row counted in the row group, say,
    /// where it was counted in a batch.
    #[must_use]
    pub fn replace_place(mut self, place: &str, value: impl fmt::Display) -> Self {
        if let Some((_, own)) = self.0.context.iter_mut().find(|(name, _)| *name == place) {
            *own = value.to_string();
        }
        self
    }

    /// The same error without a place.
    #[must_use]
    pub fn without_place(mut self, place: &str) -> Self {
        self.0.context.retain(|(name, _)| *name != place);
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without places and cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The places that [`Error::at`] named, from the innermost outwards.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(place, value)| (*place, value.as_str()))
    }

    /// The value of a place that [`Error::at`] named.
    pub fn place(&self, place: &str) -> Option<&str> {
        let found = self.0.context.iter().find(|(name, _)| *name == place);
        found.map(|(_, value)| value.as_str())
    }
}

/// The text that a thread panicked with.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (place, value)) in self.0.context.iter().enumerate() {
            let lead = if i == 0 { " (" } else { ", " };
            write!(f, "{lead}{place} {value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_one_sentence_with_places_from_the_inside_out() {
        let error = Error::corrupt("npy header is cut short: expected 128 bytes, found 12")
            .at("row", 7)
            .at("column", "image")
            .at("file", "part-0.parquet")
            .at("row", 7)
            .with_source("end of cell");
        assert_eq!(
            error.to_string(),
            "npy header is cut short: expected 128 bytes, found 12 (row 7, column image, file part-0.parquet): end of cell"
        );
        assert_eq!(error.place("column"), Some("image"));
    }
}
