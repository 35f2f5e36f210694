//! The fields in a pickled Unischema, by whatever version of Petastorm and Python.
//!
//! The object is the same in all of them; what differs is how the pickle puts it together: `_restore` of pyspark's patched
//! named tuples, `copy_reg._reconstructor` of Python 2, or the class itself. See the variants in the tests.

use std::collections::HashSet;

use super::object::Objects;
use super::pickle::{Id, Node, Pickle};
use super::scalar::scalar;
use crate::codec::{Codec, JPEG_QUALITY};
use crate::{DType, Error, Field, Result, Shape, TimeUnit, Value};

/// Most fields of a schema. Fields may share their parts in the pickle, and do so no more when they are read.
const MAX_FIELDS: usize = 16_384;
/// Most dimensions of a numpy array.
const MAX_DIMS: usize = 64;
/// Most attributes of a codec: Petastorm's have two.
const MAX_ATTRIBUTES: usize = 64;
/// The longest name of an image format that is repeated in a message.
const MAX_FORMAT: usize = 16;

/// A Unischema: its name and its fields, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Unischema {
    /// The schema's name.
    pub name: String,
    /// The fields.
    pub fields: Vec<UnischemaField>,
}

/// A field as Petastorm declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct UnischemaField {
    /// The column's name.
    pub name: String,
    /// The numpy type of an element.
    pub dtype: NumpyType,
    /// The dimensions of a value.
    pub shape: Shape,
    /// The codec of a binary cell; `None` for what Parquet stores itself.
    pub codec: Option<Codec>,
    /// Digits in all and behind the point, where the codec is that of a decimal.
    pub decimal: Option<(u8, i8)>,
    /// Whether a value may be null.
    pub nullable: bool,
    /// Why it cannot be read, where its declaration is not understood.
    pub unreadable: Option<String>,
}

/// A numpy type, where it decides the dtype alone and where the stored column does.
#[derive(Debug, Clone, PartialEq)]
pub enum NumpyType {
    /// The dtype.
    Plain(DType),
    /// `Decimal` or `datetime64`: precision, scale and unit are those of the stored column.
    Stored(&'static str),
    /// A class that is not known here.
    Unknown(String),
}

impl UnischemaField {
    /// The field of a column that is stored as `stored`.
    pub fn field(&self, stored: &Field) -> Result<Field> {
        let unreadable = |why: String| Error::unsupported(why).at("column", &self.name);
        if let Some(why) = &self.unreadable {
            return Err(unreadable(why.clone()));
        }
        let dtype = match &self.dtype {
            NumpyType::Plain(dtype) => *dtype,
            // The cells know the unit; this is that of Petastorm's scalars.
            NumpyType::Stored("datetime64") if self.codec.is_some() => DType::Datetime {
                unit: TimeUnit::Microsecond,
                utc: false,
            },
            NumpyType::Stored(class) if self.codec.is_some() => {
                return Err(unreadable(format!("arrays of {class} are not known")));
            }
            // A directory name has digits, and no type.
            NumpyType::Stored("Decimal") if !matches!(stored.dtype, DType::Decimal(..)) => {
                let declared = self.decimal.map(|(precision, scale)| DType::Decimal(precision, scale));
                declared.unwrap_or(stored.dtype)
            }
            NumpyType::Stored(_) => stored.dtype,
            NumpyType::Unknown(class) => {
                return Err(unreadable(format!("elements of the class {class} are not known")));
            }
        };
        match &self.codec {
            Some(Codec::Unknown(class)) => return Err(unreadable(format!("the codec {class} is not known"))),
            Some(codec) if stored.dtype != DType::Bytes => {
                return Err(unreadable(format!(
                    "expected binary cells for the codec {codec}, found {}",
                    stored.dtype
                )));
            }
            _ => {}
        }
        let shape = if self.codec.is_some() {
            self.shape.clone()
        } else {
            stored.shape.clone()
        };
        Ok(Field::new(&self.name, dtype, shape)
            .with_nullable(self.nullable)
            .with_codec(self.codec.clone()))
    }
}

impl UnischemaField {
    /// The field where no file has its column: all null.
    pub fn missing(&self) -> Result<Field> {
        let stored = match (&self.codec, &self.dtype) {
            (Some(_), _) => DType::Bytes,
            (None, NumpyType::Plain(dtype)) => *dtype,
            (None, _) => self
                .decimal
                .map_or(DType::Date, |(precision, scale)| DType::Decimal(precision, scale)),
        };
        let shape = if self.codec.is_some() {
            Shape::scalar()
        } else {
            self.shape.clone()
        };
        let field = self.field(&Field::new(&self.name, stored, shape))?;
        match field.nullable {
            true => Ok(field),
            false => Err(Error::corrupt("no file has it, and it is declared without nulls").at("column", &self.name)),
        }
    }
}

impl Unischema {
    /// Reads the pickled object.
    pub fn from_pickle(bytes: &[u8]) -> Result<Self> {
        let pickle = Pickle::parse(bytes)?;
        let reader = Reader(Objects(&pickle));
        reader.unischema().ok_or_else(|| {
            let found = match reader.0.made(pickle.root()) {
                Some(made) if made.class != "Unischema" => format!(": found {}.{}", made.module, made.class),
                _ => String::new(),
            };
            Error::corrupt(format!("the pickle is not a Unischema of Petastorm{found}"))
        })
    }
}

/// Finds the Unischema among the objects of a pickle.
struct Reader<'a>(Objects<'a>);

impl<'a> Reader<'a> {
    fn unischema(&self) -> Option<Unischema> {
        let made = self.0.made(self.0.root())?;
        if made.class != "Unischema" {
            return None;
        }
        let (name, fields) = match made.state {
            Some(state) => {
                let fields = self.0.made(self.0.attribute(state, "_fields")?)?;
                // An OrderedDict is given its pairs as a list of lists by Python 2, and one by one later.
                let fields = match fields.arguments {
                    [pairs] => self
                        .0
                        .sequence(*pairs)?
                        .iter()
                        .map(|pair| Some(*self.0.sequence(*pair)?.get(1)?))
                        .collect::<Option<_>>()?,
                    _ => fields.pairs.iter().map(|(_, field)| *field).collect::<Vec<_>>(),
                };
                (self.0.attribute(state, "_name")?, fields)
            }
            // Squall writes a call of the constructor.
            None => match made.arguments {
                [name, fields] => (*name, self.0.sequence(*fields)?.to_vec()),
                _ => return None,
            },
        };
        if fields.len() > MAX_FIELDS {
            return None;
        }
        let mut names = HashSet::new();
        let name = self.0.text(name)?.to_owned();
        let one = |id| {
            let values = self.values(id)?;
            // Petastorm keeps fields by name.
            names
                .insert(self.0.text(*values.first()?)?)
                .then(|| self.field(values))?
        };
        Some(Unischema {
            name,
            fields: fields.into_iter().map(one).collect::<Option<_>>()?,
        })
    }

    /// What a field's named tuple was given.
    fn values(&self, id: Id) -> Option<&'a [Id]> {
        let made = self.0.made(id)?;
        match (made.class, made.arguments) {
            // pyspark's patch: name of the class, names of the values, the values.
            ("_restore", [_, _, values]) => self.0.sequence(*values),
            ("UnischemaField", values) => Some(values),
            _ => None,
        }
    }

    /// A field; what of it cannot be understood is kept as the reason why nobody reads it.
    fn field(&self, values: &[Id]) -> Option<UnischemaField> {
        let (name, parts) = values.split_first()?;
        let codec = parts.get(2).and_then(|codec| self.codec(*codec));
        let shape = match parts.get(1) {
            // A scalar's is not looked at.
            Some(shape) if *self.0.node(*shape) == Node::None && codec.is_none() => Ok(Shape::scalar()),
            Some(shape) => self.shape(*shape).ok_or("its shape is no tuple of numbers"),
            None => Err("it has no shape"),
        };
        let dtype = parts
            .first()
            .and_then(|dtype| self.dtype(*dtype))
            .ok_or("its dtype is no class of numpy's");
        let unreadable = shape
            .as_ref()
            .err()
            .or(dtype.as_ref().err())
            .map(|why| (*why).to_owned());
        Some(UnischemaField {
            name: self.0.text(*name)?.to_owned(),
            dtype: dtype.unwrap_or_else(|why| NumpyType::Unknown(why.to_owned())),
            shape: shape.unwrap_or_default(),
            codec,
            decimal: parts.get(2).and_then(|codec| self.decimal(*codec)),
            nullable: parts.get(3).is_some_and(|nullable| self.truth(*nullable)),
            unreadable,
        })
    }

    fn shape(&self, id: Id) -> Option<Shape> {
        let dims = self.0.sequence(id).filter(|dims| dims.len() <= MAX_DIMS)?;
        let dim = |id: &Id| match scalar(self.0, *id)? {
            Value::Null => Some(None),
            // In Petastorm 0 matches any dimension; of negative ones nobody asks.
            dim => dim.as_i64().map(|dim| usize::try_from(dim).ok().filter(|dim| *dim > 0)),
        };
        dims.iter().map(dim).collect::<Option<_>>().map(Shape)
    }

    /// What Python takes for true.
    fn truth(&self, id: Id) -> bool {
        match self.0.node(id) {
            Node::Tuple(items) | Node::List(items) | Node::Set(items) => !items.is_empty(),
            Node::Dict(pairs) => !pairs.is_empty(),
            _ => match scalar(self.0, id) {
                Some(Value::Null) => false,
                Some(Value::Bool(value)) => value,
                Some(Value::Str(text)) => !text.is_empty(),
                Some(Value::Bytes(bytes)) => !bytes.is_empty(),
                Some(number) => number.as_f64() != Some(0.0),
                None => true,
            },
        }
    }

    fn dtype(&self, id: Id) -> Option<NumpyType> {
        let made = self.0.made(id);
        let name = match (self.0.node(id), &made) {
            (Node::Str(name), _) => name,
            // numpy.dtype('i4', …)
            (_, Some(made)) if made.class == "dtype" => self.0.text(*made.arguments.first()?)?,
            (_, Some(made)) => made.class,
            _ => return None,
        };
        let plain = name.parse().ok().map(NumpyType::Plain);
        Some(
            plain.unwrap_or_else(|| match name.trim_start_matches(['<', '|', '=', '>']) {
                "bool_" | "b1" => NumpyType::Plain(DType::Bool),
                "str_" | "unicode_" | "unicode" | "U" => NumpyType::Plain(DType::Str),
                "bytes_" | "string_" | "S" => NumpyType::Plain(DType::Bytes),
                "byte" | "i1" => NumpyType::Plain(DType::Int8),
                "short" | "i2" => NumpyType::Plain(DType::Int16),
                "intc" | "i4" => NumpyType::Plain(DType::Int32),
                "int" | "int_" | "long" | "longlong" | "intp" | "i8" => NumpyType::Plain(DType::Int64),
                "ubyte" | "u1" => NumpyType::Plain(DType::UInt8),
                "ushort" | "u2" => NumpyType::Plain(DType::UInt16),
                "uintc" | "u4" => NumpyType::Plain(DType::UInt32),
                "uint" | "ulong" | "ulonglong" | "uintp" | "u8" => NumpyType::Plain(DType::UInt64),
                "half" | "f2" => NumpyType::Plain(DType::Float16),
                "single" | "f4" => NumpyType::Plain(DType::Float32),
                "float" | "float_" | "double" | "f8" => NumpyType::Plain(DType::Float64),
                "csingle" | "c8" => NumpyType::Plain(DType::Complex64),
                "complex" | "complex_" | "cdouble" | "c16" => NumpyType::Plain(DType::Complex128),
                "Decimal" => NumpyType::Stored("Decimal"),
                name if name.starts_with("datetime64") || name.starts_with("M8") => NumpyType::Stored("datetime64"),
                other => NumpyType::Unknown(match &made {
                    Some(made) => format!("{}.{}", made.module, made.class),
                    None => other.chars().take(MAX_FORMAT).collect(),
                }),
            }),
        )
    }

    /// The codec of a binary cell; `None` for scalars, which Parquet stores itself.
    fn codec(&self, id: Id) -> Option<Codec> {
        let made = self.0.made(id)?;
        Some(match made.class {
            "ScalarCodec" => return None,
            "NdarrayCodec" => Codec::Ndarray,
            "CompressedNdarrayCodec" => Codec::CompressedNdarray,
            "CompressedImageCodec" => {
                // Attributes of the object, or arguments of the constructor.
                let (format, quality) = match made.state.filter(|state| self.has_few_attributes(*state)) {
                    Some(state) => (
                        self.0.attribute(state, "_image_codec"),
                        self.0.attribute(state, "_quality"),
                    ),
                    None => (made.arguments.first().copied(), made.arguments.get(1).copied()),
                };
                let quality = match quality.map(|quality| self.0.node(quality)) {
                    Some(Node::Int(quality)) => u8::try_from((*quality).clamp(1, 100)).unwrap_or(JPEG_QUALITY),
                    _ => JPEG_QUALITY,
                };
                match format
                    .and_then(|format| self.0.text(format))
                    .map(|format| format.trim_start_matches('.'))
                {
                    Some("png") => Codec::Png,
                    Some("jpeg" | "jpg") => Codec::Jpeg { quality },
                    other => {
                        let name = other.filter(|name| name.len() <= MAX_FORMAT).unwrap_or("?");
                        Codec::Unknown(format!("CompressedImageCodec({name})"))
                    }
                }
            }
            _ => Codec::Unknown(format!("{}.{}", made.module, made.class)),
        })
    }

    /// Precision and scale of a `ScalarCodec(DecimalType(…))`.
    fn decimal(&self, codec: Id) -> Option<(u8, i8)> {
        let part = |id: Id, names: &[&str]| {
            let made = self.0.made(id)?;
            match made.state.filter(|state| self.has_few_attributes(*state)) {
                Some(state) => names.iter().map(|name| self.0.attribute(state, name)).collect(),
                None => names
                    .iter()
                    .enumerate()
                    .map(|(i, _)| made.arguments.get(i).copied())
                    .collect::<Option<Vec<_>>>(),
            }
        };
        let [spark_type] = part(codec, &["_spark_type"])?[..] else {
            return None;
        };
        if self.0.made(spark_type)?.class != "DecimalType" {
            return None;
        }
        match part(spark_type, &["precision", "scale"])?
            .iter()
            .map(|id| self.0.node(*id))
            .collect::<Vec<_>>()[..]
        {
            [Node::Int(precision), Node::Int(scale)] => {
                Some((u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?))
            }
            _ => None,
        }
    }

    fn has_few_attributes(&self, state: Id) -> bool {
        matches!(self.0.node(state), Node::Dict(pairs) if pairs.len() <= MAX_ATTRIBUTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(unischema: &Unischema) -> String {
        let field = |field: &UnischemaField| {
            let dtype = match &field.dtype {
                NumpyType::Plain(dtype) => dtype.to_string(),
                NumpyType::Stored(name) => (*name).to_owned(),
                NumpyType::Unknown(name) => format!("?{name}"),
            };
            let codec = field
                .codec
                .as_ref()
                .map(|codec| format!(" {codec}"))
                .unwrap_or_default();
            format!(
                "{} {dtype}{}{codec}{}",
                field.name,
                field.shape,
                if field.nullable { " null" } else { "" }
            )
        };
        unischema.fields.iter().map(field).collect::<Vec<_>>().join("\n")
    }

    /// Protocol 0 of Python 2, in the way of Petastorm up to 0.7.0: pyspark's `_restore`.
    #[test]
    fn restored_by_pyspark() {
        let pickle = b"ccopy_reg\n_reconstructor\n(cpetastorm.unischema\nUnischema\nc__builtin__\nobject\nNtR(dS'_name'\nS'T'\n\
            sS'_fields'\nccollections\nOrderedDict\n((l(lS'x'\nacpyspark.serializers\n_restore\n(S'UnischemaField'\n\
            (S'name'\nS'numpy_dtype'\nS'shape'\nS'codec'\nS'nullable'\nt(S'x'\ncnumpy\nuint16\n(NI3\nI0\ntccopy_reg\n_reconstructor\n\
            (cpetastorm.codecs\nNdarrayCodec\nc__builtin__\nobject\nNtRI01\nttRaatRsb.";
        let unischema = Unischema::from_pickle(pickle).expect("a Unischema");
        assert_eq!(fields(&unischema), "x uint16[?, 3, ?] npy null");
    }

    /// Petastorm's modules had other names before it was published; and names of numpy 2.
    #[test]
    fn old_modules_and_new_names() {
        for module in [
            "av.experimental.deepdrive.dataset_toolkit",
            "av.ml.dataset_toolkit",
            "petastorm",
        ] {
            let pickle = format!(
                "ccopy_reg\n_reconstructor\n(c{module}.unischema\nUnischema\nc__builtin__\nobject\nNtR(dS'_name'\nS'T'\n\
                sS'_fields'\nccollections\nOrderedDict\n((l(lS'x'\nac{module}.unischema\nUnischemaField\n\
                (S'x'\ncnumpy\nbool\n(I2\nNtccopy_reg\n_reconstructor\n\
                (c{module}.codecs\nCompressedImageCodec\nc__builtin__\nobject\nNtR(dS'_image_codec'\nS'.jpeg'\n\
                sS'_quality'\nI33\nsbI00\ntRaatRsb."
            );
            let unischema = Unischema::from_pickle(pickle.as_bytes()).expect("a Unischema");
            assert_eq!(fields(&unischema), "x bool[2, ?] jpeg(33)");
        }
    }

    /// Python takes many things for true, for a dtype and for a dimension; and what is none is the matter of one field.
    #[test]
    fn odd_declarations() {
        let declare = |dtype: &str, shape: &str, codec: &str, nullable: &str| {
            format!(
                "cpetastorm.unischema\nUnischema\n(VT\n(lcpetastorm.unischema\nUnischemaField\n(Vx\n{dtype}{shape}{codec}{nullable}tRa\
                cpetastorm.unischema\nUnischemaField\n(Vy\ncnumpy\nint32\n(tNI00\ntRatR."
            )
        };
        let npy = "cpetastorm.codecs\nNdarrayCodec\n(tR";
        let read = |pickle: String| {
            let unischema = Unischema::from_pickle(pickle.as_bytes()).expect("a Unischema");
            assert!(unischema.fields[1].field(&Field::scalar("y", DType::Int32)).is_ok());
            let field = unischema.fields[0].field(&Field::scalar("x", DType::Bytes));
            field.map_or_else(|error| error.message().to_owned(), |field| field.to_string())
        };
        let two = "(cnumpy\nint64\n(I2\ntRt";
        assert_eq!(
            read(declare("Vfloat32\n", two, npy, "I1\n")),
            "x: float32[2] as npy nullable"
        );
        assert_eq!(read(declare("V<f4\n", "(I-1\nt", npy, "I0\n")), "x: float32[?] as npy");
        let true_of_numpy = "cnumpy\nbool_\n(I01\ntR";
        assert_eq!(
            read(declare("cnumpy\nlonglong\n", "(t", npy, true_of_numpy)),
            "x: int64 as npy nullable"
        );
        assert_eq!(read(declare("cnumpy\nbytes_\n", "N", "N", "N")), "x: bytes");
        assert_eq!(
            read(declare("cnumpy\nint8\n", "N", npy, "N")),
            "its shape is no tuple of numbers"
        );
        assert_eq!(
            read(declare("I3\n", "(t", npy, "N")),
            "its dtype is no class of numpy's"
        );
    }

    #[test]
    fn what_is_not_known_is_named_when_it_is_read() {
        let pickle =
            b"cpetastorm.unischema\nUnischema\n(VT\n(lcpetastorm.unischema\nUnischemaField\n(Vx\ncmine\nType\n(t\
            cmine.codecs\nMine\n(tRI00\ntRacpetastorm.unischema\nUnischemaField\n(Vy\ncnumpy\nint32\n(tNI00\ntRatR.";
        let unischema = Unischema::from_pickle(pickle).expect("a Unischema");
        assert_eq!(fields(&unischema), "x ?mine.Type[] mine.codecs.Mine\ny int32[]");
        let error = unischema.fields[0]
            .field(&Field::scalar("x", DType::Bytes))
            .expect_err("unknown");
        assert!(error.to_string().contains("mine.Type"), "{error}");
        assert!(unischema.fields[1].field(&Field::scalar("y", DType::Int32)).is_ok());
    }

    #[test]
    fn other_pickles_are_refused() {
        for pickle in [
            &b"N."[..],
            b"cposix\nsystem\n(S'true'\ntR.",
            b"cpetastorm.unischema\nUnischema\n(tR.",
        ] {
            assert!(Unischema::from_pickle(pickle).is_err());
        }
        let error = Unischema::from_pickle(b"cposix\nsystem\n(S'true'\ntR.").expect_err("os.system");
        assert!(error.to_string().ends_with("found posix.system"), "{error}");
    }

    /// A pickle refers to a part once more at the cost of a few bytes; a schema must not grow by whole fields for that.
    #[test]
    fn shared_parts_do_not_multiply() {
        let schema = |fields: &str| format!("cpetastorm.unischema\nUnischema\n(VT\n(l{fields}tR.");
        let field = |name: &str, dims: usize| {
            format!(
                "cpetastorm.unischema\nUnischemaField\n(V{name}\ncnumpy\nint32\n({}tNI00\ntR",
                "N".repeat(dims)
            )
        };
        let ok = |fields: &str| Unischema::from_pickle(schema(fields).as_bytes()).is_ok();
        assert!(ok(&format!("{}a{}a", field("x", 0), field("y", MAX_DIMS))));
        assert!(!ok(&format!("{}p1\nag1\na", field("x", 0))));
        assert!(ok(&format!("{}a", field("x", MAX_DIMS + 1))));
        let many = |n| (0..n).map(|i| field(&format!("f{i}"), 0) + "a").collect::<String>();
        assert!(ok(&many(MAX_FIELDS)) && !ok(&many(MAX_FIELDS + 1)));
    }
}
