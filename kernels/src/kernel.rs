//! The kernels a device has, what each reads and writes, and what it costs.

use crate::{ArgMax, Concat, Conv, ConvKind, Float, Instr, Load, Map, MatMul, Pad, Reversible};
use crate::{ReversibleKind, Rows, Store, StoreKind, Take, Unary, Window, WindowKind, cpu, cuda};
use tensor::DType;

/// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011). Input: u32 \[4\] = seed low, seed
/// high, outer step, inner step. Output: `count` numbers; element `i` depends on the key, `op` and `i` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Random {
    /// Element type of the output.
    pub float: Float,
    /// What is drawn.
    pub distribution: Distribution,
    /// How many.
    pub count: usize,
    /// Tells apart several draws under one key.
    pub op: u32,
}

/// What a [`Random`] kernel draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Uniform in [0, 1).
    Uniform,
    /// Standard normal (Box–Muller).
    Normal,
}

/// One kernel with its shapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kernel {
    /// Fused element-wise program.
    Map(Map),
    /// Matrix product.
    MatMul(MatMul),
    /// Two matrix products of equal shapes and their sum, A₁·B₁ + A₂·B₂: the tangent of a product. Each is
    /// formed whole, then they are added with one rounding per element, so the bits are those of a product
    /// followed by one that accumulates. Inputs: A₁, B₁, A₂, B₂.
    MatMulPair(MatMul),
    /// Convolution or one of its transposes.
    Conv(Conv),
    /// The sum of two convolutions, as for [`Kernel::MatMulPair`].
    ConvPair(Conv),
    /// Pooling windows.
    Window(Float, Window),
    /// Zero border.
    Pad(DType, Pad),
    /// Concatenation.
    Concat(DType, Concat),
    /// Constant indices along an axis.
    Take(Float, Take),
    /// Rows by an index array.
    Rows(Float, Rows),
    /// Index of the greatest.
    ArgMax(Float, ArgMax),
    /// Random numbers.
    Random(Random),
    /// Momentum that can be undone.
    Reversible(Reversible),
}

impl Kernel {
    /// Type and least number of elements of every input.
    pub fn inputs(&self) -> Vec<(DType, usize)> {
        match self {
            Self::Map(map) => map
                .loads
                .iter()
                .map(|load| (load.dtype, load.span(&map.extents)))
                .collect(),
            Self::MatMul(mm) => vec![
                (mm.float.into(), product(&[mm.batch, mm.m, mm.k])),
                (mm.float.into(), product(&[mm.batch, mm.k, mm.n])),
            ],
            Self::MatMulPair(mm) => Self::MatMul(*mm).inputs().repeat(2),
            Self::ConvPair(conv) => Self::Conv(*conv).inputs().repeat(2),
            Self::Conv(conv) => {
                let [x, w, y] = conv_counts(conv);
                let counts = match conv.kind {
                    ConvKind::Forward => [x, w],
                    ConvKind::Input => [y, w],
                    ConvKind::Weight => [x, y],
                };
                counts.map(|count| (conv.float.into(), count)).to_vec()
            }
            Self::Window(float, window) => {
                let [x, y] = window_counts(window);
                match window.kind {
                    WindowKind::ArgMax => vec![((*float).into(), x)],
                    WindowKind::Gather => vec![((*float).into(), x), (DType::U8, y)],
                    WindowKind::Scatter => vec![((*float).into(), y), (DType::U8, y)],
                }
            }
            Self::Pad(dtype, pad) => vec![(*dtype, product(&pad.extents))],
            Self::Concat(dtype, concat) => concat
                .inner
                .iter()
                .map(|&inner| (*dtype, product(&[concat.outer, inner])))
                .collect(),
            Self::Take(float, take) => vec![(
                (*float).into(),
                take_counts(take)[usize::from(take.adjoint)],
            )],
            Self::Rows(float, rows) => {
                let many = if rows.adjoint { rows.count } else { rows.rows };
                vec![
                    ((*float).into(), product(&[many, rows.width])),
                    (DType::I32, rows.count),
                ]
            }
            Self::ArgMax(float, arg) => {
                vec![((*float).into(), product(&[arg.outer, arg.n, arg.inner]))]
            }
            Self::Random(_) => vec![(DType::U32, 4)],
            Self::Reversible(spec) => {
                let state = (DType::U32, Reversible::words(spec.count));
                let [one, each] = [1, spec.count].map(|count| (spec.float.into(), count));
                match spec.kind {
                    ReversibleKind::Advance => vec![state, each, each, each, one, one],
                    ReversibleKind::Undo => vec![state, each, one, one],
                    ReversibleKind::WeightBefore => vec![state, one],
                    ReversibleKind::Weight | ReversibleKind::Velocity => vec![state],
                }
            }
        }
    }

    /// Type and number of elements of every output.
    pub fn outputs(&self) -> Vec<(DType, usize)> {
        match self {
            Self::Map(map) => map
                .stores
                .iter()
                .map(|store| (store.dtype, store.count(&map.extents)))
                .collect(),
            Self::MatMul(mm) | Self::MatMulPair(mm) => {
                vec![(mm.float.into(), product(&[mm.batch, mm.m, mm.n]))]
            }
            Self::Conv(conv) | Self::ConvPair(conv) => {
                let [x, w, y] = conv_counts(conv);
                let count = match conv.kind {
                    ConvKind::Forward => y,
                    ConvKind::Input => x,
                    ConvKind::Weight => w,
                };
                vec![(conv.float.into(), count)]
            }
            Self::Window(float, window) => {
                let [x, y] = window_counts(window);
                match window.kind {
                    WindowKind::ArgMax => vec![(DType::U8, y)],
                    WindowKind::Gather => vec![((*float).into(), y)],
                    WindowKind::Scatter => vec![((*float).into(), x)],
                }
            }
            Self::Pad(dtype, pad) => vec![(*dtype, product(&pad.out_extents()))],
            Self::Concat(dtype, concat) => {
                let inner = concat
                    .inner
                    .iter()
                    .fold(0, |sum: usize, &inner| sum.saturating_add(inner));
                vec![(*dtype, product(&[concat.outer, inner]))]
            }
            Self::Take(float, take) => vec![(
                (*float).into(),
                take_counts(take)[usize::from(!take.adjoint)],
            )],
            Self::Rows(float, rows) => {
                let many = if rows.adjoint { rows.rows } else { rows.count };
                vec![((*float).into(), product(&[many, rows.width]))]
            }
            Self::ArgMax(_, arg) => vec![(DType::I32, product(&[arg.outer, arg.inner]))],
            Self::Random(random) => vec![(random.float.into(), random.count)],
            Self::Reversible(spec) => match spec.kind {
                ReversibleKind::Advance | ReversibleKind::Undo => {
                    vec![(DType::U32, Reversible::words(spec.count))]
                }
                _ => vec![(spec.float.into(), spec.count)],
            },
        }
    }

    /// Bytes of scratch memory that it needs while it runs, on any device. Depends on the shapes only.
    pub fn workspace(&self) -> usize {
        let cpu = match self {
            Self::Map(map) => cpu::map::workspace(map),
            Self::MatMul(mm) | Self::MatMulPair(mm) => mm.workspace(),
            Self::Conv(conv) | Self::ConvPair(conv) => conv.workspace(),
            _ => 0,
        };
        cpu.max(cuda::lower::workspace(self))
    }

    /// Floating-point operations; every function of a [`Map`] counts as one.
    pub fn flops(&self) -> u64 {
        match self {
            Self::Map(map) => {
                let instructions = map.code.iter().map(Instr::flops).sum::<u64>();
                let sums = map.stores.iter().filter(|store| store.is_sum()).count() as u64;
                map.points() as u64 * (instructions + sums)
            }
            Self::MatMul(mm) => mm.flops(),
            Self::MatMulPair(mm) => 2 * mm.flops(),
            Self::Conv(conv) => conv.flops(),
            Self::ConvPair(conv) => 2 * conv.flops(),
            Self::Take(_, take) if take.adjoint => take_counts(take)[1] as u64,
            Self::Rows(_, rows) if rows.adjoint => product(&[rows.count, rows.width]) as u64,
            Self::Window(_, window) if window.kind == WindowKind::Scatter => {
                window_counts(window)[1] as u64
            }
            _ => 0,
        }
    }

    /// Bytes that must at least be read and written: every distinct element once.
    pub fn bytes(&self) -> u64 {
        let size = |(dtype, count): (DType, usize)| dtype.size() as u64 * count as u64;
        let read: u64 = match self {
            Self::Map(map) => map
                .loads
                .iter()
                .map(|load| {
                    size((
                        load.dtype,
                        load.distinct(&map.extents).min(load.span(&map.extents)),
                    ))
                })
                .sum(),
            _ => self.inputs().into_iter().map(size).sum(),
        };
        read + self.outputs().into_iter().map(size).sum::<u64>()
    }

    /// A word for print-outs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Map(map) if map.stores.iter().any(Store::is_sum) => "map-sum",
            Self::Map(_) => "map",
            Self::MatMul(_) => "matmul",
            Self::MatMulPair(_) => "matmul-pair",
            Self::Conv(conv) => match conv.kind {
                ConvKind::Forward => "conv",
                ConvKind::Input => "conv-input",
                ConvKind::Weight => "conv-weight",
            },
            Self::ConvPair(conv) => match conv.kind {
                ConvKind::Forward => "conv-pair",
                ConvKind::Input => "conv-input-pair",
                ConvKind::Weight => "conv-weight-pair",
            },
            Self::Window(_, window) => match window.kind {
                WindowKind::ArgMax => "window-argmax",
                WindowKind::Gather => "window-gather",
                WindowKind::Scatter => "window-scatter",
            },
            Self::Pad(..) => "pad",
            Self::Concat(..) => "concat",
            Self::Take(_, take) if take.adjoint => "take-adjoint",
            Self::Take(..) => "take",
            Self::Rows(_, rows) if rows.adjoint => "rows-adjoint",
            Self::Rows(..) => "rows",
            Self::ArgMax(..) => "argmax",
            Self::Random(_) => "random",
            Self::Reversible(_) => "reversible",
        }
    }
}

impl Map {
    /// Points of the iteration space.
    pub fn points(&self) -> usize {
        product(&self.extents)
    }
}

impl Load {
    /// Elements from the first to the last that is read, both counted.
    fn span(&self, extents: &[usize]) -> usize {
        if extents.contains(&0) {
            return 0;
        }
        let steps = extents
            .iter()
            .zip(&self.strides)
            .map(|(&n, &stride)| (n - 1).saturating_mul(stride));
        steps.fold(1, usize::saturating_add)
    }

    /// Elements that are read, if no two points that differ along an axis with a stride meet.
    fn distinct(&self, extents: &[usize]) -> usize {
        let along = extents
            .iter()
            .zip(&self.strides)
            .filter(|&(_, &stride)| stride > 0);
        along.fold(1, |product, (&n, _)| product.saturating_mul(n))
    }

    /// Whether it reads one element after another, in the order of the iteration space.
    pub(crate) fn is_contiguous(&self, extents: &[usize]) -> bool {
        let mut expected = 1;
        for (&n, &stride) in extents.iter().zip(&self.strides).rev() {
            if n != 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(n);
        }
        true
    }
}

impl Store {
    /// Elements written.
    fn count(&self, extents: &[usize]) -> usize {
        match &self.kind {
            StoreKind::Full => product(extents),
            StoreKind::Sum(flags) => {
                let kept = extents.iter().zip(flags).filter(|&(_, &summed)| !summed);
                kept.fold(1, |product, (&n, _)| product.saturating_mul(n))
            }
        }
    }

    pub(crate) fn is_sum(&self) -> bool {
        matches!(self.kind, StoreKind::Sum(_))
    }
}

impl Instr {
    fn flops(&self) -> u64 {
        match *self {
            Self::Load(_) | Self::Const(_) | Self::Iota(_) => 0,
            Self::Unary(Unary::PowI(n), _) => {
                let n = n.unsigned_abs();
                u64::from((n.max(1).ilog2() + n.count_ones()).saturating_sub(1).max(1))
            }
            Self::Unary(..) | Self::Binary(..) | Self::Select(..) => 1,
        }
    }
}

impl Pad {
    pub(crate) fn out_extents(&self) -> Vec<usize> {
        let sides = self.before.iter().zip(&self.after);
        self.extents
            .iter()
            .zip(sides)
            .map(|(&n, (&b, &a))| n.saturating_add(b).saturating_add(a))
            .collect()
    }
}

/// The product, or `usize::MAX` where it is greater: no memory is that large, so bounds are still refused.
pub(crate) fn product(extents: &[usize]) -> usize {
    if extents.contains(&0) {
        0
    } else {
        extents
            .iter()
            .fold(1, |product, &n| product.saturating_mul(n))
    }
}

/// Elements of x, of the weight, and of y: [`Conv::counts`] that cannot overflow.
fn conv_counts(conv: &Conv) -> [usize; 3] {
    let ([kh, kw], batch) = (conv.window, conv.batch);
    [
        product(&[batch, conv.n, conv.h, conv.w, conv.c]),
        product(&[batch, conv.out, kh, kw, conv.c]),
        product(&[batch, conv.n, conv.out_h(), conv.out_w(), conv.out]),
    ]
}

/// Elements of x and of y.
fn window_counts(window: &Window) -> [usize; 2] {
    let Window { n, h, w, c, .. } = *window;
    [
        product(&[n, h, w, c]),
        product(&[n, window.out_h(), window.out_w(), c]),
    ]
}

/// Elements of the indexed array, and of the picked one.
fn take_counts(take: &Take) -> [usize; 2] {
    [
        product(&[take.outer, take.n, take.inner]),
        product(&[take.outer, take.index.len(), take.inner]),
    ]
}
