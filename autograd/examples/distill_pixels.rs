//! Dataset distillation (Wang et al. 2018, arXiv 1811.10959): one image per class, free in every pixel, from
//! which a fresh network learns in a few steps what thousands of images would teach it.
//!
//! `cargo run -p autograd --release --example distill_pixels`

mod support;

use autograd::optim::Optimizer;
use autograd::{Horizon, Result, Row, Scope, Training, Unroll, Values, Var};
use kernels::Device;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use support::{Adam, array, normal, numbers, port, put};

/// Images are 8×8; there are four classes of strokes, moved by a pixel or not, under noise.
const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;
const CLASSES: usize = 4;
const UNITS: usize = 32;
const REAL: usize = 128;
const STEPS: usize = 5;

fn logits<'t>(theta: &[Var<'t>], images: Var<'t>) -> Result<Var<'t>> {
    let hidden = (images.matmul(theta[0])? + theta[1])?.leaky_relu(0.1)?;
    hidden.matmul(theta[2])? + theta[3]
}

fn training() -> Training<'static> {
    let batch = |n: usize| [port("x", &[n, PIXELS]), port("y", &[n, CLASSES])];
    let [images, labels] = batch(CLASSES);
    Training {
        theta: vec![
            port("w", &[PIXELS, UNITS]),
            port("b", &[1, UNITS]),
            port("w", &[UNITS, CLASSES]),
            port("b", &[1, CLASSES]),
        ],
        buffers: vec![],
        shared: vec![],
        rows: vec![
            Row {
                port: images,
                learned: true,
            },
            Row {
                port: labels,
                learned: false,
            },
        ],
        outer_rows: batch(REAL).to_vec(),
        optimizer: Optimizer::Sgd,
        precondition: None,
        prepare: Box::new(|_, _| Ok(vec![])),
        loss: Box::new(|s: Scope<'_, '_>| {
            let loss = logits(s.theta, s.rows[0])?.cross_entropy(s.rows[1])?;
            Ok((loss, vec![]))
        }),
        outer: Box::new(|s: Scope<'_, '_>| logits(s.theta, s.rows[0])?.cross_entropy(s.rows[1])),
    }
}

/// Real images: a row, a column, a diagonal, or a square's outline, moved a little, under noise.
fn real(rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<f64>) {
    let (mut images, mut labels) = (Vec::new(), vec![0.0; REAL * CLASSES]);
    for i in 0..REAL {
        let (class, at) = (rng.random_range(0..CLASSES), rng.random_range(2..4));
        labels[i * CLASSES + class] = 1.0;
        for pixel in 0..PIXELS {
            let (row, column) = (pixel / SIDE, pixel % SIDE);
            let (down, right) = ((row + SIDE - at) % SIDE, (column + SIDE - at) % SIDE);
            let ink = match class {
                0 => row == at,
                1 => column == at,
                2 => row + at == column + 3,
                _ => down < 4 && right < 4 && (down % 3 == 0 || right % 3 == 0),
            };
            images.push(f64::from(u8::from(ink)) + normal(1, 0.5, rng)[0]);
        }
    }
    (images, labels)
}

/// The mean loss of twenty fresh networks, the same every time.
fn mean_loss(
    meta_gradient: &mut impl FnMut(&[f64], &mut ChaCha8Rng) -> Result<(Vec<f64>, f64)>,
    images: &[f64],
) -> Result<f64> {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let losses = (0..20).map(|_| Ok(meta_gradient(images, rng)?.1));
    Ok(losses.collect::<Result<Vec<f64>>>()?.iter().sum::<f64>() / 20.0)
}

/// Distils for so many outer steps, a fresh network in each. Gives the loss of fresh networks on real images
/// after the inner steps, before distilling and after, and the images.
fn distil(outer_steps: usize) -> Result<([f64; 2], Vec<f64>)> {
    let device = Device::cpu(Some(1))?;
    // One batch of four images for all steps: its gradient is the sum over the steps that took it.
    let (training, horizon) = (training(), Horizon::new(STEPS).rows(1));
    let mut unroll = Unroll::new(&device, &training, &horizon)?;
    let values = Values::new(&device, &training, &horizon)?;
    let labels: Vec<f64> = (0..CLASSES * CLASSES)
        .map(|i| f64::from(u8::from(i % CLASSES == i / CLASSES)))
        .collect();
    values
        .rows
        .set(0, 1, &array(&[CLASSES, CLASSES], &labels))?;
    for step in 0..STEPS {
        put(&values.hyper, step, &[1.0])?;
    }

    let mut meta_gradient = |images: &[f64], rng: &mut ChaCha8Rng| {
        values.rows.set(0, 0, &array(&[CLASSES, PIXELS], images))?;
        for (field, port) in training.theta.iter().enumerate() {
            let scale = if port.name == "w" {
                (2.0 / port.shape[0] as f64).sqrt()
            } else {
                0.0
            };
            let weights = normal(port.shape.count(), scale, rng);
            values.start.set(0, field, &array(&port.shape, &weights))?;
        }
        let (x, y) = real(rng);
        put(&values.outer_rows, 0, &[x, y].concat())?;
        let loss = unroll.gradient(values.given())?.total();
        let gradient = numbers(unroll.row_gradient(), 0)?[..images.len()].to_vec();
        Result::Ok((gradient, loss))
    };

    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mut images = normal(CLASSES * PIXELS, 0.5, rng);
    let mut adam = Adam::new(0.02, images.len());
    let before = mean_loss(&mut meta_gradient, &images)?;
    for outer_step in 0..outer_steps {
        let (gradient, loss) = meta_gradient(&images, rng)?;
        if outer_step % 500 == 0 {
            println!("outer step {outer_step:4}: loss on real images {loss:.3}");
        }
        adam.step(&mut images, &gradient);
    }
    let after = mean_loss(&mut meta_gradient, &images)?;
    Ok(([before, after], images))
}

fn draw(images: &[f64]) {
    for row in 0..SIDE {
        let line = (0..CLASSES).map(|class| {
            let pixels = &images[class * PIXELS + row * SIDE..][..SIDE];
            let shade =
                |&x: &f64| [' ', '.', ':', 'o', '#'][((x + 1.0) * 2.0).clamp(0.0, 4.0) as usize];
            pixels.iter().map(shade).collect::<String>()
        });
        println!("  {}", line.collect::<Vec<_>>().join("   "));
    }
}

fn main() -> Result<()> {
    let ([before, after], images) = distil(3000)?;
    println!(
        "four images teach fresh networks in {STEPS} steps to a loss of {after:.3} ({before:.3} at first):"
    );
    draw(&images);
    Ok(())
}

#[test]
fn distilled_images_teach_fresh_networks() {
    let ([before, after], _) = distil(100).expect("finite");
    assert!(after < 0.8 * before, "{before} {after}");
}
