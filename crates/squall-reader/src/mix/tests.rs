use proptest::prelude::*;

use super::*;

fn mix(lens: &[u64], weights: &[f64], ending: Ending) -> Mix {
    Mix::new(7, lens, weights, ending).expect("a mixture")
}

/// Golden vectors: a change here changes the order of every mixture.
#[test]
fn the_mixture_is_pinned() {
    let mix = mix(&[2000, 1500, 900], &[0.5, 0.3, 0.2], Ending::Shortest);
    let first: Vec<_> = (0..12)
        .map(|sample| mix.locate(3, sample).expect("a sample").0)
        .collect();
    assert_eq!(first, [0, 1, 1, 1, 2, 0, 0, 2, 2, 0, 0, 0]);
    assert_eq!(mix.len(), 4000);
}

#[test]
fn every_block_has_the_proportions() {
    let check = |weights: &[f64], expected: &[RangeInclusive<u64>]| {
        let mix = mix(&vec![20_000; weights.len()], weights, Ending::Shortest);
        for block in 0..mix.len() / BLOCK {
            let mut counts = vec![0; weights.len()];
            mix.block(block)
                .iter()
                .for_each(|member| counts[usize::from(*member)] += 1);
            let fit = counts.iter().zip(expected).all(|(count, range)| range.contains(count));
            assert!(fit, "block {block}: {counts:?}");
        }
    };
    check(&[0.7, 0.2, 0.1], &[700..=700, 200..=200, 100..=100]);
    check(&[3.0, 1.0], &[750..=750, 250..=250]);
    check(&[1.0, 1.0, 1.0], &[332..=335, 332..=335, 332..=335]);
    check(&[0.999, 0.001], &[999..=999, 1..=1]);
}

/// 50 samples that are drawn half of the time last for about 100 samples of the mixture.
#[test]
fn an_epoch_ends_by_the_rule() {
    let lens = [50, 200];
    let shortest = mix(&lens, &[0.5, 0.5], Ending::Shortest);
    let end = shortest.len();
    assert!((80..=140).contains(&end), "{end}");
    // The next draw would be from the dataset that is empty.
    let drawn = shortest.draws_before(end);
    assert_eq!(drawn[0], 50);
    assert_eq!(usize::from(shortest.block(0)[end as usize]), 0);

    let longest = mix(&lens, &[0.5, 0.5], Ending::Longest);
    assert_eq!(longest.drawn[1], 200);
    let (member, _, sample) = longest.locate(0, longest.len() - 1).expect("the last sample");
    assert_eq!((member, sample), (1, 199));
    // The dataset that ended goes on where it stood.
    let first = (0..longest.len()).find_map(|sample| longest.locate(1, sample).filter(|(member, ..)| *member == 0));
    let drawn = longest.drawn[0];
    assert_eq!(first, Some((0, drawn / 50, drawn % 50)));
}

#[test]
fn wrong_weights_are_refused() {
    let error = |lens: &[u64], weights: &[f64]| {
        let error = Mix::new(0, lens, weights, Ending::Shortest).expect_err("wrong");
        error.to_string()
    };
    assert!(error(&[1, 1], &[1.0, 0.0]).contains("above 0, found 0e0"));
    assert!(error(&[1, 1], &[1.0, f64::NAN]).contains("found NaN"));
    assert!(error(&[1, 1], &[1.0, 1e-9]).contains("at least a millionth"));
    assert!(error(&[1], &[1.0]).contains("found 1"));
    assert!(error(&[1, 0], &[1.0, 1.0]).contains("[1, 0] samples"));
    assert!(error(&[1, 1, 1], &[1.0, 1.0]).contains("each of 3 datasets, found 2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn stretches_and_draws_agree_with_random_access(
        lens in prop::collection::vec(1u64..300, 2..5), weights in prop::collection::vec(0.05f64..1.0, 5),
        longest: bool, epoch in 0u64..4, start: prop::sample::Index, count in 1u64..200,
    ) {
        let ending = if longest { Ending::Longest } else { Ending::Shortest };
        let mix = Mix::new(5, &lens, &weights[..lens.len()], ending).expect("a mixture");
        prop_assume!(!mix.is_empty());
        let start = start.index(mix.len() as usize) as u64;
        let samples = start..(start + count).min(mix.len());
        let mut found = Vec::new();
        for stretch in mix.stretches(epoch, samples.clone(), 0) {
            prop_assert!(stretch.samples.end <= lens[stretch.source]);
            for sample in stretch.samples.clone() {
                found.push((stretch.number(sample), (stretch.source, stretch.epoch, sample)));
            }
        }
        found.sort_unstable();
        let expected: Vec<_> = samples.map(|sample| (sample, mix.locate(epoch, sample).expect("a sample"))).collect();
        for (number, (member, own_epoch, sample)) in &found {
            prop_assert!(mix.epochs_of(*member, epoch).contains(own_epoch));
            prop_assert_eq!(mix.number(*member, epoch, *own_epoch, *sample), Some(*number));
        }
        prop_assert_eq!(found, expected);
        for member in 0..lens.len() {
            for n in [0, mix.drawn[member] / 2, mix.drawn[member].saturating_sub(1)] {
                if n < mix.drawn[member] {
                    let sample = mix.sample_of(member, n).expect("a sample");
                    prop_assert_eq!(usize::from(mix.block(sample / BLOCK)[(sample % BLOCK) as usize]), member);
                    prop_assert_eq!(mix.draws_before(sample)[member], n);
                }
            }
        }
    }

    /// No sample of a dataset comes twice before all of them came.
    #[test]
    fn each_dataset_is_read_in_its_own_epochs(longest: bool, small in 1u64..10, large in 10u64..40, weight in 0.1f64..0.9) {
        let ending = if longest { Ending::Longest } else { Ending::Shortest };
        let mix = Mix::new(9, &[small, large], &[weight, 1.0 - weight], ending).expect("a mixture");
        let mut seen = std::collections::HashSet::new();
        for epoch in 0..3 {
            for sample in 0..mix.len() {
                prop_assert!(seen.insert(mix.locate(epoch, sample)));
            }
        }
        if longest {
            for (member, len) in [small, large].into_iter().enumerate() {
                let first = (0..len).all(|sample| seen.contains(&Some((member, 0, sample))));
                prop_assert!(first, "dataset {member} is not read whole");
            }
        }
    }
}
