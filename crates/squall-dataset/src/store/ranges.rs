//! Which requests are made for which ranges.

use std::ops::Range;

use bytes::Bytes;

/// Ranges of at least one byte joined where no more than `gap` bytes lie between them, as far as they make no request
/// longer than `most`, or overlap. Ascending and apart; each range lies in one of them.
pub(super) fn join(ranges: &[Range<u64>], gap: u64, most: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges.iter().filter(|range| range.start < range.end).cloned().collect();
    sorted.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last)
                if range.start < last.end || (range.start - last.end <= gap && range.end - last.start <= most) =>
            {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// A range in the fewest parts of no more than `most` bytes, all about as long.
pub(super) fn split(range: &Range<u64>, most: u64) -> Vec<Range<u64>> {
    let length = range.end - range.start;
    let parts = length.div_ceil(most.max(1)).max(1);
    let size = length.div_ceil(parts);
    let start = |i: u64| (range.start + i * size).min(range.end);
    (0..parts)
        .map(|i| start(i)..start(i + 1))
        .filter(|part| part.start < part.end)
        .collect()
}

/// The bytes of each range out of those that were fetched, which [`join`] gave.
pub(super) fn cut(ranges: &[Range<u64>], joined: &[Range<u64>], fetched: &[Bytes]) -> Vec<Bytes> {
    let cut = |range: &Range<u64>| {
        if range.start >= range.end {
            return Bytes::new();
        }
        let place = joined.partition_point(|other| other.start <= range.start) - 1;
        let start = (range.start - joined[place].start) as usize;
        fetched[place].slice(start..start + (range.end - range.start) as usize)
    };
    ranges.iter().map(cut).collect()
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, of which some have one")]
mod tests {
    use super::*;

    #[test]
    fn close_ranges_are_one_request_that_is_not_too_long() {
        let joined = |ranges: &[Range<u64>]| join(ranges, 10, 100);
        assert_eq!(joined(&[0..10, 20..30, 41..50]), [0..30, 41..50]);
        assert_eq!(joined(&[20..30, 0..10, 5..5]), [0..30]);
        assert_eq!(joined(&[0..60, 60..120]), [0..60, 60..120]);
        // What overlaps is one, however long.
        assert_eq!(joined(&[0..90, 80..300, 85..90]), [0..300]);
        assert_eq!(joined(&[]), [] as [Range<u64>; 0]);
    }

    #[test]
    fn long_ranges_are_split_evenly() {
        assert_eq!(split(&(5..25), 100), [5..25]);
        assert_eq!(split(&(0..250), 100), [0..84, 84..168, 168..250]);
        assert_eq!(split(&(7..10), 1), [7..8, 8..9, 9..10]);
    }

    #[test]
    fn every_range_gets_its_own_bytes_back() {
        let file: Bytes = (0..=255).collect::<Vec<u8>>().into();
        let ranges = [30..40, 0..5, 3..9, 200..256, 7..7, 120..130];
        for (gap, most) in [(0, 1), (10, 30), (300, 300)] {
            let joined = join(&ranges, gap, most);
            let fetched: Vec<_> = joined
                .iter()
                .map(|range| file.slice(range.start as usize..range.end as usize))
                .collect();
            for (range, bytes) in ranges.iter().zip(cut(&ranges, &joined, &fetched)) {
                assert_eq!(
                    bytes,
                    file[range.start as usize..range.end as usize],
                    "{range:?} {gap} {most}"
                );
            }
        }
    }
}
