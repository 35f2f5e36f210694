//! JSON and Thrift that claim, nest and repeat.

use squall_schema::Result;
use squall_schema::footer::{key_values, key_values_of_file};
use squall_schema::metadata::DatasetMetadata;

use super::{Attack, attack};

/// Levels of nesting, and other numbers that a parser that recurses or counts in vain cannot bear.
const MANY: usize = 1_000_000;

fn json(text: &[u8]) -> Result<()> {
    DatasetMetadata::from_json(text).map(|_| ())
}

fn thrift(footer: &[u8]) -> Result<()> {
    key_values(footer).map(|_| ())
}

fn file(file: &[u8]) -> Result<()> {
    key_values_of_file(file).map(|_| ())
}

pub(super) fn attacks() -> Vec<Attack> {
    let json = |name, says, input| attack(json, name, says, input);
    let thrift = |name, says, input| attack(thrift, name, says, input);
    let file = |name, says, input| attack(file, name, says, input);
    vec![
        json("json deep lists", "invalid type: sequence", || vec![b'['; MANY]),
        json("json deep objects", "invalid type: map", || {
            b"{\"schema\":".repeat(MANY / 10)
        }),
        json("json deep unknown", "EOF", || {
            [&b"{\"unknown\":"[..], &vec![b'['; MANY]].concat()
        }),
        json("json rows of 2^64", "expected u64", || {
            let group = r#"{"rows":18446744073709551616,"compressed_bytes":0,"uncompressed_bytes":0}"#;
            stored("", &format!(r#"{{"path":"a","size":1,"row_groups":[{group}]}}"#))
        }),
        json("json rows in text", "invalid type: string", || {
            stored("", r#"{"path":"a","size":"12","row_groups":[]}"#)
        }),
        json("json negative size", "-1", || {
            stored("", r#"{"path":"a","size":-1,"row_groups":[]}"#)
        }),
        json("json number of digits", "number", || {
            stored(
                "",
                &format!(r#"{{"path":"a","size":{},"row_groups":[]}}"#, "9".repeat(MANY)),
            )
        }),
        json("json text without end", "EOF", || {
            [&b"{\"created_by\":\""[..], &vec![b'a'; MANY]].concat()
        }),
        json("json half a character", "surrogate", || {
            br#"{"created_by":"\ud800\u0041"}"#.to_vec()
        }),
        json("json not text", "is not what Squall writes", || vec![0xff; MANY]),
        json("json unknown dtype", "unknown dtype", || {
            stored(r#"{"name":"a","dtype":"object"}"#, "")
        }),
        // A comparison of each name with each other would take minutes.
        json("json many fields", "stands twice", || {
            let fields = (0..100_000)
                .map(|i| format!(r#"{{"name":"{i}","dtype":"u8"}},"#))
                .collect::<String>();
            stored(&(fields + r#"{"name":"0","dtype":"u8"}"#), "")
        }),
        thrift("thrift list of 2^31", "not Thrift compact data", || {
            b"\x59\xfc\xff\xff\xff\xff\x07\x00".to_vec()
        }),
        thrift("thrift skipped list of 2^63", "not Thrift compact data", || {
            b"\x19\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00".to_vec()
        }),
        thrift("thrift bools of 2^63", "not Thrift compact data", || {
            b"\x19\xf1\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00".to_vec()
        }),
        thrift("thrift map of 2^31", "not Thrift compact data", || {
            b"\x1b\xff\xff\xff\xff\x07\x11\x01\x01".to_vec()
        }),
        thrift("thrift binary of 2^31", "not Thrift compact data", || {
            b"\x18\xff\xff\xff\xff\x07abc\x00".to_vec()
        }),
        thrift("thrift key of 2^63", "not Thrift compact data", || {
            b"\x59\x1c\x18\xff\xff\xff\xff\xff\xff\xff\xff\x7fk\x00\x00".to_vec()
        }),
        thrift("thrift endless number", "not Thrift compact data", || {
            [&b"\x16"[..], &vec![0xff; MANY]].concat()
        }),
        thrift("thrift deep structs", "not Thrift compact data", || vec![0x1c; MANY]),
        thrift("thrift deep lists", "not Thrift compact data", || vec![0x19; MANY]),
        thrift("thrift deep maps", "not Thrift compact data", || {
            [&b"\x1b"[..], &b"\x01\xbb".repeat(MANY)].concat()
        }),
        thrift("thrift many fields", "not Thrift compact data", || vec![0x11; MANY]),
        thrift("thrift unknown type", "not Thrift compact data", || vec![0x1f, 0]),
        file("file of its footer's length", "the file has only", || {
            b"PAR1\xff\xff\xff\x7fPAR1".to_vec()
        }),
        file("file of no footer", "does not end in PAR1", || {
            b"PAR1\x00\x00\x00\x00PARE".to_vec()
        }),
        file("file of three bytes", "found 3", || b"PAR".to_vec()),
    ]
}

fn stored(fields: &str, files: &str) -> Vec<u8> {
    format!(r#"{{"created_by":"","fingerprint":"","schema":[{fields}],"files":[{files}]}}"#).into_bytes()
}
