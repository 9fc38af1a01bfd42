//! Small plans that run again and again where the arrays are.

use autograd::{Plan, Port, Result, Tape, Var};
use kernels::{Buffer, Device, View};
use tensor::{Array, DType, Data};

/// A plan with its memory.
#[derive(Debug)]
pub(crate) struct Routine {
    device: Device,
    plan: Plan,
    arena: Buffer,
}

impl Routine {
    /// Plans the results.
    ///
    /// # Errors
    /// If they cannot be planned, or there is not enough memory.
    pub(crate) fn new(device: &Device, results: &[Var<'_>]) -> Result<Self> {
        let plan = Plan::new(results)?;
        Ok(Self {
            arena: device.alloc(plan.arena_bytes())?,
            device: device.clone(),
            plan,
        })
    }

    /// Computes the results from inputs by their names. Nobody waits.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run<'a>(
        &self,
        input: impl Fn(&str) -> View<'a>,
        results: &[View<'_>],
    ) -> Result<()> {
        let ports = self.plan.inputs().iter();
        let inputs: Vec<View<'a>> = ports.map(|port| input(&port.name)).collect();
        self.plan
            .execute(&self.device, whole(&self.arena), &inputs, results)
    }
}

/// Picks batches of rows out of tables, by the rows' numbers.
#[derive(Debug)]
pub(crate) struct Pick {
    routine: Routine,
    /// i32 \[batch\].
    chosen: Buffer,
}

impl Pick {
    /// Of tables of these shapes, `batch` rows at a time.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn new(device: &Device, tables: &[Port], batch: usize) -> Result<Self> {
        let tape = Tape::new();
        let chosen = tape.input("chosen", DType::I32, [batch])?;
        let rows = tables.iter().enumerate().map(|(i, table)| {
            let table = tape.input(&i.to_string(), table.dtype, table.shape.clone())?;
            table.rows(chosen)
        });
        Ok(Self {
            routine: Routine::new(device, &rows.collect::<Result<Vec<_>>>()?)?,
            chosen: numbers(device, batch)?,
        })
    }

    /// Puts the chosen rows of every table into its result. Nobody waits.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn put(
        &self,
        tables: &[View<'_>],
        chosen: &[usize],
        results: &[View<'_>],
    ) -> Result<()> {
        put_numbers(&self.chosen, chosen)?;
        let input = |name: &str| match name.parse::<usize>() {
            Ok(table) => tables[table],
            Err(_) => whole(&self.chosen),
        };
        self.routine.run(input, results)
    }
}

/// Room for i32 numbers.
///
/// # Errors
/// If there is not enough memory.
pub(crate) fn numbers(device: &Device, count: usize) -> Result<Buffer> {
    Ok(device.alloc(count * DType::I32.size())?)
}

/// Fills room for i32 numbers.
///
/// # Errors
/// If the device fails.
pub(crate) fn put_numbers(to: &Buffer, numbers: &[usize]) -> Result<()> {
    let numbers: Vec<i32> = numbers.iter().map(|&i| i as i32).collect();
    Ok(to.write(0, array(numbers).bytes())?)
}

/// Numbers along one axis.
pub(crate) fn array(numbers: impl Into<Data>) -> Array {
    let data = numbers.into();
    Array::new([data.count()], data).expect("as many numbers as it says")
}

/// All of a buffer.
pub(crate) fn whole(buffer: &Buffer) -> View<'_> {
    buffer.view(0, buffer.bytes())
}
