use std::sync::LazyLock;

use proptest::prelude::*;
use squall_dataset::{Dataset, DatasetUrl};
use squall_testkit::{Layout, Table};

use super::*;
use crate::select::all_pieces;

const KEY: u128 = 0x0123_4567_89ab_cdef;

/// Row groups of 16, 16, 16, 2, 16, 14, 16, 16 and 8 rows.
static DATASET: LazyLock<Dataset> = LazyLock::new(|| {
    let table = Table::write(&Layout::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let url = DatasetUrl::parse(&table.url()).expect("a URL");
    runtime.block_on(Dataset::open(&url)).expect("a dataset")
});

fn rows_of(pieces: &[SelectedPiece]) -> Vec<(u32, Vec<u64>)> {
    let rows = |piece: &SelectedPiece| (0..piece.rows.len()).map(|n| piece.rows.nth(n)).collect();
    pieces.iter().map(|piece| (piece.piece, rows(piece))).collect()
}

/// Some rows of the dataset, dense and sparse.
fn selection() -> impl Strategy<Value = Vec<SelectedPiece>> {
    let bits = prop::collection::vec(any::<u16>().prop_map(|n| n & n.rotate_left(3)), 9);
    (bits, any::<u16>()).prop_map(|(bits, whole)| {
        let narrowed = all_pieces(&DATASET).into_iter().zip(bits).map(|(piece, bits)| {
            let keep = (0..piece.rows.len()).map(|row| whole >> piece.piece & 1 == 1 || bits >> row & 1 == 1);
            SelectedPiece {
                piece: piece.piece,
                rows: piece.rows.narrow(&keep.collect()),
            }
        });
        narrowed.filter(|piece| !piece.rows.is_empty()).collect()
    })
}

/// The file with its checksum made right.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(body) = bytes.len().checked_sub(CHECKSUM_BYTES) {
        let checksum = xxh3_64(&bytes[..body]).to_le_bytes();
        bytes[body..].copy_from_slice(&checksum);
    }
    bytes
}

proptest! {
    #[test]
    fn what_is_stored_is_loaded(pieces in selection()) {
        let all = all_pieces(&DATASET);
        let bytes = format(KEY, &all, &pieces).expect("a file");
        prop_assert!(bytes.len() as u64 <= most_bytes(&all));
        let parsed = parse(&bytes, KEY, &all).expect("rows");
        prop_assert_eq!(rows_of(&parsed), rows_of(&pieces));
        // Where only these were in question, all are left.
        let bytes = format(KEY, &pieces, &pieces).expect("a file");
        let fewer = parse(&bytes, KEY, &pieces).expect("rows");
        prop_assert_eq!(rows_of(&fewer), rows_of(&pieces));
        if let Some((_, others)) = pieces.split_first() {
            prop_assert!(parse(&bytes, KEY, others).is_err());
        }
        prop_assert!(parse(&bytes, KEY + 1, &all).is_err());
    }

    #[test]
    fn no_bytes_give_rows_that_are_not_there(
        pieces in selection(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: Option<prop::sample::Index>,
    ) {
        let all = all_pieces(&DATASET);
        let mut bytes = format(KEY, &all, &pieces).expect("a file");
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for piece in parse(&signed(bytes), KEY, &all).unwrap_or_default() {
            let rows = DATASET.pieces()[piece.piece as usize].rows;
            prop_assert!((1..=rows).contains(&piece.rows.len()));
            prop_assert!(piece.rows.nth(piece.rows.len() - 1) < rows);
        }
    }
}

#[test]
fn lengths_are_checked_before_they_are_allocated() {
    let all = all_pieces(&DATASET);
    let file = |rows: &[u8]| {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(KEY.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(rows);
        bytes.extend([0; CHECKSUM_BYTES]);
        parse(&signed(bytes), KEY, &all).map(|pieces| rows_of(&pieces))
    };
    assert_eq!(file(&[RUNS, 1, 2, 3]), Ok(vec![(0, vec![2, 3, 4])]));
    assert_eq!(file(&[BITMAP, 0b101, 0x80]), Ok(vec![(0, vec![0, 2, 15])]));
    let huge = [RUNS, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(file(&huge), Err("it has rows beyond the row group"));
    assert_eq!(
        file(&[RUNS, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0]),
        Err("it is cut short")
    );
    assert_eq!(file(&[RUNS, 1, 15, 2]), Err("it has rows beyond the row group"));
    assert_eq!(file(&[RUNS, 0]), Err("it has a row group without rows"));
    assert_eq!(file(&[ALL, 0]), Err("it is too long"));
    assert_eq!(file(&[3]), Err("it has rows in an unknown form"));
}
