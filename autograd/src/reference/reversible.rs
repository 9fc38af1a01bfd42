//! Momentum in fixed point.

use kernels::{Float, Reversible, ReversibleKind};

/// Maclaurin, Duvenaud and Adams 2015, in whole numbers that cannot overflow: a momentum is n/2²⁴, and
/// (x, bits) ↦ (x', bits') with x·n + bits mod n = 2²⁴·x' + bits' mod 2²⁴ and bits ÷ n = bits' ÷ 2²⁴.
pub(super) fn reversible(spec: &Reversible, args: &[&[f64]]) -> Vec<f64> {
    const D: i128 = 1 << 24;
    let one = 2_f64.powi(46);
    let (state, count) = (args[0], spec.count);
    let word = |i: usize| state[i] as i128;
    let whole = |plane: usize, i: usize| {
        let low = word(2 * plane * count + i);
        low + (word((2 * plane + 1) * count + i) << 32)
    };
    let signed = |x: i128| if x < 1 << 63 { x } else { x - (1 << 64) };
    let fixed = |x: f64| (x.abs() < Reversible::RANGE).then(|| (x * one).round_ties_even() as i128);
    let in_range = |x: i128| (x.abs() < 1 << 61).then_some(x);
    let float = |x: i128| match spec.float {
        Float::F32 => f64::from(x as f32 / one as f32),
        Float::F64 => x as f64 / one,
    };
    let product = |a: f64, b: f64| match spec.float {
        Float::F32 => f64::from(a as f32 * b as f32),
        Float::F64 => a * b,
    };
    let set = |i: usize| (whole(0, i) != 0).then(|| whole(0, i) - (1 << 62));
    let theta_before = |i: usize, lr: f64| {
        let step = fixed(product(lr, float(signed(whole(1, i)))))?;
        Some(set(i)? + step)
    };
    let ratio = |momentum: f64| {
        let n = (momentum * D as f64).round_ties_even() as i128;
        (0.0..=1.0).contains(&momentum).then_some(n.max(1))
    };
    let most = word(6 * count) + (word(6 * count + 1) << 32);
    let words = |numbers: Vec<Option<[i128; 3]>>, most: i128| {
        let mut planes = vec![0.0; Reversible::words(count)];
        for (i, numbers) in numbers.into_iter().enumerate() {
            let stored = numbers.map_or([0; 3], |[theta, u, bits]| [theta + (1 << 62), u, bits]);
            for (plane, x) in stored.into_iter().enumerate() {
                planes[2 * plane * count + i] = f64::from(x as u32);
                planes[(2 * plane + 1) * count + i] = f64::from((x >> 32) as u32);
            }
        }
        planes[6 * count] = f64::from(most as u32);
        planes[6 * count + 1] = f64::from((most >> 32) as u32);
        planes
    };
    match spec.kind {
        ReversibleKind::Weight => {
            let weight = |i| set(i).map_or(f64::NAN, float);
            (0..count).map(weight).collect()
        }
        ReversibleKind::WeightBefore => {
            let weight = |i| theta_before(i, args[1][0]).map_or(f64::NAN, float);
            (0..count).map(weight).collect()
        }
        ReversibleKind::Velocity => {
            let velocity = |i| set(i).map_or(f64::NAN, |_| float(signed(whole(1, i))));
            (0..count).map(velocity).collect()
        }
        ReversibleKind::Advance => {
            let (lr, n) = (args[4][0], ratio(args[5][0]));
            let carry = n.is_some_and(|n| most / n >= 1 << 40);
            let shift = if carry { 32 } else { 0 };
            let step = |i: usize| {
                let (theta, u, bits) = match set(i) {
                    Some(theta) => (theta, signed(whole(1, i)), whole(2, i) >> shift),
                    None => (fixed(args[1][i])?, fixed(args[2][i])?, 0),
                };
                let product_of = u * n? + bits % n?;
                let u = in_range(product_of.div_euclid(D) + fixed(args[3][i])?)?;
                let theta = in_range(theta - fixed(product(lr, float(u)))?)?;
                Some([theta, u, bits / n? * D + product_of.rem_euclid(D)])
            };
            let most = n.map_or(0, |n| (most >> shift) / n * D + D - 1);
            words((0..count).map(step).collect(), most)
        }
        ReversibleKind::Undo => {
            let (lr, n) = (args[2][0], ratio(args[3][0]));
            let step = |i: usize| {
                let theta = theta_before(i, lr)?;
                let bits = whole(2, i);
                let product = (signed(whole(1, i)) - fixed(args[1][i])?) * D + bits % D;
                let bits = bits / D * n? + product.rem_euclid(n?);
                Some([theta, product.div_euclid(n?), bits])
            };
            words((0..count).map(step).collect(), most)
        }
    }
}
