//! The product of a Hessian and a vector, without the Hessian:
//! `cargo run -p gtn-autograd --example hessian_vector_product`

use autograd::prelude::*;

fn product([xs, ys, at, to]: [&Array; 4]) -> Result<Vec<Array>> {
    let tape = Tape::new();
    let input = |shape: [usize; 2]| tape.input("array", F32, shape);
    let (x, y) = (input([64, 784])?, input([64, 10])?);
    let (w, v) = (input([784, 10])?, input([784, 10])?);
    let loss = x.matmul(w)?.cross_entropy(y)?;
    let plan = Plan::new(&tape.hvp(loss, &[w], &[v])?)?;
    plan.run(&Device::cpu(None)?, &[(x, xs), (y, ys), (w, at), (v, to)])
}

fn main() -> Result<()> {
    let (xs, ys) = (
        Array::normal(F32, [64, 784], 1.0, 1),
        Array::full(F32, [64, 10], 0.1),
    );
    let (w, v) = (
        Array::normal(F32, [784, 10], 0.1, 2),
        Array::normal(F32, [784, 10], 1.0, 3),
    );
    let along = product([&xs, &ys, &w, &v])?[0].to_f64_vec();
    let bend: f64 = along.iter().zip(v.to_f64_vec()).map(|(h, v)| h * v).sum();
    assert!(bend > 0.0, "cross-entropy is convex in the weights");
    println!("vᵀHv = {bend:.3}");
    Ok(())
}
