use squall_schema::ErrorKind;

use super::*;

fn check(text: &str, scheme: Scheme, root: &str, path: &str) {
    let url = DatasetUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!((url.scheme(), url.root(), url.path()), (scheme, root, path), "{text}");
    assert_eq!(url.to_string(), format!("{root}/{path}"));
}

#[test]
fn paths_and_file_urls_are_the_same() {
    let path = DatasetUrl::parse("/data/a b").expect("path");
    assert_eq!(DatasetUrl::parse("file:///data/a%20b").expect("url"), path);
    assert_eq!(path.to_string(), "/data/a b");
    assert_eq!(
        DatasetUrl::parse("memory://x/y/").expect("url").to_string(),
        "memory://x/y"
    );
}

#[test]
fn every_scheme_parses() {
    for name in ["s3", "s3a", "s3n", "S3"] {
        check(&format!("{name}://bucket/a/b/"), Scheme::S3, "s3://bucket", "a/b");
    }
    for name in ["gs", "gcs"] {
        check(&format!("{name}://bucket"), Scheme::Gcs, "gs://bucket", "");
    }
    for name in ["az", "abfs", "abfss", "azure", "adl"] {
        check(&format!("{name}://box/a"), Scheme::Azure, &format!("{name}://box"), "a");
    }
    let account = "abfss://box@account.dfs.core.windows.net";
    check(&format!("{account}/a/b"), Scheme::Azure, account, "a/b");
    check("hdfs://cluster/a", Scheme::Hdfs, "hdfs://cluster", "a");
    check("hdfs://name:9000/a", Scheme::Hdfs, "hdfs://name:9000", "a");
    check("hdfs:///a", Scheme::Hdfs, "hdfs://", "a");
    check("http://host:8080/a%20b/", Scheme::Http, "http://host:8080", "a b");
    check("https://host/a", Scheme::Http, "https://host", "a");
    // Hive's escapes of values are those of the objects' names.
    check("s3://b/d=2020%253A01", Scheme::S3, "s3://b", "d=2020%3A01");
}

#[test]
fn addresses_of_stores_are_known() {
    check(
        "https://box.s3.eu-west-1.amazonaws.com/a",
        Scheme::S3,
        "https://box.s3.eu-west-1.amazonaws.com",
        "a",
    );
    check(
        "https://s3.eu-west-1.amazonaws.com/box/a/b",
        Scheme::S3,
        "https://s3.eu-west-1.amazonaws.com/box",
        "a/b",
    );
    check(
        "https://x.r2.cloudflarestorage.com/box",
        Scheme::S3,
        "https://x.r2.cloudflarestorage.com/box",
        "",
    );
    check(
        "https://account.blob.core.windows.net/box/a",
        Scheme::Azure,
        "https://account.blob.core.windows.net/box",
        "a",
    );
    // A signed address is read as it is.
    let signed = "https://box.s3.eu-west-1.amazonaws.com/a.parquet?X-Amz-Signature=0";
    check(
        signed,
        Scheme::Http,
        "https://box.s3.eu-west-1.amazonaws.com",
        "a.parquet",
    );
}

#[test]
fn nothing_prints_a_secret() {
    for text in [
        "https://user:hunter2@host/a",
        "https://host/a.parquet?token=hunter2",
        "abfss://box@account.dfs.core.windows.net/a?sv=1&sig=hunter2",
    ] {
        let url = DatasetUrl::parse(text).expect("a URL");
        assert!(!format!("{url} {url:?}").contains("hunter2"), "{url:?}");
    }
}

#[test]
fn what_is_no_dataset_is_refused_without_its_secrets() {
    for (text, kind) in [
        ("s4://user:hunter2@bucket/key", ErrorKind::Unsupported),
        ("s3://user:hunter2@bucket/key", ErrorKind::InvalidInput),
        ("s3://bucket/key?secret=hunter2", ErrorKind::InvalidInput),
        ("s3:///key", ErrorKind::InvalidInput),
        ("gs://bucket/a#hunter2", ErrorKind::InvalidInput),
        (
            "az://box:hunter2@account.dfs.core.windows.net/a",
            ErrorKind::InvalidInput,
        ),
        ("az://box@elsewhere/a", ErrorKind::InvalidInput),
        ("az://box.dotted/a", ErrorKind::InvalidInput),
        ("http://", ErrorKind::InvalidInput),
        ("file://host/a", ErrorKind::InvalidInput),
        ("", ErrorKind::InvalidInput),
    ] {
        let error = DatasetUrl::parse(text).expect_err(text);
        assert_eq!(error.kind(), kind, "{text}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
