//! Machine code of a [`Loop`].

use super::assembler::{Assembler, Gpr, If, Jump, RAX, RBP, RBX, RCX, RDX, RSI};
use super::vectors::{Lanes, Opcode, Prefix, Register};
use super::{Instr, Loop, Sink, Walk};
use memmap2::{Mmap, MmapMut};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// A compiled loop. It takes the pointers of its streams, some of which it moves in place, and the number of
/// points, one at least.
#[cfg(target_arch = "x86_64")]
type Function = unsafe extern "sysv64" fn(*mut *mut u8, usize);
#[cfg(not(target_arch = "x86_64"))]
type Function = unsafe extern "C" fn(*mut *mut u8, usize);

/// Memory that holds the machine code of a [`Function`], and can be written to no more.
#[derive(Debug)]
pub(super) struct Code(Mmap);

/// Code that is in use, by its bytes. Every mapping takes a page, and layers of a kind have the same loops.
static IN_USE: LazyLock<Mutex<FxHashMap<Vec<u8>, Weak<Code>>>> = LazyLock::new(Mutex::default);

impl Code {
    /// `None` if the loop takes more registers than there are, or the system allows no new code.
    pub(super) fn new(body: &Loop, prefix: Prefix) -> Option<Arc<Self>> {
        let mut all = [Keep::Sums, Keep::Numbers, Keep::Computed].into_iter();
        let code = all.find_map(|keep| Compiler::new(body, prefix, keep).run())?;
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = in_use.get(&code).and_then(Weak::upgrade) {
            return Some(known);
        }
        let mut memory = MmapMut::map_anon(code.len()).ok()?;
        memory.copy_from_slice(&code);
        let made = Arc::new(Self(memory.make_exec().ok()?));
        in_use.retain(|_, other| other.strong_count() > 0);
        in_use.insert(code, Arc::downgrade(&made));
        Some(made)
    }

    /// # Safety
    /// Streams must have room for so many points, as they are walked, and nobody else may use what is
    /// written to. The processor must have what the code was compiled for.
    pub(super) unsafe fn run(&self, streams: &mut [*mut u8], count: usize) {
        // SAFETY: the memory holds code that was compiled as a function of this type.
        let function: Function = unsafe { std::mem::transmute(self.0.as_ptr()) };
        // SAFETY: the caller's promise.
        unsafe { function(streams.as_mut_ptr(), count) }
    }
}

/// Registers that pointers of the first streams stay in; those of others are fetched as they are needed.
const POINTERS: [Gpr; 10] = [
    Gpr(8),
    Gpr(9),
    Gpr(10),
    Gpr(11),
    Gpr(12),
    Gpr(13),
    Gpr(14),
    Gpr(15),
    RBX,
    RBP,
];

/// Those of them that a function must give back as they were (System V).
const SAVED: [Gpr; 6] = [Gpr(12), Gpr(13), Gpr(14), Gpr(15), RBX, RBP];

/// Bytes of a row that is walked through without a loop, at most: four vectors of AVX-512, eight of AVX2.
const SHORT_ROW: usize = 256;

/// How often a value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pace {
    Call,
    Row,
    Point,
}

/// What stays in registers beside the values of points. If registers do not suffice, the next one is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Sums, from row to row, and what [`Keep::Numbers`] keeps.
    Sums,
    /// All that is the same for the points of a row.
    Numbers,
    /// Only what is computed of it: constants and numbers in memory are fetched wherever they are used.
    Computed,
}

struct Compiler<'a> {
    body: &'a Loop,
    asm: Assembler,
    /// Bytes of a vector.
    width: usize,
    pace: Vec<Pace>,
    /// The last value that uses each one. The number of values if it goes to a sink, or is needed in the next
    /// row, too.
    last: Vec<usize>,
    /// The register of each value that was computed.
    registers: Vec<Option<Register>>,
    free: Vec<Register>,
    keep: Keep,
    /// The values that are fetched wherever they are used.
    fetched: Vec<bool>,
    /// Registers of sums, by the vector of a row and the sink.
    sums: BTreeMap<(usize, usize), Register>,
}

impl<'a> Compiler<'a> {
    fn new(body: &'a Loop, prefix: Prefix, keep: Keep) -> Self {
        let mut pace: Vec<Pace> = Vec::new();
        let mut last = vec![0; body.values.len()];
        for (at, value) in body.values.iter().enumerate() {
            let own = match *value {
                Instr::Load { walk, .. } => match walk {
                    Walk::Scalar => Pace::Call,
                    Walk::Rows { stride: 0, .. } => Pace::Row,
                    Walk::Points | Walk::Rows { .. } => Pace::Point,
                },
                _ => Pace::Call,
            };
            pace.push(value.operands().map(|x| pace[x]).fold(own, Pace::max));
            value.operands().for_each(|x| last[x] = at);
        }
        let sunk = body.sinks.iter().map(|sink| sink.value);
        sunk.for_each(|x| last[x] = body.values.len());
        // A value that goes to a sink is computed before stores, which may write over the memory that it is
        // fetched from.
        let fetched = |at: usize| {
            let number = matches!(body.values[at], Instr::Const(_) | Instr::Load { .. });
            keep == Keep::Computed
                && number
                && pace[at] < Pace::Point
                && last[at] < body.values.len()
        };
        let fetched = (0..body.values.len()).map(fetched).collect();
        for (last, pace) in last.iter_mut().zip(&pace) {
            if *pace < Pace::Point {
                *last = body.values.len();
            }
        }
        let choose = |value: &Instr| matches!(value, Instr::Choose(..));
        let choose = body.values.iter().any(choose);
        Self {
            body,
            asm: Assembler::new(body.float, prefix),
            width: prefix.width(),
            pace,
            last,
            registers: vec![None; body.values.len()],
            free: prefix.registers(choose).rev().collect(),
            keep,
            fetched,
            sums: BTreeMap::new(),
        }
    }

    /// A loop over rows around one over vectors; rsi has the bytes that are left, rcx those of the row, rax is the
    /// place in it.
    fn run(mut self) -> Option<Vec<u8>> {
        let row = (self.body.columns << self.asm.shift()) as u32;
        SAVED
            .into_iter()
            .for_each(|register| self.asm.push(register));
        for (stream, register) in POINTERS
            .into_iter()
            .enumerate()
            .take(self.body.streams.len())
        {
            self.asm.get(register, stream);
        }
        self.asm.scale_rsi(self.asm.shift());
        self.asm.clear_rax();
        self.compute(Pace::Call, Lanes::All)?;
        let done = if self.keep == Keep::Sums {
            Some(self.rows(row)?)
        } else {
            None
        };

        let next_row = self.asm.here();
        self.asm.take_rcx(row);
        self.asm.clear_rax();
        self.compute(Pace::Row, Lanes::All)?;
        self.asm.subtract(RCX, self.width as i32);
        let short = self.asm.jump(If::Below);

        let next = self.asm.here();
        self.points(Lanes::All, None)?;
        self.asm.add(RAX, self.width as i32);
        self.asm.subtract(RCX, self.width as i32);
        let more = self.asm.jump(If::AtLeast);
        self.asm.aim(more, next);

        let rest = self.asm.here();
        self.asm.aim(short, rest);
        self.asm.add(RCX, self.width as i32);
        let even = self.asm.jump(If::Zero);
        self.asm.rest_of_rcx();
        self.points(Lanes::Rest, None)?;

        let end = self.asm.here();
        self.asm.aim(even, end);
        self.move_on()?;
        self.asm.test_rsi();
        let more = self.asm.jump(If::NotZero);
        self.asm.aim(more, next_row);
        let end = self.asm.here();
        done.into_iter().for_each(|done| self.asm.aim(done, end));
        SAVED
            .into_iter()
            .rev()
            .for_each(|register| self.asm.pop(register));
        self.asm.leave();
        Some(self.asm.finish())
    }

    /// A loop over whole rows of a few vectors, with all sums in registers. Jumps if no points are left.
    fn rows(&mut self, row: u32) -> Option<Jump> {
        let vectors = row as usize / self.width;
        let even = (row as usize).is_multiple_of(self.width) && row as usize <= SHORT_ROW;
        if !even || !self.body.sinks.iter().any(|sink| sink.add) {
            return None;
        }
        self.asm.subtract(RSI, row as i32);
        let short = self.asm.jump(If::Below);
        for vector in 0..vectors {
            for (sink, _) in self
                .body
                .sinks
                .iter()
                .enumerate()
                .filter(|(_, sink)| sink.add)
            {
                self.sums.insert((vector, sink), self.free.pop()?);
            }
        }
        self.each_sum(|asm, sum, at| asm.load(sum, at, Lanes::All));

        let next = self.asm.here();
        self.asm.clear_rax();
        self.compute(Pace::Row, Lanes::All)?;
        for vector in 0..vectors {
            self.points(Lanes::All, Some(vector))?;
            self.asm.add(RAX, self.width as i32);
        }
        self.move_on()?;
        self.asm.subtract(RSI, row as i32);
        let more = self.asm.jump(If::AtLeast);
        self.asm.aim(more, next);

        self.each_sum(|asm, sum, at| asm.store(at, sum, Lanes::All));
        self.free
            .extend(std::mem::take(&mut self.sums).into_values());
        self.forget(Pace::Row);
        let rest = self.asm.here();
        self.asm.aim(short, rest);
        self.asm.add(RSI, row as i32);
        Some(self.asm.jump(If::Zero))
    }

    /// Does something with the register of every sum and the pointer to its row, with rax at its vector.
    fn each_sum(&mut self, work: impl Fn(&mut Assembler, Register, Gpr)) {
        self.asm.clear_rax();
        let mut here = 0;
        for ((vector, sink), sum) in self.sums.clone() {
            if vector > here {
                self.asm.add(RAX, self.width as i32);
                here = vector;
            }
            let at = self.pointer(self.body.sinks[sink].stream);
            work(&mut self.asm, sum, at);
        }
    }

    /// Frees the registers of values.
    fn forget(&mut self, pace: Pace) {
        for (value, other) in self.pace.iter().enumerate() {
            if *other == pace {
                self.free.extend(self.registers[value].take());
            }
        }
    }

    /// Moves pointers to the next row.
    fn move_on(&mut self) -> Option<()> {
        for (index, stream) in self.body.streams.iter().enumerate() {
            let elements = match stream.walk() {
                Walk::Scalar => 0,
                Walk::Points => self.body.columns,
                Walk::Rows { step, .. } => step,
            };
            let bytes = i32::try_from(elements.checked_mul(self.body.float.size())?).ok()?;
            match POINTERS.get(index) {
                _ if bytes == 0 => {}
                Some(&pointer) => self.asm.add(pointer, bytes),
                None => self.asm.add_to(index, bytes),
            }
        }
        Some(())
    }

    /// A vector of points: computes what changes from point to point, then stores it or adds it to sums.
    /// Stores come last, because they may write over what is read. With `vector`, the sums of that vector are
    /// in registers.
    fn points(&mut self, lanes: Lanes, vector: Option<usize>) -> Option<()> {
        self.compute(Pace::Point, lanes)?;
        for (sink, &Sink { value, stream, add }) in self.body.sinks.iter().enumerate() {
            let x = self.registers[value]?;
            if let (true, Some(vector)) = (add, vector) {
                let sum = self.sums[&(vector, sink)];
                self.asm.vector(Opcode::ADD, sum, sum, x);
                continue;
            }
            let at = self.pointer(stream);
            if add {
                let sum = self.free.pop()?;
                self.asm.load(sum, at, lanes);
                self.asm.vector(Opcode::ADD, sum, sum, x);
                self.asm.store(at, sum, lanes);
                self.free.push(sum);
            } else {
                self.asm.store(at, x, lanes);
            }
        }
        self.forget(Pace::Point);
        Some(())
    }

    fn compute(&mut self, pace: Pace, lanes: Lanes) -> Option<()> {
        for at in 0..self.body.values.len() {
            if self.pace[at] == pace && self.last[at] > 0 && !self.fetched[at] {
                self.value(at, lanes)?;
            }
        }
        Some(())
    }

    /// Computes a value into a register of its own, which may be one of an operand's that is needed no more.
    fn value(&mut self, at: usize, lanes: Lanes) -> Option<()> {
        let value = self.body.values[at];
        let mut operands = [Register::default(); 4];
        for (register, x) in operands.iter_mut().zip(value.operands()) {
            if self.fetched[x] && self.registers[x].is_none() {
                self.value(x, lanes)?;
            }
            *register = self.registers[x]?;
        }
        for x in value
            .operands()
            .filter(|&x| self.last[x] == at || self.fetched[x])
        {
            self.free.extend(self.registers[x].take());
        }
        let to = self.free.pop()?;
        self.registers[at] = Some(to);
        let [a, b, c, d] = operands;
        match value {
            Instr::Const(x) => self.asm.constant(to, f64::from_bits(x)),
            Instr::Load { stream, .. } => {
                let pointer = self.pointer(stream);
                if self.pace[at] == Pace::Point {
                    self.asm.load(to, pointer, lanes);
                } else {
                    self.asm.broadcast(to, pointer);
                }
            }
            Instr::Sqrt(_) => self.asm.sqrt(to, a),
            Instr::Arithmetic(op, ..) => self.asm.vector(op, to, a, b),
            Instr::Choose(test, _) => self.asm.choose(test, to, [a, b], [c, d]),
        }
        Some(())
    }

    /// The register that points to where a stream is in this row.
    fn pointer(&mut self, stream: usize) -> Gpr {
        POINTERS.get(stream).copied().unwrap_or_else(|| {
            self.asm.get(RDX, stream);
            RDX
        })
    }
}
