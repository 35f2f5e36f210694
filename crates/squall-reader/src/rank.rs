//! Which rank this process is, from the environment that a launcher sets.

use squall_schema::{Error, Result};

/// Rank and world size as torchrun sets them: `RANK` and `WORLD_SIZE`; `None` where neither is set.
pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<(u64, u64)>> {
    let number = |name: &str| -> Result<Option<u64>> {
        let Some(text) = get(name) else {
            return Ok(None);
        };
        let number = text.trim().parse();
        let wrong = |_| {
            Error::invalid(format!(
                "expected a number in the environment variable {name}, found {text:?}"
            ))
        };
        number.map(Some).map_err(wrong)
    };
    match (number("RANK")?, number("WORLD_SIZE")?) {
        (Some(rank), Some(world_size)) => Ok(Some((rank, world_size))),
        (None, None) => Ok(None),
        (rank, _) => {
            let (set, missing) = if rank.is_some() {
                ("RANK", "WORLD_SIZE")
            } else {
                ("WORLD_SIZE", "RANK")
            };
            Err(Error::invalid(format!(
                "the environment variable {set} is set, but {missing} is not"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], expected: &str) {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let found = match from_env(get) {
            Ok(found) => format!("{found:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn torchruns_variables_are_read() {
        check(&[("RANK", "1"), ("WORLD_SIZE", "4")], "Some((1, 4))");
        check(&[], "None");
        check(
            &[("RANK", "1")],
            "the environment variable RANK is set, but WORLD_SIZE is not",
        );
        check(
            &[("RANK", "x"), ("WORLD_SIZE", "4")],
            "expected a number in the environment variable RANK, found \"x\"",
        );
    }
}
