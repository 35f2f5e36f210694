//! Files as Spark would have written them, in a store without renames.

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use object_store::PutPayload;
use parquet::arrow::ArrowWriter;
use squall_dataset::DatasetUrl;
use squall_schema::Shape;

use super::*;
use crate::commit::Staging;
use crate::marker::Lease;
use crate::revision::{Existing, SaveMode};

const JOB: &str = "8d6f4b52-1c1b-4a0b-9f3e-3c1b1c1b4a0b";

fn planned() -> Planned {
    let fields = ["id", "part"].map(|name| Field::new(name, DType::Int64, Shape::default()));
    Planned {
        schema: Schema::new(fields.into()).expect("a schema"),
        is_declared: false,
    }
}

fn layout() -> Layout {
    Layout {
        partition_by: vec!["part".to_owned()],
        ..Layout::default()
    }
}

fn file(ids: std::ops::Range<i64>) -> Vec<u8> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    let rows = RecordBatch::try_from_iter([("id", ids)]).expect("rows");
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).expect("a writer");
    writer.write(&rows).expect("written");
    writer.into_inner().expect("a file")
}

async fn put(store: &Store, path: &str, bytes: Vec<u8>) {
    let path = Path::parse(path).expect("a path");
    store
        .objects()
        .put(&path, PutPayload::from(bytes))
        .await
        .expect("a file");
}

/// What a job of Spark leaves, with what it should not.
async fn write(place: &Store, ids: std::ops::Range<i64>) {
    put(place, &format!("part=7/part-00012-{JOB}.c001.zstd.parquet"), file(ids)).await;
    put(place, &format!("part=8/part-00013-{JOB}.c000.zstd.parquet"), file(0..0)).await;
    put(
        place,
        &format!("part=7/.part-00012-{JOB}.c001.zstd.parquet.crc"),
        vec![0],
    )
    .await;
    put(
        place,
        &format!("_temporary/0/part-00001-{JOB}.c000.zstd.parquet"),
        vec![0],
    )
    .await;
    put(place, SUCCESS, Vec::new()).await;
}

async fn convert(url: &DatasetUrl, mode: SaveMode, ids: std::ops::Range<i64>) -> Result<Vec<String>> {
    let options = StoreOptions::default();
    let layout = layout();
    let mut staging = match Existing::find(url, &options, mode).await? {
        Some(existing) => Staging::within(url, existing).await?,
        None => Staging::begin(url, &options, Lease::default(), None).await?,
    };
    let place = Place::of(&staging, &options)?;
    write(&place.store, ids).await;
    let draft = adopt(&place, (&staging, &options), &planned(), &layout).await?;
    let metadata = staging.commit(draft).await?;
    Ok(metadata.files.into_iter().map(|file| file.path).collect())
}

#[tokio::test]
async fn sparks_files_become_a_dataset_and_its_next_versions() {
    let url = DatasetUrl::parse("memory://spark/adopted").expect("a URL");
    let store = Store::create(&url).expect("a store");
    let listed = || async {
        let files = store.list().await.expect("a list").into_iter();
        let mut files: Vec<_> = files.map(|file| file.location.to_string()).collect();
        files.sort();
        files
    };
    let with_metadata = |mut files: Vec<String>| {
        files.push("_common_metadata".to_owned());
        files.sort();
        files
    };
    let first = convert(&url, SaveMode::Append, 0..10).await.expect("a dataset");
    assert_eq!(first.len(), 1);
    assert!(
        first[0].starts_with("part=7/part-") && first[0].ends_with("-00012-0001.parquet"),
        "{first:?}"
    );
    assert_eq!(listed().await, with_metadata(first.clone()));

    let second = convert(&url, SaveMode::Append, 10..15).await.expect("an append");
    assert!(second.len() == 2 && second[0] == first[0], "{second:?}");
    assert_eq!(listed().await, with_metadata(second));
    let dataset = Dataset::open(&url).await.expect("a dataset");
    assert_eq!(dataset.rows(), 15);

    let third = convert(&url, SaveMode::Overwrite, 0..3).await.expect("an overwrite");
    assert_eq!(third.len(), 1);
    assert_eq!(listed().await, with_metadata(third));
}

#[tokio::test]
async fn a_job_without_rows_is_told_from_one_on_another_disk() {
    let store = |name: &str| {
        let url = DatasetUrl::parse(&format!("memory://spark/{name}")).expect("a URL");
        Store::create(&url).expect("a store")
    };
    let (elsewhere, done) = (store("elsewhere"), store("done"));
    let error = tidy(&elsewhere).await.expect_err("nothing is there");
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    put(&done, SUCCESS, Vec::new()).await;
    let error = tidy(&done).await.expect_err("no row");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn only_files_of_rows_are_named() {
    let settled = |path: &str| settled(path, "part-x-");
    let name = format!("part-00012-{JOB}.c001.zstd.parquet");
    assert_eq!(settled(&name).as_deref(), Some("part-x-00012-0001.parquet"));
    let hive = settled(&format!("a=%5B1/part-0=x/{name}"));
    assert_eq!(hive.as_deref(), Some("a=%5B1/part-0=x/part-x-00012-0001.parquet"));
    for other in ["_SUCCESS", &format!(".{name}.crc"), &format!("_temporary/0/{name}")] {
        assert_eq!(settled(other), None, "{other}");
    }
}

#[test]
fn a_file_that_s3_does_not_copy_is_refused() {
    let check = |url: &str, bytes| check_size(&DatasetUrl::parse(url).expect("a URL"), bytes);
    assert!(check("s3://bucket/a", 5 << 30).is_ok() && check("/a", 6 << 30).is_ok());
    let error = check("s3://bucket/a", 6 << 30).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(
        error.to_string().contains("5 GiB, and") || error.to_string().contains("5GiB, and"),
        "{error}"
    );
}
