//! What the code of a map's kernel depends on, apart from sizes and places: those are parameters.

use super::space::{Run, Space, Steps, View, flags};
use crate::{Float, Instr, Map};
use std::hash::{DefaultHasher, Hash, Hasher};
use tensor::DType;

/// Values that may be live at once if a thread is to have four points of each in registers.
const MOST_LIVE: usize = 24;

/// Points below which a thread has one point, not four: a large device would not be full otherwise.
const FEW: usize = 1 << 16;

/// A stride as code tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stride {
    Zero,
    One,
    /// A parameter.
    Many,
}

/// How a view moves along a run of points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Even(Stride),
    Axes(Vec<Stride>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ViewShape {
    /// Of the array; of an index along an axis, none.
    pub(crate) dtype: Option<DType>,
    pub(crate) kept: Form,
    pub(crate) reduced: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoreShape {
    pub(crate) value: usize,
    pub(crate) dtype: DType,
    /// The view of an element-wise store beside sums.
    pub(crate) view: Option<usize>,
}

/// How sums are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SumShape {
    /// Whether threads that share a sum are neighbours.
    pub(crate) lanes_inner: bool,
    /// Whether several blocks share a sum.
    pub(crate) split: bool,
}

/// The code of a kernel: maps of equal shapes share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) float: Float,
    /// The instructions that are needed; those of loads and indices have the number of their view.
    pub(crate) code: Vec<Instr>,
    pub(crate) views: Vec<ViewShape>,
    /// Axes of the kept points, if a view needs them apart; else 0.
    pub(crate) kept_axes: usize,
    /// Axes of the reduced points, likewise.
    pub(crate) reduced_axes: usize,
    /// Element-wise stores, then sums.
    pub(crate) stores: Vec<StoreShape>,
    pub(crate) sums: Vec<StoreShape>,
    pub(crate) sum: Option<SumShape>,
    /// Points that a thread evaluates at once.
    pub(crate) points: usize,
    /// Whether the parameters are too many for a launch, and lie in memory.
    pub(crate) table: bool,
}

impl Shape {
    pub(super) fn new(map: &Map, needed: &[bool], space: &Space, sum: Option<SumShape>) -> Self {
        let code = code(map, needed, space);
        let place = |value: usize| needed[..value].iter().filter(|&&needed| needed).count();
        let store = |i: usize| StoreShape {
            value: place(map.stores[i].value),
            dtype: map.stores[i].dtype,
            view: (sum.is_some() && !map.stores[i].is_sum()).then(|| space.of(View::Store(i))),
        };
        let all = || 0..map.stores.len();
        let view = |(i, &view): (usize, &View)| ViewShape {
            dtype: match view {
                View::Load(load) => Some(map.loads[load].dtype),
                View::Iota(_) => None,
                View::Store(store) => Some(map.stores[store].dtype),
            },
            kept: Form::new(&space.kept.steps[i]),
            reduced: Form::new(&space.reduced.steps[i]),
        };
        let axes = |run: &Run| if run.even() { 0 } else { run.extents.len() };
        let few = live(&code) <= MOST_LIVE && map.float == Float::F32;
        let four = few && map.points() >= FEW && (flags(map).is_some() || space.reduced.quads());
        Self {
            float: map.float,
            views: space.views.iter().enumerate().map(view).collect(),
            kept_axes: axes(&space.kept),
            reduced_axes: axes(&space.reduced),
            stores: all()
                .filter(|&i| !map.stores[i].is_sum())
                .map(store)
                .collect(),
            sums: all()
                .filter(|&i| map.stores[i].is_sum())
                .map(store)
                .collect(),
            sum,
            points: if four { 4 } else { 1 },
            table: false,
            code,
        }
    }

    /// A name that no other shape has, but by a chance of 2⁻⁶⁴; the same in every process, so that the driver
    /// finds the code again that it compiled before.
    pub(crate) fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        let kind = if self.sum.is_some() { "sum" } else { "full" };
        format!("map_{kind}_{:016x}", hasher.finish())
    }
}

impl Form {
    fn new(steps: &Steps) -> Self {
        match steps {
            Steps::Even(stride) => Self::Even(Stride::new(*stride)),
            Steps::Axes(strides) => Self::Axes(strides.iter().map(|&s| Stride::new(s)).collect()),
        }
    }

    /// Whether all points have the same element.
    pub(crate) fn is_still(&self) -> bool {
        *self == Self::Even(Stride::Zero)
    }
}

impl Stride {
    fn new(stride: usize) -> Self {
        match stride {
            0 => Self::Zero,
            1 => Self::One,
            _ => Self::Many,
        }
    }
}

/// The instructions that are needed, with their new numbers.
fn code(map: &Map, needed: &[bool], space: &Space) -> Vec<Instr> {
    let mut numbers = vec![0; map.code.len()];
    let mut code = Vec::new();
    for (at, &instr) in map.code.iter().enumerate().filter(|&(at, _)| needed[at]) {
        numbers[at] = code.len();
        code.push(match instr {
            Instr::Load(load) => Instr::Load(space.of(View::Load(load))),
            Instr::Iota(axis) => Instr::Iota(space.of(View::Iota(axis))),
            other => other.with_operands(|operand| numbers[operand]),
        });
    }
    code
}

/// The most values that are live at once.
fn live(code: &[Instr]) -> usize {
    let mut last = vec![0; code.len()];
    for (at, instr) in code.iter().enumerate() {
        instr.operands().for_each(|operand| last[operand] = at);
    }
    let mut ends = vec![0; code.len() + 1];
    let (mut now, mut most) = (0_usize, 0);
    for (at, &last) in last.iter().enumerate() {
        now += 1;
        most = most.max(now);
        ends[last.max(at)] += 1;
        now -= ends[at];
    }
    most
}
