//! How a load walks through memory while the map walks through its points.

use super::tiling::Tiling;

/// Most axes of an access that are left after merging; maps with more are refused.
pub(super) const MAX_AXES: usize = 12;

/// A strided view of the iteration space, its axes merged as far as possible.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Access {
    /// Outermost first; none if every point reads the same element.
    axes: Vec<Axis>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    extent: usize,
    stride: usize,
}

/// Elements that lie at equal distances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) offset: usize,
    pub(super) stride: usize,
    pub(super) length: usize,
}

/// A pattern that is read again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeats {
    /// Points until it begins again.
    pub(super) period: usize,
    /// At every multiple of so many points, another pattern begins. `None` if it is always the same.
    pub(super) points: Option<usize>,
}

/// How the points of every block reach elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// All reach one.
    Scalar,
    /// They follow each other.
    Points,
    /// In rows that are `step` apart; along a row with a `stride` of 0 or 1.
    Rows { step: usize, stride: usize },
}

impl Access {
    pub(super) fn new(extents: &[usize], strides: &[usize]) -> Self {
        let mut axes: Vec<Axis> = Vec::new();
        for (&extent, &stride) in extents
            .iter()
            .zip(strides)
            .filter(|&(&extent, _)| extent != 1)
        {
            match axes.last_mut() {
                Some(outer) if outer.stride == stride.saturating_mul(extent) => {
                    *outer = Axis {
                        extent: outer.extent * extent,
                        stride,
                    };
                }
                _ => axes.push(Axis { extent, stride }),
            }
        }
        if axes.iter().all(|axis| axis.stride == 0) {
            axes.clear();
        }
        Self { axes }
    }

    /// Every point reads the same element.
    pub(super) fn is_uniform(&self) -> bool {
        self.axes.is_empty()
    }

    pub(super) fn is_supported(&self) -> bool {
        self.axes.len() <= MAX_AXES
    }

    /// The points after which the same elements are read again; `None` if they are not.
    pub(super) fn period(&self) -> Option<usize> {
        let (outermost, inner) = self.axes.split_first()?;
        (outermost.stride == 0).then(|| inner.iter().map(|axis| axis.extent).product())
    }

    /// The pattern that is repeated along the innermost axis without a stride, if other axes are inside of it.
    pub(super) fn repeats(&self) -> Option<Repeats> {
        let (_, outer) = self.axes.split_last()?;
        let along = outer.iter().rposition(|axis| axis.stride == 0)?;
        let count = |axes: &[Axis]| axes.iter().map(|axis| axis.extent).product();
        Some(Repeats {
            period: count(&self.axes[along + 1..]),
            points: (along > 0).then(|| count(&self.axes[along..])),
        })
    }

    /// Where the element of a point lies.
    #[inline(always)]
    pub(super) fn offset(&self, mut point: usize) -> usize {
        let Some((outermost, inner)) = self.axes.split_first() else {
            return 0;
        };
        let mut offset = 0;
        for axis in inner.iter().rev() {
            offset += point % axis.extent * axis.stride;
            point /= axis.extent;
        }
        offset + point * outermost.stride
    }

    /// The extent of the last axis, if there are others and its elements are equal or neighbours.
    pub(super) fn row(&self) -> Option<usize> {
        let (last, outer) = self.axes.split_last()?;
        (!outer.is_empty() && last.stride <= 1).then_some(last.extent)
    }

    /// The same walk through every block of a tiling, in rows of `columns`, if there is one.
    pub(super) fn walk(&self, columns: usize, tiling: &Tiling) -> Option<Walk> {
        let Some((last, outer)) = self.axes.split_last() else {
            return Some(Walk::Scalar);
        };
        match (outer.last(), last.stride) {
            (None, 1) => Some(Walk::Points),
            (_, 0) if tiling.blocks_lie_in(last.extent) => Some(Walk::Scalar),
            (_, 1) if tiling.blocks_lie_in(last.extent) => Some(Walk::Points),
            (Some(rows), stride @ (0 | 1))
                if last.extent == columns
                    && tiling.grid().is_multiple_of(columns)
                    && (outer.len() == 1 || tiling.blocks_lie_in(rows.extent * columns)) =>
            {
                Some(Walk::Rows {
                    step: rows.stride,
                    stride,
                })
            }
            _ => None,
        }
    }

    /// The runs of the points `start..start + count`, in order.
    #[inline(always)]
    pub(super) fn runs(&self, start: usize, count: usize) -> Runs<'_> {
        const EVERYWHERE: Axis = Axis {
            extent: usize::MAX,
            stride: 0,
        };
        let (last, outer) = self.axes.split_last().unwrap_or((&EVERYWHERE, &[]));
        let (mut row, column) = (start / last.extent, start % last.extent);
        let (mut index, mut offset) = ([0; MAX_AXES], 0);
        for (index, axis) in index.iter_mut().zip(outer).rev() {
            *index = row % axis.extent;
            offset += *index * axis.stride;
            row /= axis.extent;
        }
        Runs {
            last: *last,
            outer,
            index,
            offset,
            column,
            left: count,
        }
    }
}

/// An odometer over the rows of an [`Access`].
#[derive(Clone, Debug)]
pub(super) struct Runs<'a> {
    last: Axis,
    outer: &'a [Axis],
    index: [usize; MAX_AXES],
    /// Of the row.
    offset: usize,
    /// Where the next run begins in its row.
    column: usize,
    left: usize,
}

impl Runs<'_> {
    /// The next run without going to it.
    #[inline(always)]
    pub(super) fn peek(&self) -> Run {
        Run {
            offset: self.offset + self.column * self.last.stride,
            stride: self.last.stride,
            length: self.left.min(self.last.extent - self.column),
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        if self.left == 0 {
            return None;
        }
        let run = self.peek();
        self.left -= run.length;
        self.column = 0;
        for (index, axis) in self.index.iter_mut().zip(self.outer).rev() {
            *index += 1;
            self.offset += axis.stride;
            if *index < axis.extent {
                break;
            }
            *index = 0;
            self.offset -= axis.stride * axis.extent;
        }
        Some(run)
    }
}
