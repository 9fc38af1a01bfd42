//! How well an estimate orders networks: rank correlations with the truth, and their bootstrap intervals.

use crate::seeds::{Draw, rng};
use rand::RngExt;
use serde::Serialize;

/// The rank of every number, from 0; equal numbers share the mean of their ranks.
pub fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&a, &b| numbers[a] == numbers[b]) {
        let mean = first as f64 + (tied.len() - 1) as f64 / 2.0;
        tied.iter().for_each(|&at| ranks[at] = mean);
        first += tied.len();
    }
    ranks
}

/// Spearman's ρ: the correlation of ranks; 0 where one of them has no order.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |product: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| product(a - mean_a, b - mean_b))
            .sum()
    };
    let squares = sum(&|a, _| a * a) * sum(&|_, b| b * b);
    if squares > 0.0 {
        sum(&|a, b| a * b) / squares.sqrt()
    } else {
        0.0
    }
}

/// Kendall's τ-b, which counts pairs (Kendall 1945), by sorting (Knight 1966); 0 where one of them has no order.
pub fn kendall(a: &[f64], b: &[f64]) -> f64 {
    let mut pairs: Vec<(f64, f64)> = a.iter().copied().zip(b.iter().copied()).collect();
    pairs.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.total_cmp(&y.1)));
    let of = |count: usize| count as f64 * (count as f64 - 1.0) / 2.0;
    let all = of(pairs.len());
    let tied_a: f64 = pairs
        .chunk_by(|x, y| x.0 == y.0)
        .map(|tied| of(tied.len()))
        .sum();
    let tied_both: f64 = pairs
        .chunk_by(|x, y| x == y)
        .map(|tied| of(tied.len()))
        .sum();
    let mut second: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
    let swaps = sort_counting(&mut second) as f64;
    let tied_b: f64 = second
        .chunk_by(|x, y| x == y)
        .map(|tied| of(tied.len()))
        .sum();
    let comparable = (all - tied_a) * (all - tied_b);
    if comparable > 0.0 {
        (all - tied_a - tied_b + tied_both - 2.0 * swaps) / comparable.sqrt()
    } else {
        0.0
    }
}

/// Sorts, and counts the pairs that stood in the wrong order.
fn sort_counting(numbers: &mut [f64]) -> u64 {
    if numbers.len() < 2 {
        return 0;
    }
    let (low, high) = numbers.split_at_mut(numbers.len() / 2);
    let mut count = sort_counting(low) + sort_counting(high);
    let mut merged = Vec::with_capacity(low.len() + high.len());
    let (mut i, mut j) = (0, 0);
    while i < low.len() && j < high.len() {
        if high[j] < low[i] {
            count += (low.len() - i) as u64;
            merged.push(high[j]);
            j += 1;
        } else {
            merged.push(low[i]);
            i += 1;
        }
    }
    merged.extend(&low[i..]);
    merged.extend(&high[j..]);
    numbers.copy_from_slice(&merged);
    count
}

/// Indices of the numbers from greatest to least; ties stay in their order.
pub fn best_first(numbers: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    order
}

/// Spearman's ρ within the top fraction by `by`.
fn among_top(by: &[f64], estimate: &[f64], truth: &[f64], fraction: f64) -> f64 {
    let count = (by.len() as f64 * fraction) as usize;
    let top = &best_first(by)[..count];
    let pick = |of: &[f64]| -> Vec<f64> { top.iter().map(|&at| of[at]).collect() };
    if count < 2 {
        0.0
    } else {
        spearman(&pick(estimate), &pick(truth))
    }
}

/// nDCG (Järvelin and Kekäläinen 2002): the discounted gain of the tenth that an estimate ranks first,
/// divided by the greatest possible. The gain of a network is 2^accuracy, with accuracy in percent.
fn ndcg(estimate: &[f64], truth: &[f64]) -> f64 {
    let best = truth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let count = truth.len().div_ceil(10);
    let gain = |order: Vec<usize>| -> f64 {
        let places = order.into_iter().take(count).enumerate();
        places
            .map(|(place, at)| (truth[at] - best).exp2() / (place as f64 + 2.0).log2())
            .sum()
    };
    gain(best_first(estimate)) / gain(best_first(truth))
}

/// How well an estimate orders networks. Each number comes with the interval that holds it in 95 % of
/// bootstrap samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the words")]
pub struct Agreement {
    pub spearman: f64,
    pub spearman_interval: [f64; 2],
    pub kendall: f64,
    pub kendall_interval: [f64; 2],
    /// ρ in the half that is best by the estimate.
    pub top_half: f64,
    pub top_half_interval: [f64; 2],
    /// ρ in the tenth that is best by the estimate.
    pub top_tenth: f64,
    pub top_tenth_interval: [f64; 2],
    /// ρ in the tenth that is best by the truth.
    pub top_tenth_of_truth: f64,
    pub top_tenth_of_truth_interval: [f64; 2],
    pub ndcg: f64,
    pub ndcg_interval: [f64; 2],
}

fn statistics(estimate: &[f64], truth: &[f64]) -> [f64; 6] {
    [
        spearman(estimate, truth),
        kendall(estimate, truth),
        among_top(estimate, estimate, truth, 0.5),
        among_top(estimate, estimate, truth, 0.1),
        among_top(truth, estimate, truth, 0.1),
        ndcg(estimate, truth),
    ]
}

/// Numbers that the bootstrap draws in all. That makes 100 to 1,000 samples: fewer for larger tables, whose
/// intervals are narrow anyway.
const DRAWS: usize = 2_000_000;

impl Agreement {
    /// Compares an estimate with the true accuracies, in percent. A seed draws the same bootstrap samples for
    /// every estimate.
    pub fn of(estimate: &[f64], truth: &[f64], seed: u64) -> Self {
        let count = truth.len();
        let samples = (DRAWS / count.max(1)).clamp(100, 1000);
        let rng = &mut rng(seed, Draw::Split, 0, 2);
        let mut found: [Vec<f64>; 6] = Default::default();
        for _ in 0..samples {
            let chosen: Vec<usize> = (0..count).map(|_| rng.random_range(0..count)).collect();
            let pick = |of: &[f64]| -> Vec<f64> { chosen.iter().map(|&at| of[at]).collect() };
            let numbers = statistics(&pick(estimate), &pick(truth));
            found
                .iter_mut()
                .zip(numbers)
                .for_each(|(all, number)| all.push(number));
        }
        let intervals = found.map(|mut all| {
            all.sort_by(f64::total_cmp);
            [0.025, 0.975].map(|share| all[((samples - 1) as f64 * share).round() as usize])
        });
        let [
            spearman,
            kendall,
            top_half,
            top_tenth,
            top_tenth_of_truth,
            ndcg,
        ] = statistics(estimate, truth);
        let [a, b, c, d, e, f] = intervals;
        Self {
            spearman,
            spearman_interval: a,
            kendall,
            kendall_interval: b,
            top_half,
            top_half_interval: c,
            top_tenth,
            top_tenth_interval: d,
            top_tenth_of_truth,
            top_tenth_of_truth_interval: e,
            ndcg,
            ndcg_interval: f,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_equal_numbers_are_their_mean() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        assert_eq!(ranks(&[f64::NEG_INFINITY, 0.5]), [0.0, 1.0]);
    }

    #[test]
    fn correlations_are_those_of_their_definitions() {
        let rng = &mut rng(1, Draw::Split, 0, 0);
        let mut draw = |most: u8| -> Vec<f64> {
            (0..60)
                .map(|_| f64::from(rng.random_range(0..most)))
                .collect()
        };
        let (a, b) = (draw(9), draw(30));
        let mut sums = [0.0; 3];
        for i in 0..60 {
            for j in 0..i {
                let (x, y) = (
                    (a[i] - a[j]).signum() * f64::from(a[i] != a[j]),
                    (b[i] - b[j]).signum() * f64::from(b[i] != b[j]),
                );
                sums[0] += x * y;
                sums[1] += x * x;
                sums[2] += y * y;
            }
        }
        let wanted = sums[0] / (sums[1] * sums[2]).sqrt();
        assert!((kendall(&a, &b) - wanted).abs() < 1e-12);
        // Without ties ρ = 1 − 6 Σd² / (n³ − n).
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[10.0, 30.0, 20.0, 40.0]) - 0.8).abs() < 1e-12);
        let reversed: Vec<f64> = a.iter().map(|x| -x).collect();
        assert!(
            (spearman(&a, &reversed) + 1.0).abs() < 1e-12
                && (kendall(&a, &reversed) + 1.0).abs() < 1e-12
        );
        assert_eq!(
            (spearman(&a, &[1.0; 60]), kendall(&a, &[1.0; 60])),
            (0.0, 0.0)
        );
    }

    #[test]
    fn intervals_hold_their_numbers_and_come_back() {
        let truth: Vec<f64> = (0..200).map(|i| f64::from(i) / 2.0).collect();
        let estimate: Vec<f64> = (0..200).map(|i| f64::from((i * 37) % 50 + i)).collect();
        let agreement = Agreement::of(&estimate, &truth, 1);
        let Agreement {
            spearman,
            spearman_interval: [low, high],
            ..
        } = agreement;
        assert!(
            low < spearman && spearman < high && high - low < 0.1,
            "{agreement:?}"
        );
        assert_eq!(agreement, Agreement::of(&estimate, &truth, 1));
        let perfect = Agreement::of(&truth, &truth, 1);
        assert_eq!(
            (perfect.spearman, perfect.kendall, perfect.ndcg),
            (1.0, 1.0, 1.0)
        );
        assert_eq!((perfect.top_half, perfect.top_tenth), (1.0, 1.0));
    }
}
