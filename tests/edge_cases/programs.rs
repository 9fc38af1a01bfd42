//! What the cases of `edge-cases.json` compute, by their ids.

use autograd::ConvOptions;
use autograd::prelude::*;
use gtn::nn::layers::{batch_norm, count_correct, dense, kernel, moments, weight_scale};

/// Records a program; `None` of an id that is not known.
pub(crate) fn record<'t>(id: &str, tape: &'t Tape, x: &[Var<'t>]) -> Result<Option<Var<'t>>> {
    let scalar = |value: f64| tape.constant(value, F64, []);
    let like = |value: f64, x: Var<'t>| tape.constant(value, x.dtype(), x.shape());
    let where_positive = |x: Var<'t>, y: Var<'t>| like(0.0, x).less(x)?.select(y, like(0.0, x));
    Ok(Some(match id {
        "R01b" => {
            let n = x[0].norm()?;
            (n * n)?
        }
        "R01b2" => (x[0] * x[0])?.sum_all()?.sqrt()?.powi(2)?,
        "R01e" => (x[0] * x[0])?.sqrt()?.powi(2)?,
        "R02a" | "R02a2" => {
            let zero = like(0.0, x[1]);
            x[1].equal(zero)?.select(zero, (x[0] / x[1])?)?
        }
        "R02c1" => where_positive(x[0], x[0].rsqrt()?)?,
        "R02c2" => where_positive(x[0], x[0].log()?)?,
        "R02c4" => where_positive(x[0], x[0].reciprocal()?)?,
        "R02d" => x[0].exp()?.min(like(1.0, x[0]))?,
        "R02d3" => {
            let e = x[0].exp()?;
            e.less_eq(like(1.0, e))?.select((x[1] * e)?, x[1])?
        }
        "R02e1" => {
            let naive = ((x[0].exp()? - 1.0)? / x[0])?;
            let taylor = (((x[0] * x[0])? / 6.0)? + ((x[0] / 2.0)? + 1.0)?)?;
            x[0].abs()?.less(like(1e-5, x[0]))?.select(taylor, naive)?
        }
        "R03a" | "R03b" | "R10a" | "R10b" => x[0].cross_entropy(x[1])?,
        "R03i" => x[0].xlogy(x[0])?,
        "R04a" => like(1e-20, x[0]).max(x[0])?.reciprocal()?.log()?,
        "R04e" => (x[0] / x[1])?,
        "R05a" | "R05b" | "R05d" => {
            let scale = (tape.iota(1, x[0].dtype(), [1, 2])? + 1.0)?;
            (kernel(x[0], x[1])? * scale)?
        }
        "R05f" => x[0].norm()?,
        "R05i" => dense(x[2], x[0], weight_scale(x[0], x[1])?)?,
        "R06a" | "R06c1" | "R06c3" | "R06c4" => x[0].sigmoid()?,
        "R06e2" | "R06f" => x[0].tanh()?,
        "R06i" => x[0].softplus()?,
        "R06j" => x[0].log_sigmoid()?,
        "R09hf32" | "R09hf64" | "R09if32" | "R09if64" => count_correct(x[0], x[1])?[0],
        "R11g" => {
            let power = x[0].powi(i32::MIN)?;
            let slope = tape.grad(power, &[x[0]])?[0];
            tape.concat(&[power.reshape([1])?, slope.reshape([1])?], 0)?
        }
        "R12f" => x[0].variance_keep(&[0])?.sqrt()?.powi(2)?,
        "R13a" => (x[0] * 0.0)?,
        "R13b" => (like(0.0, x[0]) / x[0])?,
        "R13c2" => scalar(1.0).max(scalar(f64::NAN))?.reshape([1])?,
        "R13c3" => scalar(f64::NAN).min(scalar(1.0))?.reshape([1])?,
        "R13d" => (scalar(0.0) - x[0])?.reciprocal()?.sign()?,
        "R13h" => {
            let great = like(1e30, x[0]);
            ((great * great)? / great)?
        }
        "R20b1" | "R20d2" | "R20e" => {
            let of_channel = |value: f64| tape.constant(value, F32, [1]);
            let beta = if id == "R20b1" { 0.5 } else { 0.0 };
            batch_norm(&moments(x[0], 0)?, [of_channel(1.0), of_channel(beta)])?
                .reshape([x[0].shape().count()])?
        }
        _ => return more(id, x),
    }))
}

/// More of the same kinds, of one input each.
fn more<'t>(id: &str, x: &[Var<'t>]) -> Result<Option<Var<'t>>> {
    let x = x[0];
    let like = |value: f64| x.tape().constant(value, x.dtype(), x.shape());
    let zero = like(0.0);
    Ok(Some(match id {
        "root behind a mask" => zero.less(x)?.select(x.sqrt()?, zero)?,
        "logarithm behind a mask" => x.less(like(1.0))?.select((1.0 - x)?.log()?, zero)?,
        "power behind a mask" => x.equal(zero)?.select(zero, x.powi(-3)?)?,
        "cap of an overflow" => x.exp()?.powi(2)?.min(like(1.0))?,
        "clamp of a logarithm" => x.log()?.clamp(-5.0, 5.0)?,
        "tanh" => x.tanh()?,
        "sigmoid" => x.sigmoid()?,
        "softplus" => x.softplus()?,
        "log1p" => x.log1p()?,
        "expm1" => x.expm1()?,
        "gelu" => x.gelu()?,
        "square of a root" => x.sqrt()?.powi(2)?,
        "square by a power" => x.powf(2.0)?,
        "sign times itself" => (x.sign()? * x)?,
        "logsumexp" => x.logsumexp()?,
        "norm" => x.norm()?,
        _ => return Ok(None),
    }))
}

/// A product of an array of tenths and one of ones.
pub(crate) struct LongSum<'t> {
    pub(crate) operands: [Var<'t>; 2],
    pub(crate) product: Var<'t>,
}

/// Records a product whose sums are long.
pub(crate) fn long_sum<'t>(id: &str, tape: &'t Tape) -> Result<LongSum<'t>> {
    let (tenths, ones, product);
    if let Some([n, h, c]) = match id {
        "R25j" => Some([64, 128, 1]),
        "R25l" => Some([16, 512, 3]),
        _ => None,
    } {
        // The weight's gradient of a convolution without a border.
        let weight = tape.input("weight", F32, [1, 3, 3, c])?;
        tenths = tape.input("tenths", F32, [n, h, h, c])?;
        ones = tape.input("ones", F32, [n, h - 2, h - 2, 1])?;
        let y = tenths.conv2d(weight, ConvOptions::padded(0))?;
        product = tape.vjp(&[(y, ones)], &[weight])?[0];
    } else {
        let [terms, columns] = match id {
            "R25i" => [1 << 22, 2],
            "R25m" => [1 << 16, 1],
            _ => [1 << 20, 1],
        };
        tenths = tape.input("tenths", F32, [terms, columns])?;
        ones = tape.input("ones", F32, [terms, 1])?;
        product = ones.matmul_with(tenths, true, false)?;
    }
    Ok(LongSum {
        operands: [tenths, ones],
        product,
    })
}
