//! How a load walks through memory while the map walks through its points.

/// Axes that cannot be merged; more are refused.
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

    /// After that many points the same elements are read again, if so.
    pub(super) fn period(&self) -> Option<usize> {
        let (outermost, inner) = self.axes.split_first()?;
        (outermost.stride == 0).then(|| inner.iter().map(|axis| axis.extent).product())
    }

    /// The longest run that begins at point `start`.
    pub(super) fn run(&self, start: usize) -> Run {
        let Some((last, outer)) = self.axes.split_last() else {
            return Run {
                offset: 0,
                stride: 0,
                length: usize::MAX,
            };
        };
        let (mut row, column) = (start / last.extent, start % last.extent);
        let mut offset = column * last.stride;
        for axis in outer.iter().rev() {
            offset += row % axis.extent * axis.stride;
            row /= axis.extent;
        }
        Run {
            offset,
            stride: last.stride,
            length: last.extent - column,
        }
    }

    /// Calls `visit` for each run of the points `start..start + count`.
    #[inline(always)]
    pub(super) fn each_run(&self, start: usize, count: usize, mut visit: impl FnMut(Run)) {
        let Some((last, outer)) = self.axes.split_last() else {
            return visit(Run {
                offset: 0,
                stride: 0,
                length: count,
            });
        };
        let Run {
            offset,
            stride,
            length,
        } = self.run(start);
        visit(Run {
            offset,
            stride,
            length: length.min(count),
        });
        let mut left = count.saturating_sub(length);
        if left == 0 {
            return;
        }
        // An odometer: the index along each outer axis, and the offset of the row it points to.
        let mut index = [0; MAX_AXES];
        let mut row = start / last.extent;
        let mut offset = 0;
        for (index, axis) in index.iter_mut().zip(outer).rev() {
            *index = row % axis.extent;
            offset += *index * axis.stride;
            row /= axis.extent;
        }
        while left > 0 {
            for (index, axis) in index.iter_mut().zip(outer).rev() {
                *index += 1;
                offset += axis.stride;
                if *index < axis.extent {
                    break;
                }
                *index = 0;
                offset -= axis.stride * axis.extent;
            }
            let length = left.min(last.extent);
            visit(Run {
                offset,
                stride,
                length,
            });
            left -= length;
        }
    }
}
