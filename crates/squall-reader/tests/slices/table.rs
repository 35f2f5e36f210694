//! Tables whose pages, encodings and columns differ.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, BinaryArray, Int32Array, ListArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field as ArrowField};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use proptest::prelude::*;
use squall_schema::codec::{Codec, encode_value};
use squall_schema::petastorm::{UNISCHEMA_KEY, write::unischema_pickle};
use squall_schema::{DType, Field, Schema, Shape, Tensor, Value};
use tempfile::TempDir;

/// Rows of the files, in row groups of 64.
const FILES: [usize; 3] = [150, 64, 90];
pub(super) const ROWS: usize = 304;
const ROW_GROUP: usize = 64;

/// How a table is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) page_index: bool,
    pub(super) dictionary: bool,
    pub(super) version_2: bool,
    pub(super) snappy: bool,
    /// Rows of a page, at most.
    pub(super) page_rows: usize,
    /// Bytes of a page, about: few of them make pages of different rows in different columns.
    pub(super) page_bytes: usize,
    pub(super) cells: Cells,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cells {
    /// Binary cells of about so many bytes, and nested columns.
    Bytes(usize),
    /// Arrays in npy cells, with the Unischema of Petastorm.
    Npy,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            page_index: true,
            dictionary: false,
            version_2: false,
            snappy: false,
            page_rows: 5,
            page_bytes: 1 << 20,
            cells: Cells::Bytes(20),
        }
    }
}

pub(super) fn forms() -> impl Strategy<Value = Form> {
    let cells = prop::sample::select(vec![Cells::Bytes(0), Cells::Bytes(20), Cells::Bytes(9000), Cells::Npy]);
    let flags = any::<(bool, bool, bool, bool)>();
    let form = (
        flags,
        1usize..30,
        prop::sample::select(vec![1, 90, 400, 1 << 20]),
        cells,
    );
    form.prop_map(
        |((page_index, dictionary, version_2, snappy), page_rows, page_bytes, cells)| Form {
            page_index,
            dictionary,
            version_2,
            snappy,
            page_rows,
            page_bytes,
            cells,
        },
    )
}

pub(super) struct Stored(TempDir);

impl Stored {
    pub(super) fn write(form: &Form) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let mut next = 0;
        for (i, n) in FILES.iter().enumerate() {
            let rows = rows(next..next + n, form.cells);
            let path = directory.path().join(format!("part-{i:05}.parquet"));
            write(path, &rows, form, None);
            next += n;
        }
        if form.cells == Cells::Npy {
            let fields = ["id", "label"].map(|name| Field::scalar(name, DType::Int32));
            let schema = Schema::new(fields.into_iter().chain([tensor_field()]).collect());
            let pickle = unischema_pickle("T", &schema.expect("a schema")).expect("a pickle");
            let key = KeyValue::new(UNISCHEMA_KEY.to_owned(), pickle);
            let path = directory.path().join("_common_metadata");
            write(path, &rows(0..0, form.cells), form, Some(vec![key]));
        }
        Self(directory)
    }

    /// Takes all of its files away.
    pub(super) fn remove_files(&self) {
        for entry in std::fs::read_dir(self.0.path()).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                std::fs::remove_file(path).expect("gone");
            }
        }
    }

    pub(super) fn url(&self) -> String {
        self.0.path().to_str().expect("a UTF-8 path").to_owned()
    }

    pub(super) fn file(&self, number: usize) -> PathBuf {
        self.0.path().join(format!("part-{number:05}.parquet"))
    }

    /// The footer of each file, with its page indexes.
    pub(super) fn footers(&self) -> Vec<ParquetMetaData> {
        let footer = |number| {
            let file = File::open(self.file(number)).expect("a file");
            ParquetMetaDataReader::new()
                .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Optional)
                .parse_and_finish(&file)
                .expect("a footer")
        };
        (0..FILES.len()).map(footer).collect()
    }

    /// Bytes of all pages.
    pub(super) fn bytes(&self) -> u64 {
        let footers = self.footers();
        let columns = footers
            .iter()
            .flat_map(|footer| footer.row_groups().iter().flat_map(|row_group| row_group.columns()));
        columns.map(|column| column.compressed_size() as u64).sum()
    }
}

/// The place in the table of a row of a row group, where these are counted through all files.
pub(super) fn place(piece: u32, row: u64) -> usize {
    let before = FILES.iter().flat_map(|rows| {
        let whole = rows / ROW_GROUP;
        let last = Some(rows % ROW_GROUP).filter(|rows| *rows > 0);
        std::iter::repeat_n(ROW_GROUP, whole).chain(last)
    });
    before.take(piece as usize).sum::<usize>() + row as usize
}

fn tensor_field() -> Field {
    Field::new("tensor", DType::Float32, Shape(vec![Some(4), Some(3)])).with_codec(Some(Codec::Ndarray))
}

fn rows(ids: std::ops::Range<usize>, cells: Cells) -> RecordBatch {
    let id = Arc::new(Int32Array::from_iter_values(ids.clone().map(|id| id as i32)));
    let label = Arc::new(Int32Array::from_iter_values(ids.clone().map(|id| (id % 3) as i32)));
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![("id", id, false), ("label", label, false)];
    match cells {
        Cells::Npy => {
            let cell = |id: usize| {
                let values = (0..12).map(|i| (id * 12 + i) as f32).collect();
                let tensor = Tensor::from_vec(&[4, 3], values).expect("a tensor");
                encode_value(&Value::Tensor(tensor), &tensor_field()).expect("a cell")
            };
            columns.push(("tensor", Arc::new(BinaryArray::from_iter_values(ids.map(cell))), false));
        }
        Cells::Bytes(bytes) => {
            let name = ids.clone().map(|id| (id % 7 != 0).then(|| format!("row {}", id / 3)));
            // Of different lengths, so that a cell that is cut wrongly is seen.
            let blob = ids
                .clone()
                .map(|id| (id % 13 != 0).then(|| vec![id as u8; bytes + id % 11]));
            columns.extend([
                ("name", Arc::new(StringArray::from_iter(name)) as ArrayRef, true),
                ("list", Arc::new(lists(ids.clone())), true),
                ("structs", Arc::new(structs(ids)), true),
                ("blob", Arc::new(BinaryArray::from_iter(blob)), true),
            ]);
        }
    }
    RecordBatch::try_from_iter_with_nullable(columns).expect("a batch")
}

/// Lists of 0 to 4 numbers, of which some are null, as some lists are.
fn lists(ids: std::ops::Range<usize>) -> ListArray {
    let list = |id: usize| {
        let values = (0..id % 5).map(move |i| (i != 2).then_some((id * 10 + i) as i32));
        (!id.is_multiple_of(11)).then_some(values)
    };
    ListArray::from_iter_primitive::<Int32Type, _, _>(ids.map(list))
}

/// Lists of 0 to 2 structs of a number and a text.
fn structs(ids: std::ops::Range<usize>) -> ListArray {
    let fields = vec![
        ArrowField::new("a", DataType::Int32, true),
        ArrowField::new("b", DataType::Utf8, true),
    ];
    let mut lists = ListBuilder::new(StructBuilder::from_fields(fields, 0));
    for id in ids {
        for i in 0..id % 3 {
            let values = lists.values();
            let numbers = values.field_builder::<Int32Builder>(0).expect("numbers");
            numbers.append_option((i == 0).then_some(id as i32));
            let texts = values.field_builder::<StringBuilder>(1).expect("texts");
            texts.append_option((id % 4 != 1).then(|| format!("{id}.{i}")));
            values.append(true);
        }
        lists.append(id % 17 != 3);
    }
    lists.finish()
}

fn write(path: PathBuf, batch: &RecordBatch, form: &Form, keys: Option<Vec<KeyValue>>) {
    let compression = match form.snappy {
        true => Compression::SNAPPY,
        false => Compression::UNCOMPRESSED,
    };
    let version = match form.version_2 {
        true => WriterVersion::PARQUET_2_0,
        false => WriterVersion::PARQUET_1_0,
    };
    let statistics = match form.page_index {
        true => EnabledStatistics::Page,
        false => EnabledStatistics::None,
    };
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_data_page_row_count_limit(form.page_rows)
        .set_data_page_size_limit(form.page_bytes)
        // The writer looks at its limits once a batch of this size.
        .set_write_batch_size(form.page_rows.min(3))
        .set_offset_index_disabled(!form.page_index)
        .set_statistics_enabled(statistics)
        .set_dictionary_enabled(form.dictionary)
        .set_compression(compression)
        .set_writer_version(version)
        .set_key_value_metadata(keys)
        .build();
    let file = File::create(path).expect("a new file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(batch).expect("rows written");
    writer.close().expect("a footer written");
}
