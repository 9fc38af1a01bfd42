//! The code of a map's kernel.
//!
//! ```text
//! for (point = 0; point < points; ++point)              // 1 or 4 points a thread
//!     for (i = 0; i < instructions; ++i) value[i] = op[i](value[a[i]], value[b[i]], value[c[i]]);
//!     for (s = 0; s < stores; ++s) output[s][point] = value[of[s]];
//!     for (s = 0; s < sums; ++s) sum[s][kept(point)] += value[of[s]];
//! ```
//!
//! Values live in registers. Arithmetic is that of the processor, operation for operation, so element-wise
//! results have its bits. FLOPs: one per instruction and point. Bytes: every input and output once.
//!
//! Sums: the points are [kept, reduced]. A block has `lanes` × (256 / lanes) threads. A thread adds the
//! points lane, lane + lanes, … of its block's chunk, one after another; then lanes are added in halves.
//! Where blocks share a sum, each writes its part, and the last one that is done adds the parts of all in the
//! same manner. Lanes and chunks follow from the extents and flags alone, so the order of additions does,
//! too.

use super::numbers::{By, Reader, Start};
use super::ptx::{Kind, Label, Reg, Text};
use super::shape::{Form, Shape, StoreShape, Stride};
use super::{THREADS, values};
use crate::{Float, Instr};
use tensor::DType;

/// The registers of a view: where it begins, and those of its strides that are parameters.
pub(super) struct Seen {
    /// Address of the first element; of an index along an axis, none.
    pub(super) base: Option<Reg>,
    /// For an index along an axis: its value at the thread's kept point.
    pub(super) start: Option<Reg>,
    pub(super) kept: Vec<Option<Reg>>,
    reduced: Vec<Option<Reg>>,
}

/// The indices of a point: that of the run, and those along its axes where they are needed, innermost first.
pub(super) struct Index {
    whole: Reg,
    axes: Vec<Reg>,
}

/// A value at each of the points that a thread evaluates at once; one where all of them share it.
pub(super) type Values = Vec<Reg>;

/// The value at a point.
pub(super) fn at_point(values: &[Reg], point: usize) -> Reg {
    values[point.min(values.len() - 1)]
}

/// What writes a map's code.
pub(super) struct Writer<'a> {
    pub(super) shape: &'a Shape,
    pub(super) text: Text,
    pub(super) numbers: Reader,
    /// The number of the block among those of the map.
    pub(super) block: Reg,
    /// The end of the map, to jump to.
    pub(super) end: Label,
    /// Division by the extents of all axes but the outermost.
    kept_by: Vec<By>,
    reduced_by: Vec<By>,
    pub(super) views: Vec<Seen>,
    /// Where element-wise results go, if not by a view; where sums go.
    pub(super) outputs: Vec<Reg>,
    /// Whether all four points of a thread exist.
    whole: Option<Reg>,
    /// Which of a thread's points exist.
    pub(super) exist: Values,
    pub(super) values: Vec<Option<Values>>,
}

impl Shape {
    /// Writes what block number `block` does. The map's numbers lie in the launch's parameters from `numbers`
    /// on. Returns how many bytes they take. All threads of the block come to the end.
    pub(super) fn write(&self, text: &mut Text, block: Reg, numbers: Start) -> usize {
        let numbers = Reader::new(text, numbers, self.table);
        let end = text.label();
        let mut writer = Writer {
            shape: self,
            text: std::mem::take(text),
            numbers,
            block,
            end,
            kept_by: Vec::new(),
            reduced_by: Vec::new(),
            views: Vec::new(),
            outputs: Vec::new(),
            whole: None,
            exist: Vec::new(),
            values: vec![None; self.code.len()],
        };
        match self.sum {
            None => writer.full(),
            Some(sum) => writer.sum(sum),
        }
        writer.text.here(end);
        *text = writer.text;
        writer.numbers.bytes()
    }
}

impl Writer<'_> {
    /// Reads what [`Numbers`] has after the sizes.
    pub(super) fn read_places(&mut self) {
        let (shape, text) = (self.shape, &mut self.text);
        for (axes, by) in [
            (shape.kept_axes, &mut self.kept_by),
            (shape.reduced_axes, &mut self.reduced_by),
        ] {
            by.extend((1..axes).map(|_| self.numbers.divisor(text)));
        }
        for view in &shape.views {
            let base = view.dtype.map(|_| self.numbers.place(text));
            let [kept, reduced] = [&view.kept, &view.reduced].map(|form| {
                let strides = match form {
                    Form::Even(stride) => std::slice::from_ref(stride),
                    Form::Axes(strides) => strides,
                };
                let many = |stride: &Stride| *stride == Stride::Many;
                let read = |stride| many(stride).then(|| self.numbers.word(text));
                strides.iter().map(read).collect()
            });
            let start = None;
            self.views.push(Seen {
                base,
                start,
                kept,
                reduced,
            });
        }
        let stores = shape.stores.iter().filter(|store| store.view.is_none());
        let count = stores.count() + shape.sums.len();
        self.outputs = (0..count).map(|_| self.numbers.place(text)).collect();
    }

    // ---- element by element ---------------------------------------------------------------------------------

    fn full(&mut self) {
        let points = self.numbers.word(&mut self.text);
        self.read_places();
        let count = self.shape.points;
        let (text, end) = (&mut self.text, self.end);
        let thread = text.value(Kind::B32, "mov.u32", "%tid.x");
        let operands = format!("{}, {THREADS}, {thread}", self.block);
        let thread = text.value(Kind::B32, "mad.lo.u32", operands);
        let first = text.word("mul.lo.u32", thread, count);
        let outside = text.flag("ge.u32", first, points);
        text.line(format_args!("@{outside} bra {end}"));
        let last = text.word("sub.u32", points, 1);
        let mut at = vec![first];
        for i in 1..count {
            let next = text.word("add.u32", first, i);
            self.exist.push(text.flag("lt.u32", next, points));
            at.push(text.word("min.u32", next, last));
        }
        self.whole = self.exist.last().copied();
        let points = self.indices(&at, false);
        self.evaluate(&points);
        let stores = self.shape.stores.iter().zip(self.outputs.clone());
        for (store, base) in stores {
            let address = self.element(base, store.dtype, Some(first));
            self.store(store, address);
        }
    }

    /// The indices of a thread's points in the reduced run, or of one in the kept run. If the points are four
    /// from a multiple of four on, their outer indices are equal, and only those of the first one are
    /// computed.
    pub(super) fn indices(&mut self, points: &[Reg], kept: bool) -> Vec<Index> {
        let by = if kept {
            &self.kept_by
        } else {
            &self.reduced_by
        };
        let quads = self.quads();
        let index = |(i, &whole): (usize, &Reg)| {
            let mut axes = Vec::new();
            if i == 0 || !quads {
                let mut rest = whole;
                for by in by {
                    let [quotient, index] = by.split(&mut self.text, rest);
                    axes.push(index);
                    rest = quotient;
                }
                axes.push(rest);
            }
            Index { whole, axes }
        };
        points.iter().enumerate().map(index).collect()
    }

    /// Whether a thread's points are neighbours, from a multiple of four on.
    fn quads(&self) -> bool {
        self.shape.sum.is_none() && self.shape.points == 4
    }

    /// Elements from the first one of a view to that of a point; none where it is the first.
    pub(super) fn offset(
        &mut self,
        form: &Form,
        strides: &[Option<Reg>],
        index: &Index,
    ) -> Option<Reg> {
        let (strides_of, indices) = match form {
            Form::Even(stride) => (std::slice::from_ref(stride), vec![index.whole]),
            Form::Axes(strides) => (&strides[..], index.axes.clone()),
        };
        let mut sum: Option<Reg> = None;
        for ((stride, &many), index) in strides_of.iter().zip(strides).zip(indices) {
            sum = match (stride, many, sum) {
                (Stride::Zero, ..) => sum,
                (_, None, None) => Some(index),
                (_, None, Some(sum)) => Some(self.text.word("add.u32", sum, index)),
                (_, Some(many), None) => Some(self.text.word("mul.lo.u32", index, many)),
                (_, Some(many), Some(sum)) => {
                    let operands = format!("{index}, {many}, {sum}");
                    Some(self.text.value(Kind::B32, "mad.lo.u32", operands))
                }
            };
        }
        sum
    }

    /// The address of an element.
    pub(super) fn element(&mut self, base: Reg, dtype: DType, offset: Option<Reg>) -> Reg {
        let Some(offset) = offset else { return base };
        let operands = format!("{offset}, {}, {base}", dtype.size());
        self.text.value(Kind::B64, "mad.wide.u32", operands)
    }

    // ---- loads ----------------------------------------------------------------------------------------------

    /// Where a view's element of each point is, in elements; one for all points where they share it.
    pub(super) fn offsets(&mut self, view: usize, points: &[Index]) -> Vec<Option<Reg>> {
        let form = &self.shape.views[view].reduced;
        let strides = std::mem::take(&mut self.views[view].reduced);
        let first = self.offset(form, &strides, &points[0]);
        let mut offsets = vec![first];
        match (form, first) {
            (Form::Even(Stride::Zero), _) => {}
            // Neighbours that share their outer indices share the element.
            (Form::Axes(own), _) if self.quads() && own[0] == Stride::Zero => {}
            (Form::Axes(_), Some(first)) if self.quads() => {
                offsets.extend((1..points.len()).map(|i| {
                    Some(match strides[0] {
                        None => self.text.word("add.u32", first, i),
                        Some(many) => {
                            let operands = format!("{many}, {i}, {first}");
                            self.text.value(Kind::B32, "mad.lo.u32", operands)
                        }
                    })
                }));
            }
            _ => {
                for point in &points[1..] {
                    offsets.push(self.offset(form, &strides, point));
                }
            }
        }
        self.views[view].reduced = strides;
        offsets
    }

    /// The elements of a view.
    fn load(&mut self, view: usize, points: &[Index]) -> Values {
        let offsets = self.offsets(view, points);
        let shape = self.shape;
        let dtype = shape.views[view].dtype.expect("an array");
        let base = self.views[view].base.expect("an array");
        let mut loaded = Vec::new();
        let vector = self.vector(view, base, offsets[0]);
        if let Some((address, flag)) = vector {
            loaded = (0..4).map(|_| self.text.register(Kind::F32)).collect();
            let list = listed(&loaded);
            self.text
                .line(format_args!("@{flag} ld.global.v4.f32 {list}, [{address}]"));
            for (&result, &offset) in loaded.iter().zip(&offsets) {
                let address = self.element(base, dtype, offset);
                self.text
                    .line(format_args!("@!{flag} ld.global.f32 {result}, [{address}]"));
            }
        } else {
            for offset in offsets {
                let address = self.element(base, dtype, offset);
                loaded.push(values::load(&mut self.text, dtype, address, shape.float));
            }
        }
        loaded
    }

    /// The address of four neighbours of a view of f32, and whether they can be loaded as one; else none.
    fn vector(&mut self, view: usize, base: Reg, offset: Option<Reg>) -> Option<(Reg, Reg)> {
        let view = &self.shape.views[view];
        let next = match &view.reduced {
            Form::Even(stride) => *stride,
            Form::Axes(strides) => strides[0],
        };
        let neighbours = self.quads() && next == Stride::One && view.dtype == Some(DType::F32);
        if !neighbours || self.shape.float != Float::F32 {
            return None;
        }
        let address = self.element(base, DType::F32, offset);
        Some((address, self.aligned(address)))
    }

    /// Whether four elements at an address are all there, and can be moved as one.
    pub(super) fn aligned(&mut self, address: Reg) -> Reg {
        let text = &mut self.text;
        let low = text.value(Kind::B32, "cvt.u32.u64", address);
        let low = text.word("and.b32", low, 15);
        let aligned = text.flag("eq.u32", low, 0);
        let whole = self.whole.expect("four points");
        text.value(Kind::Flag, "and.pred", format_args!("{aligned}, {whole}"))
    }

    // ---- values ---------------------------------------------------------------------------------------------

    /// Writes the instructions whose values are not known yet.
    pub(super) fn evaluate(&mut self, points: &[Index]) {
        for at in 0..self.shape.code.len() {
            if self.values[at].is_none() {
                self.values[at] = Some(self.instruction(at, points));
            }
        }
    }

    pub(super) fn instruction(&mut self, at: usize, points: &[Index]) -> Values {
        let (instr, float) = (self.shape.code[at], self.shape.float);
        match instr {
            Instr::Load(view) => self.load(view, points),
            Instr::Iota(view) => {
                let offsets = self.offsets(view, points);
                let start = self.views[view].start;
                let index = |offset| values::index(&mut self.text, start, offset, float);
                offsets.into_iter().map(index).collect()
            }
            Instr::Const(bits) => {
                vec![values::constant(
                    &mut self.text,
                    f64::from_bits(bits),
                    float,
                )]
            }
            _ => {
                let computed = |i: usize| self.values[i].as_ref().expect("computed before");
                let operands: Vec<&Values> = instr.operands().map(computed).collect();
                let count = operands.iter().map(|values| values.len()).max();
                let one = |point: usize| {
                    let operands: Vec<Reg> =
                        operands.iter().map(|own| at_point(own, point)).collect();
                    values::apply(&mut self.text, instr, &operands, float)
                };
                (0..count.unwrap_or(1)).map(one).collect()
            }
        }
    }

    // ---- element-wise results -------------------------------------------------------------------------------

    /// Writes a value of all points of a thread to neighbouring places, the first of which is given.
    fn store(&mut self, store: &StoreShape, address: Reg) {
        let values = self.values[store.value].clone().expect("computed before");
        let float = self.shape.float;
        let vector = self.quads() && store.dtype == DType::F32;
        let ends = vector.then(|| {
            let flag = self.aligned(address);
            let (single, end) = (self.text.label(), self.text.label());
            self.text.line(format_args!("@!{flag} bra {single}"));
            let list = listed(&[0, 1, 2, 3].map(|i| at_point(&values, i)));
            self.text
                .line(format_args!("st.global.v4.f32 [{address}], {list}"));
            self.text.line(format_args!("bra {end}"));
            self.text.here(single);
            end
        });
        for i in 0..self.shape.points {
            let exists = i.checked_sub(1).map(|i| self.exist[i]);
            let (value, place) = (
                at_point(&values, i),
                format!("{address}+{}", i * store.dtype.size()),
            );
            values::store(&mut self.text, store.dtype, &place, value, float, exists);
        }
        if let Some(end) = ends {
            self.text.here(end);
        }
    }
}

/// Registers as one operand.
fn listed(values: &[Reg]) -> String {
    let names: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("{{{}}}", names.join(", "))
}
