//! From gradients of inner steps to those of what is learned.

use crate::outer::curriculum::places;
use crate::outer::routine::{Routine, numbers, put_numbers, whole};
use crate::outer::teacher::{INPUT, LOG_LR, LOG_MOMENTUM, Teacher, views};
use crate::run::config::Config;
use autograd::{Port, Records, Result, Tape, Unroll};
use kernels::{Buffer, Device, View};
use tensor::DType;

/// Gathers the gradients of noise and logarithms from those of the inner steps.
#[derive(Debug)]
pub(crate) struct Collect {
    routine: Routine,
    /// i32 \[T·B\]: where every example of learned noise stands.
    places: Buffer,
    /// The gradient of [`Teacher::learned`].
    pub(crate) gradient: Records,
}

impl Collect {
    /// For rows and hyper-parameters of these arrays.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn new(
        device: &Device,
        config: &Config,
        rows: &Records,
        rates: &Records,
        teacher: &Teacher,
    ) -> Result<Self> {
        let tape = Tape::new();
        let steps = config.inner_steps;
        let of_all_steps = |kind: &str, port: &Port, shape: &[usize]| {
            let part = |step| {
                let name = format!("{kind} {step}");
                tape.input(&name, port.dtype, port.shape.clone())?
                    .reshape(shape)
            };
            tape.concat(&(0..steps).map(part).collect::<Result<Vec<_>>>()?, 0)
        };
        let mut gradient = Vec::new();
        for (rate, port) in rates.ports().iter().enumerate() {
            let log = &teacher.learned.ports()[[LOG_LR, LOG_MOMENTUM][rate]];
            let log = tape.input(&log.name, log.dtype, log.shape.clone())?;
            // d/d log h = h · d/dh
            gradient.push((log.exp()? * of_all_steps(&format!("rate {rate}"), port, &[1])?)?);
        }
        let examples = steps * config.inner_batch;
        if config.curriculum.learns_noise() {
            let port = &rows.ports()[INPUT];
            let z = of_all_steps("noise 0", port, &port.shape)?;
            let places = tape.input("places", DType::I32, [examples])?;
            gradient.push(z.rows(places)?);
        }
        Ok(Self {
            routine: Routine::new(device, &gradient)?,
            places: numbers(device, examples)?,
            gradient: Records::new(device, teacher.learned.ports().to_vec(), 1)?,
        })
    }

    /// From the gradients of the training number `number`. Nobody waits.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run(
        &self,
        config: &Config,
        teacher: &Teacher,
        unroll: &Unroll,
        number: u64,
    ) -> Result<()> {
        let sizes = [config.inner_steps, config.inner_batch];
        let order = config.curriculum.order(sizes, config.seed, number);
        put_numbers(&self.places, &places(&order))?;
        let input = |name: &str| match name.split(' ').collect::<Vec<_>>()[..] {
            ["places"] => whole(&self.places),
            [log] => (teacher.learned).view(0, teacher.learned.field(log).expect("a logarithm")),
            ["noise", _, step] => unroll.row_gradient().view(index(step), INPUT),
            [_, rate, step] => unroll.hyper_gradient().view(index(step), index(rate)),
            _ => unreachable!("named above"),
        };
        let results: Vec<View<'_>> = views(&self.gradient).collect();
        self.routine.run(input, &results)
    }
}

fn index(number: &str) -> usize {
    number.parse().expect("inputs are numbered")
}
