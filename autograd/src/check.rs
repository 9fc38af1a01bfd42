//! Checking derivatives in f64: against central differences, and against each other.

use crate::error::Error;
use crate::plan::Plan;
use crate::tape::{Id, Tape, Var};
use kernels::Device;
use std::collections::HashMap;
use std::fmt;
use tensor::{Array, DType};

/// What is checked, and how closely.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// 1: first derivatives only; 2: second derivatives as well.
    pub orders: usize,
    /// The seed of the random directions.
    pub seed: u64,
    /// How far an input is moved for differences, relative to its largest magnitude (to 1 if that is less).
    pub step: f64,
    /// Relative error allowed against differences.
    pub differences: f64,
    /// Relative error allowed between modes, and in the identities of adjoints.
    pub identities: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            orders: 2,
            seed: 0,
            step: 1e-5,
            differences: 1e-7,
            identities: 1e-12,
        }
    }
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The function could not be recorded, differentiated, planned or run.
    #[error(transparent)]
    Function(#[from] Error),
    /// The points or results cannot be checked.
    #[error("check: {0}")]
    Unusable(String),
    /// Two numbers that should be equal are not.
    #[error("{identity} fails for {of}: relative error {error:.1e}, allowed {allowed:.0e}")]
    Fails {
        /// What should hold.
        identity: &'static str,
        /// For which inputs and outputs, by position.
        of: String,
        /// By how much it does not.
        error: f64,
        /// How much would be allowed.
        allowed: f64,
    },
}

/// The greatest relative error of everything that was checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Every identity that was checked, with its greatest relative error.
    pub worst: Vec<(&'static str, f64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (identity, error) in &self.worst {
            writeln!(f, "{error:8.1e}  {identity}")?;
        }
        Ok(())
    }
}

const REPEATS: &str = "two runs give the same bits";
const ADJOINT: &str = "⟨u, J·v⟩ = ⟨Jᵀ·u, v⟩";
const FORWARD: &str = "J·v = central difference";
const REVERSE: &str = "reverse over reverse = forward over reverse";
const MIXED: &str = "reverse over forward = forward over reverse";
const SYMMETRY: &str = "⟨w, H·v⟩ = ⟨v, H·w⟩";
const HESSIAN: &str = "H·v = central difference of the gradient";

/// Errors are relative to the largest magnitude compared, but at least to this share of the largest
/// magnitude of the result (of 1 if that is less): smaller differences are rounding.
const FLOOR: f64 = 0.01;

/// Checks the derivatives of a function at a point: of all its results with respect to all its f64
/// inputs, input by input, along random directions. Other inputs (indices, keys) are passed on.
///
/// In the report, J is the Jacobian of f, and H the Hessian of ⟨u, f⟩ for a random u. Points must lie
/// further from kinks than [`Options::step`].
///
/// ```
/// use autograd::check::{self, Options};
/// use tensor::Array;
/// let x = Array::new([2], vec![0.3, -1.2])?;
/// let w = Array::new([2, 2], vec![1.0, 0.5, -0.7, 2.0])?;
/// let report = check::gradients(
///     |_, inputs| {
///         let hidden = inputs[0].reshape([1, 2])?.matmul(inputs[1])?.tanh()?;
///         Ok(vec![hidden.exp()?.sum_all()?])
///     },
///     &[x, w],
///     &Options::default(),
/// )?;
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn gradients<F>(f: F, points: &[Array], options: &Options) -> Result<Report, CheckError>
where
    F: for<'t> Fn(&'t Tape, &[Var<'t>]) -> crate::Result<Vec<Var<'t>>>,
{
    let tape = Tape::new();
    let mut given = Given::new(options.seed);
    let mut inputs = Vec::new();
    for point in points {
        inputs.push(given.add(&tape, "point", point.clone())?);
    }
    let outs = f(&tape, &inputs)?;
    let free = free_inputs(&inputs, &outs)?;
    let recorded = Recorded::new(&tape, &mut given, outs, free, options.orders)?;

    let all = recorded.all();
    let plan = Plan::new(&all)?;
    let values = given.run(&plan, &all)?;
    let mut report = Report::default();
    let same = given.run(&plan, &all)?.bits() == values.bits();
    report.note(REPEATS, "all results", f64::from(u8::from(!same)), 0.0)?;
    recorded.check_identities(&values, options.identities, &mut report)?;
    recorded.check_differences(&values, &given, options, &mut report)?;
    Ok(report)
}

/// The inputs with respect to which there are derivatives, with their positions.
fn free_inputs<'t>(
    inputs: &[Var<'t>],
    outs: &[Var<'t>],
) -> Result<Vec<(usize, Var<'t>)>, CheckError> {
    let narrow = |var: &&Var<'_>| var.dtype().is_float() && var.dtype() != DType::F64;
    let integer = |var: &&Var<'_>| !var.dtype().is_float();
    let all = || inputs.iter().chain(outs);
    if let Some(var) = all().find(narrow).or(outs.iter().find(integer)) {
        let reason = format!("derivatives are checked in f64, and this is {var:?}");
        return Err(CheckError::Unusable(reason));
    }
    let numbered = inputs.iter().copied().enumerate();
    let free: Vec<_> = numbered.filter(|(_, var)| !integer(&var)).collect();
    if free.is_empty() || outs.is_empty() {
        let reason = "without an input of f64 and a result there is nothing to check";
        return Err(CheckError::Unusable(reason.into()));
    }
    Ok(free)
}

/// The arrays that the recorded programs run on, and where random ones come from.
#[derive(Clone)]
struct Given {
    /// By the entries of the tape that they are given for.
    arrays: Vec<(Id, Array)>,
    random: u64,
}

impl Given {
    fn new(seed: u64) -> Self {
        let arrays = Vec::new();
        Self {
            arrays,
            random: seed,
        }
    }

    fn add<'t>(&mut self, tape: &'t Tape, name: &str, array: Array) -> crate::Result<Var<'t>> {
        let var = tape.input(name, array.dtype(), array.shape().clone())?;
        self.arrays.push((var.id, array));
        Ok(var)
    }

    /// A random array for each of some variables.
    fn directions<'t>(
        &mut self,
        tape: &'t Tape,
        name: &str,
        like: &[Var<'t>],
    ) -> crate::Result<Vec<Var<'t>>> {
        let mut directions = Vec::new();
        for var in like {
            let numbers: Vec<f64> = (0..var.shape().count()).map(|_| self.next()).collect();
            let array = Array::new(var.shape(), numbers).expect("as many numbers as the shape");
            directions.push(self.add(tape, name, array)?);
        }
        Ok(directions)
    }

    /// A number in [−1, 1): `SplitMix64` (Steele, Lea and Flood 2014).
    fn next(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 * 2_f64.powi(-52) - 1.0
    }

    /// The same with one input moved along a direction.
    fn moved(&self, position: usize, direction: &[f64], step: f64) -> Self {
        let mut moved = self.clone();
        let array = &mut moved.arrays[position].1;
        let numbers = array.to_f64_vec().into_iter().zip(direction);
        let numbers: Vec<f64> = numbers.map(|(x, d)| x + step * d).collect();
        *array = Array::new(array.shape().clone(), numbers).expect("the shape is the same");
        moved
    }

    fn run(&self, plan: &Plan, outs: &[Var<'_>]) -> crate::Result<Values> {
        let Some(tape) = outs.first().map(Var::tape) else {
            return Ok(Values(HashMap::new()));
        };
        let given = self.arrays.iter().map(|(id, array)| (tape.var(*id), array));
        let results = plan.run(&Device::cpu(Some(1))?, &given.collect::<Vec<_>>())?;
        let numbers = results.iter().map(Array::to_f64_vec);
        Ok(Values(outs.iter().map(|out| out.id).zip(numbers).collect()))
    }
}

/// The numbers of variables.
struct Values(HashMap<Id, Vec<f64>>);

impl Values {
    fn of(&self, var: Var<'_>) -> &[f64] {
        &self.0[&var.id]
    }

    fn bits(&self) -> HashMap<Id, Vec<u64>> {
        let bits = |numbers: &Vec<f64>| numbers.iter().map(|x| x.to_bits()).collect();
        self.0
            .iter()
            .map(|(id, numbers)| (*id, bits(numbers)))
            .collect()
    }

    /// The inner product of two lists of arrays, and what its error is measured by.
    fn product(&self, a: &[Var<'_>], b: &[Var<'_>]) -> (f64, f64) {
        let numbers = |vars: &[Var<'_>]| -> Vec<f64> {
            vars.iter().flat_map(|&var| self.of(var)).copied().collect()
        };
        let (a, b) = (numbers(a), numbers(b));
        let terms = || a.iter().zip(&b).map(|(a, b)| a * b);
        (terms().sum(), terms().map(f64::abs).sum())
    }
}

/// f, its derivatives along directions, and theirs.
struct Recorded<'t> {
    outs: Vec<Var<'t>>,
    /// The inputs that have derivatives; `positions` says where they stand among all.
    x: Vec<Var<'t>>,
    positions: Vec<usize>,
    /// Cotangents of the results.
    u: Vec<Var<'t>>,
    /// Two independent tangents of each input: `v` and `w`.
    v: Vec<Var<'t>>,
    w: Vec<Var<'t>>,
    /// Jᵀ·u for each input: the gradient of ⟨u, f⟩.
    gradient: Vec<Var<'t>>,
    /// J·v along each input alone: a tangent per result.
    tangents: Vec<Vec<Var<'t>>>,
    hessian: Option<Hessian<'t>>,
}

/// H times a direction along each input alone: an array per input.
struct Hessian<'t> {
    forward: Vec<Vec<Var<'t>>>,
    forward_w: Vec<Vec<Var<'t>>>,
    reverse: Vec<Vec<Var<'t>>>,
    mixed: Vec<Vec<Var<'t>>>,
}

fn pairs<'t>(vars: &[Var<'t>], partners: &[Var<'t>]) -> Vec<(Var<'t>, Var<'t>)> {
    vars.iter().copied().zip(partners.iter().copied()).collect()
}

impl<'t> Recorded<'t> {
    fn new(
        tape: &'t Tape,
        given: &mut Given,
        outs: Vec<Var<'t>>,
        free: Vec<(usize, Var<'t>)>,
        orders: usize,
    ) -> crate::Result<Self> {
        let (positions, x): (Vec<usize>, Vec<Var<'t>>) = free.into_iter().unzip();
        let u = given.directions(tape, "cotangent", &outs)?;
        let v = given.directions(tape, "tangent", &x)?;
        let w = given.directions(tape, "other tangent", &x)?;
        let gradient = tape.vjp(&pairs(&outs, &u), &x)?;
        let along = |outs: &[Var<'t>], direction: &[Var<'t>]| {
            let each = pairs(&x, direction).into_iter();
            each.map(|pair| tape.jvp(outs, &[pair]))
                .collect::<crate::Result<Vec<_>>>()
        };
        let tangents = along(&outs, &v)?;
        let mut hessian = None;
        if orders > 1 {
            let over_reverse = pairs(&gradient, &v).into_iter();
            let over_forward = tangents.iter().map(|moved| pairs(moved, &u));
            hessian = Some(Hessian {
                forward: along(&gradient, &v)?,
                forward_w: along(&gradient, &w)?,
                reverse: over_reverse
                    .map(|seed| tape.vjp(&[seed], &x))
                    .collect::<crate::Result<_>>()?,
                mixed: over_forward
                    .map(|seeds| tape.vjp(&seeds, &x))
                    .collect::<crate::Result<_>>()?,
            });
        }
        Ok(Self {
            outs,
            x,
            positions,
            u,
            v,
            w,
            gradient,
            tangents,
            hessian,
        })
    }

    fn all(&self) -> Vec<Var<'t>> {
        let directions = [&self.u[..], &self.v, &self.w].concat();
        let mut all = [&self.outs[..], &self.gradient, &directions].concat();
        all.extend(self.tangents.iter().flatten());
        if let Some(h) = &self.hessian {
            let modes = [&h.forward, &h.forward_w, &h.reverse, &h.mixed];
            all.extend(modes.into_iter().flatten().flatten());
        }
        all
    }

    fn check_identities(
        &self,
        values: &Values,
        allowed: f64,
        report: &mut Report,
    ) -> Result<(), CheckError> {
        for (i, position) in self.positions.iter().enumerate() {
            let forward = values.product(&self.u, &self.tangents[i]);
            let reverse = values.product(&self.gradient[i..=i], &self.v[i..=i]);
            let of = format!("input {position}");
            report.note(ADJOINT, &of, products_differ(forward, reverse), allowed)?;
        }
        let Some(hessian) = &self.hessian else {
            return Ok(());
        };
        let pairs = (0..self.x.len()).flat_map(|i| (0..self.x.len()).map(move |k| (i, k)));
        for (i, k) in pairs {
            let of = format!("inputs {} and {}", self.positions[i], self.positions[k]);
            let forward = values.of(hessian.forward[i][k]);
            for (identity, other) in [(REVERSE, &hessian.reverse), (MIXED, &hessian.mixed)] {
                let error = differ(forward, values.of(other[i][k]), 1.0);
                report.note(identity, &of, error, allowed)?;
            }
            let one = values.product(&self.w[k..=k], &hessian.forward[i][k..=k]);
            let other = values.product(&self.v[i..=i], &hessian.forward_w[k][i..=i]);
            report.note(SYMMETRY, &of, products_differ(one, other), allowed)?;
        }
        Ok(())
    }

    fn check_differences(
        &self,
        values: &Values,
        given: &Given,
        options: &Options,
        report: &mut Report,
    ) -> Result<(), CheckError> {
        let moving = [&self.outs[..], &self.gradient].concat();
        let plan = Plan::new(&moving)?;
        for (i, &position) in self.positions.iter().enumerate() {
            let size = greatest(&given.arrays[position].1.to_f64_vec()).max(1.0);
            let step = options.step * size;
            let at = |step| {
                let moved = given.moved(position, values.of(self.v[i]), step);
                moved.run(&plan, &moving)
            };
            let (plus, minus) = (at(step)?, at(-step)?);
            let error = |var: Var<'_>, derivative: Var<'_>| {
                let ends = plus.of(var).iter().zip(minus.of(var));
                let slope: Vec<f64> = ends.map(|(a, b)| (a - b) / (2.0 * step)).collect();
                differ(&slope, values.of(derivative), greatest(plus.of(var)))
            };
            for (j, (&out, &tangent)) in self.outs.iter().zip(&self.tangents[i]).enumerate() {
                let of = format!("output {j} and input {position}");
                report.note(FORWARD, &of, error(out, tangent), options.differences)?;
            }
            let moved = self.hessian.iter().flat_map(|hessian| &hessian.forward[i]);
            for (k, &tangent) in moved.enumerate() {
                let of = format!("inputs {position} and {}", self.positions[k]);
                let error = error(self.gradient[k], tangent);
                report.note(HESSIAN, &of, error, options.differences)?;
            }
        }
        Ok(())
    }
}

fn greatest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |most, x| x.abs().max(most))
}

/// The relative error between two arrays; `size` is that of the numbers they came from.
fn differ(a: &[f64], b: &[f64], size: f64) -> f64 {
    let scale = greatest(a).max(greatest(b)).max(FLOOR * size.max(1.0));
    let errors = a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale);
    errors.fold(0.0, |most: f64, error| {
        if error <= most || most.is_nan() {
            most
        } else {
            error
        }
    })
}

fn products_differ((a, size_a): (f64, f64), (b, size_b): (f64, f64)) -> f64 {
    (a - b).abs() / size_a.max(size_b).max(FLOOR)
}

impl Report {
    fn note(
        &mut self,
        identity: &'static str,
        of: &str,
        error: f64,
        allowed: f64,
    ) -> Result<(), CheckError> {
        if error.is_nan() || error > allowed {
            return Err(CheckError::Fails {
                identity,
                of: of.to_owned(),
                error,
                allowed,
            });
        }
        match self.worst.iter_mut().find(|(known, _)| *known == identity) {
            Some((_, worst)) => *worst = worst.max(error),
            None => self.worst.push((identity, error)),
        }
        Ok(())
    }
}
