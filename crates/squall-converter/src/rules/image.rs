//! Columns of images, as bytes or as paths, to cells of one codec.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field as ArrowField};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use squall_dataset::{DatasetUrl, Store, StoreOptions};
use squall_schema::codec::{
    Codec, FreshMemory, ImageView, JPEG_QUALITY, Region, decode_cells, decode_views, encode_column, view_field,
};
use squall_schema::{DType, Error, Field, Result, Shape};
use tokio::sync::OnceCell;

/// Images that are read from their store at the same time, by each writer.
const READS: usize = 16;

/// What a cell of images holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ImageFormat {
    /// jpeg of this quality, from 1 to 100.
    Jpeg(u8),
    /// png, without loss.
    #[default]
    Png,
}

/// What becomes of a column of images: of bytes, jpeg or png, or of text, which is taken for paths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct ImageRule {
    format: Option<ImageFormat>,
    size: Option<[usize; 2]>,
    grey: bool,
    root: Option<String>,
}

impl ImageRule {
    /// Images that are checked and stay as they are, in colour.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes them anew in this format. Without it only those that are resized are: as jpeg of Petastorm's quality.
    pub fn format(mut self, format: ImageFormat) -> Self {
        self.format = Some(format);
        self
    }

    /// Resizes them to this height and width, by bilinear interpolation with antialiasing.
    pub fn resize(mut self, height: usize, width: usize) -> Self {
        self.size = Some([height, width]);
        self
    }

    /// Grey images, which have no channels: `uint8[height, width]` and not `uint8[height, width, 3]`.
    pub fn grey(mut self) -> Self {
        self.grey = true;
        self
    }

    /// Where paths begin, a URL; nothing beyond it is read. Paths may be relative to it, or name it in full.
    pub fn root(mut self, url: impl Into<String>) -> Self {
        self.root = Some(url.into());
        self
    }
}

/// A rule for a column that is there.
pub(super) struct Images {
    /// Of the images as they come.
    from: Field,
    /// Of the cells that are written.
    to: Field,
    /// Whether they are encoded anew, and in which size.
    encode: bool,
    size: Option<[usize; 2]>,
    paths: Option<Root>,
}

struct Root {
    url: DatasetUrl,
    options: StoreOptions,
    store: OnceCell<Store>,
}

impl Images {
    pub(super) fn new(column: &ArrowField, rule: &ImageRule, options: &StoreOptions) -> Result<Self> {
        let name = column.name();
        let at = |error: Error| error.at("column", name);
        let paths = match column.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => None,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let root = rule.root.as_deref().ok_or_else(|| {
                    at(Error::invalid(
                        "a column of paths needs a root, below which the images are",
                    ))
                })?;
                Some(Root {
                    url: DatasetUrl::parse(root)?,
                    options: options.clone(),
                    store: OnceCell::new(),
                })
            }
            other => {
                return Err(at(Error::invalid(format!(
                    "expected images as bytes or paths, found {other}"
                ))));
            }
        };
        let codec = match rule.format {
            Some(ImageFormat::Jpeg(quality @ 1..=100)) => Codec::Jpeg { quality },
            Some(ImageFormat::Jpeg(quality)) => {
                return Err(at(Error::invalid(format!(
                    "the quality {quality} of jpeg is not between 1 and 100"
                ))));
            }
            Some(ImageFormat::Png) => Codec::Png,
            None => Codec::Jpeg { quality: JPEG_QUALITY },
        };
        let channels = if rule.grey { None } else { Some(Some(3)) };
        let shape = Shape([Some(None), Some(None), channels].into_iter().flatten().collect());
        let from = Field::new(name, DType::UInt8, shape)
            .with_nullable(column.is_nullable())
            .with_codec(Some(codec.clone()));
        let to = match rule.size {
            Some([height, width]) => view_field(&from, height, width)?.with_codec(Some(codec)),
            None => from.clone(),
        };
        Ok(Self {
            encode: rule.format.is_some() || rule.size.is_some(),
            size: rule.size,
            from,
            to,
            paths,
        })
    }

    /// What is written.
    pub(super) fn field(&self) -> &Field {
        &self.to
    }

    /// The cells. Paths are read some at a time.
    pub(super) async fn apply(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let fetched;
        let binary;
        let cells: Vec<Option<&[u8]>> = match &self.paths {
            Some(root) => {
                fetched = root.read(column).await?;
                fetched.iter().map(Option::as_deref).collect()
            }
            None => {
                binary = arrow_cast::cast(column, &DataType::Binary)
                    .map_err(|error| Error::internal("bytes are not binary").with_source(error))?;
                binary.as_binary::<i32>().iter().collect()
            }
        };
        let decoded = match self.size {
            Some([height, width]) => {
                let target = view_field(&self.from, height, width)?;
                let mut whole = |_, [height, width]: [usize; 2]| {
                    let all = Region {
                        top: 0.0,
                        left: 0.0,
                        height: height as f64,
                        width: width as f64,
                    };
                    Ok(ImageView {
                        bounds: all,
                        region: all,
                        flip: false,
                        full_decode: false,
                    })
                };
                decode_views(&cells, (&self.from, &target), &mut whole, &FreshMemory)?
            }
            // What stays as it is has been decoded once, and is what it claims to be.
            None => decode_cells(&cells, &self.from)?,
        };
        if self.encode {
            return encode_column(&decoded, &self.to);
        }
        let mut kept = BinaryBuilder::new();
        cells.iter().for_each(|cell| kept.append_option(*cell));
        Ok(Arc::new(kept.finish()))
    }
}

impl Root {
    async fn read(&self, column: &ArrayRef) -> Result<Vec<Option<Bytes>>> {
        let text = arrow_cast::cast(column, &DataType::Utf8)
            .map_err(|error| Error::internal("text is not UTF-8").with_source(error))?;
        let text = text.as_string::<i32>();
        let store = self
            .store
            .get_or_try_init(|| Store::open_with(&self.url, &self.options))
            .await?;
        let read = |row: usize| async move {
            let at = |error: Error| error.at("row", row);
            if text.is_null(row) {
                return Ok(None);
            }
            let path = self.below(text.value(row)).map_err(at)?;
            let bytes = store.get(&path).await.map_err(at)?;
            let missing = || {
                at(Error::new(squall_schema::ErrorKind::NotFound, "there is no such image"))
                    .at("file", &path)
                    .at("URL", &self.url)
            };
            bytes.map(Some).ok_or_else(missing)
        };
        stream::iter((0..text.len()).map(read))
            .buffered(READS)
            .try_collect()
            .await
    }

    /// The path below the root.
    fn below(&self, text: &str) -> Result<Path> {
        let root = self.url.to_string();
        let root = root.trim_end_matches('/');
        let plain = self.url.to_file_path();
        let plain = plain.as_deref().and_then(std::path::Path::to_str);
        let relative = [Some(root), plain]
            .into_iter()
            .flatten()
            .find_map(|root| text.strip_prefix(root)?.strip_prefix('/'));
        let outside =
            || Error::invalid(format!("the path {text:?} is not below the root of the images")).at("URL", &self.url);
        let relative = match relative {
            Some(relative) => relative,
            None if text.starts_with('/') || text.contains("://") => return Err(outside()),
            None => text,
        };
        // Parsing refuses what would climb: `.` and `..`.
        Path::parse(relative).map_err(|error| outside().with_source(error))
    }
}
