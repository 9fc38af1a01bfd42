//! The tangent of a product is one launch, with the bits of two products and an addition.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::ConvOptions;
use autograd::prelude::*;
use common::noise;

type Product = for<'t> fn(Var<'t>, Var<'t>) -> Result<Var<'t>>;

fn check(name: &str, shapes: [&[usize]; 2], product: Product) {
    for dtype in [F32, F64] {
        let tape = Tape::new();
        let input = |name: &str, i: usize| tape.input(name, dtype, shapes[i].to_vec()).unwrap();
        let [x, w, dx, dw] = [input("x", 0), input("w", 1), input("dx", 0), input("dw", 1)];
        let y = product(x, w).unwrap();
        let both = tape.jvp(&[y], &[(x, dx), (w, dw)]).unwrap()[0];
        let of_x = tape.jvp(&[y], &[(x, dx)]).unwrap()[0];
        let of_w = tape.jvp(&[y], &[(w, dw)]).unwrap()[0];
        let pair = Plan::new(&[both]).unwrap();
        assert!(pair.to_string().contains(name), "{pair}");
        assert_eq!(pair.launches(), 1, "{pair}");
        assert_eq!(pair.flops(), 2 * Plan::new(&[of_x]).unwrap().flops());
        // What is wanted for itself is not a part of a pair.
        let apart = Plan::new(&[both, of_x, of_w]).unwrap();
        assert!(!apart.to_string().contains("pair"), "{apart}");

        let device = Device::cpu(Some(2)).unwrap();
        let arrays: Vec<(Var<'_>, Array)> = [x, w, dx, dw]
            .into_iter()
            .zip(1..)
            .map(|(var, seed)| (var, noise(&var.shape(), seed, dtype)))
            .collect();
        let given: Vec<(Var<'_>, &Array)> = arrays.iter().map(|(var, a)| (*var, a)).collect();
        let run = |plan: &Plan| plan.run(&device, &given).unwrap();
        let (paired, parts) = (run(&pair), run(&apart));
        assert_eq!(paired[0].bytes(), parts[0].bytes(), "{name} {dtype}");
    }
}

#[test]
fn tangents_of_matrix_products() {
    let (x, w): (&[usize], &[usize]) = (&[2, 7, 300], &[2, 300, 5]);
    check("matmul-pair", [x, w], |x, w| x.matmul(w));
    let (x, w): (&[usize], &[usize]) = (&[33, 17], &[9, 33]);
    check("matmul-pair", [x, w], |x, w| x.matmul_with(w, true, true));
}

#[test]
fn tangents_of_convolutions() {
    check("conv-pair", [&[2, 6, 5, 3], &[4, 3, 3, 3]], |x, w| {
        x.conv2d(w, ConvOptions::padded(1))
    });
    check("conv-input-pair", [&[2, 6, 5, 4], &[4, 3, 3, 3]], |y, w| {
        y.conv2d_transposed(w, ConvOptions::padded(1))
    });
}

/// The gradient of a weight is a convolution too; its tangent pairs two of these.
#[test]
fn tangents_of_a_weight_gradient() {
    check(
        "conv-weight-pair",
        [&[2, 6, 5, 3], &[2, 6, 5, 4]],
        |x, dy| {
            let w = x.tape().input("weight", x.dtype(), vec![4, 3, 3, 3])?;
            let y = x.conv2d(w, ConvOptions::padded(1))?;
            Ok(x.tape().vjp(&[(y, dy)], &[w])?[0])
        },
    );
}
