//! Fields by the patterns that their names match, as Petastorm's views and `schema_fields` choose them.

use regex::{Regex, RegexBuilder};

use crate::{Error, Result, Schema};

/// Bytes that a compiled pattern may have: patterns come from users and from job descriptions.
const MAX_COMPILED: usize = 1 << 20;
/// How deep a pattern may nest.
const MAX_NESTING: u32 = 100;

impl Schema {
    /// The fields whose whole name one of the patterns matches, in the order of the schema, each once.
    ///
    /// A pattern that matches no name is an error: it is most often misspelt.
    ///
    /// ```
    /// # use squall_schema::{Schema, field};
    /// # fn main() -> squall_schema::Result<()> {
    /// let schema = Schema::new(vec![field!("id": i64), field!("image_left": u8[4]), field!("image_right": u8[4])])?;
    /// let images = schema.matching(&["image_.*"])?;
    /// assert_eq!(images.names().collect::<Vec<_>>(), ["image_left", "image_right"]);
    /// assert!(schema.matching(&["image"]).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn matching<S: AsRef<str>>(&self, patterns: &[S]) -> Result<Self> {
        let compiled = name_patterns(patterns)?;
        let idle = compiled
            .iter()
            .position(|own| !self.names().any(|name| own.is_match(name)));
        if let Some(place) = idle {
            let columns: Vec<_> = self.names().collect();
            return Err(Error::invalid(format!(
                "the pattern {:?} matches no column: the columns are {}",
                patterns[place].as_ref(),
                columns.join(", ")
            )));
        }
        let named = |name: &str| compiled.iter().any(|own| own.is_match(name));
        Self::new(
            self.fields()
                .iter()
                .filter(|field| named(&field.name))
                .cloned()
                .collect(),
        )
    }
}

/// Compiles patterns for whole names.
pub fn name_patterns<S: AsRef<str>>(patterns: &[S]) -> Result<Vec<Regex>> {
    patterns.iter().map(|pattern| compile(pattern.as_ref())).collect()
}

fn compile(pattern: &str) -> Result<Regex> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(MAX_COMPILED)
            .nest_limit(MAX_NESTING)
            .build()
    };
    // By itself first: "a)|(b" is no pattern, though it would be one inside of parentheses.
    build(pattern)
        .and_then(|_| build(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| {
            // The crate draws the place on lines of their own; its last line says what is wrong.
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            Error::invalid(format!("{pattern:?} is no regular expression: {reason}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Field};

    fn check(patterns: &[&str], expected: &str) {
        let fields = ["id", "lidar_1", "lidar_2", "a.b", "größe"].map(|name| Field::scalar(name, DType::Int8));
        let schema = Schema::new(fields.to_vec()).expect("unique names");
        let found = match schema.matching(patterns) {
            Ok(schema) => schema.names().collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{patterns:?}");
    }

    #[test]
    fn whole_names_match_in_the_order_of_the_schema() {
        check(&["lidar_2", "lidar_.", "id"], "id lidar_1 lidar_2");
        check(&[r"\w+"], "id lidar_1 lidar_2 größe");
        check(&[r"a\.b|id"], "id a.b");
        check(&["(?i)ID"], "id");
        check(&[], "");
        let columns = "the columns are id, lidar_1, lidar_2, a.b, größe";
        check(
            &["id", "lidar"],
            &format!("the pattern \"lidar\" matches no column: {columns}"),
        );
        check(
            &["(?m)^d$"],
            &format!("the pattern \"(?m)^d$\" matches no column: {columns}"),
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        check(&["("], "\"(\" is no regular expression: unclosed group");
        check(&["id)|(x"], "\"id)|(x\" is no regular expression: unopened group");
        let deep = format!("{}{}", "(".repeat(200), ")".repeat(200));
        let reason = "exceed the maximum number of nested parentheses/brackets (100)";
        check(&[&deep], &format!("{deep:?} is no regular expression: {reason}"));
        let huge = r"(\w{1000}){1000}";
        check(
            &[huge],
            &format!("{huge:?} is no regular expression: Compiled regex exceeds size limit of {MAX_COMPILED} bytes."),
        );
    }
}
