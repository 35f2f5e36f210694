use proptest::prelude::*;

use super::*;

#[test]
fn nothing_is_called() {
    // pickle.dumps of an object whose __reduce__ gives (os.system, ("touch /tmp/owned",))
    let pickle = Pickle::parse(b"cposix\nsystem\n(S'touch /tmp/owned'\ntR.").expect("data");
    let Node::Object(object) = pickle.node(pickle.root()) else {
        panic!("not an object");
    };
    assert_eq!(
        pickle.node(object.class),
        &Node::Global("posix".into(), "system".into())
    );
}

#[test]
fn bombs_are_bounded() {
    // Ten lists, each holding the one before ten times: shared, not copied.
    let mut bomb = b"]q\x00".to_vec();
    for i in 0u8..10 {
        bomb.extend([b'(']);
        bomb.extend([b'h', i].repeat(10));
        bomb.extend([b'l', b'q', i + 1]);
    }
    bomb.push(b'.');
    assert!(Pickle::parse(&bomb).is_ok_and(|pickle| pickle.nodes.len() == 11));
    // More values than the limit.
    let many = [vec![b'N'; LIMIT + 1], b".".to_vec()].concat();
    assert!(Pickle::parse(&many).is_err());
    // A length beyond the input.
    assert!(Pickle::parse(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.").is_err());
    // A name that is copied by each of many operations.
    let name = |length: usize| [b"X", &(length as u32).to_le_bytes()[..], &vec![b'a'; length], b"\x94"].concat();
    for (length, times) in [
        (NAME_LIMIT, 8),
        (NAME_LIMIT + 1, 0),
        (NAME_LIMIT, NAMES_LIMIT / NAME_LIMIT / 2 + 1),
    ] {
        let globals = b"h\0h\0\x93".repeat(times);
        let parsed = Pickle::parse(&[name(length), b"h\0h\0\x93".to_vec(), globals, b".".to_vec()].concat());
        assert_eq!(parsed.is_ok(), times == 8, "{length} bytes, {times} times: {parsed:?}");
    }
    // Doubling by DUP.
    assert!(Pickle::parse(&[b"N".to_vec(), vec![b'2'; LIMIT + 1]].concat()).is_err());
}

#[test]
fn what_reaches_outside_is_refused() {
    for pickle in [
        &b"Pid\n."[..],
        b"(\x82\x01.",
        b"\x80\x05\x97.",
        b"(ios\nsystem\n.",
        b"\x80\x06N.",
    ] {
        assert!(Pickle::parse(pickle).is_err(), "{pickle:?}");
    }
}

#[test]
fn numbers_and_text_of_all_protocols() {
    let one = |bytes: &[u8]| {
        let pickle = Pickle::parse(bytes).expect("a pickle");
        pickle.node(pickle.root()).clone()
    };
    assert_eq!(one(b"I01\n."), Node::Bool(true));
    assert_eq!(one(b"I-7\n."), Node::Int(-7));
    assert_eq!(one(b"L12L\n."), Node::Int(12));
    assert_eq!(one(b"\x80\x02\x8a\x02\x00\xff."), Node::Int(-256));
    assert_eq!(one(b"J\xff\xff\xff\xff."), Node::Int(-1));
    assert_eq!(one(b"G\x3f\xf8\0\0\0\0\0\0."), Node::Float(1.5));
    assert_eq!(one(b"S'a\\x41\\n\\''\n."), Node::Str("aA\n'".into()));
    assert_eq!(one(b"U\x02\xff\xfe."), Node::Bytes(vec![0xff, 0xfe]));
    assert_eq!(one(b"V\\u00e9\xe9\n."), Node::Str("éé".into()));
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::parse(&bytes);
    }

    #[test]
    fn no_sequence_of_operations_panics(
        bytes in proptest::collection::vec(prop::sample::select(b"(.012NIS\n'ld])}tasupgcRb\x80\x81\x85\x86\x93\x94h\x00q\x01".to_vec()), 0..60)
    ) {
        let _ = Pickle::parse(&bytes);
    }
}
