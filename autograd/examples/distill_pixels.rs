//! Dataset distillation (Wang et al. 2018, arXiv 1811.10959): one image per class, free in every pixel, from which a fresh
//! network learns in five steps; and the rate for it. `cargo run -p gtn-autograd --release --example distill_pixels`

use autograd::prelude::*;

fn logits<'t>(w: &[Var<'t>], images: Var<'t>) -> Result<Var<'t>> {
    let hidden = (images.matmul(w[0])? + w[1])?.leaky_relu(0.1)?;
    hidden.matmul(w[2])? + w[3]
}

fn distil(learned: [(&str, &Array); 2], drawn: &[[Array; 7]]) -> Result<(Vec<f64>, Array)> {
    let names = ["w1", "b1", "w2", "b2", "x", "y", "labels"];
    let first = names.into_iter().zip(&drawn[0]);
    let training = Training::new(Optimizer::Sgd)
        .weights(first.clone().take(4))
        .learned(learned)
        .given(first.skip(4))
        .loss(|s| logits(s.weights(), s["images"])?.cross_entropy(s["labels"]))
        .outer(|s| logits(s.weights(), s["x"])?.cross_entropy(s["y"]));
    let mut unroll = Unroll::new(&Device::cpu(None)?, &training, &Horizon::new(5))?;
    let mut values = unroll.values(&training)?;
    let adam = Descent::new(unroll.gradients(), Optimizer::Adam, &[("lr", 0.02)])?;
    let outer_step = |fresh| {
        values.set_all(names.into_iter().zip(fresh))?;
        Ok(adam.descend(&mut unroll, &values)?.total())
    };
    let losses = drawn.iter().map(outer_step).collect::<Result<_>>()?;
    Ok((losses, values.get("images")?))
}

/// Real images \[n, 64\] and their classes: a row, a column, a diagonal, or a square's outline, moved a little, under noise.
fn real(n: usize, seed: u64) -> Result<[Array; 2]> {
    let noise = Array::normal(F64, [n, 64], 0.5, seed).to_f64_vec();
    let choice = Array::uniform(F64, [n], [0.0, 8.0], seed + 1).to_f64_vec();
    let (class, at) = (
        |i: usize| choice[i] as usize % 4,
        |i: usize| 2 + choice[i] as usize / 4,
    );
    let pixel = |(i, noise): (usize, &f64)| {
        let (image, row, column) = (i / 64, i % 64 / 8, i % 8);
        let at = at(image);
        let (down, right) = ((row + 8 - at) % 8, (column + 8 - at) % 8);
        let ink = match class(image) {
            0 => row == at,
            1 => column == at,
            2 => row + at == column + 3,
            _ => down < 4 && right < 4 && (down % 3 == 0 || right % 3 == 0),
        };
        noise + f64::from(u8::from(ink))
    };
    let images: Vec<f64> = noise.iter().enumerate().map(pixel).collect();
    let hot = (0..4 * n).map(|i| f64::from(u8::from(class(i / 4) == i % 4)));
    let labels = Array::new([n, 4], hot.collect::<Vec<f64>>())?;
    Ok([Array::new([n, 64], images)?.cast(F32), labels.cast(F32)])
}

/// Distils for `steps` outer steps, each with a fresh network and fresh images.
fn run(steps: u64) -> Result<(Vec<f64>, Array)> {
    let own = (0..16).map(|i| f32::from(u8::from(i % 5 == 0)));
    let labels = Array::new([4, 4], own.collect::<Vec<f32>>())?;
    let fresh = |step: u64| {
        let weight = |i: usize, o: usize| Array::normal(F32, [i, o], (2.0 / i as f64).sqrt(), step);
        let bias = |o: usize| Array::zeros(F32, [1, o]);
        let [x, y] = real(128, 2 * step)?;
        let network = [weight(64, 32), bias(32), weight(32, 4), bias(4)];
        let [w1, b1, w2, b2] = network;
        Ok([w1, b1, w2, b2, x, y, labels.clone()])
    };
    let drawn = (0..steps).map(fresh).collect::<Result<Vec<_>>>()?;
    let images = Array::normal(F32, [4, 64], 0.5, 1);
    let rate = Array::scalar(1.0, F32);
    distil([("images", &images), ("lr", &rate)], &drawn)
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn main() -> Result<()> {
    let (losses, images) = run(3000)?;
    let [before, after] = [&losses[..20], &losses[2980..]].map(mean);
    println!(
        "four images teach fresh networks in five steps to a loss of {after:.3} ({before:.3} at first):"
    );
    let shade = |x: &f64| [' ', '.', ':', 'o', '#'][((x + 1.0) * 2.0).clamp(0.0, 4.0) as usize];
    let pixels: Vec<char> = images.to_f64_vec().iter().map(shade).collect();
    for row in 0..8 {
        let line = (0..4).map(|class| {
            pixels[class * 64 + row * 8..][..8]
                .iter()
                .collect::<String>()
        });
        println!("  {}", line.collect::<Vec<_>>().join("   "));
    }
    Ok(())
}

#[test]
fn distilled_images_teach_fresh_networks() {
    let (losses, _) = run(120).expect("finite");
    let (before, after) = (mean(&losses[..10]), mean(&losses[110..]));
    assert!(after < 0.8 * before, "{before} {after}");
}
