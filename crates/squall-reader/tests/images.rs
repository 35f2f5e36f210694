//! Images that are cropped and resized while they are decoded.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use squall_reader::{ImageSpec, NGram, Reader, ReaderBuilder, TransformSpec, make_dataset, make_reader};
use squall_schema::codec::{Codec, encode_value};
use squall_schema::petastorm::{UNISCHEMA_KEY, write::unischema_pickle};
use squall_schema::{DType, Field, Schema, Shape, Tensor, Value};
use tempfile::TempDir;

use crate::error;

const ROWS: usize = 60;

/// The height and width of an image: all differ.
fn size(id: usize) -> [usize; 2] {
    [20 + id % 7, 24 + id % 5]
}

fn picture(id: usize) -> Tensor {
    let [height, width] = size(id);
    let pixel = |i: usize| ((i / 3 % width) * 7 + (i / 3 / width) * 3 + id + i % 3 * 40) as u8;
    Tensor::from_vec(&[height, width, 3], (0..height * width * 3).map(pixel).collect()).expect("a picture")
}

/// Images of different sizes in cells, with the Unischema of Petastorm. The last row of `damaged` has no image in its cell.
fn table(codec: Codec, damaged: bool) -> TempDir {
    let image = Field::new("image", DType::UInt8, Shape(vec![None, None, Some(3)])).with_codec(Some(codec));
    let schema = Schema::new(vec![Field::scalar("id", DType::Int32), image.clone()]).expect("a schema");
    let cell = |id| encode_value(&Value::Tensor(picture(id)), &image).expect("a cell");
    let mut cells: Vec<_> = (0..ROWS).map(cell).collect();
    if damaged {
        cells[ROWS - 1].truncate(60);
    }
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int32Array::from_iter_values(0..ROWS as i32))),
        ("image", Arc::new(BinaryArray::from_iter_values(cells))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let directory = TempDir::new().expect("a temporary directory");
    let pickle = unischema_pickle("T", &schema).expect("a pickle");
    for (name, key, rows) in [
        ("part-0.parquet", None, batch.clone()),
        (
            "_common_metadata",
            Some(KeyValue::new(UNISCHEMA_KEY.to_owned(), pickle)),
            batch.slice(0, 0),
        ),
    ] {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(16))
            .set_key_value_metadata(key.map(|key| vec![key]))
            .build();
        let file = File::create(directory.path().join(name)).expect("a new file");
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).expect("a writer");
        writer.write(&rows).expect("rows written");
        writer.close().expect("a footer written");
    }
    directory
}

fn reader(directory: &TempDir, spec: ImageSpec) -> ReaderBuilder<Reader> {
    make_reader(directory.path().display().to_string()).image("image", spec)
}

fn images(reader: ReaderBuilder<Reader>) -> BTreeMap<(u64, i64), Tensor> {
    let reader = reader.build().expect("a reader");
    let image = |row: squall_schema::Row| {
        let key = (row.id().epoch, row.int("id").expect("an id"));
        (key, row.tensor("image").expect("an image").clone())
    };
    reader.map(|row| image(row.expect("a row"))).collect()
}

#[test]
fn images_of_different_sizes_make_one_tensor() {
    for codec in [Codec::Png, Codec::Jpeg { quality: 90 }] {
        let table = table(codec, false);
        let spec = ImageSpec::new().resize_shorter(16).center_crop(16, 12);
        let built = reader(&table, spec.clone()).build().expect("a reader");
        assert_eq!(built.schema().to_string(), "id: int32\nimage: uint8[16, 12, 3]");
        let found = images(reader(&table, spec));
        assert_eq!(found.len(), ROWS);
        assert!(found.values().all(|image| image.shape() == [16, 12, 3]));
    }
}

#[test]
fn a_crop_has_the_pixels_of_the_image() {
    let table = table(Codec::Png, false);
    for ((_, id), image) in images(reader(&table, ImageSpec::new().center_crop(10, 8))) {
        let whole = picture(id as usize);
        let [height, width] = size(id as usize);
        let place = [height - 10, width - 8].map(|room| (room as f64 / 2.0).round_ties_even() as usize);
        for (y, line) in image.data().chunks_exact(24).enumerate() {
            let start = ((place[0] + y) * width + place[1]) * 3;
            assert_eq!(line, &whole.data()[start..start + 24], "id {id}, line {y}");
        }
    }
}

#[test]
fn random_crops_are_the_same_on_any_number_of_threads_and_ranks() {
    let table = table(Codec::Png, false);
    let spec = || ImageSpec::new().random_resized_crop(8, 8).horizontal_flip(0.5);
    let read = |rank, world_size, workers| {
        let reader = reader(&table, spec()).seed(3).epochs(2);
        images(reader.rank(rank, world_size).global_batch(12).workers(workers))
    };
    let alone = read(0, 1, 1);
    assert_eq!(alone.len(), 2 * ROWS);
    let mut together = read(0, 2, 2);
    together.extend(read(1, 2, 3));
    assert_eq!(alone, together);
    // Another epoch draws anew, and so does another seed.
    let of_epoch = |epoch| {
        (0..ROWS as i64)
            .map(|id| alone[&(epoch, id)].data().to_vec())
            .collect::<Vec<_>>()
    };
    let alike = of_epoch(0)
        .iter()
        .zip(of_epoch(1))
        .filter(|(first, second)| *first == second)
        .count();
    assert!(alike < ROWS / 4, "{alike}");
    assert_ne!(images(reader(&table, spec()).seed(4).epochs(2)), alone);
    assert!(
        alone
            .values()
            .map(|image| image.data().to_vec())
            .collect::<HashSet<_>>()
            .len()
            > ROWS
    );
}

#[test]
fn a_transform_sees_the_view() {
    let table = table(Codec::Png, false);
    let spec = TransformSpec::per_row(|row| {
        let scaled = row.tensor("image")?.map(|pixel: u8| f32::from(pixel) / 255.0)?;
        row.set("image", scaled);
        Ok(())
    });
    let spec = spec.edit(Field::new("image", DType::Float32, Shape::fixed(&[8, 8, 3])));
    let found = images(reader(&table, ImageSpec::new().resize(8, 8)).transform(spec));
    assert_eq!((found.len(), found[&(0, 7)].dtype()), (ROWS, DType::Float32));
}

#[test]
fn a_dataset_by_index_shows_the_same() {
    let table = table(Codec::Png, false);
    let spec = ImageSpec::new().resize(9, 7);
    let url = table.path().display().to_string();
    let dataset = make_dataset(url)
        .image("image", spec.clone())
        .workers(2)
        .build()
        .expect("a dataset");
    let expected = images(reader(&table, spec));
    for ((_, id), image) in &expected {
        assert_eq!(
            dataset
                .get(*id as u64)
                .expect("a row")
                .tensor("image")
                .expect("an image"),
            image
        );
    }
    let indices: Vec<u64> = (0..ROWS as u64).rev().collect();
    let batch = dataset.take(&indices).expect("a batch");
    assert_eq!((batch.num_rows(), batch.num_columns()), (ROWS, 2));
}

#[test]
fn what_cannot_be_shown_is_an_error() {
    let good = table(Codec::Png, false);
    let too_large = reader(&good, ImageSpec::new().center_crop(25, 8))
        .build()
        .expect("a reader");
    let text = too_large.filter_map(Result::err).next().expect("an error").to_string();
    for part in [
        "a crop of 25x8 pixels from an image of",
        "image",
        "row group",
        "part-0.parquet",
        "sample",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let damaged = table(Codec::Png, true);
    let broken = reader(&damaged, ImageSpec::new().resize(8, 8))
        .build()
        .expect("a reader");
    let text = broken.filter_map(Result::err).next().expect("an error").to_string();
    assert!(
        text.contains("cannot decode the png image") && text.contains("row 11,"),
        "{text}"
    );
    for (name, part) in [("id", "cannot be cropped or resized"), ("photo", "photo")] {
        let reader = make_reader(good.path().display().to_string()).image(name, ImageSpec::new().resize(8, 8));
        let text = error(reader.build()).to_string();
        assert!(text.contains(part), "{text}");
    }
    let ngram = NGram::new([(0, ["id", "image"]), (1, ["id", "image"])], "id", 1);
    let text = error(reader(&good, ImageSpec::new().resize(8, 8)).ngram(ngram).build()).to_string();
    assert!(text.contains("n-gram"), "{text}");
}
