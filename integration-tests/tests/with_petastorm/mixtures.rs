//! The mixtures of Petastorm's `WeightedSamplingReader` and those of Squall: proportions, and where they end.

use serde_json::Value as Json;
use squall::{make_mixed_reader, make_reader};

use super::losses::print;
use super::run_python;

/// Rows of the two datasets that mix.py writes.
const ROWS: [u64; 2] = [3000, 1000];

/// Mixtures that Petastorm draws with each pair of weights.
const RUNS: usize = 3;

#[test]
fn mixtures_end_as_those_of_petastorm() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    run_python("mix.py", &[directory.path(), RUNS.to_string().as_ref()], None);
    let found = std::fs::read(directory.path().join("found.json")).expect("figures");
    let found: Json = serde_json::from_slice(&found).expect("JSON");
    let numbers = |json: &Json| -> Vec<u64> {
        let numbers = json.as_array().expect("numbers").iter();
        numbers.map(|number| number.as_u64().expect("a number")).collect()
    };
    let member = |name: &str| directory.path().join(name).display().to_string();
    let weights = found["weights"].as_array().expect("weights");
    assert_eq!(weights.len(), 3);
    for (place, pair) in weights.iter().enumerate() {
        let weight = |member: usize| pair[member].as_f64().expect("a weight");
        let ends: Vec<_> = found["ends"][place]
            .as_array()
            .expect("ends")
            .iter()
            .map(numbers)
            .collect();
        assert_eq!(ends.len(), RUNS);
        for end in &ends {
            let [a, b, last] = end[..] else { panic!("{end:?}") };
            assert_eq!(
                [a, b][last as usize],
                ROWS[last as usize],
                "Petastorm's draw after the last"
            );
        }
        for seed in 0..RUNS as u64 {
            // In the order of the samples; a rank delivers them shuffled inside its batches.
            let read = |names: [&str; 2]| {
                let members = [
                    (make_reader(member(names[0])), weight(0)),
                    (make_reader(member(names[1])), weight(1)),
                ];
                let rows = make_mixed_reader(members).seed(seed).build().expect("a reader");
                let rows = rows.map(|row| row.and_then(|row| Ok((row.id().sample, row.id().dataset, row.int("id")?))));
                let mut ids = rows.collect::<squall::Result<Vec<_>>>().expect("rows");
                ids.sort_unstable();
                ids
            };
            let ids = read(["a", "b"]);
            assert!((0..).zip(&ids).all(|(sample, (own, ..))| sample == *own));
            let mut distinct: Vec<_> = ids.iter().map(|(_, _, id)| *id).collect();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), ids.len(), "a row came twice");
            let count = |ids: &[(u64, u32, i64)]| ids.iter().filter(|(_, _, id)| *id < 100_000).count() as u64;
            let counts = [count(&ids), ids.len() as u64 - count(&ids)];
            // The same draws go on in a mixture of longer datasets: the next one is from a dataset that has given all.
            let longer: Vec<_> = read(["long_a", "long_b"])
                .iter()
                .map(|(_, dataset, _)| *dataset)
                .collect();
            let own: Vec<_> = ids.iter().map(|(_, dataset, _)| *dataset).collect();
            assert_eq!(longer[..own.len()], own);
            let next = longer[own.len()] as usize;
            assert_eq!(counts[next], ROWS[next], "Squall's draw after the last");
            assert!(counts[1 - next] <= ROWS[1 - next]);

            let blocks: Vec<_> = ids.chunks_exact(1000).map(count).collect();
            let exact = (weight(0) * 1000.0).round() as u64;
            assert!(blocks.iter().all(|own| *own == exact), "{blocks:?}");
            if seed == 0 {
                print(&format!(
                    "A mixture of {} and {}, of each 1,000 samples of the first dataset: Petastorm 0.13.1 {:?}, Squall {blocks:?}; \
                     samples at the end: Petastorm {:?}, Squall {}",
                    weight(0),
                    weight(1),
                    numbers(&found["blocks"][place]),
                    ends.iter().map(|end| end[0] + end[1]).collect::<Vec<_>>(),
                    ids.len(),
                ));
            }
        }
    }
}
