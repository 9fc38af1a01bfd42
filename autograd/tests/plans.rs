//! Plans compute what the tape says, in the memory they forecast.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::prelude::*;
use autograd::{Bound, ConvOptions};

fn noise(shape: &[usize], seed: u64) -> Array {
    Array::uniform(F64, shape, [-0.5, 0.5], seed)
}

/// A convolutional learner with batch norm, pooling and a soft loss: every family of primitives.
fn loss<'t>(x: Var<'t>, w: Var<'t>, v: Var<'t>, y: Var<'t>) -> Result<Var<'t>> {
    let b = y.shape()[0];
    let h = x
        .upsample(2)?
        .reflect_pad(1, 1)?
        .reflect_pad(2, 1)?
        .conv2d(w, ConvOptions::padded(0))?;
    let centred = (h - h.mean_keep(&[0, 1, 2])?)?;
    let scale = ((centred * centred)?.mean_keep(&[0, 1, 2])? + 1e-5)?.rsqrt()?;
    let h = (centred * scale)?
        .leaky_relu(0.1)?
        .max_pool([2, 2], [2, 2], [0; 4])?;
    let width = h.shape().count() / b;
    let z = h.reshape([b, width])?.matmul_with(v, false, true)?.tanh()?;
    let z = (z - z.max_last()?.stop_gradient())?;
    let logsum = z.exp()?.sum_keep(&[1])?.log()?;
    (y * (z - logsum)?)?.sum_all()? * (-1.0 / b as f64)
}

#[test]
fn gradients_of_a_whole_learner_agree_with_differences_and_modes_with_each_other() {
    let device = Device::cpu(Some(2)).unwrap();
    let tape = Tape::new();
    let x = tape.input("x", F64, [3, 4, 4, 2]).unwrap();
    let w = tape.input("w", F64, [5, 3, 3, 2]).unwrap();
    let v = tape.input("v", F64, [4, 80]).unwrap();
    let y = tape.input("y", F64, [3, 4]).unwrap();
    let dw = tape.input("dw", F64, [5, 3, 3, 2]).unwrap();
    let l = loss(x, w, v, y).unwrap();
    let g = tape.grad(l, &[x, w, v]).unwrap();
    let forward = tape.jvp(&g, &[(w, dw)]).unwrap();
    let along = (g[1] * dw).unwrap().sum_all().unwrap();
    let reverse = tape.grad(along, &[x, w, v]).unwrap();
    let outs = [&[l, along][..], &g, &forward, &reverse].concat();
    let plan = Plan::new(&outs).unwrap();
    println!("{plan}");
    let arrays = [
        (x, noise(&[3, 4, 4, 2], 1)),
        (w, noise(&[5, 3, 3, 2], 2)),
        (v, noise(&[4, 80], 3)),
        (y, noise(&[3, 4], 4)),
        (dw, noise(&[5, 3, 3, 2], 5)),
    ];
    let run = |arrays: &[(Var<'_>, Array)]| {
        let given: Vec<(Var<'_>, &Array)> = arrays.iter().map(|(var, a)| (*var, a)).collect();
        plan.run(&device, &given).unwrap()
    };
    let at = run(&arrays);
    for i in 0..3 {
        let (f, r) = (at[5 + i].to_f64_vec(), at[8 + i].to_f64_vec());
        let size = r.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (a, b) in f.iter().zip(&r) {
            assert!((a - b).abs() <= 1e-12 * size, "modes differ: {a} {b}");
        }
    }
    let h = 1e-5;
    let moved = |sign: f64| {
        let mut arrays = arrays.clone();
        let d = arrays[4].1.to_f64_vec();
        let w: Vec<f64> = arrays[1]
            .1
            .to_f64_vec()
            .iter()
            .zip(&d)
            .map(|(w, d)| w + sign * h * d)
            .collect();
        arrays[1].1 = Array::new([5, 3, 3, 2], w).unwrap();
        run(&arrays)
    };
    let (plus, minus) = (moved(1.0), moved(-1.0));
    let slope = (plus[0].to_f64_vec()[0] - minus[0].to_f64_vec()[0]) / (2.0 * h);
    let along = at[1].to_f64_vec()[0];
    assert!(
        (slope - along).abs() < 1e-8 * along.abs().max(1e-3),
        "{slope} {along}"
    );
    for i in 0..3 {
        let exact = at[5 + i].to_f64_vec();
        let size = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (j, e) in exact.iter().enumerate() {
            let difference =
                (plus[2 + i].to_f64_vec()[j] - minus[2 + i].to_f64_vec()[j]) / (2.0 * h);
            assert!(
                (difference - e).abs() < 1e-6 * size,
                "{i} {j}: {difference} {e}"
            );
        }
    }
}

/// A result may be written straight over an input as soon as no later launch reads that input, unless
/// another result is to be that input.
#[test]
fn results_go_over_inputs_that_are_done_with() {
    let device = Device::cpu(Some(1)).unwrap();
    let tape = Tape::new();
    let x = tape.input("x", F64, [6, 6]).unwrap();
    let w = tape.input("w", F64, [6, 6]).unwrap();
    let product = x.matmul(w).unwrap();
    let after = product.matmul(w).unwrap();
    let late = (after + x).unwrap();
    let arrays = [noise(&[6, 6], 1), noise(&[6, 6], 2)];
    let given = [(x, &arrays[0]), (w, &arrays[1])];
    // A result with the key of an input goes over it.
    let in_place = |wanted: &[(Var<'_>, &'static str)]| Bound::new(&[(x, "x"), (w, "w")], wanted);
    // The result that goes over x, and how many launches more there are than kernels: copies.
    for (outs, over, copies) in [
        (vec![after], 0, 0),
        (vec![product], 0, 1),
        (vec![after, late], 0, 1),
        (vec![after, late], 1, 0),
        (vec![after, x], 0, 2),
        (vec![x, after], 1, 2),
        (vec![x], 0, 0),
    ] {
        let plain = Plan::new(&outs).unwrap();
        let key = |i| if i == over { "x" } else { "elsewhere" };
        let wanted: Vec<_> = (0..outs.len()).map(|i| (outs[i], key(i))).collect();
        let bound = in_place(&wanted).unwrap();
        let plan = bound.plan();
        let expected = plain.run(&device, &given).unwrap();
        assert_eq!(plan.run(&device, &given).unwrap(), expected, "{plan}");
        let own = plain.launches() - usize::from(outs.contains(&x));
        assert_eq!(plan.launches() - own, copies, "{plan}\n{plain}");
    }
    let swap = in_place(&[(w, "x"), (x, "w")]).unwrap();
    let [first, second] = arrays.clone();
    assert_eq!(
        swap.plan().run(&device, &given).unwrap(),
        [second, first],
        "{}",
        swap.plan()
    );
}

#[test]
fn arrays_are_told_apart_by_variables_and_mistakes_are_named() {
    let device = Device::cpu(Some(1)).unwrap();
    let tape = Tape::new();
    let [a, b] = [0; 2].map(|_| tape.input("x", F64, [2]).unwrap());
    let plan = Plan::new(&[(a - b).unwrap()]).unwrap();
    let [five, three] = [5.0, 3.0].map(|number| Array::full(F64, [2], number));
    let results = plan.run(&device, &[(b, &three), (a, &five)]).unwrap();
    assert_eq!(results[0].to_f64_vec(), [2.0, 2.0]);

    let refused = |given: &[(Var<'_>, &Array)]| plan.run(&device, given).unwrap_err().to_string();
    assert_eq!(
        refused(&[(a, &five)]),
        "plan: no array was given for input `x`"
    );
    let wide = Array::zeros(F64, [3]);
    assert_eq!(
        refused(&[(a, &five), (b, &wide)]),
        "plan: `x` is f64 [2], not f64 [3]"
    );

    let bound = |given: &[(Var<'_>, u8)], wanted: &[(Var<'_>, u8)]| {
        Bound::new(given, wanted).unwrap_err().to_string()
    };
    let sum = (a + b).unwrap();
    assert_eq!(
        bound(&[(a, 0)], &[(sum, 1)]),
        "plan: input `x` is not given"
    );
    let error = bound(&[(a, 0), (b, 1)], &[(sum.sum_all().unwrap(), 0)]);
    assert!(
        error.ends_with("f64 [] cannot be written over input `x`"),
        "{error}"
    );
    let error = bound(&[(a, 0), (b, 1)], &[(sum, 0), (b, 0)]);
    assert_eq!(error, "plan: two results are to be written over input `x`");
}

/// The step of a weight with its norm: the sum of its squares, its update and the inner products with the update
/// are one pass.
#[test]
fn sums_over_rows_and_over_all_share_a_pass() {
    let tape = Tape::new();
    let input = |name, shape: &[usize]| tape.input(name, F64, shape.to_vec()).unwrap();
    let (v, u, g) = (
        input("v", &[8, 40]),
        input("u", &[8, 40]),
        input("g", &[8, 40]),
    );
    let rate = input("rate", &[]);
    let moved = (u + (rate * g).unwrap()).unwrap();
    let squares = (v * v).unwrap().sum_keep(&[1]).unwrap();
    let along = (v * moved).unwrap().sum_keep(&[1]).unwrap();
    let all = (u * g).unwrap().sum_all().unwrap();
    let plan = Plan::new(&[moved, squares, along, all]).unwrap();
    let over: Vec<usize> = plan
        .kernels()
        .map(|(kernel, _)| kernel.bytes() as usize)
        .collect();
    // Three arrays read, one written, and three sums over rows; then the sum of one of those.
    let row = 8 * 8;
    assert_eq!(over, [40 * row * 4 + 3 * row + 8, row + 8], "{plan}");
    let arrays = [noise(&[8, 40], 1), noise(&[8, 40], 2), noise(&[8, 40], 3)];
    let number = Array::scalar(0.5, F64);
    let given = [
        (v, &arrays[0]),
        (u, &arrays[1]),
        (g, &arrays[2]),
        (rate, &number),
    ];
    let results = plan.run(&Device::cpu(Some(1)).unwrap(), &given).unwrap();
    let numbers = |array: &Array| array.to_f64_vec();
    let (u, g) = (numbers(&arrays[1]), numbers(&arrays[2]));
    let sum: f64 = u.iter().zip(&g).map(|(u, g)| u * g).sum();
    assert!((numbers(&results[3])[0] - sum).abs() < 1e-12);
}

/// Numbers may be scaled down because their sum would leave the range: a factor stays where the program has it.
#[test]
fn factors_are_not_taken_out_of_sums() {
    let tape = Tape::new();
    let x = tape.input("x", F32, [4, 2]).unwrap();
    let s = tape.input("s", F32, [1, 2]).unwrap();
    let sum = (x * s).unwrap().sum_keep(&[0]).unwrap();
    let plan = Plan::new(&[sum]).unwrap();
    let x_large = Array::full(F32, [4, 2], 3e38);
    let factors = Array::new([1, 2], vec![1e-38_f32, 0.0]).unwrap();
    let given = [(x, &x_large), (s, &factors)];
    let results = plan.run(&Device::cpu(Some(1)).unwrap(), &given).unwrap();
    let sums = results[0].to_f64_vec();
    assert!((sums[0] - 12.0).abs() < 1e-5, "{sums:?}");
    assert_eq!(sums[1], 0.0);
}

/// At the peak the arena holds as much as any placement must, and says what.
#[test]
fn the_peak_is_the_sum_of_what_is_held() {
    let tape = Tape::new();
    let input = |name, shape: &[usize]| tape.input(name, F64, shape.to_vec()).unwrap();
    let (x, w) = (input("x", &[3, 4, 4, 2]), input("w", &[5, 3, 3, 2]));
    let (v, y) = (input("v", &[4, 80]), input("y", &[3, 4]));
    let l = loss(x, w, v, y).unwrap();
    let g = tape.grad(l, &[x, w, v]).unwrap();
    for (outs, segments) in [(vec![l], 1), (g.clone(), 1), (g, 3)] {
        let plan = Plan::in_segments(&outs, segments).unwrap();
        let peak = plan.peak();
        let held = peak.held.iter().map(|h| h.bytes.next_multiple_of(64));
        assert_eq!(held.sum::<usize>(), peak.bytes, "{peak:?}");
        assert_eq!(peak.bytes, plan.least_bytes());
        for held in &peak.held {
            assert!(held.launch <= peak.launch, "{peak:?}");
            let (kernel, _) = plan.kernels().nth(held.launch).unwrap();
            assert_eq!(held.kernel, kernel.name());
            let Some(shape) = &held.shape else {
                assert_eq!(held.bytes, kernel.workspace());
                continue;
            };
            let mut made = kernel.outputs().into_iter();
            let is_it = |(dtype, count): (DType, usize)| {
                count == shape.count() && dtype.size() * count == held.bytes
            };
            assert!(made.any(is_it), "{held:?}");
        }
    }
}

#[test]
fn arrays_for_another_tape_are_refused() {
    let (tape, other) = (Tape::new(), Tape::new());
    let [x, stranger] = [&tape, &other].map(|tape| tape.input("x", F32, [1]).unwrap());
    let plan = Plan::new(&[x.exp().unwrap()]).unwrap();
    let array = Array::zeros(F32, [1]);
    let found = plan.run(&Device::cpu(Some(1)).unwrap(), &[(stranger, &array)]);
    let message = found.unwrap_err().to_string();
    assert!(message.ends_with("which is of another tape"), "{message}");
}

#[test]
fn an_axis_that_is_named_twice_counts_once() {
    let tape = Tape::new();
    let x = tape.input("x", F64, [2, 3]).unwrap();
    let means = [&[1, 1][..], &[1]].map(|axes| x.mean_keep(axes).unwrap());
    assert_eq!(means[0], means[1]);
}

/// A number of a narrow type is the nearest that the type has, and uses of a narrow result have gradients that add up.
#[test]
fn narrow_types_round_constants_and_add_gradients() {
    let tape = Tape::new();
    let device = Device::cpu(Some(1)).unwrap();
    let three = tape.constant(3.9, I32, [1]).cast(F32);
    let tenth = tape.constant(0.1, BF16, [1]).cast(F32);
    let x = tape.input("x", F32, [2]).unwrap();
    let narrow = x.cast(BF16);
    let [once, again] = [narrow.cast(F32), narrow.reshape([2, 1]).unwrap().cast(F32)];
    let sum = (once.sum_all().unwrap() * 2.0).unwrap() + again.sum_all().unwrap();
    let gradient = tape.grad(sum.unwrap(), &[x]).unwrap()[0];
    let plan = Plan::new(&[three, tenth, gradient]).unwrap();
    let given = Array::new([2], vec![1.0_f32, -2.0]).unwrap();
    let found = plan.run(&device, &[(x, &given)]).unwrap();
    let rounded = Array::scalar(0.1, BF16).to_f64_vec()[0];
    let whole = Array::scalar(3.9, I32).to_f64_vec()[0];
    let expected = [vec![whole], vec![rounded], vec![3.0, 3.0]];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.to_f64_vec(), expected);
    }
}
