//! The flags of `squall convert` that say what its sources are, and what becomes of their columns.

use std::fs;

use clap::{Args, ValueEnum};
use squall::convert::{Converter, FloatPrecision, ImageFormat, ImageRule, SourceFormat, TextOptions};
use squall::{Error, ErrorKind, Result, Schema};

#[derive(Args)]
pub(crate) struct Sources {
    /// A further source, which is the table NAME in SQL; may be given several times
    #[arg(long = "source", value_name = "NAME=URL")]
    others: Vec<String>,
    /// What the files are: parquet, csv, json (a line each), avro or delta; found by their names and first bytes if not given
    #[arg(long, value_name = "FORMAT")]
    source_format: Option<String>,
    /// Which version of a Delta table is read [default: the newest]
    #[arg(long, value_name = "N")]
    delta_version: Option<u64>,
    /// The character between two values of CSV; `\t` is a tab [default: a comma, of .tsv a tab]
    #[arg(long, value_name = "CHARACTER")]
    csv_delimiter: Option<String>,
    /// The first record of a CSV file is a row, and the columns are column_1, column_2 and so on
    #[arg(long)]
    csv_no_header: bool,
    /// The character around values of CSV that hold delimiters
    #[arg(long, value_name = "CHARACTER", default_value = "\"")]
    csv_quote: String,
    /// The text of nulls in CSV, beside empty values
    #[arg(long, value_name = "TEXT")]
    csv_null: Option<String>,
    /// Infer the columns of CSV and JSON from the first rows of each file only; a later value that does not fit is an error
    #[arg(long, value_name = "N", conflicts_with = "source_schema")]
    infer_rows: Option<usize>,
    /// The columns of CSV and JSON, as a JSON file: [{"name":"id","dtype":"int64","nullable":true}]
    #[arg(long, value_name = "FILE")]
    source_schema: Option<String>,
}

impl Sources {
    /// The sources by name; the first one is the table `source`.
    pub(crate) fn named<'a>(&'a self, first: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
        let named = self.others.iter().map(|other| {
            other
                .split_once('=')
                .filter(|(name, url)| !name.is_empty() && !url.is_empty())
                .ok_or_else(|| Error::invalid(format!("expected NAME=URL behind --source, found {other:?}")))
        });
        std::iter::once(Ok(("source", first))).chain(named).collect()
    }

    pub(crate) fn apply(&self, mut converter: Converter) -> Result<Converter> {
        if let Some(format) = &self.source_format {
            converter = converter.source_format(format.parse::<SourceFormat>()?);
        }
        if let Some(version) = self.delta_version {
            converter = converter.delta_version(version);
        }
        let mut text = TextOptions::default()
            .with_header(!self.csv_no_header)
            .with_quote(character("--csv-quote", &self.csv_quote)?);
        if let Some(delimiter) = &self.csv_delimiter {
            text = text.with_delimiter(character("--csv-delimiter", delimiter)?);
        }
        if let Some(null) = &self.csv_null {
            text = text.with_null(null);
        }
        if let Some(rows) = self.infer_rows {
            text = text.with_infer_rows(rows);
        }
        if let Some(file) = &self.source_schema {
            text = text.with_schema(schema(file)?);
        }
        Ok(converter.text(text))
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Floats {
    Float32,
    Float64,
    Keep,
}

#[derive(Args)]
pub(crate) struct Rules {
    /// What becomes of floating-point numbers, in lists too; float32 is what Petastorm makes of doubles
    #[arg(long, value_enum, default_value = "float32")]
    floats: Floats,
    /// The fields of the dataset, as a JSON file: [{"name":"x","dtype":"float32","shape":[3]}]; others are left out
    #[arg(long, value_name = "FILE")]
    schema: Option<String>,
    /// A column of images, as bytes or as paths below --image-root; may be given several times
    #[arg(long, value_name = "COLUMN")]
    image: Vec<String>,
    /// Where the paths of images begin; nothing beyond is read
    #[arg(long, value_name = "URL", requires = "image")]
    image_root: Option<String>,
    /// Resize images to this height and width
    #[arg(long, value_name = "HxW", requires = "image")]
    image_size: Option<String>,
    /// Encode images anew: png, jpeg, jpeg(90)
    #[arg(long, value_name = "FORMAT", requires = "image")]
    image_format: Option<String>,
    /// Images are grey, and have no channels
    #[arg(long, requires = "image")]
    image_grey: bool,
}

impl Rules {
    pub(crate) fn apply(&self, converter: Converter) -> Result<Converter> {
        let mut converter = converter.floats(match self.floats {
            Floats::Float32 => FloatPrecision::Float32,
            Floats::Float64 => FloatPrecision::Float64,
            Floats::Keep => FloatPrecision::Keep,
        });
        if let Some(file) = &self.schema {
            converter = converter.schema(schema(file)?);
        }
        let mut rule = ImageRule::new();
        if let Some(root) = &self.image_root {
            rule = rule.root(root);
        }
        if let Some(size) = &self.image_size {
            let parsed = size
                .split_once('x')
                .and_then(|(h, w)| Some((h.parse().ok()?, w.parse().ok()?)));
            let (height, width) =
                parsed.ok_or_else(|| Error::invalid(format!("expected a size such as 224x224, found {size:?}")))?;
            rule = rule.resize(height, width);
        }
        if let Some(format) = &self.image_format {
            let quality = format.strip_prefix("jpeg(").and_then(|rest| rest.strip_suffix(')'));
            rule = rule.format(
                match (format.as_str(), quality.and_then(|quality| quality.parse().ok())) {
                    ("png", _) => ImageFormat::Png,
                    ("jpeg", _) => ImageFormat::Jpeg(80),
                    (_, Some(quality)) => ImageFormat::Jpeg(quality),
                    _ => {
                        return Err(Error::invalid(format!(
                            "no image format {format:?}: expected png, jpeg or jpeg(90)"
                        )));
                    }
                },
            );
        }
        if self.image_grey {
            rule = rule.grey();
        }
        let with = |converter: Converter, column: &String| converter.image(column, rule.clone());
        Ok(self.image.iter().fold(converter, with))
    }
}

fn character(flag: &str, text: &str) -> Result<u8> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] => Ok(*byte),
        _ => Err(Error::invalid(format!(
            "expected one ASCII character behind {flag}, found {text:?}"
        ))),
    }
}

fn schema(file: &str) -> Result<Schema> {
    let text = fs::read_to_string(file).map_err(|error| {
        Error::new(ErrorKind::NotFound, "cannot read the schema")
            .at("file", file)
            .with_source(error)
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Error::invalid("the file is not a schema: expected a list of fields")
            .at("file", file)
            .with_source(error)
    })
}
