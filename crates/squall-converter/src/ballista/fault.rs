//! Errors of executors on their way to the driver.
//!
//! Ballista makes text of an error, and of that text the error of a task, a stage and a job. Ours travels in it as hexadecimal
//! digits, which no quoting touches, and is at the end what it was at the beginning.

use datafusion::common::DataFusionError;
use serde::{Deserialize, Serialize};
use squall_schema::{Error, ErrorKind};

use super::hex;

/// What stands before and behind the digits.
const BEFORE: &str = "squall-fault:";
const BEHIND: char = ';';

const KINDS: [ErrorKind; 11] = [
    ErrorKind::InvalidInput,
    ErrorKind::NotFound,
    ErrorKind::NoData,
    ErrorKind::AlreadyExists,
    ErrorKind::Corrupt,
    ErrorKind::Unsupported,
    ErrorKind::Storage,
    ErrorKind::Transform,
    ErrorKind::Engine,
    ErrorKind::Cancelled,
    ErrorKind::Internal,
];
/// The places that errors of a conversion name.
const PLACES: [&str; 15] = [
    "row",
    "column",
    "file",
    "URL",
    "row group",
    "row-group index",
    "line",
    "batch",
    "rows before it",
    "member",
    "byte",
    "option",
    "directory",
    "address",
    "scheduler",
];

#[derive(Serialize, Deserialize)]
struct Encoded {
    kind: String,
    message: String,
    places: Vec<(String, String)>,
    source: Option<String>,
    /// The executor and the unit, where another executor may not fail.
    by: Option<(String, usize)>,
}

/// A failure that may be that of one executor.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    pub(crate) executor: String,
    pub(crate) unit: usize,
}

/// What an executor told.
#[derive(Debug)]
pub(crate) enum Told {
    /// Any other would say the same.
    Error(Error),
    Fault(Fault),
}

/// The error for the engine. Ballista does not try again by itself, on the same executor as likely as not: the driver does. `by`
/// is the executor and the unit, where another executor may not fail.
pub(crate) fn to_engine(error: &Error, by: Option<(String, usize)>) -> DataFusionError {
    DataFusionError::Execution(encode(error, by))
}

fn encode(error: &Error, by: Option<(String, usize)>) -> String {
    let fault = Encoded {
        kind: format!("{:?}", error.kind()),
        message: error.message().to_owned(),
        places: error
            .places()
            .map(|(place, value)| (place.to_owned(), value.to_owned()))
            .collect(),
        source: std::error::Error::source(error).map(ToString::to_string),
        by,
    };
    let json = serde_json::to_vec(&fault).unwrap_or_default();
    format!("{error} {BEFORE}{}{BEHIND}", hex::encode(&json))
}

/// The first of our errors in a text.
pub(crate) fn find(text: &str) -> Option<Told> {
    let (_, rest) = text.split_once(BEFORE)?;
    let fault: Encoded = serde_json::from_slice(&hex::decode(rest.split_once(BEHIND)?.0)?).ok()?;
    let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == fault.kind);
    let mut error = Error::new(kind.unwrap_or(ErrorKind::Engine), fault.message);
    for (place, value) in fault.places {
        let known = PLACES.into_iter().find(|known| *known == place);
        error = error.at(known.unwrap_or("place"), value);
    }
    if let Some(source) = fault.source {
        error = error.with_source(source);
    }
    Some(match fault.by {
        Some((executor, unit)) => Told::Fault(Fault { error, executor, unit }),
        None => Told::Error(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_what_ballista_makes_of_it() {
        let error = Error::invalid("a \"quoted\" value")
            .at("row", 7)
            .at("column", "x")
            .with_source("because\nof this");
        let told = format!("Task failed: {:?}", format!("{:?}", to_engine(&error, None)));
        let Some(Told::Error(back)) = find(&told) else {
            panic!("the error is lost: {told}");
        };
        let told = to_engine(&error, Some(("a:1".to_owned(), 3))).to_string();
        assert!(matches!(find(&told), Some(Told::Fault(fault)) if (&fault.executor[..], fault.unit) == ("a:1", 3)));
        assert_eq!((back.to_string(), back.kind()), (error.to_string(), error.kind()));
        assert_eq!(back.place("row"), Some("7"));
        assert!(find("squall-fault:zz;").is_none() && find("squall-fault:").is_none());
    }
}
