//! How text is read.

use serde::{Deserialize, Serialize};
use squall_schema::{Error, Result, Schema};

/// How files of text are read: CSV, and of JSON the schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TextOptions {
    /// What stands between two values of CSV; of `.tsv` files a tab if not given, else a comma.
    pub delimiter: Option<u8>,
    /// Whether the first record of each CSV file names the columns. Without it they are `column_1`, `column_2` and so on.
    pub header: bool,
    /// What a value of CSV with delimiters or line ends in it stands between.
    pub quote: u8,
    /// What makes an ordinary character of a quote; if not given, a quote is doubled.
    pub escape: Option<u8>,
    /// The text of a null in CSV, beside nothing at all: `NA`, `\N`.
    pub null: Option<String>,
    /// The columns, in the order of the files. If not given they are inferred.
    pub schema: Option<Schema>,
    /// From how many rows of each file they are inferred; all if not given. A later value that does not fit is an error.
    pub infer_rows: Option<usize>,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            delimiter: None,
            header: true,
            quote: b'"',
            escape: None,
            null: None,
            schema: None,
            infer_rows: None,
        }
    }
}

impl TextOptions {
    /// See [`TextOptions::delimiter`].
    #[must_use]
    pub fn with_delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = Some(delimiter);
        self
    }

    /// See [`TextOptions::header`].
    #[must_use]
    pub fn with_header(mut self, header: bool) -> Self {
        self.header = header;
        self
    }

    /// See [`TextOptions::quote`].
    #[must_use]
    pub fn with_quote(mut self, quote: u8) -> Self {
        self.quote = quote;
        self
    }

    /// See [`TextOptions::escape`].
    #[must_use]
    pub fn with_escape(mut self, escape: u8) -> Self {
        self.escape = Some(escape);
        self
    }

    /// See [`TextOptions::null`].
    #[must_use]
    pub fn with_null(mut self, null: impl Into<String>) -> Self {
        self.null = Some(null.into());
        self
    }

    /// See [`TextOptions::schema`].
    #[must_use]
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// See [`TextOptions::infer_rows`].
    #[must_use]
    pub fn with_infer_rows(mut self, rows: usize) -> Self {
        self.infer_rows = Some(rows);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let special = [b'\n', b'\r'];
        for (name, byte) in [
            ("delimiter", self.delimiter),
            ("quote", Some(self.quote)),
            ("escape", self.escape),
        ] {
            if byte.is_some_and(|byte| special.contains(&byte) || !byte.is_ascii()) {
                return Err(Error::invalid(format!(
                    "the {name} of CSV must be one ASCII character within a line"
                )));
            }
        }
        if self.delimiter.unwrap_or(b',') == self.quote {
            return Err(Error::invalid(format!(
                "the delimiter and the quote of CSV are both {:?}",
                char::from(self.quote)
            )));
        }
        if self.infer_rows == Some(0) {
            return Err(Error::invalid(
                "columns cannot be inferred from no rows: expected at least 1",
            ));
        }
        Ok(())
    }
}
