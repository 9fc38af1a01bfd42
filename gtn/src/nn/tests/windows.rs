//! Every layer against plain loops, in f64.

use super::values::{assert_close, compute, noise};
use crate::nn::network::{Layer, Pool, Window};
use crate::nn::{Network, Statistics, init};
use rand::{SeedableRng, rngs::StdRng};
use tensor::{Array, DType};

const IMAGE: [usize; 3] = [7, 6, 4];
const EXAMPLES: usize = 2;

/// The layer's results for images of noise, and those images with its parameters, whose starts are noise as well.
fn layer(text: &str) -> (Network, Vec<f64>, Vec<Vec<f64>>) {
    let network: Network = format!("weight_norm off | {text}").parse().unwrap();
    let learner = network.unchecked(IMAGE, 10).unwrap();
    let rng = &mut StdRng::seed_from_u64(1);
    let mut arrays = init(learner.params(), DType::F64, rng).unwrap();
    for (array, seed) in arrays.iter_mut().zip(7..) {
        *array = noise(array.shape(), seed);
    }
    arrays.push(noise(&[&[EXAMPLES], &IMAGE[..]].concat(), 3));
    let names: Vec<String> = (0..arrays.len()).map(|i| format!("a{i}")).collect();
    let named: Vec<_> = names.iter().map(|name| &name[..]).zip(&arrays).collect();
    let mut results = compute(&named, |vars| {
        let [theta @ .., x] = vars else {
            unreachable!("parameters and x")
        };
        Ok(vec![learner.logits(theta, *x, Statistics::Batch)?.0])
    });
    let given = arrays.iter().map(Array::to_f64_vec).collect();
    (learner.network().clone(), results.remove(0), given)
}

/// For every example, place and tap of a window that lies in the image: the indices of example and place, the tap, and
/// the pixel's row and column.
fn visit(window: &Window, mut see: impl FnMut([usize; 3], [usize; 2], [usize; 2])) -> [usize; 2] {
    let [h, w, _] = IMAGE;
    let [rows, columns] = window.count([h, w]).unwrap();
    for at in 0..EXAMPLES * rows * columns {
        let place = [at / (rows * columns), at / columns % rows, at % columns];
        for tap in 0..window.size[0] * window.size[1] {
            let tap = [tap / window.size[1], tap % window.size[1]];
            let pixel = [0, 1].map(|i| {
                let at = place[i + 1] * window.stride[i] + tap[i] * window.dilation[i];
                at.wrapping_sub(window.pad[2 * i])
            });
            if pixel[0] < h && pixel[1] < w {
                see(place, tap, pixel);
            }
        }
    }
    [rows, columns]
}

fn pixel(x: &[f64], example: usize, [row, column]: [usize; 2], channel: usize) -> f64 {
    let [h, w, c] = IMAGE;
    x[((example * h + row) * w + column) * c + channel]
}

#[test]
fn convolutions() {
    for text in [
        "conv 6",
        "conv 5 1x3 stride 2",
        "conv 6 3x2 groups 2 stride 2x1 pad 1x0",
        "conv 8 dilation 2 groups 4 no_bias",
        "conv 3 2x3 dilation 1x2 stride 3 pad 0x1x2x0",
        "depthwise",
        "depthwise 2x3 stride 2 pad 1x0",
        "depthwise 3 dilation 2x1 stride 1x3 no_bias",
        "depthwise 1 stride 4",
    ] {
        let (network, found, given) = layer(text);
        let (window, out, groups, bias) = match &network.layers[0] {
            Layer::Conv {
                filters,
                window,
                groups,
                bias,
            } => (window, *filters, *groups, *bias),
            Layer::Depthwise { window, bias } => (window, IMAGE[2], IMAGE[2], *bias),
            other => panic!("{other}"),
        };
        let (weight, x) = (&given[0], given.last().unwrap());
        let (inputs, [_, kw]) = (IMAGE[2] / groups, window.size);
        let taps = window.size[0] * kw;
        let mut wanted = vec![0.0; found.len()];
        let [_, columns] = window.count([IMAGE[0], IMAGE[1]]).unwrap();
        visit(window, |[example, row, column], tap, at| {
            let rows = window.count([IMAGE[0], IMAGE[1]]).unwrap()[0];
            let place = ((example * rows + row) * columns + column) * out;
            for unit in 0..out {
                for input in 0..inputs {
                    let channel = unit / (out / groups) * inputs + input;
                    let w = weight[(unit * taps + tap[0] * kw + tap[1]) * inputs + input];
                    wanted[place + unit] += w * pixel(x, example, at, channel);
                }
            }
        });
        if bias {
            let biases = given[1].iter().cycle();
            wanted.iter_mut().zip(biases).for_each(|(y, b)| *y += b);
        }
        assert_close(&found, &wanted);
    }
}

#[test]
fn pooling() {
    for text in [
        "avg 2",
        "avg 3 stride 2 pad 1",
        "avg 2x3 stride 1 pad 1x0x2x1",
        "max 3 stride 2 pad 1",
        "max 1x2 stride 3",
    ] {
        let (network, found, given) = layer(text);
        let Layer::Pool { kind, window } = &network.layers[0] else {
            panic!("{network}")
        };
        let c = IMAGE[2];
        let [rows, columns] = window.count([IMAGE[0], IMAGE[1]]).unwrap();
        let mut seen = vec![Vec::new(); found.len()];
        visit(window, |[example, row, column], _, at| {
            let place = ((example * rows + row) * columns + column) * c;
            for channel in 0..c {
                seen[place + channel].push(pixel(&given[0], example, at, channel));
            }
        });
        let of_window = |seen: &Vec<f64>| match kind {
            Pool::Max => seen.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Pool::Average => seen.iter().sum::<f64>() / seen.len() as f64,
        };
        assert_close(&found, &seen.iter().map(of_window).collect::<Vec<_>>());
    }
}

/// The numbers of one group of an example by its mean and variance, then by the channel's map.
#[test]
fn norms_of_an_example() {
    for (text, groups) in [
        ("instance", 4),
        ("group 2", 2),
        ("group 3", 2),
        ("layer", 1),
    ] {
        let (_, found, given) = layer(text);
        let [gamma, beta, x] = &given[..] else {
            panic!("gamma, beta and x")
        };
        let [h, w, c] = IMAGE;
        let size = c / groups;
        let mut wanted = vec![0.0; found.len()];
        for (example, group) in (0..EXAMPLES).flat_map(|e| (0..groups).map(move |g| (e, g))) {
            let own = (0..h * w * size)
                .map(|i| (example * h * w + i / size) * c + group * size + i % size);
            let count = (h * w * size) as f64;
            let mean = own.clone().map(|i| x[i]).sum::<f64>() / count;
            let variance = own.clone().map(|i| (x[i] - mean).powi(2)).sum::<f64>() / count;
            for i in own {
                let unit = (x[i] - mean) / (variance + 1e-5).sqrt();
                wanted[i] = gamma[i % c] * unit + beta[i % c];
            }
        }
        assert_close(&found, &wanted);
    }
}

#[test]
fn element_wise_layers_and_branches() {
    let erf = |x: f64| {
        // Its series, for numbers of noise.
        let term = |n: i32, x: f64| x.powi(2 * n + 1) / f64::from(2 * n + 1);
        let mut factorial = 1.0;
        let terms = (0..80).map(|n| {
            factorial *= if n > 0 { -f64::from(n) } else { 1.0 };
            term(n, x) / factorial
        });
        terms.sum::<f64>() * 2.0 / std::f64::consts::PI.sqrt()
    };
    let functions: [(&str, &dyn Fn(f64) -> f64); 8] = [
        ("relu", &|x| x.max(0.0)),
        ("leaky", &|x| x.max(0.1 * x)),
        ("leaky 0.25", &|x| x.max(0.25 * x)),
        ("gelu", &|x| x * 0.5 * (1.0 + erf(x / 2_f64.sqrt()))),
        ("silu", &|x| x / (1.0 + (-x).exp())),
        ("tanh", &f64::tanh),
        ("add(tanh)", &|x| x + x.tanh()),
        ("add(relu; tanh; input)", &|x| x + x.tanh() + x.max(0.0)),
    ];
    for (text, function) in functions {
        let (_, found, given) = layer(text);
        let wanted: Vec<f64> = given[0].iter().map(|x| function(*x)).collect();
        assert_close(&found, &wanted);
    }
    let (_, found, given) = layer("concat(tanh)");
    let pixels = given[0].chunks(IMAGE[2]);
    let tanh = |pixel: &[f64]| -> Vec<f64> { pixel.iter().map(|x| x.tanh()).collect() };
    let wanted: Vec<f64> = pixels
        .flat_map(|p| [p.to_vec(), tanh(p)].concat())
        .collect();
    assert_close(&found, &wanted);
    let (_, found, given) = layer("mean");
    let [h, w, c] = IMAGE;
    let mean = |i: usize| {
        let own = given[0][i / c * h * w * c..][..h * w * c]
            .iter()
            .skip(i % c)
            .step_by(c);
        own.sum::<f64>() / (h * w) as f64
    };
    assert_close(&found, &(0..EXAMPLES * c).map(mean).collect::<Vec<_>>());
    let (_, found, given) = layer("dense 3");
    let size = h * w * c;
    let unit = |i: usize| {
        let (x, w) = (
            &given[2][i / 3 * size..][..size],
            &given[0][i % 3 * size..][..size],
        );
        x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + given[1][i % 3]
    };
    assert_close(&found, &(0..EXAMPLES * 3).map(unit).collect::<Vec<_>>());
}
