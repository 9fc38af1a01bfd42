//! The table: what is tested, and where.

use autograd::prelude::*;
use autograd::{ConvOptions, Distribution};
use gtn::nn::layers::{self, Border};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

pub(crate) type Function = dyn for<'t> Fn(&'t Tape, &[Var<'t>]) -> Result<Vec<Var<'t>>>;

/// A function and the point that it is tested at.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) f: Box<Function>,
    pub(crate) points: Vec<Array>,
}

/// The table while it is written.
struct Table(Vec<Case>);

impl Table {
    fn add<F>(&mut self, name: &'static str, points: Vec<Array>, f: F)
    where
        F: for<'t> Fn(&'t Tape, &[Var<'t>]) -> Result<Vec<Var<'t>>> + 'static,
    {
        let f = Box::new(f);
        self.0.push(Case { name, f, points });
    }

    /// A function of one array, on several shapes.
    fn unary<F>(&mut self, name: &'static str, points: Vec<Array>, f: F)
    where
        F: for<'t> Fn(Var<'t>) -> Result<Var<'t>> + 'static,
    {
        self.add(name, points, move |_, x| x.iter().map(|&x| f(x)).collect());
    }

    /// A function of two arrays, on several pairs of shapes.
    fn binary<F>(&mut self, name: &'static str, points: fn(&[&[usize]]) -> Vec<Array>, f: F)
    where
        F: for<'t> Fn(Var<'t>, Var<'t>) -> Result<Var<'t>> + 'static,
    {
        let pairs: [&[usize]; 10] = [
            &[3, 5],
            &[3, 5], // as they are
            &[5],
            &[2, 3, 5], // fewer axes
            &[3, 1],
            &[1, 4], // both stretch
            &[],
            &[1],
            &[0, 3],
            &[1, 3],
        ];
        self.add(name, points(&pairs), move |_, x| {
            x.chunks(2).map(|pair| f(pair[0], pair[1])).collect()
        });
    }

    /// A linear function: its square has a second derivative that its transpose takes part in.
    fn linear<F>(&mut self, name: &'static str, shapes: &[&[usize]], f: F)
    where
        F: for<'t> Fn(&'t Tape, &[Var<'t>]) -> Result<Var<'t>> + 'static,
    {
        self.add(name, spread(shapes), move |tape, x| {
            let y = f(tape, x)?;
            Ok(vec![y, (y * y)?])
        });
    }
}

/// Numbers in (−1.5, 1.5), no two of all arrays alike, nor any close to 0: away from kinks and ties.
pub(crate) fn spread(shapes: &[&[usize]]) -> Vec<Array> {
    let counts: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let total: usize = counts.iter().sum();
    let mut numbers: Vec<f64> = (0..total)
        .map(|i| 3.0 * (i as f64 + 0.37) / total as f64 - 1.5)
        .collect();
    numbers.shuffle(&mut StdRng::seed_from_u64(total as u64));
    let mut rest = numbers.into_iter();
    let arrays = shapes.iter().zip(counts);
    arrays
        .map(|(shape, count)| {
            let own: Vec<f64> = rest.by_ref().take(count).collect();
            Array::new(*shape, own).unwrap()
        })
        .collect()
}

/// As [`spread`], in (0.3, 1.8).
pub(crate) fn positive(shapes: &[&[usize]]) -> Vec<Array> {
    let up = |array: Array| {
        let numbers: Vec<f64> = array.to_f64_vec().iter().map(|x| x.abs() + 0.3).collect();
        Array::new(array.shape().clone(), numbers).unwrap()
    };
    spread(shapes).into_iter().map(up).collect()
}

const ODD: [&[usize]; 5] = [&[3, 5], &[1], &[], &[0, 4], &[2, 1, 7]];

pub(crate) fn table() -> Vec<Case> {
    let mut table = Table(Vec::new());
    elementwise(&mut table);
    shapes(&mut table);
    contractions(&mut table);
    indices(&mut table);
    composed(&mut table);
    optimizers(&mut table);
    table.0
}

fn elementwise(t: &mut Table) {
    t.unary("neg", spread(&ODD), |x| -x);
    t.unary("exp", spread(&ODD), |x| x.exp());
    t.unary("log", positive(&ODD), |x| x.log());
    t.unary("sqrt", positive(&ODD), |x| x.sqrt());
    t.unary("rsqrt", positive(&ODD), |x| x.rsqrt());
    t.unary("tanh", spread(&ODD), |x| x.tanh());
    t.unary("sigmoid", spread(&ODD), |x| x.sigmoid());
    t.unary("abs", spread(&ODD), |x| x.abs()? * x);
    t.unary("sign", spread(&ODD), |x| x.sign()? * (x * x)?);
    t.unary("reciprocal", positive(&ODD), |x| x.reciprocal());
    t.unary("relu", spread(&ODD), |x| x.relu()? * x);
    t.unary("leaky_relu", spread(&ODD), |x| x.leaky_relu(0.2)?.exp());
    t.unary("log1p", positive(&ODD), |x| x.log1p());
    t.unary("expm1", spread(&ODD), |x| x.expm1());
    t.unary("softplus", spread(&ODD), |x| x.softplus());
    t.unary("log_sigmoid", spread(&ODD), |x| x.log_sigmoid());
    t.unary("silu", spread(&ODD), |x| x.silu());
    t.unary("gelu", spread(&ODD), |x| x.gelu());
    t.unary("sin", spread(&ODD), |x| x.sin());
    t.unary("cos", spread(&ODD), |x| x.cos());
    t.unary("erf", spread(&ODD), |x| x.erf());
    t.unary("erfc", spread(&ODD), |x| x.erfc());
    t.unary("clamp", spread(&ODD), |x| x.clamp(-0.8, 0.7)? * x);
    t.unary("powf", positive(&ODD), |x| x.powf(-1.7));
    t.unary("squares of roots", positive(&ODD), |x| {
        x.sqrt()?.powi(4)? + ((x.sqrt()? * 3.0)?.powi(2)? * x.abs()?.powi(2)?)?
    });
    t.add("powi", positive(&[&[3, 5]]), |_, x| {
        [-3, -1, 0, 1, 2, 3, 7]
            .iter()
            .map(|&n| x[0].powi(n))
            .collect()
    });
    t.add("powi of negative numbers", spread(&[&[3, 5]]), |_, x| {
        [0, 1, 2, 3, 7].iter().map(|&n| x[0].powi(n)).collect()
    });
    t.unary("numbers on the right", spread(&ODD), |x| {
        (((x + 0.5)? * 3.0)? - 0.25)? / 7.0
    });

    t.binary("add", spread, |x, y| (x + y)?.exp());
    t.binary("sub", spread, |x, y| (x - y)?.exp());
    t.binary("mul", spread, |x, y| x * y);
    t.binary("div", positive, |x, y| x / y);
    t.binary("pow", positive, |x, y| x.pow(y));
    t.binary("xlogy", positive, |x, y| x.xlogy(y));
    t.binary("max", spread, |x, y| x.max(y)?.exp());
    t.binary("min", spread, |x, y| x.min(y)?.exp());
    t.binary("less", spread, |x, y| x.less(y)? * x.exp()?);
    t.binary("less_eq", spread, |x, y| x.less_eq(y)? * y.exp()?);
    t.binary("equal", spread, |x, y| (x.equal(y)? + 1.0)? * y.exp()?);
    t.binary("a variable with itself", spread, |x, y| (x * x)? - (y + y)?);
    t.add("select", spread(&[&[3, 5], &[5], &[3, 1], &[]]), |_, x| {
        let mask = x[0].less(x[1])?;
        Ok(vec![
            mask.select(x[1].exp()?, x[2])?,
            mask.select(x[3], x[0])?,
            x[3].select(x[0], x[1])?,
        ])
    });
    t.add(
        "cast",
        vec![spread(&[&[4]]).remove(0), integers(&[3, -1, 0, 7])],
        |_, x| Ok(vec![(x[0].exp()? * x[1].cast(x[0].dtype()))?]),
    );
    t.add("constant", spread(&[&[2, 3]]), |tape, x| {
        let (dtype, shape) = (x[0].dtype(), x[0].shape());
        let two = tape.constant(2.0, dtype, shape);
        Ok(vec![(two / x[0].exp()?)?, (two - x[0])?, two])
    });
    t.add("iota", spread(&[&[2, 3]]), |tape, x| {
        let dtype = x[0].dtype();
        let (rows, columns) = (tape.iota(0, dtype, [2, 3])?, tape.iota(1, dtype, [2, 3])?);
        Ok(vec![((x[0] * rows)? + columns)?.tanh()?])
    });
    t.add("perturbation", spread(&[&[3]]), |tape, x| {
        let shift = tape.perturbation(x[0].dtype(), [3]);
        Ok(vec![(x[0] + shift)?.exp()?])
    });
}

fn integers(numbers: &[i32]) -> Array {
    Array::new([numbers.len()], numbers.to_vec()).unwrap()
}

fn shapes(t: &mut Table) {
    t.linear("reshape", &[&[3, 4]], |_, x| {
        x[0].reshape([2, 6])?.reshape([2, 1, 3, 2])
    });
    t.linear("permute", &[&[2, 3, 5]], |_, x| x[0].permute(&[2, 0, 1]));
    t.linear("permute twice, reshaped between", &[&[2, 3, 5]], |_, x| {
        x[0].permute(&[1, 2, 0])?.reshape([3, 10])?.permute(&[1, 0])
    });
    t.linear("broadcast", &[&[3, 1]], |_, x| x[0].expand([2, 3, 4]));
    t.linear("broadcast a number", &[&[]], |_, x| x[0].expand([2, 3]));
    t.linear("slice", &[&[4, 5]], |_, x| x[0].slice(&[1, 2], &[2, 3]));
    t.linear("slice of nothing", &[&[4, 5]], |_, x| {
        x[0].slice(&[1, 2], &[0, 3])
    });
    t.linear("pad", &[&[2, 3]], |_, x| x[0].pad(&[1, 0], &[2, 3]));
    t.linear(
        "concat",
        &[&[2, 3], &[2, 1], &[2, 0], &[2, 4]],
        |tape, x| tape.concat(x, 1),
    );
    t.linear(
        "concat of one array twice",
        &[&[2, 3], &[1, 3]],
        |tape, x| tape.concat(&[x[0], x[1], x[0]], 0),
    );
    t.linear("take", &[&[2, 4, 3]], |_, x| x[0].take(1, &[3, 0, 0, 2, 3]));
    t.linear("reflect_pad", &[&[2, 4, 3]], |_, x| x[0].reflect_pad(1, 3));
    t.linear("edge_pad", &[&[2, 4, 3]], |_, x| x[0].edge_pad(2, 2));
    t.linear("upsample", &[&[2, 3, 1, 2]], |_, x| x[0].upsample(3));
    t.linear("sum", &[&[2, 3, 4]], |_, x| x[0].sum(&[0, 2]));
    t.linear("sum_keep", &[&[2, 3, 4]], |_, x| x[0].sum_keep(&[1]));
    t.linear("sum over the first axes", &[&[3, 2, 4]], |_, x| {
        x[0].sum(&[0, 1])
    });
    t.linear("sum over the last axes", &[&[3, 2, 4]], |_, x| {
        x[0].sum(&[1, 2])
    });
    t.linear("sum_all", &[&[2, 3, 5]], |_, x| x[0].sum_all());
    t.linear("sum of nothing", &[&[3, 0]], |_, x| x[0].sum(&[1]));
    t.linear("mean_all", &[&[2, 3, 5]], |_, x| x[0].mean_all());
    t.linear("mean_keep", &[&[2, 3, 5]], |_, x| x[0].mean_keep(&[0, 2]));
    t.linear("sum_of", &[&[2, 3], &[2, 3], &[2, 3]], |tape, x| {
        tape.sum_of(x)
    });
}

fn contractions(t: &mut Table) {
    for (name, a, b, ta, tb) in [
        ("matmul", [3, 5], [5, 2], false, false),
        ("matmul, first transposed", [5, 3], [5, 2], true, false),
        ("matmul, second transposed", [3, 5], [2, 5], false, true),
        ("matmul, both transposed", [5, 3], [2, 5], true, true),
        ("matmul of a row and a column", [1, 7], [7, 1], false, false),
        ("matmul of a column and a row", [3, 1], [1, 4], false, false),
        ("matmul of nothing", [3, 0], [0, 2], false, false),
        (
            "matmul, larger than a tile",
            [17, 19],
            [19, 9],
            false,
            false,
        ),
    ] {
        t.add(name, spread(&[&a, &b]), move |_, x| {
            Ok(vec![x[0].matmul_with(x[1], ta, tb)?])
        });
    }
    t.add(
        "matmul, a batch",
        spread(&[&[3, 2, 4], &[3, 5, 4]]),
        |_, x| Ok(vec![x[0].matmul_with(x[1], false, true)?.tanh()?]),
    );
    t.add(
        "matmul of a matrix with itself",
        spread(&[&[3, 3]]),
        |_, x| {
            Ok(vec![
                x[0].matmul(x[0])?,
                x[0].matmul_with(x[0], true, false)?,
            ])
        },
    );
    for (name, x, w, stride, pad) in [
        ("conv2d", [2, 4, 5, 3], [2, 3, 3, 3], [1, 1], [1; 4]),
        (
            "conv2d, one pixel, one channel",
            [1, 1, 1, 1],
            [1, 1, 1, 1],
            [1, 1],
            [0; 4],
        ),
        (
            "conv2d, steps that leave a rest",
            [1, 6, 5, 2],
            [3, 2, 3, 2],
            [3, 2],
            [0; 4],
        ),
        (
            "conv2d, uneven borders",
            [2, 3, 2, 1],
            [1, 2, 4, 1],
            [1, 2],
            [2, 0, 1, 3],
        ),
        ("conv2d, 1×1", [2, 3, 3, 4], [5, 1, 1, 4], [1, 1], [0; 4]),
    ] {
        t.add(name, spread(&[&x, &w]), move |_, x| {
            Ok(vec![x[0].conv2d(x[1], ConvOptions { stride, pad })?])
        });
    }
    t.add(
        "conv2d, a batch",
        spread(&[&[3, 2, 4, 3, 2], &[3, 3, 2, 3, 2]]),
        |_, x| {
            let (stride, pad) = ([2, 1], [1, 0, 1, 1]);
            Ok(vec![
                x[0].conv2d(x[1], ConvOptions { stride, pad })?.tanh()?,
            ])
        },
    );
    t.add(
        "conv2d_transposed, a batch",
        spread(&[&[2, 1, 2, 3, 3], &[2, 3, 3, 2, 2]]),
        |_, x| {
            let (stride, pad) = ([1, 2], [1, 0, 0, 1]);
            let y = x[0].conv2d_transposed(x[1], ConvOptions { stride, pad })?;
            Ok(vec![y.tanh()?])
        },
    );
    t.add(
        "convolutions one after another",
        spread(&[&[1, 4, 4, 2], &[2, 3, 3, 2]]),
        |_, x| {
            let options = ConvOptions::padded(1);
            let hidden = x[0].conv2d(x[1], options)?.tanh()?;
            Ok(vec![hidden.conv2d(x[1], options)?])
        },
    );
}

fn indices(t: &mut Table) {
    let table = || spread(&[&[4, 3]]).remove(0);
    t.add("rows", vec![table(), integers(&[2, 0, 2, 3, 2])], |_, x| {
        let picked = x[0].rows(x[1])?;
        Ok(vec![picked, (picked * picked)?])
    });
    t.add(
        "rows of numbers",
        vec![spread(&[&[5]]).remove(0), integers(&[4, 4])],
        |_, x| Ok(vec![x[0].rows(x[1])?.exp()?]),
    );
    t.add("one_hot", vec![table(), integers(&[2, 0, 1, 2])], |_, x| {
        Ok(vec![(x[1].one_hot(3, x[0].dtype())? * x[0].exp()?)?])
    });
    t.add("argmax", spread(&[&[4, 3], &[2, 3, 2]]), |_, x| {
        let dtype = x[0].dtype();
        let middle = x[1].argmax(1)?.cast(dtype).reshape([4, 1])?;
        Ok(vec![
            (x[0].argmax(0)?.cast(dtype) * x[0].exp()?)?,
            (middle * x[0].tanh()?)?,
        ])
    });
    t.linear("max_last", &[&[2, 3, 5]], |_, x| x[0].max_last());
    for (name, x, window, stride, pad) in [
        ("max_pool", [2, 4, 6, 3], [2, 2], [2, 2], [0; 4]),
        (
            "max_pool, windows that overlap",
            [1, 5, 5, 2],
            [3, 3],
            [1, 2],
            [0; 4],
        ),
        (
            "max_pool, borders and gaps",
            [1, 5, 4, 1],
            [2, 2],
            [3, 2],
            [1, 1, 1, 0],
        ),
        ("max_pool, one pixel", [1, 1, 1, 3], [1, 1], [1, 1], [0; 4]),
    ] {
        t.linear(name, &[&x], move |_, x| x[0].max_pool(window, stride, pad));
    }
    let key = || Array::new([4], vec![7_u32, 1 << 31, 3, 250]).unwrap();
    for (name, distribution) in [
        ("random, uniform", Distribution::Uniform),
        ("random, normal", Distribution::Normal),
    ] {
        let x = spread(&[&[7, 3]]).remove(0);
        t.add(name, vec![key(), x], move |tape, x| {
            let (dtype, shape) = (x[1].dtype(), x[1].shape());
            let one = tape.random(x[0], 1, distribution, dtype, shape.clone())?;
            let other = tape.random(x[0], 2, distribution, dtype, shape)?;
            Ok(vec![one, ((x[1] * one)?.exp()? + other)?])
        });
    }
}

fn composed(t: &mut Table) {
    t.unary("softmax", spread(&[&[3, 5], &[2, 1, 4]]), |x| x.softmax());
    t.unary("logsumexp", spread(&[&[3, 5], &[2, 1, 4]]), |x| {
        x.logsumexp()
    });
    t.add("mean_squared_error", spread(&[&[3, 5], &[5]]), |_, x| {
        Ok(vec![x[0].mean_squared_error(x[1])?])
    });
    t.unary("moments", spread(&[&[3, 5], &[4, 1, 2]]), |x| {
        let moments = x.moments(&[0])?;
        (moments.mean * moments.variance)? + (moments.centered * moments.inverse_deviation(0.1)?)?
    });
    t.unary("variance_keep", spread(&[&[3, 5], &[4, 3, 2]]), |x| {
        x.variance_keep(&[1])
    });
    t.unary("norm", spread(&[&[3, 5], &[1], &[]]), |x| x.norm());
    t.unary("norm_keep", spread(&[&[3, 5], &[4, 3, 2]]), |x| {
        x.norm_keep(&[1])?.exp()
    });
    t.unary("inverse_norm_keep", spread(&[&[3, 5], &[4, 3, 2]]), |x| {
        let [unit, rest] = x.inverse_norm_keep(&[1])?;
        unit * rest
    });
    t.add("norm_of", spread(&[&[3, 5], &[2], &[]]), |tape, x| {
        Ok(vec![tape.norm_of(x)?, tape.norm_of(x)?.powi(2)?])
    });
    t.add("cross_entropy", spread(&[&[3, 5], &[3, 5]]), |_, x| {
        Ok(vec![x[0].cross_entropy(x[1])?])
    });
    t.add(
        "cross_entropy of several models",
        spread(&[&[2, 3, 5], &[3, 5]]),
        |_, x| Ok(vec![x[0].cross_entropy(x[1])?]),
    );
    t.add(
        "cross_entropy, saturated",
        spread(&[&[3, 5], &[3, 5]]),
        |_, x| Ok(vec![(x[0] * 20.0)?.cross_entropy(x[1])?]),
    );
    t.add("a sigmoid, saturated", spread(&[&[3, 5]]), |_, x| {
        Ok(vec![(x[0] * 40.0)?.sigmoid()?, (x[0] * 40.0)?.tanh()?])
    });
    t.add("weight norm", spread(&[&[4, 5], &[3, 5], &[3]]), |_, x| {
        let scale = layers::weight_scale(x[1], x[2])?;
        Ok(vec![layers::dense(x[0], x[1], scale)?])
    });
    t.add(
        "weight norm, a large batch",
        spread(&[&[4, 3], &[2, 3], &[2]]),
        |_, x| {
            let scale = layers::weight_scale(x[1], x[2])?;
            Ok(vec![layers::dense(x[0], x[1], scale)?])
        },
    );
    let shapes: [&[usize]; 3] = [&[2, 3, 3, 2], &[2], &[2]];
    t.add("batch_norm", spread(&shapes), |_, x| {
        let moments = layers::moments(x[0], 0)?;
        Ok(vec![layers::batch_norm(&moments, [x[1], x[2]])?])
    });
    t.add("mean_only_batch_norm", spread(&shapes[..2]), |_, x| {
        let y = layers::mean_only_batch_norm(x[0], layers::mean(x[0], 0)?, x[1])?;
        Ok(vec![y.tanh()?])
    });
    for (name, border) in [
        ("upsample_conv, zeros outside", Border::Zero),
        ("upsample_conv, mirrored outside", Border::Reflect),
    ] {
        t.add(
            name,
            spread(&[&[1, 2, 3, 2], &[2, 3, 3, 2], &[2]]),
            move |_, x| {
                let kernel = layers::upsampling_kernel(layers::kernel(x[1], x[2])?)?;
                Ok(vec![layers::upsample_conv(x[0], kernel, border)?])
            },
        );
    }
    let point = spread(&[&[3, 4]]).remove(0);
    t.add(
        "a loss at its least: zero gradient",
        vec![point.clone(), point],
        |_, x| {
            let apart = (x[0] - x[1])?;
            Ok(vec![((apart * apart)? * x[0].exp()?)?.sum_all()?])
        },
    );
    t.add(
        "a gradient through a step of training",
        spread(&[&[2, 3], &[4, 3], &[]]),
        |tape, x| {
            let fit = x[1].matmul_with(x[0], false, true)?.tanh()?;
            let gradient = tape.grad(fit.powi(3)?.sum_all()?, &x[..1])?[0];
            let trained = (x[0] - (x[2] * gradient)?)?;
            Ok(vec![x[1].matmul_with(trained, false, true)?.tanh()?])
        },
    );
}

fn optimizers(t: &mut Table) {
    // In fixed point a momentum has steps, which differences would see: it is given, and the state a start.
    t.add(
        "reversible-momentum",
        spread(&[&[2, 3], &[2, 3], &[2, 3], &[]]),
        |tape, x| {
            let fixed = &Optimizer::ReversibleMomentum.state(&x[0].shape(), x[0].dtype())[1];
            let fixed = tape.constant(0.0, fixed.dtype, fixed.shape.clone());
            let hyper = [x[3], tape.constant(0.75, x[0].dtype(), [])];
            let step = |theta, g, state: &[_]| {
                Optimizer::ReversibleMomentum.update(theta, g, state, &hyper)
            };
            let (theta, state) = step(x[0], x[1], &[x[2], fixed])?;
            let (theta, state) = step(theta, (x[1] * theta)?, &state)?;
            Ok(vec![theta, state[0]])
        },
    );
    let smooth = |optimizer: &Optimizer| *optimizer != Optimizer::ReversibleMomentum;
    for optimizer in Optimizer::ALL.into_iter().filter(smooth) {
        let (theta, scalar) = (Shape::from([2, 3]), Shape::scalar());
        let state = optimizer.state(&theta, F64);
        let mut shapes: Vec<&[usize]> = vec![&theta, &theta];
        shapes.extend(state.iter().map(|spec| &*spec.shape));
        let states = state.len();
        let hyper = optimizer.hyper().iter().map(|_| &*scalar);
        shapes.extend(hyper);
        t.add(optimizer.name(), positive(&shapes), move |_, x| {
            let (state, hyper) = x[2..].split_at(states);
            // All positive, and betas below 1.
            let hyper = hyper.iter().map(|h| h.tanh()).collect::<Result<Vec<_>>>()?;
            let (moved, next) = optimizer.update(x[0], x[1], state, &hyper)?;
            Ok([vec![moved], next].concat())
        });
    }
    for (name, shape) in [
        ("muon of a tall matrix", &[4, 2][..]),
        ("muon of a kernel", &[3, 2, 1, 3]),
        ("muon of a vector", &[3]),
    ] {
        t.add(name, spread(&[shape, shape, shape, &[], &[]]), |_, x| {
            let (moved, next) = Optimizer::Muon.update(x[0], x[1], &x[2..3], &x[3..])?;
            Ok([vec![moved], next].concat())
        });
    }
}
