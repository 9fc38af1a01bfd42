//! The points of a map as a device counts them, and where views find their elements.

use crate::{Instr, Map, StoreKind};

/// How far the elements of a view lie apart along a run of points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    /// As far for each point as for the one before: 0, 1 or more elements.
    Even(usize),
    /// So far along each axis, innermost first.
    Axes(Vec<usize>),
}

/// Axes that are counted by one index, merged where no view can tell them apart.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Innermost first.
    pub(super) extents: Vec<usize>,
    /// By view.
    pub(super) steps: Vec<Steps>,
}

impl Run {
    /// Merges `axes` (outermost first) of views with these strides.
    fn new(extents: &[usize], views: &[Vec<usize>], axes: &[usize]) -> Self {
        let mut merged: Vec<usize> = Vec::new();
        let mut strides: Vec<Vec<usize>> = vec![Vec::new(); views.len()];
        for &axis in axes.iter().rev().filter(|&&axis| extents[axis] != 1) {
            let joins = merged.last().is_some_and(|&inner| {
                let mut both = views.iter().zip(&strides);
                both.all(|(view, own)| Some(view[axis]) == own.last().map(|step| step * inner))
            });
            match merged.last_mut() {
                Some(inner) if joins => *inner *= extents[axis],
                _ => {
                    merged.push(extents[axis]);
                    let own = strides.iter_mut().zip(views);
                    own.for_each(|(own, view)| own.push(view[axis]));
                }
            }
        }
        let steps = strides.into_iter().map(|own| Steps::new(&merged, own));
        Self {
            steps: steps.collect(),
            extents: merged,
        }
    }

    /// Whether four points from a multiple of four on differ in the innermost index only.
    pub(super) fn quads(&self) -> bool {
        self.even() || self.extents[0].is_multiple_of(4)
    }

    /// Whether no view needs more than the index of the run.
    pub(super) fn even(&self) -> bool {
        let even = |steps: &Steps| matches!(steps, Steps::Even(_));
        self.steps.iter().all(even)
    }
}

impl Steps {
    fn new(extents: &[usize], strides: Vec<usize>) -> Self {
        let first = strides.first().copied().unwrap_or(0);
        let mut expected = first;
        for (&extent, &stride) in extents.iter().zip(&strides) {
            if stride != expected {
                return Self::Axes(strides);
            }
            expected = expected.saturating_mul(extent);
        }
        Self::Even(first)
    }
}

/// What finds its elements by the point: a load, the index along an axis, or a store beside sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Load(usize),
    Iota(usize),
    Store(usize),
}

/// The points of a map: those of the kept axes, and for each of them those of the summed ones. Without sums,
/// all axes count as summed.
#[derive(Clone, Debug)]
pub(super) struct Space {
    pub(super) views: Vec<View>,
    pub(super) kept: Run,
    pub(super) reduced: Run,
}

impl Space {
    /// Of the values that are needed.
    pub(super) fn new(map: &Map, needed: &[bool]) -> Self {
        let flags = flags(map);
        let mut views = Vec::new();
        for (instr, _) in map.code.iter().zip(needed).filter(|&(_, &needed)| needed) {
            let view = match *instr {
                Instr::Load(load) => View::Load(load),
                Instr::Iota(axis) => View::Iota(axis),
                _ => continue,
            };
            if !views.contains(&view) {
                views.push(view);
            }
        }
        if flags.is_some() {
            let full = (0..map.stores.len()).filter(|&i| !map.stores[i].is_sum());
            views.extend(full.map(View::Store));
        }
        let strides: Vec<Vec<usize>> = views.iter().map(|view| view.strides(map)).collect();
        let along = |summed: bool| {
            let is = |&axis: &usize| flags.is_none_or(|flags| flags[axis]) == summed;
            let axes: Vec<usize> = (0..map.extents.len()).filter(is).collect();
            Run::new(&map.extents, &strides, &axes)
        };
        Self {
            kept: along(false),
            reduced: along(true),
            views,
        }
    }

    /// The number of a view.
    pub(super) fn of(&self, view: View) -> usize {
        let found = self.views.iter().position(|&own| own == view);
        found.expect("every view that is needed is listed")
    }
}

impl View {
    fn strides(self, map: &Map) -> Vec<usize> {
        match self {
            Self::Load(load) => map.loads[load].strides.clone(),
            Self::Iota(axis) => (0..map.extents.len())
                .map(|i| usize::from(i == axis))
                .collect(),
            Self::Store(_) => row_major(&map.extents),
        }
    }
}

/// Which axes are summed, if any are.
pub(super) fn flags(map: &Map) -> Option<&[bool]> {
    map.stores.iter().find_map(|store| match &store.kind {
        StoreKind::Sum(flags) => Some(&flags[..]),
        StoreKind::Full => None,
    })
}

/// The strides of an array that has all points, in their order.
fn row_major(extents: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; extents.len()];
    let mut next = 1;
    for (stride, &extent) in strides.iter_mut().zip(extents).rev() {
        *stride = next;
        next *= extent;
    }
    strides
}
