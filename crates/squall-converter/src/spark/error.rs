//! Spark's errors, by what the caller can do about them.

use spark_connect_core::error::{SparkError, SparkErrorKind};
use squall_schema::{Error, ErrorKind};

/// What the messages of our own checks, which Spark runs as expressions, begin with.
pub(super) const OURS: &str = "squall: ";
/// gRPC's codes of a server that does not take the token, and of none that answers.
const PERMISSION_DENIED: i32 = 7;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;
/// Characters of Spark's message that are kept: plans and stacks follow it.
const MOST_CHARACTERS: usize = 1000;

/// The error of a request to Spark, as one sentence with Spark's own message as its cause.
pub(super) fn spark_error(error: SparkError) -> Error {
    let text = one_line(&error.message);
    if let Some((_, ours)) = text.split_once(OURS) {
        // What follows is Spark's: the class of the error again.
        let ours = ours.split(" SQLSTATE").next().unwrap_or(ours);
        return Error::invalid(ours.trim_end().to_owned());
    }
    let (kind, what) = match (error.grpc_code, error.kind) {
        (Some(UNAUTHENTICATED | PERMISSION_DENIED), _) => {
            (ErrorKind::Storage, "the Spark server does not take the token")
        }
        (Some(UNAVAILABLE), _) => (ErrorKind::Engine, "the Spark server does not answer"),
        _ if error.error_class.starts_with("PATH_NOT_FOUND") || text.contains("[PATH_NOT_FOUND]") => {
            (ErrorKind::NotFound, "the Spark server does not see the path")
        }
        (_, SparkErrorKind::Analysis | SparkErrorKind::Parse | SparkErrorKind::IllegalArgument) => {
            (ErrorKind::InvalidInput, "the query does not fit what Spark has")
        }
        _ if text.contains("[PARSE_SYNTAX_ERROR]") => {
            (ErrorKind::InvalidInput, "the query does not fit what Spark has")
        }
        (_, SparkErrorKind::UnsupportedOperation | SparkErrorKind::NotImplementedError) => {
            (ErrorKind::Unsupported, "the query needs what this Spark does not have")
        }
        _ => (ErrorKind::Engine, "Spark failed"),
    };
    Error::new(kind, what).with_source(text)
}

/// Spark's message without the plans and the stack behind it.
fn one_line(message: &str) -> String {
    let message = message.split("\n\nJVM stacktrace").next().unwrap_or(message);
    let lines = message
        .lines()
        .take_while(|line| !line.trim_start().starts_with("at ") && !line.starts_with("'"));
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.trim_end_matches(['.', ';']).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_checks_and_sparks_messages_are_one_sentence() {
        let told = |message: &str| spark_error(SparkError::connect_msg(message)).to_string();
        let ours = "[USER_RAISED_EXCEPTION] squall: null where the schema has none, column \"x\" SQLSTATE: P0001";
        assert_eq!(told(ours), "null where the schema has none, column \"x\"");
        let theirs = "[UNRESOLVED_COLUMN.WITH_SUGGESTION] no `y`. SQLSTATE: 42703; line 1 pos 7;\n'Project ['y]\n+- Relation\n\nJVM stacktrace:\nat x";
        let told = told(theirs);
        assert!(
            told.contains("no `y`") && !told.contains("Project") && !told.contains("JVM"),
            "{told}"
        );
    }
}
