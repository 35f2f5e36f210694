//! Row-group indexes: which row groups hold a value.
//!
//! Petastorm pickles a dict of indexer objects. The keys of a `SingleFieldIndexer` are numpy scalars: a dtype and the bytes of
//! one element. Row groups are ordinals over all files, by path.

use std::collections::BTreeSet;

use super::object::Objects;
use super::pickle::{Id, Node, Pickle};
use super::scalar::scalar;
use crate::{Error, Result, Value};

/// An index over one column.
#[derive(Debug, Clone, PartialEq)]
pub struct RowGroupIndex {
    /// Its name.
    pub name: String,
    /// The column.
    pub column: String,
    /// The row groups.
    pub entries: Entries,
}

/// What an index knows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Entries {
    /// `SingleFieldIndexer`: for each value, the row groups that hold it; of an array column, each element.
    Values(Vec<(Value, BTreeSet<u32>)>),
    /// `FieldNotNullIndexer`: the row groups with a value that is not null.
    NotNull(BTreeSet<u32>),
    /// A class that is not known here.
    Unknown(String),
}

impl RowGroupIndex {
    /// The row groups that hold the value; none for one that is not in the index. `value` is not looked at where the index
    /// tells nulls from others only.
    pub fn row_groups(&self, value: &Value) -> Result<BTreeSet<u32>> {
        match &self.entries {
            Entries::NotNull(row_groups) => Ok(row_groups.clone()),
            Entries::Values(values) => {
                let found = values.iter().find(|(own, _)| same(own, value));
                Ok(found.map(|(_, row_groups)| row_groups.clone()).unwrap_or_default())
            }
            Entries::Unknown(class) => Err(Error::unsupported(format!(
                "the row-group index {:?} is of the class {class}, which is not known",
                self.name
            ))),
        }
    }

    /// The indexes in Petastorm's pickled dict, in its order.
    pub fn from_pickle(bytes: &[u8]) -> Result<Vec<Self>> {
        let pickle = Pickle::parse_long(bytes)?;
        let objects = Objects(&pickle);
        indexes(objects).ok_or_else(|| Error::corrupt("the pickle holds no row-group indexes of Petastorm"))
    }
}

/// Numbers are compared as Python compares them, whatever their width.
fn same(own: &Value, other: &Value) -> bool {
    match (own, other) {
        (Value::Int(_) | Value::UInt(_), Value::Int(_) | Value::UInt(_)) => match (own.as_i64(), other.as_i64()) {
            (None, None) => own == other,
            (own, other) => own == other,
        },
        _ => match (own.as_f64(), other.as_f64()) {
            (Some(own), Some(other)) => own == other,
            _ => own == other,
        },
    }
}

fn indexes(objects: Objects<'_>) -> Option<Vec<RowGroupIndex>> {
    let Node::Dict(pairs) = objects.node(objects.root()) else {
        return None;
    };
    let mut indexes: Vec<RowGroupIndex> = Vec::with_capacity(pairs.len());
    for (name, indexer) in pairs {
        let index = index(objects, objects.text(*name)?, *indexer)?;
        indexes.retain(|own| own.name != index.name);
        indexes.push(index);
    }
    Some(indexes)
}

fn index(objects: Objects<'_>, name: &str, indexer: Id) -> Option<RowGroupIndex> {
    let made = objects.made(indexer)?;
    let state = made.state?;
    let column = objects
        .attribute(state, "_column_name")
        .and_then(|column| objects.text(column));
    let data = objects.attribute(state, "_index_data");
    let entries = match (made.class, data) {
        ("SingleFieldIndexer", Some(data)) => {
            let pairs = match objects.node(data) {
                Node::Dict(pairs) => pairs,
                _ => objects.made(data)?.pairs,
            };
            // The same value may have been set twice; the last counts.
            let values = pairs
                .iter()
                .map(|(value, set)| Some((scalar(objects, *value)?, ordinals(objects, *set)?)));
            Entries::Values(values.collect::<Option<_>>()?)
        }
        ("FieldNotNullIndexer", Some(data)) => Entries::NotNull(ordinals(objects, data)?),
        _ => Entries::Unknown(format!("{}.{}", made.module, made.class)),
    };
    Some(RowGroupIndex {
        name: name.to_owned(),
        column: column.unwrap_or_default().to_owned(),
        entries,
    })
}

/// A set of ints: an opcode of its own since protocol 4, a call with a list before.
fn ordinals(objects: Objects<'_>, id: Id) -> Option<BTreeSet<u32>> {
    let items = match objects.node(id) {
        Node::Set(items) | Node::List(items) => items,
        _ => {
            let made = objects.made(id)?;
            match (made.class, made.arguments) {
                ("set" | "frozenset", []) => return Some(BTreeSet::new()),
                ("set" | "frozenset", [items]) => return ordinals_in(objects, objects.sequence(*items)?),
                _ => return None,
            }
        }
    };
    ordinals_in(objects, items)
}

fn ordinals_in(objects: Objects<'_>, items: &[Id]) -> Option<BTreeSet<u32>> {
    let ordinal = |id: &Id| u32::try_from(scalar(objects, *id)?.as_i64()?).ok();
    items.iter().map(ordinal).collect()
}

#[cfg(test)]
mod tests {
    use super::super::scalar::decimal;
    use super::*;
    use crate::petastorm::write::{IndexKeys, WrittenIndex, index_key, index_pickle};
    use crate::{DType, TimeUnit};

    fn unhex(text: &str) -> Vec<u8> {
        let text: String = text.split_whitespace().collect();
        let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// `pickle.dumps` of a dict of numpy scalars to sets, by numpy 1.26 on Python 3.11, in protocols 2 and 5.
    #[test]
    fn numpy_scalars_of_both_protocols() {
        let (unit, utc) = (TimeUnit::Microsecond, false);
        let time = Value::Datetime {
            value: 1_577_934_245_000_000,
            unit,
            utc,
        };
        let decimal = decimal("1.75").expect("a decimal");
        let expected = [
            (Value::Int(5), vec![0, 2]),
            (Value::from("aé"), vec![1]),
            (Value::Float32(1.5), vec![4]),
            (Value::Bool(true), vec![3]),
            (time, vec![1]),
            (Value::Date(18_263), vec![1]),
            (Value::Bytes(b"x\xff".to_vec()), vec![2]),
            (decimal, vec![4]),
        ];
        for protocol in [PROTOCOL_2, PROTOCOL_5] {
            let pickle = Pickle::parse(&unhex(protocol)).expect("a pickle");
            let objects = Objects(&pickle);
            let Node::Dict(pairs) = objects.node(pickle.root()) else {
                panic!("not a dict");
            };
            let found = pairs.iter().map(|(value, set)| {
                let ordinals = ordinals(objects, *set).expect("ordinals");
                (
                    scalar(objects, *value).expect("a key"),
                    ordinals.into_iter().collect::<Vec<_>>(),
                )
            });
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (unit, utc) = (TimeUnit::Millisecond, false);
        let values = [
            (DType::UInt8, Value::Int(200)),
            (DType::UInt64, Value::UInt(u64::MAX)),
            (DType::Str, Value::from("a\\b'é\n")),
            (DType::Float32, Value::Float32(0.1)),
            (DType::Float64, Value::Float64(-1e300)),
            (DType::Bool, Value::Bool(false)),
            (DType::Bytes, Value::Bytes(vec![0, 255])),
            (DType::Date, Value::Date(-1)),
            (
                DType::Datetime { unit, utc },
                Value::Datetime {
                    value: 1_500,
                    unit,
                    utc,
                },
            ),
            (DType::Decimal(9, 2), decimal("-123.45").expect("a decimal")),
        ];
        for (dtype, value) in values {
            let key = index_key(&value, dtype).expect("a key");
            let written = [
                WrittenIndex {
                    name: "by_x".into(),
                    column: "x".into(),
                    keys: IndexKeys::Values([(key, BTreeSet::from([0, 7]))].into()),
                },
                WrittenIndex {
                    name: "has_x".into(),
                    column: "x".into(),
                    keys: IndexKeys::NotNull(BTreeSet::from([1])),
                },
            ];
            let pickle = index_pickle(&written);
            assert!(pickle.is_ascii());
            let found = RowGroupIndex::from_pickle(pickle.as_bytes()).expect("indexes");
            assert_eq!((found[0].name.as_str(), found[0].column.as_str()), ("by_x", "x"));
            assert_eq!(found[0].row_groups(&value).expect("known"), [0, 7].into(), "{value:?}");
            assert!(found[0].row_groups(&Value::from("other")).expect("known").is_empty());
            assert_eq!(found[1].entries, Entries::NotNull([1].into()));
        }
    }

    #[test]
    fn a_class_that_is_not_known_is_an_error_when_it_is_asked() {
        let pickle = b"(dVi\ncmine\nIndexer\n(tR(dV_column_name\nVx\nsbs.";
        let indexes = RowGroupIndex::from_pickle(pickle).expect("indexes");
        let error = indexes[0].row_groups(&Value::Null).expect_err("unknown");
        assert!(error.to_string().contains("mine.Indexer"), "{error}");
        assert!(RowGroupIndex::from_pickle(b"N.").is_err());
    }

    const PROTOCOL_2: &str = "\
        80027d710028636e756d70792e636f72652e6d756c746961727261790a7363616c61720a7101636e756d70790a64747970650a7102 \
        5802000000693871038988877104527105284b0358010000003c71064e4e4e4affffffff4affffffff4b0074710762635f636f6465 \
        63730a656e636f64650a710858080000000500000000000000710958060000006c6174696e31710a86710b52710c86710d52710e63 \
        5f5f6275696c74696e5f5f0a7365740a710f5d7110284b004b02658571115271126801680258020000005532711389888771145271 \
        15284b0368064e4e4e4b084b044b08747116626808580900000061000000c3a90000007117680a86711852711986711a52711b680f \
        5d711c4b016185711d52711e6801680258020000006634711f8988877120527121284b0368064e4e4e4affffffff4affffffff4b00 \
        74712262680858050000000000c3803f7123680a867124527125867126527127680f5d71284b046185712952712a68016802580200 \
        00006231712b898887712c52712d284b0358010000007c712e4e4e4e4affffffff4affffffff4b0074712f62680858010000000171 \
        30680a867131527132867133527134680f5d71354b03618571365271376801680258020000004d387138898887713952713a284b04 \
        68064e4e4e4affffffff4affffffff4b007d713b28680858020000007573713c680a86713d52713e4b014b014b0174713f86714074 \
        7141626808580a00000040c3b326721fc29b05007142680a867143527144867145527146680f5d71474b0161857148527149680168 \
        0258020000004d38714a898887714b52714c284b0468064e4e4e4affffffff4affffffff4b007d714d286808580100000044714e68 \
        0a86714f5271504b014b014b01747151867152747153626808580800000057470000000000007154680a8671555271568671575271 \
        58680f5d71594b016185715a52715b6801680258020000005332715c898887715d52715e284b03682e4e4e4e4b024b014b0074715f \
        626808580300000078c3bf7160680a867161527162867163527164680f5d71654b026185716652716763646563696d616c0a446563 \
        696d616c0a71685804000000312e3735716985716a52716b680f5d716c4b046185716d52716e752e";
    const PROTOCOL_5: &str = "\
        80059506020000000000007d94288c156e756d70792e636f72652e6d756c74696172726179948c067363616c61729493948c056e75 \
        6d7079948c0564747970659493948c02693894898887945294284b038c013c944e4e4e4affffffff4affffffff4b00749462430805 \
        0000000000000094869452948f94284b004b0290680368068c02553294898887945294284b03680a4e4e4e4b084b044b0874946243 \
        0861000000e900000094869452948f94284b0190680368068c02663494898887945294284b03680a4e4e4e4affffffff4affffffff \
        4b0074946243040000c03f94869452948f94284b0490680368068c02623194898887945294284b038c017c944e4e4e4affffffff4a \
        ffffffff4b0074946243010194869452948f94284b0390680368068c024d3894898887945294284b04680a4e4e4e4affffffff4aff \
        ffffff4b007d942843027573944b014b014b0174948694749462430840f326721f9b050094869452948f94284b0190680368068c02 \
        4d3894898887945294284b04680a4e4e4e4affffffff4affffffff4b007d9428430144944b014b014b017494869474946243085747 \
        00000000000094869452948f94284b0190680368068c02533294898887945294284b0368234e4e4e4b024b014b00749462430278ff \
        94869452948f94284b02908c07646563696d616c948c07446563696d616c9493948c04312e373594859452948f94284b0490752e";
}
