//! What the tests share: tables written through parquet, damaged on purpose, compared row by row. Only ever a dev-dependency.
