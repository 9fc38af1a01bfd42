//! Random trainings: every schedule gives the bits of `store-all`, both modes agree, and the meta-gradient is the
//! difference quotient of the meta-loss.

use crate::draw::Draw;
use autograd::prelude::*;
use tensor::Arrays;

/// A training that was drawn.
#[derive(Clone, Debug)]
struct Drawn {
    optimizer: Optimizer,
    dtype: DType,
    steps: usize,
    outer_every: usize,
    /// Rows of the inner and the outer batch, columns of x, of what is hidden, and of y.
    sizes: [usize; 5],
    /// What is between the products, by numbers.
    functions: [usize; 3],
    prepared: bool,
}

/// Names of the arrays that are learned.
const LEARNED: [&str; 3] = ["w", "v", "x"];

impl Drawn {
    fn new(draw: &mut Draw) -> Self {
        let optimizers = [
            Optimizer::Sgd,
            Optimizer::Momentum,
            Optimizer::Nesterov,
            Optimizer::RmsProp,
            Optimizer::Adam,
            Optimizer::ReversibleMomentum,
        ];
        Self {
            optimizer: draw.of(&optimizers),
            dtype: draw.of(&[F32, F64]),
            steps: draw.between(1, 9),
            outer_every: draw.between(1, 9),
            sizes: std::array::from_fn(|_| draw.between(1, 5)),
            functions: std::array::from_fn(|_| draw.below(9)),
            prepared: draw.once_in(2),
        }
    }

    fn training(&self) -> Training<'static> {
        let Self {
            dtype,
            steps,
            sizes: [batch, outer, inputs, hidden, outputs],
            ..
        } = *self;
        let array = |name: &str, shape: &[usize]| ArraySpec::new(name, dtype, shape);
        let weights = [
            array("w", &[inputs, hidden]),
            array("v", &[hidden, outputs]),
        ];
        let hyper = self.optimizer.hyper().iter();
        let hyper = hyper.map(|(name, _)| array(name, &[steps]));
        let functions = self.functions;
        let training = Training::new(self.optimizer)
            .weights(&weights)
            .learned(&weights)
            .learned([array("x", &[steps, batch, inputs])])
            .learned(hyper.collect::<Vec<_>>())
            .given([
                array("y", &[steps, batch, outputs]),
                array("x_outer", &[outer, inputs]),
                array("y_outer", &[outer, outputs]),
            ])
            .per_step(["x", "y"])
            .loss(move |s| loss(functions, [s["x"], s["w"], s["v"], s["y"]]))
            .outer(move |s| loss(functions, [s["x_outer"], s["w"], s["v"], s["y_outer"]]));
        if self.prepared {
            training.prepare("x", |s| s["x"].sin()? * 1.5)
        } else {
            training
        }
    }

    fn horizon(&self, policy: impl Into<Policy>, mode: Mode, segments: usize) -> Horizon {
        let (steps, every) = (self.steps, self.outer_every);
        Horizon::new(steps)
            .outer_at(|t| t == steps || t.is_multiple_of(every))
            .schedule(policy)
            .mode(mode)
            .segments(segments)
    }

    /// Numbers for all that is declared.
    fn arrays(&self, draw: &mut Draw) -> Arrays {
        let training = self.training();
        let declared = training.learned_specs().chain(training.given_specs());
        let usual: std::collections::HashMap<&str, f64> =
            self.optimizer.hyper().iter().copied().collect();
        let mut arrays = Arrays::new();
        for spec in declared {
            let array = match usual.get(spec.name.as_str()) {
                // Eps small beside the roots that it is added to is no matter; these are.
                Some(_) if spec.name == "eps" => Array::full(spec.dtype, spec.shape.clone(), 0.1),
                Some(&usual) => Array::full(spec.dtype, spec.shape.clone(), usual),
                None => draw.array(spec.dtype, &spec.shape),
            };
            arrays.insert(spec.name.clone(), array);
        }
        arrays
    }

    fn run(&self, horizon: &Horizon, arrays: &Arrays, threads: usize) -> Result<(Losses, Arrays)> {
        let device = Device::cpu(Some(threads))?;
        let training = self.training();
        let named = arrays.iter().map(|(name, array)| (name.as_str(), array));
        let values = Values::new(&device, named)?;
        let mut unroll = Unroll::new(&device, &training, horizon)?;
        let losses = unroll.gradient(&values)?;
        Ok((losses, unroll.gradients().to_arrays()?))
    }
}

/// The mean squared error of two layers, with something smooth between.
fn loss(functions: [usize; 3], [x, w, v, y]: [Var<'_>; 4]) -> Result<Var<'_>> {
    let hidden = smooth(functions[0], x.matmul(w)?)?;
    let hidden = smooth(functions[1], hidden)?;
    let out = smooth(functions[2], hidden.matmul(v)?)?;
    (out - y)?.powi(2)?.mean_all()
}

fn smooth(function: usize, x: Var<'_>) -> Result<Var<'_>> {
    match function {
        0 => x.tanh(),
        1 => x.sigmoid(),
        2 => x.softplus(),
        3 => x.sin(),
        4 => x.gelu(),
        5 => (x * x)? + 0.5,
        6 => x / ((x * x)? + 1.0)?,
        7 => (x - x.mean_keep(&[0])?)? / (x.variance_keep(&[0])? + 0.5)?.sqrt()?,
        _ => Ok(x),
    }
}

/// A schedule, or who picks one.
fn policy(draw: &mut Draw, drawn: &Drawn) -> Policy {
    let schedule = match draw.below(4) {
        0 => Schedule::per_step(),
        1 => Schedule::every(draw.between(1, 10)),
        2 if drawn.optimizer == Optimizer::ReversibleMomentum => Schedule::reversible(1.0),
        _ => Schedule::binomial(draw.between(1, 10)),
    };
    let schedule = if draw.once_in(3) {
        schedule.with_activations(draw.between(1, 9))
    } else {
        schedule
    };
    match draw.below(7) {
        0 => Policy::Auto,
        1 => Policy::Lean,
        2 => Policy::Window(drawn.steps),
        3 => schedule.with_prelude().into(),
        _ => schedule.into(),
    }
}

/// Tries a training.
pub(crate) fn attempt(draw: &mut Draw) -> Result<(), String> {
    let drawn = Drawn::new(draw);
    let checked = check(draw, &drawn).unwrap_or_else(|error| Some(error.to_string()));
    checked.map_or(Ok(()), |reason| Err(format!("{drawn:?}: {reason}")))
}

/// What is wrong.
fn check(draw: &mut Draw, drawn: &Drawn) -> Result<Option<String>> {
    let arrays = drawn.arrays(draw);
    let mode = draw.of(&[Mode::Mixed, Mode::Reverse]);
    let stored = drawn.horizon(Schedule::store_all(), mode, 1);
    let (losses, gradient) = match drawn.run(&stored, &arrays, 1) {
        // A training may run away, whatever is stored of it.
        Err(Error::NotFinite { .. }) => return Ok(None),
        found => found?,
    };
    let (policy, segments) = (policy(draw, drawn), draw.between(1, 3));
    let threads = draw.between(1, 3);
    let horizon = drawn.horizon(policy, mode, segments);
    let horizon = horizon.free_bytes(draw.below(1 << 17));
    let scheduled = drawn.run(&horizon, &arrays, threads)?;
    if scheduled != (losses.clone(), gradient.clone()) {
        return Ok(Some(format!(
            "{policy} in {segments} segments, {mode:?}: other bits"
        )));
    }
    let other = match mode {
        Mode::Mixed => Mode::Reverse,
        Mode::Reverse => Mode::Mixed,
    };
    let (_, crossed) = drawn.run(&drawn.horizon(policy, other, 1), &arrays, 1)?;
    let allowed = if drawn.dtype == F64 { 1e-9 } else { 2e-3 };
    let (error, name) = apart(&gradient, &crossed);
    if error > allowed {
        return Ok(Some(format!("modes differ by {error:.1e} in {name}")));
    }
    // The whole multiples of reversible momentum have no slope to be measured.
    if drawn.dtype == F64 && drawn.optimizer != Optimizer::ReversibleMomentum {
        return quotient(draw, drawn, &arrays, &gradient);
    }
    Ok(None)
}

/// The slope of the meta-loss along a direction, by differences of fourth order, beside that of the gradient.
fn quotient(
    draw: &mut Draw,
    drawn: &Drawn,
    arrays: &Arrays,
    gradient: &Arrays,
) -> Result<Option<String>> {
    const STEP: f64 = 1e-3;
    let directions: Arrays = LEARNED
        .iter()
        .map(|name| ((*name).to_owned(), draw.array(F64, arrays[*name].shape())))
        .collect();
    let horizon = drawn.horizon(Schedule::per_step(), Mode::Mixed, 1);
    let at = |shift: f64| -> Result<f64> {
        let mut moved = arrays.clone();
        for (name, direction) in &directions {
            let sum = moved[name]
                .to_f64_vec()
                .into_iter()
                .zip(direction.to_f64_vec());
            let sum: Vec<f64> = sum.map(|(x, d)| x + shift * d).collect();
            moved.insert(name.clone(), Array::new(direction.shape().clone(), sum)?);
        }
        match drawn.run(&horizon, &moved, 1) {
            Err(Error::NotFinite { .. }) => Ok(f64::NAN),
            found => Ok(found?.0.total()),
        }
    };
    let [near, far] = [STEP, 2.0 * STEP].map(|h| Ok::<f64, Error>(at(h)? - at(-h)?));
    let (near, far) = (near? / (2.0 * STEP), far? / (4.0 * STEP));
    let measured = (4.0 * near - far) / 3.0;
    // Where the loss bends as much as that, as that of a training on the verge of running away, no step is small.
    if (near - far).abs() > 1e-2 * near.abs() {
        return Ok(None);
    }
    let products = directions.iter().flat_map(|(name, direction)| {
        let gradient = gradient[name].to_f64_vec().into_iter();
        gradient.zip(direction.to_f64_vec()).map(|(g, d)| g * d)
    });
    let products: Vec<f64> = products.collect();
    let (slope, size) = (
        products.iter().sum::<f64>(),
        products.iter().map(|x| x.abs()).sum::<f64>(),
    );
    let error = (slope - measured).abs() / (size + 1e-3);
    if error < 1e-4 || measured.is_nan() {
        return Ok(None);
    }
    Ok(Some(format!("slope {slope}, by differences {measured}")))
}

/// How far two gradients are apart, against the greatest number of both; and in which array.
fn apart(a: &Arrays, b: &Arrays) -> (f64, String) {
    let greatest = |all: &Arrays| {
        let numbers = all.values().flat_map(Array::to_f64_vec);
        numbers.fold(0.0, |most: f64, x| most.max(x.abs()))
    };
    let scale = greatest(a).max(greatest(b)).max(1e-6);
    let mut worst = (0.0, String::new());
    for (name, a) in a {
        for (x, y) in a.to_f64_vec().into_iter().zip(b[name].to_f64_vec()) {
            let error = (x - y).abs() / scale;
            if error > worst.0 || error.is_nan() {
                worst = (
                    if error.is_nan() { f64::INFINITY } else { error },
                    name.clone(),
                );
            }
        }
    }
    worst
}
