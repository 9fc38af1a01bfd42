//! Long programs: no recursion along a chain, on the 2 MiB of stack that a thread has; and nothing that grows with the
//! square of the number of inputs or of products.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::prelude::*;
use std::thread;

const LONG: usize = 100_000;

/// Does work on a thread with a stack of 2 MiB.
fn on_small_stack<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let thread = thread::Builder::new().stack_size(2 << 20);
    thread.spawn(work).unwrap().join().unwrap()
}

/// One run of a plan of `y(x)` at 1.
fn at_one(y: impl for<'t> FnOnce(Var<'t>) -> Result<Var<'t>> + Send + 'static) -> Vec<f64> {
    on_small_stack(move || {
        let tape = Tape::new();
        let x = tape.input("x", F64, [1, 2]).unwrap();
        let plan = Plan::new(&[y(x).unwrap()]).unwrap();
        let ones = Array::full(F64, [1, 2], 1.0);
        let device = Device::cpu(Some(1)).unwrap();
        plan.run(&device, &[(x, &ones)]).unwrap()[0].to_f64_vec()
    })
}

#[test]
fn sums_of_100_000_terms() {
    let sum = at_one(|x| (0..LONG).try_fold(x, |y, _| y + x));
    assert_eq!(sum, [LONG as f64 + 1.0; 2]);
}

#[test]
fn chains_of_100_000_functions() {
    let found = at_one(|x| (1..LONG / 2).try_fold(x, |y, _| (y * 1.0001)?.tanh()));
    let mut expected = 1.0_f64;
    (1..LONG / 2).for_each(|_| expected = (expected * 1.0001).tanh());
    assert!((found[0] - expected).abs() < 1e-12, "{found:?} {expected}");
}

#[test]
fn chains_of_100_000_gates() {
    let found = at_one(|x| {
        let low = (x * 0.5)?;
        (1..LONG / 2).try_fold(x, |y, _| (y - 1e-5)?.max(low))
    });
    let expected = (1..LONG / 2).fold(1.0_f64, |y, _| (y - 1e-5).max(0.5));
    assert_eq!(found, [expected; 2]);
}

#[test]
fn chains_of_100_000_selects_and_views() {
    let found = at_one(|x| {
        let y = (0..LONG / 4).try_fold(x, |y, i| {
            let turned = (y + 1.0)?.permute(&[1, 0])?.reshape([1, 2])?;
            y.less(x.tape().constant(i as f64, F64, [1, 2]))?
                .select(y, turned)
        });
        y?.sum_keep(&[1])?.expand([1, 2])
    });
    assert_eq!(found[0], found[1]);
    assert!(found[0] > 1000.0, "{found:?}");
}

/// A square of a square, and so on: what a product looks at before it is recorded does not double with each.
#[test]
fn squares_of_squares() {
    let found = at_one(|x| (0..LONG / 10).try_fold(x, |y, _| y * y));
    assert_eq!(found, [1.0; 2]);
    let found = at_one(|x| (0..LONG).try_fold(x.sqrt()?, |y, _| y * -1.0)?.powi(2));
    assert_eq!(found, [1.0; 2]);
    let found = at_one(|x| {
        let mask = x.less_eq(x)?;
        let constant = |value| x.tape().constant(value, F64, [1, 2]);
        let one = mask.select(constant(1.0), constant(2.0))?;
        let nested = (0..1000).try_fold(one, |y, _| {
            mask.select(y, y.permute(&[1, 0])?.reshape([1, 2])?)
        })?;
        Ok(x.tape().vjp(&[((x * nested)?, nested)], &[x])?[0])
    });
    assert_eq!(found, [1.0; 2]);
}

#[test]
fn derivatives_of_long_chains() {
    let [once, twice] = on_small_stack(|| {
        let tape = Tape::new();
        let x = tape.input("x", F64, [3]).unwrap();
        let y = (0..20_000).try_fold(x, |y, _| (y * 1.000_01)?.tanh());
        let loss = y.unwrap().sum_all().unwrap();
        let gradient = tape.grad(loss, &[x]).unwrap()[0];
        let tangent = tape
            .jvp(&[loss], &[(x, tape.constant(1.0, F64, [3]))])
            .unwrap()[0];
        let device = Device::cpu(Some(1)).unwrap();
        let at = Array::full(F64, [3], 0.3);
        [1, 4].map(|segments| {
            let plan = Plan::in_segments(&[gradient, tangent], segments).unwrap();
            plan.run(&device, &[(x, &at)]).unwrap()
        })
    });
    assert_eq!(once, twice);
    let [gradient, tangent] = [0, 1].map(|i| once[i].to_f64_vec());
    assert!((gradient.iter().sum::<f64>() - tangent[0]).abs() < 1e-12 * tangent[0].abs());
    assert!(gradient[0] > 0.0);
}

#[test]
fn ten_thousand_inputs() {
    let tape = Tape::new();
    let inputs: Vec<Var<'_>> = (0..10_000)
        .map(|i| tape.input(&format!("x{i}"), F64, [2]).unwrap())
        .collect();
    let plan = Plan::new(&[tape.sum_of(&inputs).unwrap()]).unwrap();
    assert_eq!(plan.inputs().len(), 10_000);
    let ones = Array::full(F64, [2], 1.0);
    let arrays: Vec<(Var<'_>, &Array)> = inputs.iter().map(|&x| (x, &ones)).collect();
    let sums = plan.run(&Device::cpu(Some(1)).unwrap(), &arrays).unwrap();
    assert_eq!(sums[0].to_f64_vec(), [10_000.0; 2]);
}

#[test]
fn ten_thousand_products_with_gradient() {
    let tape = Tape::new();
    let x = tape.input("x", F64, [2, 2]).unwrap();
    let w = tape.input("w", F64, [2, 2]).unwrap();
    let deep = (0..10_000).try_fold(x, |h, _| h.matmul(w)?.tanh());
    let gradient = tape.grad(deep.unwrap().sum_all().unwrap(), &[x]).unwrap();
    let plan = Plan::new(&gradient).unwrap();
    assert!(plan.launches() >= 20_000);
    // tanh of a turn by 90 degrees: the norm shrinks from one product to the next.
    let turn = Array::new([2, 2], vec![0.0, 1.0, -1.0, 0.0]).unwrap();
    let at = Array::full(F64, [2, 2], 1e-9);
    let device = Device::cpu(Some(1)).unwrap();
    let found = plan.run(&device, &[(x, &at), (w, &turn)]).unwrap()[0].to_f64_vec();
    // 10,000 turns are none at all, and tanh is the number itself here.
    assert!(found.iter().all(|x| (x - 1.0).abs() < 1e-9), "{found:?}");
}
