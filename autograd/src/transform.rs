//! Derivatives: each reads a stretch of tape and appends more tape.

use crate::error::{Error, Result, refuse};
use crate::op::Op;
use crate::rules::{Applied, Rule};
use crate::tape::{Id, Tape, Var};
use tensor::DType;

impl Tape {
    /// Gradients of a scalar with respect to some variables; zeros for those that it does not depend on.
    ///
    /// ```
    /// # use autograd::Tape; use tensor::DType;
    /// let tape = Tape::new();
    /// let x = tape.input("x", DType::F64, [3])?;
    /// let cubes = x.powi(3)?.sum_all()?;
    /// let first = tape.grad(cubes, &[x])?[0];          // 3 x²
    /// let second = tape.grad(first.sum_all()?, &[x])?[0]; // 6 x
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn grad<'t>(&'t self, loss: Var<'t>, wrt: &[Var<'t>]) -> Result<Vec<Var<'t>>> {
        if loss.shape().count() != 1 {
            return refuse(
                "grad",
                format!("the loss must be one number, not {}", loss.shape()),
            );
        }
        self.vjp(&[(loss, loss.constant_like(1.0))], wrt)
    }

    /// Vector-Jacobian products (reverse mode): the cotangents of `wrt` that follow from cotangents of some
    /// results. Variables in `wrt` are taken as independent of each other: what depends on one of them
    /// through another does not count.
    ///
    /// ```
    /// # use autograd::Tape; use tensor::DType;
    /// let tape = Tape::new();
    /// let x = tape.input("x", DType::F64, [2, 3])?;
    /// let w = tape.input("w", DType::F64, [3, 4])?;
    /// let y = x.matmul(w)?;
    /// let cotangent = tape.input("of y", DType::F64, [2, 4])?;
    /// let [of_x, of_w] = tape.vjp(&[(y, cotangent)], &[x, w])?[..] else { unreachable!() };
    /// assert_eq!((of_x.shape(), of_w.shape()), (x.shape(), w.shape()));
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn vjp<'t>(
        &'t self,
        seeds: &[(Var<'t>, Var<'t>)],
        wrt: &[Var<'t>],
    ) -> Result<Vec<Var<'t>>> {
        check_pairs(self, "vjp", seeds)?;
        check_variables(self, "vjp", wrt)?;
        let outs: Vec<Var<'t>> = seeds.iter().map(|seed| seed.0).collect();
        let Some(last) = outs.iter().map(|out| out.id).max() else {
            return Ok(wrt.iter().map(|w| w.constant_like(0.0)).collect());
        };
        let depends = self.depends_on(wrt, last);
        self.refuse_undefined(&depends, &self.needed_by(&outs, last))?;
        let mut cotangents: Vec<Option<Var<'t>>> = vec![None; last + 1];
        for &(out, cotangent) in seeds.iter().filter(|(_, seed)| !is_zero(*seed)) {
            add_to(&mut cotangents[out.id], cotangent)?;
        }
        let is_wrt = marked(wrt, last);
        for id in (0..=last).rev() {
            let Some(cotangent) = cotangents[id] else {
                continue;
            };
            if !depends[id] || is_wrt[id] {
                continue;
            }
            let applied = self.applied(id);
            for (position, arg) in applied.args.iter().enumerate() {
                if !depends[arg.id] {
                    continue;
                }
                if let Some(part) = pull(&applied, cotangent, position)? {
                    add_to(&mut cotangents[arg.id], part)?;
                }
            }
        }
        let of = |w: &Var<'t>| cotangents.get(w.id).copied().flatten();
        Ok(wrt
            .iter()
            .map(|w| of(w).unwrap_or_else(|| w.constant_like(0.0)))
            .collect())
    }

    /// Jacobian-vector products (forward mode): the tangents of `outs` that follow from tangents of some
    /// variables. Whatever is recorded can be differentiated, gradients included.
    ///
    /// ```
    /// # use autograd::{Plan, Tape}; use kernels::Device; use tensor::{Array, DType};
    /// let tape = Tape::new();
    /// let x = tape.input("x", DType::F64, [])?;
    /// let slope = tape.grad(x.tanh()?, &[x])?[0]; // 1 − tanh²
    /// let bend = tape.jvp(&[slope], &[(x, tape.constant(1.0, DType::F64, []))])?[0]; // −2 tanh (1 − tanh²)
    /// let at = Array::scalar(0.5, DType::F64);
    /// let bend = Plan::new(&[bend])?.run(&Device::cpu(None)?, &[(x, &at)])?[0].to_f64_vec()[0];
    /// let tanh = 0.5f64.tanh();
    /// assert!((bend + 2.0 * tanh * (1.0 - tanh * tanh)).abs() < 1e-15);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn jvp<'t>(
        &'t self,
        outs: &[Var<'t>],
        tangents: &[(Var<'t>, Var<'t>)],
    ) -> Result<Vec<Var<'t>>> {
        check_pairs(self, "jvp", tangents)?;
        let wrt: Vec<Var<'t>> = tangents.iter().map(|pair| pair.0).collect();
        check_variables(self, "jvp", &wrt)?;
        self.expect_own("jvp", outs)?;
        if let Some(twice) = (1..wrt.len()).find(|&i| wrt[..i].contains(&wrt[i])) {
            return refuse("jvp", format!("{:?} has two tangents", wrt[twice]));
        }
        let Some(last) = outs.iter().map(|out| out.id).max() else {
            return Ok(Vec::new());
        };
        let depends = self.depends_on(&wrt, last);
        let needed = self.needed_by(outs, last);
        self.refuse_undefined(&depends, &needed)?;
        let mut moved: Vec<Option<Var<'t>>> = vec![None; last + 1];
        for (w, tangent) in tangents.iter().filter(|(w, _)| w.id <= last) {
            moved[w.id] = Some(*tangent).filter(|tangent| !is_zero(*tangent));
        }
        let is_wrt = marked(&wrt, last);
        for id in 0..=last {
            if !is_wrt[id] && depends[id] && needed[id] {
                moved[id] = push_forward(&self.applied(id), &moved)?;
            }
        }
        Ok(outs
            .iter()
            .map(|out| moved[out.id].unwrap_or_else(|| out.constant_like(0.0)))
            .collect())
    }

    /// Hessian-vector products of a scalar, forward over reverse: the tangents of its gradients with
    /// respect to `wrt` along `direction`, which has one tangent for each variable.
    ///
    /// ```
    /// # use autograd::{Plan, Tape}; use kernels::Device; use tensor::{Array, DType};
    /// let tape = Tape::new();
    /// let x = tape.input("x", DType::F64, [2])?;
    /// let v = tape.input("v", DType::F64, [2])?;
    /// let product = tape.hvp(x.powi(3)?.sum_all()?, &[x], &[v])?[0]; // 6 x·v
    /// let (at, along) = (Array::new([2], vec![1.0, 2.0])?, Array::new([2], vec![10.0, 1.0])?);
    /// let product = Plan::new(&[product])?.run(&Device::cpu(None)?, &[(x, &at), (v, &along)])?;
    /// assert_eq!(product[0].to_f64_vec(), [60.0, 12.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn hvp<'t>(
        &'t self,
        loss: Var<'t>,
        wrt: &[Var<'t>],
        direction: &[Var<'t>],
    ) -> Result<Vec<Var<'t>>> {
        if direction.len() != wrt.len() {
            let (given, wanted) = (direction.len(), wrt.len());
            return refuse("hvp", format!("{given} directions for {wanted} variables"));
        }
        let gradients = self.grad(loss, wrt)?;
        let tangents: Vec<_> = wrt.iter().copied().zip(direction.iter().copied()).collect();
        self.jvp(&gradients, &tangents)
    }

    pub(crate) fn applied(&self, id: Id) -> Applied<'_> {
        let node = self.node(id);
        let args = node.args.iter().map(|&arg| self.var(arg)).collect();
        Applied {
            op: node.op.clone(),
            args,
            out: self.var(id),
        }
    }

    /// For every entry up to `last`: can it change with `wrt`?
    pub(crate) fn depends_on(&self, wrt: &[Var<'_>], last: Id) -> Vec<bool> {
        let mut depends = marked(wrt, last);
        for id in 0..=last {
            depends[id] = depends[id]
                || self.with_node(id, |node| {
                    node.dtype.is_float()
                        && !matches!(node.op.rule(), Rule::Constant)
                        && node.args.iter().any(|&arg| depends[arg])
                });
        }
        // So far no integer depends on anything. Casts to integers are marked after all, so that they are
        // refused.
        for id in 0..=last {
            depends[id] |= self.with_node(id, |node| {
                matches!(node.op, Op::Cast(_)) && !node.dtype.is_float() && depends[node.args[0]]
            });
        }
        depends
    }

    /// Fails if a derivative would have to pass through an operation that has none. Both directions call
    /// it: in reverse, no cotangent ever reaches an integer, so the gradient would silently be zero.
    fn refuse_undefined(&self, depends: &[bool], needed: &[bool]) -> Result<()> {
        for id in (0..depends.len()).filter(|&id| depends[id] && needed[id]) {
            let applied = self.applied(id);
            if let Rule::Undefined(reason) = applied.op.rule() {
                return undefined(&applied, reason);
            }
        }
        Ok(())
    }

    /// For every entry up to `last`: do the outputs use it?
    pub(crate) fn needed_by(&self, outs: &[Var<'_>], last: Id) -> Vec<bool> {
        let mut needed = marked(outs, last);
        for id in (0..=last).rev() {
            if needed[id] {
                self.with_node(id, |node| {
                    node.args.iter().for_each(|&arg| needed[arg] = true);
                });
            }
        }
        needed
    }
}

/// Whether a (co)tangent is known to be zero: then no product with it is recorded, whatever the other factor is.
pub(crate) fn is_zero(var: Var<'_>) -> bool {
    var.as_constant() == Some(0.0)
}

/// Adds two (co)tangents. If one is known to be zero, this is the other: 0 + x would cost a kernel.
pub(crate) fn add<'t>(a: Var<'t>, b: Var<'t>) -> Result<Var<'t>> {
    match (is_zero(a), is_zero(b)) {
        (true, _) => Ok(b),
        (_, true) => Ok(a),
        _ if matches!(a.dtype(), DType::F32 | DType::F64) => a + b,
        // Two uses of a narrow result: there is no arithmetic in its type.
        _ => Ok((a.cast(DType::F32) + b.cast(DType::F32))?.cast(a.dtype())),
    }
}

/// The (co)tangent where a mask is not zero, and zero elsewhere.
fn through<'t>(mask: Var<'t>, tangent: Var<'t>) -> Result<Var<'t>> {
    mask.select(tangent, tangent.constant_like(0.0))
}

/// The cotangent of one argument; `None` where it is zero.
fn pull<'t>(applied: &Applied<'t>, cotangent: Var<'t>, position: usize) -> Result<Option<Var<'t>>> {
    let part = match applied.op.rule() {
        Rule::Constant => None,
        Rule::Linear { fixed, .. } if fixed.contains(&position) => None,
        Rule::Linear { transpose, .. } | Rule::Bilinear(transpose) => {
            Some(transpose(applied, cotangent, position)?)
        }
        Rule::Pointwise(partial) => partial(applied, position)?
            .map(|factor| cotangent.strong_mul(factor))
            .transpose()?,
        Rule::Gate(partial) => partial(applied, position)?
            .map(|mask| through(mask, cotangent))
            .transpose()?,
        Rule::Undefined(reason) => return undefined(applied, reason),
    };
    Ok(part.filter(|part| !is_zero(*part)))
}

/// The tangent of a result from those of its arguments; `None` where it is zero.
fn push_forward<'t>(applied: &Applied<'t>, moved: &[Option<Var<'t>>]) -> Result<Option<Var<'t>>> {
    let tangents: Vec<_> = applied.args.iter().map(|arg| moved[arg.id]).collect();
    let mut sum = None;
    match applied.op.rule() {
        Rule::Constant => {}
        Rule::Linear { fixed, .. } => {
            let free = |i: &usize| !fixed.contains(i);
            if (0..tangents.len())
                .filter(free)
                .any(|i| tangents[i].is_some())
            {
                let args: Vec<_> = (0..tangents.len())
                    .map(|i| {
                        let arg = applied.args[i];
                        if free(&i) {
                            tangents[i].unwrap_or_else(|| arg.constant_like(0.0))
                        } else {
                            arg
                        }
                    })
                    .collect();
                sum = Some(applied.again(&args)?);
            }
        }
        Rule::Bilinear(_) => {
            for (i, tangent) in tangents.iter().enumerate() {
                if let Some(tangent) = tangent {
                    let mut args = applied.args.clone();
                    args[i] = *tangent;
                    add_to(&mut sum, applied.again(&args)?)?;
                }
            }
        }
        Rule::Pointwise(partial) => {
            for (i, tangent) in tangents.iter().enumerate() {
                let Some(tangent) = tangent else { continue };
                if let Some(factor) = partial(applied, i)? {
                    add_to(&mut sum, tangent.strong_mul(factor)?)?;
                }
            }
        }
        Rule::Gate(partial) => {
            for (i, tangent) in tangents.iter().enumerate() {
                let Some(tangent) = tangent else { continue };
                if let Some(mask) = partial(applied, i)? {
                    add_to(&mut sum, through(mask, *tangent)?)?;
                }
            }
        }
        Rule::Undefined(reason) => return undefined(applied, reason),
    }
    Ok(sum.filter(|sum| !is_zero(*sum)))
}

fn undefined<T>(applied: &Applied<'_>, reason: &str) -> Result<T> {
    Err(Error::NoDerivative {
        op: applied.op.name(),
        reason: reason.into(),
    })
}

fn add_to<'t>(sum: &mut Option<Var<'t>>, part: Var<'t>) -> Result<()> {
    *sum = Some(match *sum {
        Some(sum) => add(sum, part)?,
        None => part,
    });
    Ok(())
}

fn check_pairs(tape: &Tape, name: &'static str, pairs: &[(Var<'_>, Var<'_>)]) -> Result<()> {
    for (var, partner) in pairs {
        tape.expect_own(name, &[*var, *partner])?;
        if var.shape() != partner.shape() || var.dtype() != partner.dtype() {
            return refuse(
                name,
                format!("{var:?} and its (co)tangent {partner:?} differ"),
            );
        }
    }
    Ok(())
}

fn check_variables(tape: &Tape, name: &'static str, wrt: &[Var<'_>]) -> Result<()> {
    tape.expect_own(name, wrt)?;
    for var in wrt {
        if !var.dtype().is_float() {
            return refuse(
                name,
                format!("with respect to {var:?}: only floats have derivatives"),
            );
        }
        if var.as_constant().is_some() {
            return refuse(
                name,
                format!("with respect to a constant, {var:?}: make it an input"),
            );
        }
    }
    Ok(())
}

/// For every entry up to `last`: is it one of these?
fn marked(vars: &[Var<'_>], last: Id) -> Vec<bool> {
    let mut marked = vec![false; last + 1];
    let known = vars.iter().filter(|var| var.id <= last);
    known.for_each(|var| marked[var.id] = true);
    marked
}
