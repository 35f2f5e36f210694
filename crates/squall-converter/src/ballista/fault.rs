//! Errors of executors on their way to the driver.
//!
//! Ballista makes text of an error, and of that text the error of a task, a stage and a job. Ours travels in it as hexadecimal
//! digits, which no quoting touches, and is at the end what it was at the beginning.

use std::io;

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
struct Fault {
    kind: String,
    message: String,
    places: Vec<(String, String)>,
    source: Option<String>,
}

/// The error for the engine. What may go well another time is one of those that Ballista tries again.
pub(crate) fn to_engine(error: &Error) -> DataFusionError {
    let text = encode(error);
    match error.kind() {
        ErrorKind::Storage => DataFusionError::IoError(io::Error::other(text)),
        _ => DataFusionError::Execution(text),
    }
}

fn encode(error: &Error) -> String {
    let fault = Fault {
        kind: format!("{:?}", error.kind()),
        message: error.message().to_owned(),
        places: error
            .places()
            .map(|(place, value)| (place.to_owned(), value.to_owned()))
            .collect(),
        source: std::error::Error::source(error).map(ToString::to_string),
    };
    let json = serde_json::to_vec(&fault).unwrap_or_default();
    format!("{error} {BEFORE}{}{BEHIND}", hex::encode(&json))
}

/// The first of our errors in a text.
pub(crate) fn find(text: &str) -> Option<Error> {
    let (_, rest) = text.split_once(BEFORE)?;
    let fault: Fault = serde_json::from_slice(&hex::decode(rest.split_once(BEHIND)?.0)?).ok()?;
    let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == fault.kind);
    let mut error = Error::new(kind.unwrap_or(ErrorKind::Engine), fault.message);
    for (place, value) in fault.places {
        let known = PLACES.into_iter().find(|known| *known == place);
        error = error.at(known.unwrap_or("place"), value);
    }
    Some(match fault.source {
        Some(source) => error.with_source(source),
        None => error,
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
        let told = format!("Task failed: {:?}", format!("{:?}", to_engine(&error)));
        let back = find(&told).expect("the error");
        assert_eq!((back.to_string(), back.kind()), (error.to_string(), error.kind()));
        assert_eq!(back.place("row"), Some("7"));
        assert!(find("squall-fault:zz;").is_none() && find("squall-fault:").is_none());
    }
}
