//! Pickles that call, grow, nest and claim.

use squall_schema::petastorm::unischema::Unischema;
use squall_schema::{DType, Field, Result};

use super::{Attack, attack};

/// More of anything than a pickle may have.
const MANY: usize = 10_000_000;

fn read(pickle: &[u8]) -> Result<()> {
    let cells = Field::scalar("x", DType::Bytes);
    let fields = Unischema::from_pickle(pickle)?.fields;
    fields.iter().try_for_each(|field| field.field(&cells).map(|_| ()))
}

pub(super) fn attacks() -> Vec<Attack> {
    let attack = |name, says, input| attack(read, name, says, input);
    vec![
        attack("pickle reduce", "found posix.system", || {
            b"cposix\nsystem\n(S'touch owned'\ntR.".to_vec()
        }),
        attack("pickle stack global", "found os.system", || {
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch owned\x85R.".to_vec()
        }),
        attack("pickle newobj", "found subprocess.Popen", || {
            b"\x80\x02csubprocess\nPopen\n](X\x05\x00\x00\x00touchX\x05\x00\x00\x00ownede\x85\x81.".to_vec()
        }),
        attack("pickle in a field", "not a Unischema", || {
            schema("cos\nsystem\n(S'touch owned'\ntRa")
        }),
        attack("pickle inst", "refused", || b"(S'touch owned'\nios\nsystem\n.".to_vec()),
        attack("pickle obj", "refused", || b"(cos\nsystem\nS'touch owned'\no.".to_vec()),
        attack("pickle ext1", "refused", || b"\x80\x02\x82\x01.".to_vec()),
        attack("pickle ext4", "refused", || b"\x80\x02\x84\x01\x00\x00\x00.".to_vec()),
        attack("pickle persid", "refused", || b"Ptouch owned\n.".to_vec()),
        attack("pickle binpersid", "refused", || b"K\x01Q.".to_vec()),
        attack("pickle next buffer", "refused", || b"\x80\x05\x97.".to_vec()),
        // Each list has the one before ten times: 10^250 in all.
        attack("pickle lists of lists", "not a Unischema", || {
            let level = |i: u8| [b"(", &[b'h', i].repeat(10)[..], &[b'l', b'q', i + 1]].concat();
            [&b"]q\0"[..], &(0..250).flat_map(level).collect::<Vec<_>>(), b"."].concat()
        }),
        attack("pickle tuples of itself", "not a Unischema", || {
            [&b"N"[..], &b"2\x86".repeat(190_000), b"."].concat()
        }),
        attack("pickle many marks", "too many", || vec![b'('; MANY]),
        attack("pickle deep tuples", "too many", || {
            [&b"N"[..], &vec![0x85; MANY]].concat()
        }),
        attack("pickle many lists", "too many", || b"(l".repeat(MANY / 2)),
        attack("pickle many nones", "too many", || vec![b'N'; MANY]),
        attack("pickle many memos", "too many", || {
            [&b"N"[..], &vec![0x94; MANY]].concat()
        }),
        attack("pickle far memo", "not a Unischema", || {
            b"Np18446744073709551615\nr\xff\xff\xff\xff.".to_vec()
        }),
        attack("pickle missing memo", "a memo that was not made", || {
            b"g18446744073709551615\n.".to_vec()
        }),
        attack("pickle long int", "cut short", || {
            b"\x80\x02\x8b\x00\x00\x00\x80abc.".to_vec()
        }),
        attack("pickle long text", "cut short", || b"X\xff\xff\xff\xffabc.".to_vec()),
        attack("pickle longer text", "cut short", || {
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.".to_vec()
        }),
        attack("pickle no end of line", "a line without an end", || {
            [&b"V"[..], &vec![b'a'; MANY]].concat()
        }),
        attack("pickle no end of name", "a line without an end", || {
            [&b"cos\n"[..], &vec![b'a'; MANY]].concat()
        }),
        attack("pickle many digits", "a number that is none, or too large", || {
            [&b"I"[..], &vec![b'9'; MANY], b"\n."].concat()
        }),
        attack("pickle names repeated", "names that are too long", || {
            [&text(100_000)[..], b"q\0", &b"h\0h\0\x93".repeat(100_000), b"."].concat()
        }),
        attack("pickle fields repeated", "not a Unischema", || {
            let field = format!("{}p1\na", field(&"x".repeat(100_000), ""));
            schema(&(field + &"g1\na".repeat(100_000)))
        }),
        attack("pickle dims repeated", "no tuple of numbers", || {
            let first = field("first", &"N".repeat(50_000)).replacen("tNI00", "tp1\nNI00", 1) + "a";
            let next = |i| field(&format!("f{i}"), "").replacen("(t", "g1\n", 1) + "a";
            schema(&(first + &(0..10_000).map(next).collect::<String>()))
        }),
        attack(
            "pickle attributes repeated",
            "the codec CompressedImageCodec(?) is not known",
            || {
                let state = format!("(d{}p1\n0", "Vx\nNs".repeat(80_000));
                let codec = "cpetastorm.codecs\nCompressedImageCodec\n)Rg1\nb";
                let next = |i| field(&format!("f{i}"), "").replacen("NI00", &format!("{codec}I00"), 1) + "a";
                [state.into_bytes(), schema(&(0..10_000).map(next).collect::<String>())].concat()
            },
        ),
    ]
}

fn schema(fields: &str) -> Vec<u8> {
    format!("cpetastorm.unischema\nUnischema\n(VT\n(l{fields}tR.").into_bytes()
}

fn field(name: &str, dims: &str) -> String {
    format!("cpetastorm.unischema\nUnischemaField\n(V{name}\ncnumpy\nint32\n({dims}tNI00\ntR")
}

fn text(length: u32) -> Vec<u8> {
    [&b"X"[..], &length.to_le_bytes(), &vec![b'a'; length as usize]].concat()
}
