use super::*;

fn rows(weights: &[f64], sampler: &Sampler) -> Rows {
    sampler.weighted_rows(weights).expect("weights")
}

fn counts(drawn: &[u64], n: usize) -> Vec<u64> {
    let mut counts = vec![0; n];
    drawn.iter().for_each(|row| counts[*row as usize] += 1);
    counts
}

/// Golden vectors: a change here changes what every sampler draws.
#[test]
fn draws_are_pinned() {
    let weights = [1.0, 2.0, 0.0, 5.0, 0.5];
    let with = rows(&weights, &Sampler::weighted("w").samples(8));
    let many: Vec<_> = (1..=16).map(f64::from).collect();
    let without = rows(&many, &Sampler::weighted("w").replacement(false).samples(6));
    let mut drawn = without.draw(7, 1).expect("a draw");
    drawn.sort_unstable();
    assert_eq!(
        (with.draw(7, 1).expect("a draw"), drawn),
        (vec![1, 1, 3, 3, 0, 0, 3, 0], vec![2, 6, 8, 10, 13, 15])
    );
}

/// Chi-square of the draws against the weights; the limit is passed by chance once in 10^6 times, and seeds are fixed.
#[test]
fn weights_are_kept() {
    let weights = [1.0, 2.0, 3.0, 4.0, 0.0, 10.0];
    let n = 200_000;
    let drawn = rows(&weights, &Sampler::weighted("w").samples(n))
        .draw(1, 0)
        .expect("a draw");
    let counts = counts(&drawn, weights.len());
    assert_eq!(counts[4], 0);
    let chi2: f64 = weights
        .iter()
        .zip(&counts)
        .filter(|(weight, _)| **weight > 0.0)
        .map(|(weight, count)| {
            let expected = weight / 20.0 * n as f64;
            (*count as f64 - expected).powi(2) / expected
        })
        .sum();
    assert!(chi2 < 33.4, "{chi2} for 4 degrees of freedom: {counts:?}");
}

/// The first of two rows without replacement is in the sample with a known probability.
#[test]
fn without_replacement_rows_come_once_and_heavy_ones_more_often() {
    let weights = [1.0, 1.0, 2.0];
    let sampler = Sampler::weighted("w").replacement(false);
    let draws = rows(&weights, &sampler.clone().samples(2));
    let n = 40_000;
    let mut inside = [0u64; 3];
    for epoch in 0..n {
        let drawn = draws.draw(3, epoch).expect("a draw");
        assert!(drawn.len() == 2 && drawn[0] != drawn[1]);
        drawn.iter().for_each(|row| inside[*row as usize] += 1);
    }
    // One after the other: the third row is drawn first with 1/2, else second with 2/3.
    let expected = n as f64 * (0.5 + 0.5 * 2.0 / 3.0);
    let deviation = (n as f64 * (5.0 / 6.0) * (1.0 / 6.0)).sqrt();
    assert!(
        (inside[2] as f64 - expected).abs() < 5.0 * deviation,
        "{inside:?}, expected {expected}"
    );
    let error = sampler
        .clone()
        .samples(4)
        .weighted_rows(&weights)
        .expect_err("too many");
    assert!(error.to_string().contains("at most 3 samples"), "{error}");
    let error = sampler.weighted_rows(&weights).expect_err("no number");
    assert!(error.to_string().contains("needs a number of samples"), "{error}");
}

#[test]
fn balanced_rows_come_equally_often() {
    let by_class = vec![(0..900).collect::<Vec<u64>>(), (900..1000).collect()];
    let with = Rows::Balanced {
        by_class: by_class.clone(),
        replacement: true,
        samples: 100_000,
    };
    let rare = with
        .draw(1, 0)
        .expect("a draw")
        .iter()
        .filter(|row| **row >= 900)
        .count() as f64;
    assert!((rare - 50_000.0).abs() < 5.0 * 158.2, "{rare}");
    let without = |samples| Rows::Balanced {
        by_class: by_class.clone(),
        replacement: false,
        samples,
    };
    let counts = counts(&without(200).draw(1, 0).expect("a draw"), 1000);
    assert_eq!(counts[900..].iter().sum::<u64>(), 100);
    assert!(counts.iter().all(|count| *count <= 1));
    assert_ne!(
        without(200).draw(1, 0).expect("a draw"),
        without(200).draw(1, 1).expect("a draw")
    );
    let odd = without(101).draw(1, 5).expect("a draw");
    let rare = odd.iter().filter(|row| **row >= 900).count();
    assert!(odd.len() == 101 && (50..=51).contains(&rare));
}
