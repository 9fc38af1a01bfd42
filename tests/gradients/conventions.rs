//! What is not a matter of differences: kinks, ties, the ends of the number range, and mistakes.

use super::noise;
use autograd::prelude::*;
use autograd::reference;

fn array(numbers: &[f64]) -> Array {
    Array::new([numbers.len()], numbers.to_vec()).unwrap()
}

/// Computes results of inputs with the plan, which the reference must agree with.
fn run(outs: &[Var<'_>], inputs: &[Var<'_>], points: &[Array]) -> Vec<Vec<f64>> {
    let given: Vec<_> = inputs.iter().copied().zip(points).collect();
    let device = Device::cpu(Some(1)).unwrap();
    let ours = Plan::new(outs).unwrap().run(&device, &given).unwrap();
    let theirs = reference::run(outs, &given).unwrap();
    let ours: Vec<Vec<f64>> = ours.iter().map(Array::to_f64_vec).collect();
    for (ours, theirs) in ours
        .iter()
        .flatten()
        .zip(theirs.iter().flat_map(Array::to_f64_vec))
    {
        let error = (ours - theirs).abs();
        let same = *ours == theirs || (ours.is_nan() && theirs.is_nan());
        assert!(
            same || error <= 1e-14 * theirs.abs().max(1e-3),
            "{ours} {theirs}"
        );
    }
    ours
}

/// Gradients of the sum of a function of arrays, which must be the same in both directions.
fn slopes(
    points: &[Array],
    f: impl for<'t> FnOnce(&[Var<'t>]) -> Result<Var<'t>>,
) -> Vec<Vec<f64>> {
    let tape = Tape::new();
    let input = |point: &Array| tape.input("x", point.dtype(), point.shape().clone());
    let inputs: Vec<_> = points.iter().map(|point| input(point).unwrap()).collect();
    let sum = f(&inputs).unwrap().sum_all().unwrap();
    let reverse = tape.grad(sum, &inputs).unwrap();
    let gradients = run(&reverse, &inputs, points);
    let ones: Vec<_> = inputs
        .iter()
        .map(|x| (*x, tape.constant(1.0, x.dtype(), x.shape())))
        .collect();
    for (pair, gradient) in ones.into_iter().zip(&gradients) {
        let forward = tape.jvp(&[sum], &[pair]).unwrap();
        let total: f64 = gradient.iter().sum();
        assert!((run(&forward, &inputs, points)[0][0] - total).abs() < 1e-14);
    }
    gradients
}

#[test]
fn kinks_have_the_stated_slopes() {
    let x = [array(&[-2.0, 0.0, 3.0])];
    assert_eq!(slopes(&x, |x| x[0].relu())[0], [0.0, 0.0, 1.0]);
    assert_eq!(slopes(&x, |x| x[0].leaky_relu(0.1))[0], [0.1, 0.1, 1.0]);
    assert_eq!(slopes(&x, |x| x[0].abs())[0], [-1.0, 0.0, 1.0]);
    assert_eq!(slopes(&x, |x| x[0].sign())[0], [0.0; 3]);
    assert_eq!(slopes(&x, |x| (x[0] * x[0])?.sqrt())[0], [-1.0, 0.0, 1.0]);
    assert_eq!(
        slopes(&[array(&[0.0, 4.0])], |x| x[0].sqrt())[0],
        [0.0, 0.25]
    );
}

#[test]
fn the_square_root_at_zero_has_finite_derivatives_of_all_orders() {
    let tape = Tape::new();
    let x = tape.input("x", F64, []).unwrap();
    let mut derivative = (x * x).unwrap().sqrt().unwrap();
    for _ in 0..3 {
        derivative = tape.grad(derivative, &[x]).unwrap()[0];
        assert_eq!(
            run(&[derivative], &[x], &[Array::scalar(0.0, F64)]),
            [[0.0]]
        );
    }
}

#[test]
fn ties_go_to_the_first() {
    let pair = [array(&[1.0, 5.0, 2.0]), array(&[1.0, 2.0, 5.0])];
    assert_eq!(
        slopes(&pair, |x| x[0].max(x[1])),
        [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    );
    assert_eq!(
        slopes(&pair, |x| x[0].min(x[1])),
        [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    );
    let x = [array(&[1.0, 3.0, 3.0, 3.0])];
    assert_eq!(slopes(&x, |x| x[0].max_last())[0], [0.0, 1.0, 0.0, 0.0]);
    let pooled = slopes(&x, |x| {
        x[0].reshape([1, 2, 2, 1])?.max_pool([2, 2], [2, 2], [0; 4])
    });
    assert_eq!(pooled[0], [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn what_is_stopped_or_perturbed() {
    let x = [array(&[2.0, 5.0])];
    assert_eq!(slopes(&x, |x| x[0] * x[0].stop_gradient())[0], [2.0, 5.0]);

    let tape = Tape::new();
    let x = tape.input("x", F64, [2]).unwrap();
    let shift = tape.perturbation(F64, [2]);
    let y = ((x + shift).unwrap() * (x * x).unwrap()).unwrap();
    let of_the_shift = tape.grad(y.sum_all().unwrap(), &[shift]).unwrap()[0];
    let values = run(&[y, of_the_shift], &[x], &[array(&[2.0, 5.0])]);
    assert_eq!(values, [[8.0, 125.0], [4.0, 25.0]]);

    // Variables are independent of each other, although one was computed from the other.
    let square = (x * x).unwrap();
    let loss = (square * x).unwrap().sum_all().unwrap();
    let gradients = tape.grad(loss, &[x, square]).unwrap();
    let values = run(&gradients, &[x], &[array(&[2.0, 5.0])]);
    assert_eq!(values, [[4.0, 25.0], [2.0, 5.0]]);
}

#[test]
fn casts_round_and_pass_derivatives_on() {
    let third = 1.0 / 3.0;
    for narrow in [F32, BF16, F16] {
        let rounded = array(&[third]).cast(narrow).to_f64_vec()[0];
        let gradients = slopes(&[array(&[third])], |x| {
            let there = x[0].cast(narrow).cast(F64);
            there * there
        });
        assert_eq!(gradients[0], [2.0 * rounded], "{narrow}");
    }
    let gradients = slopes(&[array(&[2.7, -2.7])], |x| {
        x[0] * x[0].stop_gradient().cast(I32).cast(F64)
    });
    assert_eq!(gradients[0], [2.0, -2.0], "towards zero");
}

#[test]
fn the_ends_of_the_number_range() {
    let wild = [
        0.0, -0.0, 5e-324, -1e-310, 1e-160, 700.0, -745.0, 1e200, -1e300,
    ];
    let odd = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let x = [&wild[..], &odd].concat();
    let pairs = x.iter().flat_map(|a| x.iter().map(move |b| [*a, *b]));
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.map(|[a, b]| (a, b)).unzip();
    let tape = Tape::new();
    let [a, b] = ["x", "y"].map(|name| tape.input(name, F64, [first.len()]).unwrap());
    let outs = [
        -a,
        a.exp(),
        a.log(),
        a.sqrt(),
        a.rsqrt(),
        a.tanh(),
        a.sigmoid(),
        a.log1p(),
        a.expm1(),
        a.softplus(),
        a.sin(),
        a.cos(),
        a.erf(),
        a.erfc(),
        a.abs(),
        a.sign(),
        a.powi(3),
        a.powi(-2),
        a + b,
        a - b,
        a * b,
        a / b,
        a.pow(b),
        a.xlogy(b),
        a.max(b),
        a.min(b),
        a.less(b),
        a.less_eq(b),
        a.equal(b),
        a.select(b, a),
    ];
    let outs = outs.into_iter().collect::<Result<Vec<_>>>().unwrap();
    run(&outs, &[a, b], &[array(&first), array(&second)]);
}

/// What is known when it is recorded is computed as a plan would: NaN, signs of zeros, and the rounding of f32.
#[test]
fn constants_are_folded_to_the_bits_of_a_plan() {
    type Function = for<'t> fn(Var<'t>, Var<'t>) -> Result<Var<'t>>;
    const FUNCTIONS: [Function; 20] = [
        |x, _| -x,
        |x, _| x.exp(),
        |x, _| x.log(),
        |x, _| x.sqrt(),
        |x, _| x.rsqrt(),
        |x, _| x.tanh(),
        |x, _| x.sigmoid(),
        |x, _| x.abs(),
        |x, _| x.sign(),
        |x, _| x.powi(3),
        |x, _| x.powi(-2),
        |x, y| x + y,
        |x, y| x - y,
        |x, y| x * y,
        |x, y| x / y,
        |x, y| x.max(y),
        |x, y| x.min(y),
        |x, y| x.less(y),
        |x, y| x.less_eq(y),
        |x, y| x.equal(y),
    ];
    fn all([x, y]: [Var<'_>; 2]) -> [Var<'_>; 20] {
        FUNCTIONS.map(|f| f(x, y).unwrap())
    }
    let numbers = [0.1, -1.7, 3.0, -0.0, 1e30, f64::INFINITY, f64::NAN];
    for dtype in [F32, F64] {
        let tape = Tape::new();
        let inputs = ["x", "y"].map(|name| tape.input(name, dtype, []).unwrap());
        for (a, b) in numbers
            .iter()
            .flat_map(|a| numbers.iter().map(move |b| (*a, *b)))
        {
            let known = [a, b].map(|x| tape.constant(x, dtype, []));
            let points = [a, b].map(|x| Array::scalar(x, dtype));
            let given = [(inputs[0], &points[0]), (inputs[1], &points[1])];
            let compute = |outs: &[Var<'_>], given: &[_]| {
                let device = Device::cpu(Some(1)).unwrap();
                let results = Plan::new(outs).unwrap().run(&device, given).unwrap();
                results
                    .iter()
                    .map(|x| x.to_f64_vec()[0])
                    .collect::<Vec<_>>()
            };
            let (folded, computed) = (compute(&all(known), &[]), compute(&all(inputs), &given));
            for (i, (folded, computed)) in folded.iter().zip(&computed).enumerate() {
                let same =
                    folded.to_bits() == computed.to_bits() || folded.is_nan() && computed.is_nan();
                assert!(
                    same,
                    "function {i} of {a} and {b} in {dtype}: {folded} {computed}"
                );
            }
        }
    }
}

#[test]
fn saturated_functions_have_no_slope_and_no_nan() {
    let x = [array(&[-1e3, -40.0, 40.0, 1e3])];
    for slopes in [slopes(&x, |x| x[0].tanh()), slopes(&x, |x| x[0].sigmoid())] {
        let flat = slopes[0].iter().all(|slope| slope.abs() < 1e-15);
        assert!(flat, "{slopes:?}");
    }
}

/// What is said of a mistake.
fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_has_no_derivative_is_an_error_when_it_is_recorded() {
    let tape = Tape::new();
    let x = tape.input("x", F64, [3]).unwrap();
    let index = tape.input("index", I32, [3]).unwrap();
    let rounded = x.cast(I32).cast(F64);
    let loss = (rounded * x).unwrap().sum_all().unwrap();
    let expected = "cast has no derivative: it rounds to an integer; put stop_gradient before it";
    let one = tape.constant(1.0, F64, [3]);
    assert_eq!(refusal(tape.jvp(&[loss], &[(x, one)])), expected);
    assert_eq!(refusal(tape.grad(loss, &[x])), expected);

    let loss = (x * x).unwrap().sum_all().unwrap();
    let error = refusal(tape.grad(loss, &[index]));
    assert!(error.ends_with("only floats have derivatives"), "{error}");
    let error = refusal(tape.grad(loss, &[one]));
    assert!(error.ends_with("make it an input"), "{error}");
    let error = refusal(tape.grad(x, &[x]));
    assert_eq!(error, "grad: the loss must be one number, not [3]");
    let other = Tape::new();
    let stranger = other.input("x", F64, [3]).unwrap();
    let error = refusal(tape.grad(loss, &[stranger]));
    assert_eq!(error, "vjp: a variable of another tape");
    assert_eq!(refusal(x + stranger), "add: a variable of another tape");
    let error = refusal(tape.jvp(&[stranger], &[(x, one)]));
    assert_eq!(error, "jvp: a variable of another tape");
}

#[test]
fn directions_must_fit() {
    let tape = Tape::new();
    let x = tape.input("x", F64, [3]).unwrap();
    let y = tape.input("y", F64, [2]).unwrap();
    let loss = x.exp().unwrap().sum_all().unwrap();
    let error = refusal(tape.jvp(&[loss], &[(x, y)]));
    assert_eq!(
        error,
        "jvp: %0 f64 [3] and its (co)tangent %1 f64 [2] differ"
    );
    let error = refusal(tape.vjp(&[(x, y)], &[x]));
    assert_eq!(
        error,
        "vjp: %0 f64 [3] and its (co)tangent %1 f64 [2] differ"
    );
    let error = refusal(tape.hvp(loss, &[x, y], &[x]));
    assert_eq!(error, "hvp: 1 directions for 2 variables");
    let error = refusal(tape.jvp(&[loss], &[(x, x), (x, x)]));
    assert_eq!(error, "jvp: %0 f64 [3] has two tangents");
    assert!(Tape::new().jvp(&[], &[]).unwrap().is_empty());
    assert!(Tape::new().vjp(&[], &[]).unwrap().is_empty());
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let tape = Tape::new();
    let input = |name: &str, shape: &[usize]| tape.input(name, F64, shape).unwrap();
    let (a, b) = (input("a", &[2, 3]), input("b", &[4]));
    let (image, kernel) = (
        input("image", &[1, 4, 4, 2]),
        input("kernel", &[1, 3, 3, 1]),
    );
    let integer = tape.input("integer", I32, [2]).unwrap();
    let narrow = tape.input("narrow", F32, [2, 3]).unwrap();
    for (result, expected) in [
        (a + b, "add: shapes do not fit: [2, 3] and [4]"),
        (
            a * narrow,
            "mul: types differ: %0 f64 [2, 3] and %5 f32 [2, 3]; cast one",
        ),
        (
            integer.exp(),
            "exp: arithmetic is done in f32 or f64, not i32: cast first",
        ),
        (a.matmul(a), "matmul: [2, 3] · [2, 3] does not fit"),
        (
            a.matmul_with(a, true, true),
            "matmul: [2, 3]ᵀ · [2, 3]ᵀ does not fit",
        ),
        (
            a.reshape([5]),
            "reshape: [2, 3] has not as many elements as [5]",
        ),
        (
            a.permute(&[0, 0]),
            "permute: [0, 0] does not order the axes of [2, 3]",
        ),
        (
            a.expand([3, 3]),
            "broadcast: [2, 3] does not stretch to [3, 3]",
        ),
        (
            a.slice(&[1, 1], &[1, 3]),
            "slice: [1, 3] from [1, 1] is not inside [2, 3]",
        ),
        (a.pad(&[1], &[1]), "pad: [1] and [1] for [2, 3]"),
        (a.take(1, &[3]), "take: indices [3] along axis 1 of [2, 3]"),
        (a.sum(&[2]), "sum: axis 2 of [2, 3]"),
        (a.argmax(2), "argmax: axis 2 of [2, 3]"),
        (
            a.reflect_pad(0, 2),
            "reflect_pad: a border of 2 on axis 0 of [2, 3]",
        ),
        (
            a.upsample(2),
            "upsample: images are [n, h, w, c], not [2, 3]",
        ),
        (
            a.rows(b),
            "rows: %0 f64 [2, 3] by %1 f64 [4]: the index must be i32 with one axis",
        ),
        (tape.concat(&[], 0), "concat: nothing to join"),
        (
            tape.concat(&[a, b], 0),
            "concat: %1 f64 [4] does not fit %0 f64 [2, 3] along axis 0",
        ),
    ] {
        assert_eq!(refusal(result), expected);
    }
    let error = refusal(image.conv2d(kernel, autograd::ConvOptions::padded(1)));
    assert!(
        error.starts_with("conv2d: images [1, 4, 4, 2], weights [1, 3, 3, 1]"),
        "{error}"
    );
    let error = refusal(image.max_pool([5, 5], [1, 1], [0; 4]));
    assert!(error.starts_with("max_pool: windows [5, 5]"), "{error}");
    let error = refusal(tape.random(a, 0, autograd::Distribution::Normal, F64, [3]));
    assert_eq!(error, "random: the key must be u32 [4], not %0 f64 [2, 3]");
}

#[test]
fn an_index_outside_is_an_error_when_it_runs() {
    let tape = Tape::new();
    let x = tape.input("x", F64, [3, 2]).unwrap();
    let index = tape.input("index", I32, [1]).unwrap();
    let picked = x.rows(index).unwrap();
    let points = [
        noise(Shape::from([3, 2]), 1),
        Array::new([1], vec![3]).unwrap(),
    ];
    let given = [(x, &points[0]), (index, &points[1])];
    let plan = Plan::new(&[picked]).unwrap();
    assert!(plan.run(&Device::cpu(Some(1)).unwrap(), &given).is_err());
    assert!(reference::run(&[picked], &given).is_err());
}
