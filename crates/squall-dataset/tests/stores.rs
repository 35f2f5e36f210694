//! Stores behind a network: a real S3 server, a web server, and harm done to what they answer.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use squall_dataset::{Dataset, DatasetUrl, ObjectVersion, OpenOptions, Origin, Store, StoreOptions};
use squall_schema::metadata::{self, DatasetMetadata, FileEntry, RowGroupEntry};
use squall_schema::{Error, ErrorKind};
use squall_testkit::{
    Fault, FaultOptions, FaultProxy, Gate, Layout, S3Server, Table, WebServer, rows, s3_options, write_file,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Bytes of the object `bucket/data/blob`.
const BLOB: usize = 256 << 10;

/// A bucket with a blob, an S3 server of it, a proxy in front, and a runtime to read on.
struct Place {
    runtime: Runtime,
    root: TempDir,
    server: S3Server,
    proxy: FaultProxy,
}

impl Place {
    fn new(faults: FaultOptions) -> Self {
        let root = TempDir::new().expect("a directory");
        fs::create_dir_all(root.path().join("bucket/data")).expect("a bucket");
        fs::write(root.path().join("bucket/data/blob"), blob(7)).expect("an object");
        let server = S3Server::start(root.path());
        let proxy = FaultProxy::start(server.address(), faults);
        Self {
            runtime: Runtime::new().expect("a runtime"),
            root,
            server,
            proxy,
        }
    }

    /// Options for tests: what waits in earnest waits shortly here.
    fn options(&self) -> StoreOptions {
        StoreOptions::default()
            .with_options(s3_options(self.proxy.address()))
            .with_backoff(Duration::from_millis(1), Duration::from_millis(4))
            .with_coalesce_gap(1_000)
            .with_max_request(64 << 10)
            .with_read_timeout(Duration::from_secs(1))
    }

    fn store(&self, options: &StoreOptions) -> Store {
        let url = DatasetUrl::parse("s3://bucket/data").expect("a URL");
        self.runtime.block_on(Store::open_with(&url, options)).expect("a store")
    }

    /// Reads ranges of the blob that take several requests, and compares them.
    fn read(&self, store: &Store) -> Result<(), Error> {
        let ranges = [10..20u64, 500..600, 1_000..150_000, 250_000..BLOB as u64];
        let got = self.runtime.block_on(store.get_ranges(&"blob".into(), &ranges))?;
        let expected = blob(7);
        for (range, bytes) in ranges.iter().zip(got) {
            assert!(bytes == expected[range.start as usize..range.end as usize], "{range:?}");
        }
        Ok(())
    }
}

fn blob(seed: usize) -> Vec<u8> {
    (0..BLOB)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8 ^ seed as u8)
        .collect()
}

/// All ranges of the blob by one request.
fn one_request(options: StoreOptions) -> StoreOptions {
    options.with_coalesce_gap(BLOB as u64).with_max_request(BLOB as u64)
}

fn scripted(faults: &[Fault]) -> Place {
    let place = Place::new(FaultOptions::default());
    place.proxy.next(faults.iter().copied().map(Some));
    place
}

#[test]
fn ranges_are_joined_split_and_read_side_by_side() {
    let place = Place::new(FaultOptions::default());
    let store = place.store(&place.options());
    place.read(&store).expect("bytes");
    // The first two are one, the third is three requests, the last is far away.
    assert_eq!(place.proxy.requests(), 5);
    let metrics = store.metrics();
    assert_eq!((metrics.requests, metrics.retries.total()), (5, 0));
    assert_eq!(metrics.bytes, 590 + 149_000 + BLOB as u64 - 250_000);
    assert!(!metrics.in_requests.is_zero());

    let whole = place.runtime.block_on(store.get(&"blob".into())).expect("an answer");
    assert!(whole.expect("the object") == blob(7));
    assert!(
        place
            .runtime
            .block_on(store.get(&"none".into()))
            .expect("an answer")
            .is_none()
    );
    let empty = place
        .runtime
        .block_on(store.get_ranges(&"blob".into(), &[5..5]))
        .expect("nothing");
    assert_eq!(empty, [&b""[..]]);
    let beyond = BLOB as u64 - 1..BLOB as u64 + 1;
    let error = place
        .runtime
        .block_on(store.get_ranges(&"blob".into(), &[beyond]))
        .expect_err("too far");
    assert!(
        error
            .to_string()
            .starts_with("the file is shorter than its footer says"),
        "{error}"
    );
}

#[test]
fn each_fault_is_survived_and_counted() {
    for (fault, times) in [
        (Fault::Internal, 2),
        (Fault::SlowDown, 2),
        (Fault::TooMany, 2),
        (Fault::Slow, 1),
        (Fault::Hung, 1),
        (Fault::Truncated, 2),
        (Fault::Reset, 2),
        (Fault::Expired, 1),
    ] {
        let place = scripted(&vec![fault; times]);
        let store = place.store(&place.options());
        place.read(&store).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        let retries = store.metrics().retries;
        assert_eq!(place.proxy.count(fault), times as u64, "{fault:?}");
        let expected = if fault == Fault::Slow { 0 } else { times as u64 };
        assert_eq!(retries.total(), expected, "{fault:?}: {retries:?}");
        let counted = match fault {
            Fault::Internal => retries.server,
            Fault::SlowDown | Fault::TooMany => retries.throttled,
            Fault::Hung => retries.timeout,
            Fault::Truncated => retries.truncated,
            Fault::Reset => retries.truncated + retries.connection,
            Fault::Expired => retries.credentials,
            _ => 0,
        };
        assert_eq!(counted, expected, "{fault:?}: {retries:?}");
    }
}

#[test]
fn only_the_missing_bytes_are_asked_again() {
    for fault in [Fault::Truncated, Fault::Reset] {
        let place = scripted(&[fault; 3]);
        let store = place.store(&one_request(place.options()).with_retries(1));
        let range = [0..BLOB as u64];
        let got = place
            .runtime
            .block_on(store.get_ranges(&"blob".into(), &range))
            .expect("bytes");
        assert!(got[0] == blob(7));
        let bytes = store.metrics().bytes;
        // Three failures in a row with one retry allowed: each brought half of what was missing, or a reset lost it.
        assert!(fault == Fault::Reset || bytes == BLOB as u64, "{bytes}");
    }
}

#[test]
fn retry_after_is_honoured() {
    let place = Place::new(FaultOptions {
        retry_after: 1,
        ..FaultOptions::default()
    });
    place.proxy.next([Some(Fault::TooMany)]);
    let store = place.store(&place.options());
    let began = Instant::now();
    place.read(&store).expect("bytes");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(store.metrics().waited >= Duration::from_secs(1));
    // It is not waited for beyond the time that the read has.
    place.proxy.next([Some(Fault::TooMany)]);
    let store = place.store(&place.options().with_total_timeout(Duration::from_millis(500)));
    let began = Instant::now();
    let error = place.read(&store).expect_err("no time");
    assert!(began.elapsed() < Duration::from_millis(900));
    assert!(error.to_string().contains("HTTP 429 TooManyRequests"), "{error}");
}

#[test]
fn patience_ends() {
    // Retries that are used up.
    let place = scripted(&[Fault::SlowDown; 9]);
    let store = place.store(&one_request(place.options()).with_retries(3));
    let error = place.read(&store).expect_err("no bytes");
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert_eq!(
        error.to_string(),
        "the store asks for fewer requests (file blob, URL s3://bucket/data): \
         gave up after 3 retries: HTTP 503 SlowDown: harm on purpose"
    );
    // Time that is used up, by a store that hangs.
    let place = scripted(&[Fault::Hung; 40]);
    let limits = place.options().with_read_timeout(Duration::from_millis(50));
    let store = place.store(&limits.with_total_timeout(Duration::from_millis(400)));
    let began = Instant::now();
    let error = place.read(&store).expect_err("no bytes");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(
        error.to_string().starts_with("no byte came in time (file blob"),
        "{error}"
    );
    // By one that hangs longer than a read may take.
    let place = scripted(&[Fault::Hung; 40]);
    let limits = place.options().with_read_timeout(Duration::from_secs(60));
    let store = place.store(&limits.with_total_timeout(Duration::from_millis(200)));
    let error = place.read(&store).expect_err("no bytes");
    assert!(error.to_string().contains("gave up after 200ms"), "{error}");
}

#[test]
fn a_hedge_wins_over_a_read_that_hangs() {
    let place = scripted(&[Fault::Hung]);
    let options = place.options().with_read_timeout(Duration::from_secs(60));
    let store = place.store(&options.with_hedge_after(Duration::from_millis(30)));
    place.read(&store).expect("bytes");
    let metrics = store.metrics();
    assert!(metrics.hedges_sent >= 1 && metrics.hedges_won >= 1, "{metrics:?}");
    assert_eq!(metrics.retries.total(), 0);

    // A second request that fails does no harm to the first.
    let place = Place::new(FaultOptions::default());
    place.proxy.next([Some(Fault::Slow), Some(Fault::Internal)]);
    let store = place.store(&place.options().with_hedge_after(Duration::from_millis(1)));
    let got = place
        .runtime
        .block_on(store.get_ranges(&"blob".into(), &[0..9_000]))
        .expect("bytes");
    assert!(got[0] == blob(7)[..9_000]);
    assert_eq!(store.metrics().retries.total(), 0);
}

#[test]
fn credentials_are_read_anew_once() {
    // The first key is wrong; the provider has the right one when it is asked again.
    let place = Place::new(FaultOptions::default());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let options = place.options().with_provider(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(BTreeMap::new())
    });
    place.proxy.next([Some(Fault::Expired)]);
    let store = place.store(&options);
    let before = asked.load(Ordering::Relaxed);
    place.read(&store).expect("bytes");
    assert_eq!(
        (asked.load(Ordering::Relaxed) - before, store.metrics().renewals),
        (1, 1)
    );

    let place = scripted(&[Fault::Expired; 20]);
    let store = place.store(&one_request(place.options()));
    let error = place.read(&store).expect_err("expired").to_string();
    assert!(
        error.starts_with(
            "the credentials have expired, and reading them anew gave none that work: renew aws_access_key_id"
        ),
        "{error}"
    );
    assert_eq!(store.metrics().renewals, 1);
}

/// A refused HEAD says nothing of why.
#[test]
fn the_reason_of_a_refused_head_is_asked_for() {
    let place = scripted(&[Fault::Expired; 2]);
    let store = place.store(&place.options());
    let head = || place.runtime.block_on(store.head(&"blob".into()));
    assert_eq!(head().expect("an answer").expect("an object").size, BLOB as u64);
    assert_eq!((store.metrics().renewals, place.proxy.requests()), (1, 3));
    // An address that is signed for GET alone.
    place.proxy.next([Some(Fault::Expired)]);
    assert_eq!(head().expect("an answer").expect("an object").size, BLOB as u64);
    assert_eq!((store.metrics().renewals, place.proxy.requests()), (1, 5));
}

#[test]
fn all_faults_together_lose_nothing() {
    let place = Place::new(FaultOptions {
        seed: 3,
        rates: Fault::ALL.map(|fault| (fault, 0.04)).to_vec(),
        retry_after: 0,
    });
    let options = place
        .options()
        .with_read_timeout(Duration::from_millis(300))
        .with_concurrency(4)
        .with_max_request(8 << 10);
    let store = place.store(&options);
    for _ in 0..4 {
        place.read(&store).expect("bytes");
    }
    let met = place.proxy.faults().into_iter().filter(|(_, n)| *n > 0).count();
    assert!(met >= 5, "{:?}", place.proxy.faults());
    assert!(place.proxy.requests() > 100);
}

#[test]
fn a_replaced_object_is_an_error_that_names_both_states() {
    for conditional in [true, false] {
        let place = Place::new(FaultOptions::default());
        let store = place.store(&place.options());
        let path = Path::from("blob");
        if conditional {
            // The first read tells the ETag; later ones ask for it.
            place.read(&store).expect("bytes");
        } else {
            // A listing of this server has no ETags: what comes back is compared.
            store.pin(&path, ObjectVersion::of_size(17));
        }
        let before = store.version(&path).expect("a version");
        fs::write(place.root.path().join("bucket/data/blob"), blob(8)).expect("another object");
        let error = place
            .runtime
            .block_on(store.get_ranges(&path, &[0..10]))
            .expect_err("another object");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let now = place
            .runtime
            .block_on(store.head(&path))
            .expect("an answer")
            .expect("the object");
        assert_ne!(before.e_tag, now.e_tag);
        assert_eq!(
            error.message(),
            format!("the file was replaced since the dataset was opened: expected {before}, found {now}")
        );
    }
}

#[test]
fn a_deleted_object_is_an_error_that_names_it() {
    let place = Place::new(FaultOptions::default());
    let store = place.store(&place.options());
    place.read(&store).expect("bytes");
    fs::remove_file(place.root.path().join("bucket/data/blob")).expect("no object");
    let error = place.read(&store).expect_err("no object");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        "the file was deleted since the dataset was opened (file blob, URL s3://bucket/data)"
    );
}

#[test]
fn local_files_are_compared_too() {
    let table = Table::write(&Layout::default());
    let runtime = Runtime::new().expect("a runtime");
    let url = DatasetUrl::parse(&table.url()).expect("a URL");
    let dataset = runtime.block_on(Dataset::open(&url)).expect("a dataset");
    let (file, path) = (&table.files()[1], &dataset.files()[1].path);
    let read = || {
        runtime
            .block_on(dataset.store().get_ranges(path, &[0..4]))
            .map(|bytes| bytes.concat())
    };
    assert_eq!(read().expect("bytes"), b"PAR1");
    write_file(file, &rows(0..7), &Layout::default());
    let error = read().expect_err("another file");
    assert!(
        error
            .message()
            .starts_with("the file was replaced since the dataset was opened: expected ETag "),
        "{error}"
    );
    fs::remove_file(file).expect("no file");
    assert_eq!(read().expect_err("no file").kind(), ErrorKind::NotFound);
}

#[test]
fn datasets_of_a_bucket_open() {
    let table = Table::write_partitioned("day", &["1", "2"], &Layout::default());
    let root = TempDir::new().expect("a directory");
    copy(table.path(), &root.path().join("bucket/train"));
    let server = S3Server::start(root.path());
    let runtime = Runtime::new().expect("a runtime");
    let options = OpenOptions::default().with_store(StoreOptions::default().with_options(server.options()));
    let open = |url: &str| runtime.block_on(Dataset::open_with(&DatasetUrl::parse(url)?, &options));
    let remote = open("s3a://bucket/train").expect("a dataset");
    let local = runtime
        .block_on(Dataset::open(&DatasetUrl::parse(&table.url()).expect("a URL")))
        .expect("a dataset");
    assert_eq!(remote.schema().to_string(), local.schema().to_string());
    assert_eq!(remote.pieces(), local.pieces());
    assert_eq!(remote.files().len(), 2);
    // One file of it.
    let one = open("s3://bucket/train/day=2/part-00000.parquet").expect("a dataset");
    assert_eq!(one.rows(), 30);
    // A directory that is named as a file.
    fs::rename(root.path().join("bucket/train"), root.path().join("bucket/all.parquet")).expect("renamed");
    assert_eq!(open("s3://bucket/all.parquet").expect("a dataset").rows(), 80);
    assert_eq!(
        open("s3://bucket/none").expect_err("nothing").kind(),
        ErrorKind::NotFound
    );
    drop(server);
}

#[test]
fn whoever_may_not_read_is_told_so_without_secrets() {
    let place = Place::new(FaultOptions::default());
    let open = |options: StoreOptions| {
        let url = DatasetUrl::parse("s3://bucket/data").expect("a URL");
        let options = OpenOptions::default().with_store(options);
        place
            .runtime
            .block_on(Dataset::open_with(&url, &options))
            .expect_err("refused")
            .to_string()
    };
    let direct = StoreOptions::default().with_options(place.server.options());
    let wrong = open(direct.clone().with_option("aws_secret_access_key", "hunter2"));
    assert!(
        wrong.contains("HTTP 403 SignatureDoesNotMatch") && !wrong.contains("hunter2"),
        "{wrong}"
    );
    let nobody = open(direct.clone().with_option("skip_signature", "true"));
    assert!(
        nobody.starts_with("access is denied") && nobody.contains("HTTP 403"),
        "{nobody}"
    );
    let typo = open(direct.clone().with_option("aws_acess_key_id", "hunter2"));
    assert_eq!(
        typo,
        "no storage option of S3 has the name aws_acess_key_id: did you mean access_key_id (URL s3://bucket/data)"
    );
    let plain = open(direct.with_option("allow_http", "false"));
    assert!(
        plain.contains("the storage option allow_http=true allows it"),
        "{plain}"
    );
}

#[test]
fn anonymous_access_needs_no_key() {
    let place = Place::new(FaultOptions::default());
    let server = S3Server::start_anonymous(place.root.path());
    let options = StoreOptions::default()
        .with_option("endpoint", format!("http://{}", server.address()))
        .with_option("allow_http", "true")
        .with_option("skip_signature", "true");
    place.read(&place.store(&options)).expect("bytes");
}

#[test]
fn a_file_on_the_web_is_a_dataset_and_its_query_is_a_secret() {
    let table = Table::write(&Layout::default());
    let server = WebServer::start_gated(
        table.path(),
        Gate {
            query: Some("sig=hunter2".to_owned()),
            authorization: Some("Basic dXNlcjpodW50ZXIz".to_owned()),
        },
    );
    let runtime = Runtime::new().expect("a runtime");
    let open = |name: &str, credentials: &str, query: &str| {
        let url = DatasetUrl::parse(&format!("http://{credentials}{}/{name}{query}", server.address()))?;
        runtime.block_on(Dataset::open(&url))
    };
    let dataset = open("part-00001.parquet", "user:hunter3@", "?sig=hunter2").expect("a dataset");
    assert_eq!((dataset.rows(), dataset.files().len()), (30, 1));
    for (name, credentials, query) in [
        ("part-00001.parquet", "user:hunter4@", "?sig=hunter2"),
        ("part-00001.parquet", "user:hunter3@", "?sig=hunter5"),
        ("", "user:hunter3@", "?sig=hunter2"),
        ("none.parquet", "user:hunter3@", "?sig=hunter2"),
    ] {
        let error = open(name, credentials, query).expect_err("no dataset").to_string();
        assert!(!error.contains("hunter"), "{error}");
    }
    let error = open("", "user:hunter3@", "?sig=hunter2")
        .expect_err("no listing")
        .to_string();
    assert!(
        error.starts_with("the web server has no listing (WebDAV): expected a dataset that Squall wrote"),
        "{error}"
    );
}

#[test]
fn what_squall_wrote_opens_on_a_web_server_without_a_listing() {
    let table = Table::write(&Layout::default());
    describe(&table);
    let server = WebServer::start(table.path());
    let runtime = Runtime::new().expect("a runtime");
    let url = DatasetUrl::parse(&format!("http://{}", server.address())).expect("a URL");
    let dataset = runtime.block_on(Dataset::open(&url)).expect("a dataset");
    assert!(matches!(dataset.origin(), Origin::Squall(_)));
    assert_eq!((dataset.rows(), dataset.files().len()), (120, 3));
    // Nobody listed the files: what a file is comes with the first answer, but for its size.
    let (path, store) = (&dataset.files()[0].path, dataset.store());
    let size = dataset.files()[0].size;
    assert_eq!(store.version(path), Some(ObjectVersion::of_size(size)));
    let read = || runtime.block_on(store.get_ranges(path, &[0..4, size - 4..size]));
    assert_eq!(read().expect("bytes").concat(), b"PAR1PAR1");
    assert!(store.version(path).is_some_and(|version| version.e_tag.is_some()));
    // The same bytes, written again.
    let file = &table.files()[0];
    fs::write(file, fs::read(file).expect("a file")).expect("written");
    let error = read().expect_err("another file");
    assert_eq!(error.message().matches("ETag \"").count(), 2, "{error}");
    // Another size than the one that is written down.
    let dataset = runtime.block_on(Dataset::open(&url)).expect("a dataset");
    write_file(file, &rows(0..7), &Layout::default());
    let error = runtime
        .block_on(dataset.store().get_ranges(path, &[0..4]))
        .expect_err("another file");
    assert!(
        error
            .message()
            .contains(&format!("expected {size} bytes, found ETag \"")),
        "{error}"
    );
}

/// Writes the metadata that Squall gives a dataset.
fn describe(table: &Table) {
    let runtime = Runtime::new().expect("a runtime");
    let url = DatasetUrl::parse(&table.url()).expect("a URL");
    let dataset = runtime.block_on(Dataset::open(&url)).expect("a dataset");
    let row_groups = |file: usize| {
        let own = dataset.pieces().iter().filter(move |piece| piece.file as usize == file);
        let entry = |piece: &squall_dataset::Piece| RowGroupEntry {
            rows: piece.rows,
            compressed_bytes: piece.compressed_bytes,
            uncompressed_bytes: piece.uncompressed_bytes,
        };
        own.map(entry).collect()
    };
    let files = dataset.files().iter().enumerate();
    let described = DatasetMetadata {
        created_by: "a test".to_owned(),
        fingerprint: "0".to_owned(),
        schema: dataset.schema().clone(),
        partition_by: Vec::new(),
        files: files
            .map(|(i, file)| FileEntry {
                path: file.path.to_string(),
                size: file.size,
                checksum: None,
                partition: Default::default(),
                row_groups: row_groups(i),
            })
            .collect(),
    };
    let pair = KeyValue::new(metadata::KEY.to_owned(), described.to_json().expect("JSON"));
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![pair]))
        .build();
    let file = fs::File::create(table.path().join(metadata::FILE)).expect("a new file");
    let writer = ArrowWriter::try_new(file, rows(0..1).schema(), Some(properties)).expect("a writer");
    writer.close().expect("a footer written");
}

#[test]
fn a_store_that_was_not_built_in_is_named() {
    let url = DatasetUrl::parse("hdfs://cluster/train").expect("a URL");
    if cfg!(feature = "hdfs") {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    let error = runtime.block_on(Dataset::open(&url)).expect_err("no such store");
    assert_eq!(
        error.to_string(),
        "this program was built without the store of the URL: build it with the feature hdfs (URL hdfs://cluster/train)"
    );
}

#[test]
fn settings_of_every_store_are_checked() {
    let create = |url: &str, options: &[(&str, &str)]| {
        let options = StoreOptions::default().with_options(options.iter().copied());
        Store::create_with(&DatasetUrl::parse(url).expect("a URL"), &options)
    };
    let sas = "abfss://box@account.dfs.core.windows.net/a?sv=2020&sig=hunter2";
    create("gs://bucket/a", &[("skip_signature", "true")]).expect("a store");
    create("az://box/a", &[("account_name", "a"), ("skip_signature", "true")]).expect("a store");
    create(sas, &[]).expect("a store");
    create(
        "https://account.blob.core.windows.net/box/a",
        &[("account_key", "aHVudGVyMg==")],
    )
    .expect("a store");
    create("https://host/a", &[("timeout", "7 seconds")]).expect("a store");
    for (url, option, hint) in [
        ("gs://bucket/a", "google_servce_account", "did you mean service_account"),
        ("az://box/a", "acount_name", "did you mean account_name"),
        ("https://host/a", "alow_http", "did you mean allow_http"),
    ] {
        let error = create(url, &[(option, "hunter2")]).expect_err("unknown").to_string();
        assert!(error.contains(hint) && !error.contains("hunter2"), "{error}");
    }
    let options = StoreOptions::default().with_option("token", "hunter2");
    assert!(!format!("{options:?}").contains("hunter2"));
    let error = Store::create_with(
        &DatasetUrl::parse("memory://x").expect("a URL"),
        &options.with_concurrency(0),
    );
    assert_eq!(
        error.expect_err("0").message(),
        "the concurrency of a store is 0: expected more than that"
    );
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).expect("a copy")),
        }
    }
}
